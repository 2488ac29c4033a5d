//! What every architecture shares: the description of a system and its rules, the division of memory, the life
//! of a partition, and SMP calls. Nothing here names an architecture, logs, or touches hardware.

#![cfg_attr(not(any(test, loom)), no_std)]
#![deny(unsafe_code)]

pub mod arch;
pub mod clock_sync;
pub mod encode;
pub mod explanation;
pub mod gate;
pub mod loading;
pub mod memory;
pub mod partition;
pub mod pcpu_set;
pub mod reboot;
pub mod rules;
pub mod smp_call;
mod sync;
pub mod system;
