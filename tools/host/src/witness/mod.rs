//! An independent witness of a run: the emulator's own log of entries into guests and exits from them, compared with the
//! trace, exit by exit.

mod compare;
mod log;
mod mapping;
#[cfg(test)]
mod tests;

pub use compare::{Agreement, Difference, SHOWN_MAX, compare};
pub use log::{Step, VmExit, WitnessLog};

use crate::run_dir::WITNESS_LOG;
use crate::trace::{LoadError, Owner, Trace};
use partita_trace::Event;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// An exit, as the hypervisor traced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedExit {
    /// Its time in ticks of the TSC.
    pub tsc: u64,
    /// The pCPU.
    pub pcpu: u16,
    /// Why.
    pub reason: ExitReason,
    /// The low bits of what it is about.
    pub detail16: u16,
    /// What it is about.
    pub detail: u64,
}

/// Why the witness does not confirm the trace.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The emulator's log cannot be read.
    #[error("cannot read the emulator's log {}: {cause}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The trace cannot be read.
    #[error("cannot read the trace: {0}")]
    Trace(#[from] LoadError),
    /// There is no trace of a hypervisor.
    #[error("the trace has no region of the hypervisor")]
    NoRegion,
    /// The trace does not have all exits.
    #[error(
        "the ring of pCPU {pcpu} does not have all frames ({overwritten} overwritten, {damaged} damaged): there is nothing \
         to compare with; let the run be shorter, or raise trace.ring"
    )]
    Incomplete {
        /// The pCPU.
        pcpu: u16,
        /// Frames that later ones overwrote.
        overwritten: u64,
        /// Damaged frames.
        damaged: u64,
    },
    /// Trace and log differ.
    #[error(transparent)]
    Differs(#[from] Box<Difference>),
}

/// Compares what the run whose output directory `dir` is left: trace and log.
///
/// # Errors
/// They differ, or cannot be compared.
pub fn of_run(dir: &Path) -> Result<Agreement, WitnessError> {
    let path = dir.join(WITNESS_LOG);
    let read = File::open(&path).and_then(|file| WitnessLog::read(BufReader::new(file)));
    let log = read.map_err(|cause| WitnessError::Log { path, cause })?;
    let traced = traced_exits(&Trace::load(dir)?)?;
    Ok(compare(&log, &traced)?)
}

/// All exits in the hypervisor's rings, in the order of time.
///
/// # Errors
/// The trace does not have all.
pub fn traced_exits(trace: &Trace) -> Result<Vec<TracedExit>, WitnessError> {
    let region = trace.regions.iter().find(|region| region.owner == Owner::Hypervisor).ok_or(WitnessError::NoRegion)?;
    let mut exits = Vec::new();
    for ring in &region.dump.rings {
        let (counts, damage) = ring.summary();
        if counts.overwritten != 0 || counts.damaged != 0 || !counts.exact || !damage.is_empty() {
            let (overwritten, damaged) = (counts.overwritten, counts.damaged.max(damage.len() as u64));
            return Err(WitnessError::Incomplete { pcpu: ring.ring, overwritten, damaged });
        }
        exits.extend(ring.frames().filter_map(|frame| match frame.body {
            Body::Event(Event::Exit { reason, detail16, detail, .. }) => {
                Some(TracedExit { tsc: frame.tsc, pcpu: ring.ring, reason, detail16, detail })
            }
            _ => None,
        }));
    }
    exits.sort_by_key(|exit| exit.tsc);
    Ok(exits)
}
