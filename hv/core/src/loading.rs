//! How the loading of a partition's memory stands.

use crate::sync::{AtomicU8, AtomicU64, Ordering, const_unless_loom};

/// How the loading of a partition stands, for the housekeeping core that orders it and the pCPU that does it.
///
/// ```text
/// Idle --want--> Wanted --claim--> Running --finish--> Done, Misfit --want--> Wanted
///   ^               |
///   +---give_up-----+
/// ```
/// Both may leave `Wanted`, by compare-and-swap: an order that comes late finds nothing wanted.
#[derive(Debug)]
pub struct Loading {
    /// Steps done.
    progress: AtomicU64,
    state: AtomicU8,
}

/// What became of a loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not over.
    Pending,
    /// All is loaded.
    Done,
    /// Something does not fit into the memory.
    Misfit,
}

const IDLE: u8 = 0;
const WANTED: u8 = 1;
const RUNNING: u8 = 2;
const DONE: u8 = 3;
const MISFIT: u8 = 4;

impl Loading {
    const_unless_loom! {
        /// None yet.
        pub fn new() -> Self {
            Self { progress: AtomicU64::new(0), state: AtomicU8::new(IDLE) }
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        // Acquire and release: who claims it sees the memory mapped.
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Wants a loading: on the housekeeping core, before it orders one. `false` if an earlier one still runs.
    pub fn want(&self) -> bool {
        [IDLE, DONE, MISFIT].into_iter().any(|from| self.change(from, WANTED))
    }

    /// Wants it no longer: on the housekeeping core. `false` if it has begun.
    pub fn give_up(&self) -> bool {
        self.change(WANTED, IDLE)
    }

    /// Begins it, if it is wanted: on the pCPU that loads.
    pub fn claim(&self) -> bool {
        self.change(WANTED, RUNNING)
    }

    /// Notes a step: on the pCPU that loads.
    pub fn step(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it, and says whether all fitted: on the pCPU that loads.
    pub fn finish(&self, fits: bool) {
        // Release: who sees it done sees the memory filled.
        self.state.store(if fits { DONE } else { MISFIT }, Ordering::Release);
    }

    /// Steps done, ever: a loading that gets on changes it.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Whether a pCPU is at it.
    pub fn runs(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// What became of it.
    pub fn outcome(&self) -> Outcome {
        match self.state.load(Ordering::Acquire) {
            DONE => Outcome::Done,
            MISFIT => Outcome::Misfit,
            _ => Outcome::Pending,
        }
    }
}

impl Default for Loading {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_comes_late_finds_nothing_wanted() {
        let loading = Loading::new();
        assert!(!loading.claim());
        assert!(loading.want() && loading.give_up() && !loading.claim());
        assert!(loading.want() && loading.claim() && !loading.give_up());
        assert!(loading.runs() && !loading.want(), "an earlier one still runs");
        assert_eq!(loading.outcome(), Outcome::Pending);
        loading.finish(false);
        assert_eq!((loading.runs(), loading.outcome()), (false, Outcome::Misfit));
        assert!(loading.want() && loading.claim());
        loading.finish(true);
        assert_eq!(loading.outcome(), Outcome::Done);
    }
}
