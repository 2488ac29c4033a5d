//! What the entry code stored, and memory as the loader left it.

use crate::slots::{GENERAL, RAX, SLOTS};

unsafe extern "C" {
    static entry_state: [u64; SLOTS];
}

/// The state at the entry.
#[derive(Debug)]
pub(crate) struct State([u64; SLOTS]);

impl State {
    /// Reads what was stored.
    pub(crate) fn stored() -> Self {
        // SAFETY: the entry code wrote the table before any Rust code ran; nobody writes it again.
        Self(unsafe { (&raw const entry_state).read_volatile() })
    }

    /// One of its words, by its number in [`crate::slots`].
    pub(crate) fn get(&self, slot: usize) -> u64 {
        self.0.get(slot).copied().unwrap_or(0)
    }

    /// The general-purpose registers with their names.
    pub(crate) fn general(&self) -> impl Iterator<Item = (&'static str, u64)> {
        GENERAL.into_iter().enumerate().map(|(index, name)| (name, self.get(RAX + index)))
    }
}

/// End of what the runtime's first page tables map one to one.
const MAPPED_END: u64 = 1 << 32;
/// Longest text that is read.
const TEXT_MAX: u64 = 4096;

/// A byte of memory; 0 for one that is not mapped.
pub(crate) fn u8_at(address: u64) -> u8 {
    if address >= MAPPED_END {
        return 0;
    }
    // SAFETY: the page tables map the low 4 GiB one to one, and every pattern of bits is a byte. Where there is no memory,
    // the hypervisor stops the partition.
    unsafe { (address as *const u8).read_volatile() }
}

fn little_endian(address: u64, len: u64) -> u64 {
    (0..len).fold(0, |value, index| value | u64::from(u8_at(address.saturating_add(index))) << (8 * index))
}

/// Two bytes of memory, little-endian.
pub(crate) fn u16_at(address: u64) -> u64 {
    little_endian(address, 2)
}

/// Four bytes of memory, little-endian.
pub(crate) fn u32_at(address: u64) -> u64 {
    little_endian(address, 4)
}

/// Eight bytes of memory, little-endian.
pub(crate) fn u64_at(address: u64) -> u64 {
    little_endian(address, 8)
}

/// Whether memory has these bytes.
pub(crate) fn has(address: u64, bytes: &[u8]) -> bool {
    (address..).zip(bytes).all(|(address, byte)| u8_at(address) == *byte)
}

/// A text that ends with a NUL; empty where there is none.
pub(crate) fn text_at(address: u64) -> &'static str {
    let len = (0..TEXT_MAX).find(|index| u8_at(address.saturating_add(*index)) == 0).unwrap_or(0);
    if address == 0 || address + len > MAPPED_END {
        return "";
    }
    // SAFETY: these bytes were just read, and nobody writes what the loader left.
    let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, len as usize) };
    core::str::from_utf8(bytes).unwrap_or("")
}
