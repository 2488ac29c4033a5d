//! What the Partita hypervisor, its guests and the host tool agree on: hypercalls, CPUID leaves, the boot
//! bundle, report codes and the guest-physical places the hypervisor fills in.
//!
//! Everything here is versioned and small enough for each side to check in full. This crate depends on nothing
//! but a CRC, so that guests can use it too.

#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cpuid;
pub mod debug_port;
pub mod guest;
pub mod hypercall;
pub mod report;
