//! A physical CPU as the hypervisor uses it: its block of memory, its descriptor tables, its faults.

pub mod extended;
pub mod features;
pub mod idt;
pub mod percpu;

pub use partita_x86_bare::{halt_forever, rdtsc, read_msr, relax, write_msr};

/// Ends the run.
pub fn end_run(exit: partita_abi::report::HypervisorExit) -> ! {
    partita_x86_bare::end_run(exit as u8)
}
