//! What a multiboot2 loader passes to the program that it starts (Multiboot2 Specification 2.0, section 3.6).
//!
//! Pure code: the boot information is a slice of bytes, which is not trusted. Nothing here panics, allocates, or reads
//! beyond the slice, whatever the bytes are. Only what a program needs to start is read; all other tags are skipped.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod error;
mod memory;
mod tags;

pub use error::Error;
pub use memory::{MemoryMap, MemoryRange};
pub use tags::{Tag, Tags};

/// What EAX holds at the entry (section 3.3).
pub const MAGIC: u32 = 0x36D7_6289;

/// Bytes of the fixed part at the beginning of the boot information.
pub const HEAD_LEN: usize = 8;
/// Most bytes of boot information that are accepted: memory maps of large machines have some 10 KiB.
pub const LEN_MAX: usize = 1 << 20;

/// Bytes of an RSDP of ACPI 1.0 (ACPI section 5.2.5.3).
pub const RSDP_LEN_MIN: usize = 20;
/// Bytes of an RSDP of later versions.
pub const RSDP_LEN_MAX: usize = 36;
/// Where an RSDP has its revision.
const RSDP_REVISION: usize = 15;
/// Where an RSDP of later versions has its length.
const RSDP_LENGTH: usize = 20;

/// How many bytes the boot information has that begins with `head`.
///
/// # Errors
/// [`Error::Length`], if so many cannot be.
pub fn information_len(head: [u8; HEAD_LEN]) -> Result<usize, Error> {
    let [a, b, c, d, ..] = head;
    let found = u32::from_le_bytes([a, b, c, d]);
    match usize::try_from(found) {
        Ok(len) if (HEAD_LEN..=LEN_MAX).contains(&len) => Ok(len),
        _ => Err(Error::Length { found }),
    }
}

/// The boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Physical address of its first byte.
    pub start: u32,
    /// Bytes, at least one.
    pub len: u32,
}

/// What the loader tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootInformation<'a> {
    /// The command line; empty, if there is none.
    pub cmdline: &'a str,
    /// The module, if there is one.
    pub module: Option<Module>,
    /// The memory.
    pub memory: MemoryMap<'a>,
    /// A copy of ACPI's RSDP, of [`RSDP_LEN_MIN`] to [`RSDP_LEN_MAX`] bytes, if the loader found one. Signature and checksum
    /// are as yet unchecked; the length that it has of itself is not larger than the copy.
    pub rsdp: Option<&'a [u8]>,
}

impl<'a> BootInformation<'a> {
    /// Reads the boot information in `bytes`, which begin with its fixed part; what is behind its own length is left alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let head = bytes.first_chunk().ok_or(Error::Length { found: bytes.len() as u32 })?;
        let len = information_len(*head)?;
        let tags = bytes.get(HEAD_LEN..len).ok_or(Error::Cut { len, have: bytes.len() })?;
        let mut cmdline = "";
        let mut module = None;
        let mut modules = 0;
        let mut memory = None;
        let (mut old_rsdp, mut new_rsdp) = (None, None);
        for tag in Tags::new(tags) {
            match tag? {
                Tag::CommandLine(text) => cmdline = text,
                Tag::Module(found) => {
                    module = Some(found);
                    modules += 1;
                }
                Tag::MemoryMap(map) => memory = Some(map),
                Tag::OldRsdp(copy) => old_rsdp = Some(copy),
                Tag::NewRsdp(copy) => new_rsdp = Some(copy),
                Tag::Other { .. } => {}
            }
        }
        if modules > 1 {
            return Err(Error::Modules { found: modules });
        }
        let memory = memory.ok_or(Error::NoMemoryMap)?;
        // Beside the new one, the old copy can be the first part of the same RSDP.
        let rsdp = new_rsdp.or(old_rsdp).map(checked_rsdp).transpose()?;
        Ok(Self { cmdline, module, memory, rsdp })
    }
}

/// The part of a tag that is the copy of an RSDP, whose reader finds all bytes there that it is going to read.
fn checked_rsdp(bytes: &[u8]) -> Result<&[u8], Error> {
    let have = bytes.len();
    let copy = bytes.get(..have.min(RSDP_LEN_MAX)).unwrap_or_default();
    let len = match copy.get(RSDP_REVISION) {
        _ if have < RSDP_LEN_MIN => RSDP_LEN_MIN,
        Some(0) => RSDP_LEN_MIN,
        _ => match copy.get(RSDP_LENGTH..).and_then(|rest| rest.first_chunk()) {
            Some(len) => usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX),
            None => RSDP_LEN_MAX,
        },
    };
    copy.get(..len).filter(|copy| copy.len() >= RSDP_LEN_MIN).ok_or(Error::Rsdp { len, have })
}
