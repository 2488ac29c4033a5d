//! The memory map (section 3.6.8).

use crate::Error;

/// Bytes of an entry that are understood; later versions may have more.
const ENTRY_LEN: usize = 24;
/// Entries are multiples of this.
const ENTRY_ALIGN: usize = 8;
/// Type of RAM that is free.
const AVAILABLE: u32 = 1;

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Whether it is RAM that is free, what the loader left in it aside.
    pub is_available: bool,
}

/// The machine's memory, in the loader's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMap<'a> {
    entries: &'a [u8],
    entry_len: usize,
}

impl<'a> MemoryMap<'a> {
    /// The map in the contents of a tag, behind its type and length.
    pub(crate) fn read(contents: &'a [u8]) -> Result<Option<Self>, Error> {
        let Some((entry_len, rest)) = contents.split_first_chunk() else { return Ok(None) };
        let Some((_version, entries)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let found = u32::from_le_bytes(*entry_len);
        let fits = |len: &usize| *len >= ENTRY_LEN && len.is_multiple_of(ENTRY_ALIGN);
        let entry_len = usize::try_from(found).ok().filter(fits).ok_or(Error::MemoryEntry { len: found })?;
        Ok(Some(Self { entries, entry_len }))
    }

    /// Its ranges. Bytes at the end that make no entry are left out.
    pub fn ranges(&self) -> impl Iterator<Item = MemoryRange> + 'a {
        self.entries.chunks_exact(self.entry_len).filter_map(|entry| {
            let (start, rest) = entry.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let is_available = u32::from_le_bytes(*rest.first_chunk()?) == AVAILABLE;
            Some(MemoryRange { start: u64::from_le_bytes(*start), len: u64::from_le_bytes(*len), is_available })
        })
    }
}
