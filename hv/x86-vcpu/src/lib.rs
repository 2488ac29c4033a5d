//! What a running vCPU needs on x86_64: into its guest and back, what its exits ask for, kicks and SMP calls, its trace, and
//! how its pCPU is kept while it is down.
//!
//! This is what is built for speed. What runs at boot or on the housekeeping core is in `partita-x86`, which is built for size:
//! it calls this crate, never the other way round, and takes generic code from here made already, by [`calls`] and
//! [`virt::VirtualCpu`], so that there is no second copy of it.

#![no_std]

pub mod apic;
pub mod arch;
pub mod calls;
pub mod clock;
pub mod cpu;
pub mod dump;
mod ends;
pub mod fill;
pub mod memory;
pub mod orders;
pub mod partition;
pub mod requests;
pub mod rounds;
pub mod soak;
pub mod svm;
pub mod trace;
pub mod tracer;
pub mod vcpu;
pub mod virt;
pub mod vmx;
