//! How the loading of a partition's memory stands.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How the loading of a partition stands, for the housekeeping core.
#[derive(Debug, Default)]
pub struct Loading {
    /// Steps done.
    progress: AtomicU64,
    state: AtomicU8,
}

/// Not begun, or not done.
const PENDING: u8 = 0;
const DONE: u8 = 1;
/// Something did not fit into the memory.
const MISFIT: u8 = 2;

impl Loading {
    /// Begins a loading: on the housekeeping core, before it orders one.
    pub fn begin(&self) {
        self.state.store(PENDING, Ordering::Relaxed);
    }

    /// Notes a step: on the pCPU that loads.
    pub fn step(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that something does not fit: on the pCPU that loads.
    pub fn misfit(&self) {
        self.state.store(MISFIT, Ordering::Relaxed);
    }

    /// Ends it: on the pCPU that loads.
    pub fn finish(&self) {
        // Release: who sees it done sees the memory filled. After a misfit it stays one.
        let _ = self.state.compare_exchange(PENDING, DONE, Ordering::Release, Ordering::Relaxed);
    }

    /// Steps done, ever: a loading that gets on changes it.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// `Some(true)` if all is loaded, `Some(false)` if something did not fit.
    pub fn outcome(&self) -> Option<bool> {
        match self.state.load(Ordering::Acquire) {
            PENDING => None,
            state => Some(state == DONE),
        }
    }
}
