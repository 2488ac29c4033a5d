//! Linking a partition: its image becomes segments for the boot bundle and the registers of its first vCPU.
//!
//! The hypervisor only copies segments and sets registers. What an image format asks of its loader is done here,
//! by pure functions over bytes, where it can be tested and refused by name.

mod boot_params;
mod bzimage;
mod error;
mod host_area;
mod pvh;
mod start_info;
#[cfg(test)]
mod test_images;

pub use bzimage::link as link_linux;
pub use error::ImageError;
pub use pvh::link as link_pvh;

use partita_abi::guest;
use partita_core::system::Entry;

/// End of conventional memory, guest-physical: from here to [`guest::FIRMWARE_BASE`] a PC has no RAM.
pub const LOW_RAM_END: u64 = 0xA_0000;
/// Start of the memory above the first MiB, guest-physical.
pub const HIGH_RAM_BASE: u64 = guest::FIRMWARE_BASE + guest::FIRMWARE_LEN;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// Bytes for a partition's memory: `data` at `gpa`, zeros up to `mem_len` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes in memory, at least those of `data`.
    pub mem_len: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Segment {
    fn of_bytes(gpa: u64, data: Vec<u8>) -> Self {
        Self { gpa, mem_len: data.len() as u64, data }
    }

    /// First guest-physical address after it.
    pub const fn end(&self) -> u64 {
        self.gpa.saturating_add(self.mem_len)
    }
}

/// A partition that is ready to be copied and started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedImage {
    /// What is copied into its memory; no two overlap.
    pub segments: Vec<Segment>,
    /// How its first vCPU starts.
    pub entry: Entry,
}

/// Kind of a range of guest-physical memory, numbered as by PVH and E820.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum RangeKind {
    Ram = 1,
    Reserved = 2,
}

/// The guest-physical memory map of a partition with `memory` bytes: start, length, kind.
const fn memory_map(memory: u64) -> [(u64, u64, RangeKind); 3] {
    [
        (0, LOW_RAM_END, RangeKind::Ram),
        (guest::FIRMWARE_BASE, guest::FIRMWARE_LEN, RangeKind::Reserved),
        (HIGH_RAM_BASE, memory.saturating_sub(HIGH_RAM_BASE), RangeKind::Ram),
    ]
}

/// Whether all of a range is RAM by [`memory_map`].
fn is_ram(start: u64, len: u64, memory: u64) -> bool {
    start.checked_add(len).is_some_and(|end| end <= LOW_RAM_END || (start >= HIGH_RAM_BASE && end <= memory))
}

/// Places an initial RAM disk as high as `limit` allows, on a page boundary, above `floor`.
fn place_initrd(initrd: &[u8], floor: u64, limit: u64) -> Result<Segment, ImageError> {
    let len = initrd.len() as u64;
    let too_large = ImageError::InitrdTooLarge { len, room: limit.saturating_sub(floor) };
    let gpa = limit.checked_sub(len).ok_or(too_large.clone())? / PAGE * PAGE;
    if gpa < floor {
        return Err(too_large);
    }
    Ok(Segment::of_bytes(gpa, initrd.to_vec()))
}
