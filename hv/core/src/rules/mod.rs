//! The rules of a system: what must hold for a description to be run.
//!
//! The host tool checks them before it builds a bundle, the hypervisor again before it runs one. Each rule has an ID
//! that stays.

mod devices;
mod images;
mod rule;
mod system;
#[cfg(test)]
mod tests;
mod violation;

pub use devices::{MMIO_GPA_MAX, MMIO_GRANULE};
pub use rule::Rule;
pub use violation::Violation;

use crate::system::SystemConfig;

/// Highest rate of SMP calls, per second: beyond it, a target would do little else.
pub const SMP_CALL_HZ_MAX: u32 = 1_000_000;
/// Smallest trace ring, in bytes.
pub const RING_BYTES_MIN: u32 = 4 << 10;
/// Largest trace ring, in bytes.
pub const RING_BYTES_MAX: u32 = 8 << 20;
/// Host-physical addresses end here: no machine in sight has memory beyond.
pub const HOST_PHYSICAL_MAX: u64 = 1 << 52;

/// A piece of a partition's image: bytes that the bundle puts into its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of the partition.
    pub partition: u32,
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes it takes in memory.
    pub mem_len: u64,
}

impl Segment {
    const fn end(&self) -> u64 {
        self.gpa.saturating_add(self.mem_len)
    }

    const fn overlaps(&self, gpa: u64, len: u64) -> bool {
        self.gpa < gpa.saturating_add(len) && gpa < self.end() && self.mem_len > 0 && len > 0
    }
}

/// What is known about the machine that a system is to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    /// How many pCPUs it has; they are numbered from 0.
    pub pcpus: usize,
}

/// Checks all rules and reports each violation; returns how many there are. A system without violations can be run,
/// if the machine (`None` if it is not known yet) has enough memory, which [`crate::memory::divide`] says.
pub fn check<'a>(
    system: &'a SystemConfig,
    segments: impl Iterator<Item = Segment> + Clone,
    machine: Option<&MachineFacts>,
    mut report: impl FnMut(Violation<'a>),
) -> usize {
    check_system(system, machine, &mut report) + check_images(system, segments, &mut report)
}

/// Checks the rules about the description alone, for when the images are not known; see [`check`].
pub fn check_system<'a>(
    system: &'a SystemConfig,
    machine: Option<&MachineFacts>,
    mut report: impl FnMut(Violation<'a>),
) -> usize {
    let mut count = 0;
    let mut counted = |violation| {
        count += 1;
        report(violation);
    };
    system::check(system, machine, &mut counted);
    devices::check(system, &mut counted);
    count
}

/// Checks the rules about the images and where they are entered; see [`check`].
pub fn check_images<'a>(
    system: &'a SystemConfig,
    segments: impl Iterator<Item = Segment> + Clone,
    mut report: impl FnMut(Violation<'a>),
) -> usize {
    let mut count = 0;
    images::check(system, segments, &mut |violation| {
        count += 1;
        report(violation);
    });
    count
}
