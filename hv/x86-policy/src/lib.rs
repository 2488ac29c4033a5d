//! What an x86 guest may do, as pure functions and tables.
//!
//! Nothing here touches hardware, logs, allocates or panics: the caller asks, gets a decision, and carries it out.
//! "APM" is AMD's Architecture Programmer's Manual (24593), "SDM" Intel's Software Developer's Manual.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod apic_events;
pub mod apic_view;
pub mod capabilities;
pub mod cmos;
pub mod cpuid;
pub mod cpuid_hidden;
pub mod icr;
pub mod io_breakpoint;
pub mod msr;
pub mod msr_values;
pub mod operator_msr;
pub mod ports;
pub mod reserved;
pub mod start_state;
pub mod svm_exit;
pub mod svm_state;
pub mod vmware;
pub mod vmx;

mod aml;
mod cpuid_features;
mod msr_table;
