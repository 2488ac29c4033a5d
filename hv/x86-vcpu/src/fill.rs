//! A partition's memory, cleared and filled from the bundle by one of its own pCPUs: at boot, and at each restart.

use partita_abi::guest::{ACPI_LEN, RESET_CODE, RESET_VECTOR, RSDP};
use partita_x86_policy::acpi::write_tables;

use crate::partition::Partition;

/// Bytes that are cleared or copied between two looks for SMP calls.
const STEP: usize = 64 << 10;

impl Partition {
    /// Clears the memory and copies segments, ACPI tables and what is at the reset vector in, in steps, with `between` after
    /// each. `false` if something does not fit.
    ///
    /// # Safety
    /// The memory is mapped, for writing, in the partition's window, and nobody else uses it meanwhile.
    pub unsafe fn load(&self, between: impl Fn()) -> bool {
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
            let Some(place) = place else { return false };
            for (to, from) in place.chunks_mut(STEP).zip(segment.data.chunks(STEP)) {
                to.copy_from_slice(from);
                step();
            }
        }
        let Some(place) = memory.get_mut(RESET_VECTOR as usize..RESET_VECTOR as usize + RESET_CODE.len()) else {
            return false;
        };
        place.copy_from_slice(&RESET_CODE);
        let tables = memory.get_mut(RSDP as usize..(RSDP + ACPI_LEN) as usize);
        tables.is_some_and(|tables| write_tables(tables, RSDP, &self.apic_view, self.config.console).is_ok())
    }
}
