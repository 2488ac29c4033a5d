//! One boot of the suite and its samples.

use crate::suite::Images;
use crate::systems::{cmdline, system};
use crate::{Figures, SuiteError, samples};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::run::{BareRun, RunOptions, RunReport, run_bare, run_system};
use partita_host::trace::Trace;
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
        let groups = [Group::Timer, Group::Ipi, Group::Gap, Group::Kick, Group::Broadcast, Group::Exit];
        let boots =
            groups.into_iter().flat_map(|group| [Place::Partita, Place::Bare].map(|place| Self { place, group }));
        boots.filter(|boot| boot.rows().next().is_some())
    }

    /// The rows that it measures.
    pub fn rows(self) -> impl Iterator<Item = Row> {
        let is_here = move |row: &Row| match self.place {
            Place::Bare => row.has_bare(),
            Place::Partita => true,
        };
        Row::ALL.iter().copied().filter(move |row| row.group() == self.group).filter(is_here)
    }

    /// Boots, and returns the trace. Logs and trace stay in `dir`.
    ///
    /// # Errors
    /// It could not take place, or failed.
    pub fn run(self, machine: MachineKind, images: &Images, samples: u32, dir: &Path) -> Result<Trace, SuiteError> {
        let options = RunOptions {
            machine,
            clock: Clock::Icount,
            timeout: TIMEOUT,
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
                    cmdline: &cmdline(self.group, samples),
                    pcpus: BARE_PCPUS,
                    memory: BARE_MEMORY,
                    has_end_marker: true,
                },
                &options,
            )?,
            Place::Partita => run_system(&system(self.group, samples, &images.payload)?, &options)?,
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
    pub fn figures(self, trace: &Trace, samples: u32, dir: &Path) -> Result<Vec<(Row, Figures)>, SuiteError> {
        let of_row = |row| {
            let mut values = samples::of_row(trace, row, self.place == Place::Partita, samples)?;
            let figures =
                Figures::of(&mut values).ok_or_else(|| format!("no samples of {} were asked for", row.name()))?;
            Ok((row, figures))
        };
        let wrong = |problem| SuiteError::Samples { boot: self, problem, dir: dir.to_path_buf() };
        self.rows().map(|row| of_row(row).map_err(wrong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_measured_in_every_place_that_has_it() {
        for &row in Row::ALL {
            let places: Vec<Place> =
                Boot::all().filter(|boot| boot.rows().any(|r| r == row)).map(|boot| boot.place).collect();
            let expected = if row.has_bare() { vec![Place::Partita, Place::Bare] } else { vec![Place::Partita] };
            assert_eq!(places, expected, "{}", row.name());
        }
        assert_eq!(Boot::all().map(|boot| boot.to_string()).collect::<std::collections::HashSet<_>>().len(), 10);
    }
}
