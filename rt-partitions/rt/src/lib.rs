//! The runtime of bare-metal payloads. One and the same file runs on the bare machine and as a partition; the payload
//! itself reads as a list of steps:
//!
//! ```ignore
//! partita_rt::payload!("example", steps);
//!
//! fn steps(machine: &Machine) -> Result<(), Error> {
//!     claim(1, 1 + 1 == 2, "the CPU can add", 1 + 1, 2);
//!     Ok(())
//! }
//! ```
//! Its build script passes `payload.ld` and defmt's `defmt.x` to the linker.
//!
//! Interrupts are off in all Rust code. A payload takes them inside assembly that expects them, or in
//! [`interrupts::wait`], so that handlers may be as short as what they measure.

#![no_std]

pub mod claims;
mod clock;
pub mod console;
pub mod cpu;
mod error;
pub mod interrupts;
mod machine;
pub mod place;
mod start;
pub mod trace;

pub use claims::claim;
pub use clock::Clocks;
pub use error::Error;
pub use machine::{Machine, wait_until};
pub use partita_rows::Options;
pub use partita_x86_bare::{apic, rdtsc, relax};
pub use place::{Place, hypercall};
pub use start::{Payload, end};

/// Makes a function the payload: `payload!("name", function)`.
#[macro_export]
macro_rules! payload {
    ($name:literal, $steps:path) => {
        #[unsafe(no_mangle)]
        static payload_entry: $crate::Payload = $crate::Payload { name: $name, steps: $steps };
    };
}
