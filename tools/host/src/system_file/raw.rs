//! A system file as it is written, before any meaning is made of it. Unknown keys are refused here.

use super::size::Size;
use crate::image::{ElfBoot, FlatMode};
use partita_core::system::{Expectation, Identity, LapicMode, OnReboot, SmpCallMode};
use serde::Deserialize;
use std::ops::Range;
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
    pub(super) report: Option<RawReport>,
    #[serde(default)]
    pub(super) run: RawRun,
    #[serde(default)]
    pub(super) partition: Vec<Spanned<RawPartition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRun {
    #[serde(default)]
    pub(super) clock: RawClock,
    pub(super) timeout: Option<Spanned<i64>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawClock {
    #[default]
    Host,
    Icount,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrace {
    pub(super) ring: Option<Spanned<Size>>,
    #[serde(default = "yes")]
    pub(super) exits: bool,
}

impl Default for RawTrace {
    fn default() -> Self {
        Self { ring: None, exits: true }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReport {
    pub(super) cyclictest: Spanned<String>,
    pub(super) beside: Option<Spanned<String>>,
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
    pub(super) identity: Option<RawIdentity>,
    pub(super) console: Option<Spanned<RawConsole>>,
    #[serde(default)]
    pub(super) io_ports: Vec<Spanned<RawPorts>>,
    #[serde(default)]
    pub(super) mmio: Vec<Spanned<RawMmio>>,
    #[serde(default)]
    pub(super) devices: Vec<Spanned<RawTestDevice>>,
    pub(super) expect: RawExpect,
    #[serde(default)]
    pub(super) on_reboot: RawOnReboot,
    #[serde(default = "yes")]
    pub(super) required: bool,
}

/// What the hypervisor tells the guest that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawIdentity {
    Partita,
    Linux,
}

impl From<RawIdentity> for Identity {
    fn from(raw: RawIdentity) -> Self {
        match raw {
            RawIdentity::Partita => Self::Partita,
            RawIdentity::Linux => Self::Linux,
        }
    }
}

const fn yes() -> bool {
    true
}

/// I/O ports: `"0x310"` or `"0x300-0x307"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct RawPorts {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl TryFrom<String> for RawPorts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let port = |number: &str| {
            let number = number.trim();
            match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
                Some(hex) => u16::from_str_radix(hex, 16),
                None => number.parse(),
            }
        };
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (port(first), port(last)) {
            (Ok(first), Ok(last)) => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is not a range of I/O ports; write \"0x300-0x307\" or \"0x310\"")),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMmio {
    pub(super) gpa: Option<Size>,
    pub(super) hpa: Size,
    pub(super) size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawTestDevice {
    IsaDebugExit,
    #[serde(rename = "debugcon")]
    DebugCon,
    Edu,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOnReboot {
    #[default]
    Restart,
    End,
}

impl From<RawOnReboot> for OnReboot {
    fn from(raw: RawOnReboot) -> Self {
        match raw {
            RawOnReboot::Restart => Self::Restart,
            RawOnReboot::End => Self::End,
        }
    }
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
    Com5,
    Com6,
    Com7,
    Com8,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawExpect {
    Finish,
    Run,
    Anything,
}

impl From<RawExpect> for Expectation {
    fn from(raw: RawExpect) -> Self {
        match raw {
            RawExpect::Finish => Self::Finish,
            RawExpect::Run => Self::Run,
            RawExpect::Anything => Self::Anything,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawKind {
    Elf,
    Multiboot,
    Flat,
    Payload,
    Linux,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawBoot {
    Pvh,
    Multiboot,
    Plain,
    Real,
    Protected,
    Long,
}

impl RawBoot {
    /// How an ELF file boots, or in which mode a flat image begins.
    pub(super) const fn of_elf(self) -> Result<ElfBoot, FlatMode> {
        match self {
            Self::Pvh => Ok(ElfBoot::Pvh),
            Self::Multiboot => Ok(ElfBoot::Multiboot),
            Self::Plain => Ok(ElfBoot::Plain),
            Self::Real => Err(FlatMode::Real),
            Self::Protected => Err(FlatMode::Protected),
            Self::Long => Err(FlatMode::Long),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawMode {
    Real,
    Protected,
    Long,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModule {
    pub(super) path: String,
    pub(super) cmdline: Option<Spanned<String>>,
}

/// One table for all kinds: which keys belong to which kind is checked afterwards, so that the position of a
/// wrong one is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImage {
    pub(super) kind: RawKind,
    pub(super) path: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) boot: Option<Spanned<RawBoot>>,
    #[serde(default)]
    pub(super) modules: Vec<Spanned<RawModule>>,
    pub(super) at: Option<Spanned<Size>>,
    pub(super) entry: Option<Spanned<Size>>,
    pub(super) mode: Option<Spanned<RawMode>>,
    pub(super) package: Option<Spanned<String>>,
    pub(super) kernel: Option<Spanned<String>>,
    pub(super) initrd: Option<Spanned<String>>,
    pub(super) initramfs: Option<Spanned<RawInitramfs>>,
}

impl RawImage {
    /// Its keys but `kind`, each with its place where it is written.
    pub(super) fn given(&self) -> [(&'static str, Option<Range<usize>>); 11] {
        fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        [
            ("path", span(&self.path)),
            ("name", span(&self.name)),
            ("boot", span(&self.boot)),
            ("modules", self.modules.first().map(Spanned::span)),
            ("at", span(&self.at)),
            ("entry", span(&self.entry)),
            ("mode", span(&self.mode)),
            ("package", span(&self.package)),
            ("kernel", span(&self.kernel)),
            ("initrd", span(&self.initrd)),
            ("initramfs", span(&self.initramfs)),
        ]
    }
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
