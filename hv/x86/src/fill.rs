//! A partition's memory, cleared and filled from the bundle by one of its own pCPUs: at boot, and at each restart.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use partita_abi::guest::{ACPI_LEN, RSDP};
use partita_x86_policy::acpi::write_tables;

use crate::partition::Partition;

/// Bytes that are cleared or copied between two looks for SMP calls.
const STEP: usize = 64 << 10;

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

    fn step(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    fn misfit(&self) {
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

impl Partition {
    /// Clears the memory and copies segments and ACPI tables in, in steps, with `between` after each.
    ///
    /// # Safety
    /// The memory is mapped, for writing, in the partition's window, and nobody else uses it meanwhile.
    pub unsafe fn load(&self, between: impl Fn()) {
        let len = self.config.memory_bytes as usize;
        // SAFETY: by the contract above.
        let memory = unsafe { core::slice::from_raw_parts_mut(self.window as *mut u8, len) };
        let step = || {
            self.loading.step();
            between();
        };
        for part in memory.chunks_mut(STEP) {
            part.fill(0);
            step();
        }
        for segment in self.bundle.segments(self.number.into()) {
            let start = segment.gpa as usize;
            let place = start.checked_add(segment.data.len()).and_then(|end| memory.get_mut(start..end));
            // Segments outside the memory were refused by the rules.
            let Some(place) = place else { return self.loading.misfit() };
            for (to, from) in place.chunks_mut(STEP).zip(segment.data.chunks(STEP)) {
                to.copy_from_slice(from);
                step();
            }
        }
        let tables = memory.get_mut(RSDP as usize..(RSDP + ACPI_LEN) as usize);
        if tables.is_none_or(|tables| write_tables(tables, RSDP, &self.apic_view).is_err()) {
            self.loading.misfit();
        }
    }
}
