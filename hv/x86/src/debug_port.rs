//! The hypervisor's end of the debug port ([`partita_x86_bare::debug_port`]): what goes there beside its own trace region.

use partita_core::partition::PartitionState;
use partita_trace::layout::{HEADER_LEN, windows};
use partita_x86_bare::debug_port;

use crate::println;
use crate::set_up::Hypervisor;

/// The word on the command line that has the port used, and its number.
pub use partita_abi::debug_port::{DEBUG_PORT, OPTION};

/// Bytes of a guest's memory that are mapped at a time.
const STEP: u64 = 2 << 20;

/// Uses the port from now on; says so if there is none.
pub fn enable() {
    if !debug_port::enable() {
        println!("partita: there is no debug port at {DEBUG_PORT:#x}: leave out \"{OPTION}\" on this machine");
    }
}

impl Hypervisor {
    /// Writes the trace windows of the guests to the port, if it is in use. For the end of the run: partitions that still
    /// run are stopped, so that no ring goes on while it is written.
    pub(crate) fn write_windows(&mut self) {
        if !debug_port::is_enabled() {
            return;
        }
        for index in 0..self.partitions.len() {
            let Some(&partition) = self.partitions.get(index) else { break };
            if partition.life.state() == PartitionState::Running
                && let Err(error) = self.stop(partition)
            {
                println!("partita: partition {index} may still be tracing: {error}");
            }
        }
        let mut page = [0; HEADER_LEN];
        let header = self.region.base();
        for (offset, to) in page.iter_mut().enumerate() {
            // SAFETY: a region begins with a header page; volatile, as for all that a region is accessed by others.
            *to = unsafe { header.add(offset).read_volatile() };
        }
        for window in windows(&page).flatten() {
            for offset in (0..window.len).step_by(STEP as usize) {
                let (address, len) = (window.hpa + offset, STEP.min(window.len - offset));
                // SAFETY: the window was checked to lie in its partition's memory when it was noted; it is read by volatile
                // reads only, and no reference is kept.
                let written = unsafe {
                    let write = |memory: *mut u8| debug_port::write_memory(address, memory, len as usize);
                    self.space.look_at(address, len, &mut self.pool, write)
                };
                if let Err(error) = written {
                    println!("partita: the trace window of partition {} is not written: {error}", window.partition);
                    break;
                }
            }
        }
    }
}
