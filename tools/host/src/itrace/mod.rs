//! The instructions that a hypervisor executed, from QEMU's log of them: which functions they are of, and the paths between
//! entries into guests.
//!
//! - `debugger`: lets QEMU log from the first entry into a guest on.
//! - [`ExecutionLog`]: what QEMU logged.
//! - [`Program`]: the ELF file: the function of an address, and the few instructions that end a path.
//! - [`paths`]: the instructions from an exit of a guest to the next entry, and from a pCPU's wake-up to its next halt.
//! - [`cost`]: what a path costs on hardware beside its instructions; [`listing`]: the path in words.

mod cost;
pub(crate) mod debugger;
mod log;
mod paths;
mod program;

pub use cost::{Cost, cost, listing};
pub use log::{Executed, ExecutionLog};
pub use paths::{Path, PathEnd, paths};
pub use program::{Logged, Program, ProgramError};

/// How many bytes QEMU's log of instructions may have: some thirteen million of them. The boots behind the rows leave 80 MiB at most.
pub(crate) const LOG_MAX: u64 = 1 << 30;
