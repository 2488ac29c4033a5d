//! A system file as it is written, before any meaning is made of it. Unknown keys are refused here.

use super::size::Size;
use partita_core::system::{Expectation, LapicMode, SmpCallMode};
use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) system: RawSystem,
    #[serde(default)]
    pub(super) machine: RawMachine,
    #[serde(default)]
    pub(super) housekeeping: RawHousekeeping,
    #[serde(default)]
    pub(super) trace: RawTrace,
    #[serde(default)]
    pub(super) partition: Vec<Spanned<RawPartition>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSystem {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMachine {
    pub(super) pcpus: Option<Spanned<i64>>,
    pub(super) memory: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHousekeeping {
    pub(super) pcpu: Option<Spanned<i64>>,
    pub(super) smp_call_hz: Option<Spanned<i64>>,
    pub(super) smp_call_deadline_ms: Option<Spanned<i64>>,
    pub(super) smp_call_rounds: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) smp_call_mode: RawSmpCallMode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSmpCallMode {
    #[default]
    Each,
    Broadcast,
}

impl From<RawSmpCallMode> for SmpCallMode {
    fn from(raw: RawSmpCallMode) -> Self {
        match raw {
            RawSmpCallMode::Each => Self::Each,
            RawSmpCallMode::Broadcast => Self::Broadcast,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrace {
    pub(super) ring: Option<Spanned<Size>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPartition {
    pub(super) name: Spanned<String>,
    pub(super) pcpus: Spanned<Vec<Spanned<i64>>>,
    #[serde(default)]
    pub(super) lapic: RawLapic,
    pub(super) memory: Spanned<Size>,
    pub(super) memory_at: Option<Spanned<Size>>,
    pub(super) image: Spanned<RawImage>,
    pub(super) cmdline: Option<Spanned<String>>,
    pub(super) console: Option<Spanned<RawConsole>>,
    pub(super) expect: RawExpect,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLapic {
    #[default]
    Passthrough,
}

impl From<RawLapic> for LapicMode {
    fn from(raw: RawLapic) -> Self {
        match raw {
            RawLapic::Passthrough => Self::Passthrough,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawConsole {
    None,
    Com2,
    Com3,
    Com4,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawExpect {
    Finish,
    Run,
}

impl From<RawExpect> for Expectation {
    fn from(raw: RawExpect) -> Self {
        match raw {
            RawExpect::Finish => Self::Finish,
            RawExpect::Run => Self::Run,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawKind {
    Elf,
    Payload,
    Linux,
}

/// One table for all kinds: which keys belong to which kind is checked afterwards, so that the position of a
/// wrong one is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImage {
    pub(super) kind: RawKind,
    pub(super) path: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) package: Option<Spanned<String>>,
    pub(super) kernel: Option<Spanned<String>>,
    pub(super) initrd: Option<Spanned<String>>,
    pub(super) initramfs: Option<Spanned<RawInitramfs>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInitramfs {
    pub(super) init: Spanned<String>,
    #[serde(default)]
    pub(super) packages: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) files: Vec<Spanned<RawFileEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a path in one of the packages, or { from = \"usr/bin/x\", to = \"/bin/x\" }")]
pub(super) enum RawFileEntry {
    Path(String),
    Move(RawMove),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMove {
    pub(super) from: String,
    pub(super) to: String,
}
