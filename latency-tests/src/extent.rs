//! How much is measured.

use partita_host::emulator::MachineKind;
use partita_rows::row::Source;
use partita_rows::{Group, Row};

/// Periods of a long run.
const LONG_PERIODS: u32 = 1_000_000;
/// Reboots of the group `restart`: each life before takes a second.
pub const RESTARTS: u32 = 4;

/// By how many ticks a wake-up of a long run may be late because of QEMU.
const OVERSHOOT: u64 = 16;

/// By how many ticks the most of a row of `count` samples may be higher on a machine, as results name it, than it is elsewhere: on
/// a busy host QEMU's clock overshoots in single ones of a million wake-ups, on the bare machine, too (docs/latency.md).
pub fn overshoot(machine: &str, row: &str, count: u64) -> u64 {
    let is_long = row == Row::TimerPeriodic200us.name() && count >= LONG_PERIODS.into();
    if is_long && machine == MachineKind::Qemu.result_name() { OVERSHOOT } else { 0 }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Samples of each row.
    pub samples: u32,
    /// Whether the timer's periods are a million, instead of as many as samples.
    pub is_long: bool,
}

impl Extent {
    /// Periods of the row that counts them.
    pub const fn periods(self) -> u32 {
        if self.is_long { LONG_PERIODS } else { self.samples }
    }

    /// How many samples a row has, if that is known beforehand.
    pub fn count_of(self, row: Row) -> Option<u64> {
        match row {
            Row::QuietGaps | Row::QuietGapsOutside => None,
            Row::BootToGuest | Row::HousekeepingStolenPerS => Some(1),
            _ if row.source() == Source::Derived => Some(1),
            _ if row.source() == Source::Counted => Some(self.periods().into()),
            _ => Some(self.samples_of(row.group()).into()),
        }
    }

    /// The same where the host's time passes: not known of gaps, as not all that a guest sees are Partita's.
    pub fn host_count_of(self, row: Row) -> Option<u64> {
        self.count_of(row).filter(|_| row.group() != Group::Gap)
    }

    /// Samples of each row of a group.
    pub const fn samples_of(self, group: Group) -> u32 {
        match group {
            Group::Restart => RESTARTS,
            _ => self.samples,
        }
    }
}

impl From<u32> for Extent {
    fn from(samples: u32) -> Self {
        Self { samples, is_long: false }
    }
}
