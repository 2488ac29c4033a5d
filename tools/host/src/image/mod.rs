//! Linking a partition: its image becomes segments for the boot bundle and the registers of its first vCPU.
//!
//! The hypervisor only copies segments and sets registers. What an image format asks of its loader is done here,
//! by pure functions over bytes, where it can be tested and refused by name.

mod boot_params;
mod bzimage;
mod elf;
mod error;
mod flat;
mod host_area;
mod layout;
mod long_mode;
mod multiboot;
mod multiboot_header;
mod multiboot_info;
pub mod payload;
mod plain;
mod pvh;
mod start_info;
#[cfg(test)]
pub(crate) mod test_images;
#[cfg(test)]
mod tests;

pub use bzimage::link as link_linux;
pub use error::ImageError;
pub use flat::{FlatMode, FlatPlace, link as link_flat};
pub use layout::check_initrd;
pub use multiboot::link as link_multiboot;

use elf::{Class, Elf};
use partita_abi::bundle::SECTIONS_MAX;
use partita_abi::guest;
use partita_core::system::{Entry, PARTITIONS_MAX};

/// End of conventional memory, guest-physical: from here to [`guest::FIRMWARE_BASE`] a PC has no RAM.
pub const LOW_RAM_END: u64 = 0xA_0000;
/// Start of the memory above the first MiB, guest-physical.
pub const HIGH_RAM_BASE: u64 = guest::FIRMWARE_BASE + guest::FIRMWARE_LEN;
/// Most segments of one image, boot data and modules included: so many that every system fits into a bundle.
pub const SEGMENTS_MAX: usize = (SECTIONS_MAX - 1) / PARTITIONS_MAX;
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

impl LinkedImage {
    /// Nothing, in the place of a bad image.
    pub const fn missing() -> Self {
        Self { segments: Vec::new(), entry: Entry::Missing }
    }

    /// Whether there is nothing to start.
    pub fn is_missing(&self) -> bool {
        self.entry == Entry::Missing
    }
}

/// What an image is linked for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Bytes of the partition's memory.
    pub memory: u64,
    /// Its command line.
    pub cmdline: &'a str,
    /// What is loaded beside the image.
    pub modules: &'a [Module<'a>],
}

/// A boot module: some bytes and a text, of which only the guest knows the meaning.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// Its command line.
    pub cmdline: &'a str,
}

/// How an ELF file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfBoot {
    /// By its PVH note, in 32-bit protected mode.
    Pvh,
    /// By its multiboot header, in 32-bit protected mode.
    Multiboot,
    /// At its ELF entry point, in long mode.
    Plain,
}

/// Links an ELF file, by `boot` or, where that is `None`, by what it has: a PVH note, else (ELF32) a multiboot header,
/// else (ELF64) its ELF entry point.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link_elf(bytes: &[u8], boot: Option<ElfBoot>, target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    let elf = Elf::parse(bytes)?;
    match boot {
        Some(ElfBoot::Pvh) => pvh::link(&elf, target),
        Some(ElfBoot::Multiboot) => multiboot::link(bytes, target),
        Some(ElfBoot::Plain) => plain::link(&elf, target),
        None if elf.pvh_entry()?.is_some() => pvh::link(&elf, target),
        None => match elf.class {
            Class::Elf64 => plain::link(&elf, target),
            Class::Elf32 => multiboot::link(bytes, target),
        },
    }
}

/// Kind of a range of guest-physical memory, numbered as by PVH, multiboot and E820.
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
