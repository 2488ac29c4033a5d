//! One boot of the suite and its samples.

use crate::extent::Extent;
use crate::suite::Images;
use crate::systems::{cmdline, system};
use crate::{Figures, SuiteError, samples};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::run::{BareRun, RunOptions, RunReport, run_bare, run_system};
use partita_host::trace::Trace;
use partita_rows::row::Source;
use partita_rows::{Group, Row};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// pCPUs of the bare machine: as many as the payload has vCPUs.
const BARE_PCPUS: u16 = 2;
/// RAM of the bare machine in bytes.
const BARE_MEMORY: u64 = 64 << 20;
/// How long a boot may take in time of the host. The longest takes some ten seconds on a quiet machine.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The same of a long run.
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);

/// Where the payload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the bare machine.
    Bare,
    /// In a partition.
    Partita,
}

/// A boot: one group of rows in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Boot {
    /// Where.
    pub place: Place,
    /// Which rows.
    pub group: Group,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::Bare => "bare",
            Place::Partita => "partita",
        };
        write!(f, "{place}-{}", self.group.name())
    }
}

impl Boot {
    /// All boots, the longest first, so that two at a time end at about the same time.
    pub fn all() -> impl Iterator<Item = Self> {
        let first = [Group::Quiet, Group::Timer, Group::Ipi, Group::Gap, Group::Kick, Group::Broadcast];
        let others = Group::ALL.iter().copied().filter(move |group| !first.contains(group));
        let boots = first.into_iter().chain(others);
        let boots = boots.flat_map(|group| [Place::Partita, Place::Bare].map(|place| Self { place, group }));
        boots.filter(|boot| boot.rows().next().is_some())
    }

    /// Those that are of use on a machine.
    pub fn all_on(machine: MachineKind) -> impl Iterator<Item = Self> {
        Self::all().filter(move |boot| is_of_use(boot.group, machine))
    }

    /// The rows that it measures.
    pub fn rows(self) -> impl Iterator<Item = Row> {
        let is_here = move |row: &Row| match self.place {
            Place::Bare => row.has_bare(),
            Place::Partita => true,
        };
        let is_measured = |row: &Row| row.source() != Source::Derived;
        Row::ALL.iter().copied().filter(move |row| row.group() == self.group).filter(is_here).filter(is_measured)
    }

    /// Boots, and returns the trace. Logs and trace stay in `dir`.
    ///
    /// # Errors
    /// It could not take place, or failed.
    pub fn run(
        self,
        machine: MachineKind,
        images: &Images,
        extent: impl Into<Extent>,
        dir: &Path,
    ) -> Result<Trace, SuiteError> {
        let extent = extent.into();
        let options = RunOptions {
            machine,
            clock: Clock::Icount,
            timeout: if extent.is_long { LONG_TIMEOUT } else { TIMEOUT },
            out_dir: dir.to_path_buf(),
            hypervisor: Some(images.hypervisor.clone()),
            keep_ram: false,
            quiet: true,
        };
        let RunReport { outcome, dir, .. } = match self.place {
            Place::Bare => run_bare(
                &BareRun {
                    kernel: &images.payload,
                    module: None,
                    cmdline: &cmdline(self.group, extent),
                    pcpus: BARE_PCPUS,
                    memory: BARE_MEMORY,
                    has_end_marker: true,
                },
                &options,
            )?,
            Place::Partita => run_system(&system(self.group, extent, &images.payload)?, &options)?,
        };
        if !outcome.is_success() {
            return Err(SuiteError::BootFailed { boot: self, outcome: outcome.to_string(), dir });
        }
        Trace::load(&dir).map_err(|error| SuiteError::Samples { boot: self, problem: error.to_string(), dir })
    }

    /// The figures of the rows of this boot, from its trace.
    ///
    /// # Errors
    /// Samples are missing.
    pub fn figures(
        self,
        trace: &Trace,
        extent: impl Into<Extent>,
        dir: &Path,
    ) -> Result<Vec<(Row, Figures)>, SuiteError> {
        let extent = extent.into();
        let of_row = |row| {
            let wanted = extent.samples_of(self.group);
            let values = samples::distribution(trace, row, self.place == Place::Partita, wanted)?;
            let figures = Figures::of_counted(&values);
            let wanted = if samples::is_exact(trace) { extent.count_of(row) } else { extent.host_count_of(row) };
            match wanted.filter(|count| *count != figures.count) {
                Some(count) => Err(format!("{} of {count} samples of {} are there", figures.count, row.name())),
                None => Ok((row, figures)),
            }
        };
        let wrong = |problem| SuiteError::Samples { boot: self, problem, dir: dir.to_path_buf() };
        self.rows().map(|row| of_row(row).map_err(wrong)).collect()
    }
}

/// Whether a group is of use on a machine: what neighbours do to the timer shows where all pCPUs go on side by side. QEMU under
/// icount runs one after the other, so that it would show whose turn it was.
fn is_of_use(group: Group, machine: MachineKind) -> bool {
    !(group.is_beside() && machine == MachineKind::Qemu)
}

/// The rows that a machine has.
pub fn rows_of(machine: MachineKind) -> Vec<Row> {
    Row::ALL.iter().copied().filter(|row| is_of_use(row.group(), machine)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_measured_in_every_place_that_has_it() {
        for &row in Row::ALL {
            let places: Vec<Place> =
                Boot::all().filter(|boot| boot.rows().any(|r| r == row)).map(|boot| boot.place).collect();
            let expected: &[Place] = match row.source() {
                Source::Derived => &[],
                _ if row.has_bare() => &[Place::Partita, Place::Bare],
                _ => &[Place::Partita],
            };
            assert_eq!(places, expected, "{}", row.name());
        }
        let names =
            |boots: Vec<Boot>| boots.iter().map(ToString::to_string).collect::<std::collections::HashSet<_>>().len();
        assert_eq!(names(Boot::all().collect()), 21);
        assert_eq!(names(Boot::all_on(MachineKind::Qemu).collect()), 13);
        assert_eq!(Boot::all_on(MachineKind::BOCHS_VMX).count(), 21);
        assert_eq!(
            (rows_of(MachineKind::Qemu).len() + 8, rows_of(MachineKind::BOCHS_SVM).len()),
            (Row::ALL.len(), Row::ALL.len())
        );
    }
}
