//! By how much a row may change by itself.

use super::old_file::OldFigures;
use crate::budgets::clock_step;
use partita_host::run_info::ClockName;
use partita_rows::Row;

/// What a median changes by itself where time does not pass by instructions, and what the way to the first guest changes with
/// every image: in percent.
const NOISE: u64 = 5;

/// By how much a row may change by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// Median and maximum by so many ticks.
    Ticks(u64),
    /// The median by [`NOISE`].
    Share,
    /// By as much as it likes: it tells nothing of Partita.
    Any,
}

impl Tolerance {
    /// That of a row on a machine.
    pub(super) fn of(row: &str, machine: &str, clock: ClockName) -> Self {
        let step = clock_step(machine);
        match Row::from_name(row) {
            // Only where all pCPUs go on side by side nothing else than Partita can make a gap.
            Some(Row::QuietGapsOutside) if step.is_none() => Self::Any,
            Some(Row::BootToGuest) => Self::Share,
            _ if clock == ClockName::Icount => Self::Ticks(step.unwrap_or_default()),
            _ => Self::Share,
        }
    }

    /// Whether a row is slower by more than that.
    pub(super) fn is_exceeded(self, old: OldFigures, new: OldFigures) -> bool {
        match self {
            Self::Ticks(ticks) => [(old.p50, new.p50), (old.max, new.max)].iter().any(|(old, new)| *new > old + ticks),
            Self::Share => u128::from(new.p50) * 100 > u128::from(old.p50) * u128::from(100 + NOISE),
            Self::Any => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_change_by_what_they_may() {
        let of = |row, machine| Tolerance::of(row, machine, ClockName::Icount);
        assert_eq!(of("exit.cpuid", "qemu-svm"), Tolerance::Ticks(0));
        assert_eq!(of("exit.cpuid", "bochs-svm"), Tolerance::Ticks(5));
        assert_eq!(of("boot.to_guest", "qemu-svm"), Tolerance::Share);
        assert_eq!(of("quiet.gaps_outside", "qemu-svm"), Tolerance::Any);
        assert_eq!(of("quiet.gaps_outside", "bochs-vmx"), Tolerance::Ticks(5));
        assert_eq!(Tolerance::of("exit.cpuid", "kvm", ClockName::Tsc), Tolerance::Share);
    }

    #[test]
    fn more_than_that_is_slower() {
        let figures = |p50, max| OldFigures { p50, max, count: 9 };
        let is_slower = |tolerance: Tolerance, p50, max| tolerance.is_exceeded(figures(100, 200), figures(p50, max));
        assert!(!is_slower(Tolerance::Ticks(0), 100, 200) && is_slower(Tolerance::Ticks(0), 100, 201));
        assert!(!is_slower(Tolerance::Ticks(5), 105, 205) && is_slower(Tolerance::Ticks(5), 106, 200));
        assert!(!is_slower(Tolerance::Share, 105, 999) && is_slower(Tolerance::Share, 106, 200));
        assert!(!is_slower(Tolerance::Any, 999, 999));
    }
}
