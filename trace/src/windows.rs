//! The window table of the hypervisor's region: where the guests' own regions lie.

use crate::layout::{WINDOWS_MAX, WINDOWS_OFFSET, crc_of_words};

/// Words of one entry of the window table.
pub(crate) const WINDOW_WORDS: usize = 4;

/// A guest's own trace region, as the hypervisor accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the partition.
    pub partition: u16,
    /// Where it starts, guest-physical.
    pub gpa: u64,
    /// Where it starts, host-physical.
    pub hpa: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// The window table is full: [`WINDOWS_MAX`] partitions have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowsFull;

/// Bits of an entry's tag.
const TAG_USED: u64 = 1 << 16;
/// A tag of an entry that is being filled.
pub(crate) const TAG_CLAIMED: u64 = 1 << 17;

impl Window {
    /// The tag that completes an entry: partition, used bit, and in the upper half a CRC of all the rest.
    pub(crate) fn tag(&self) -> u64 {
        let low = u64::from(self.partition) | TAG_USED;
        low | u64::from(crc_of_words(&[self.gpa, self.hpa, self.len, low])) << 32
    }

    /// Whether a tag is that of a window of the same partition.
    pub(crate) const fn has_tag(&self, tag: u64) -> bool {
        tag & TAG_USED != 0 && tag as u16 == self.partition
    }

    /// The window of an entry: `Some(Err)` if it is damaged, `None` if it is free or not complete.
    fn from_words(gpa: u64, hpa: u64, len: u64, tag: u64) -> Option<Result<Self, WindowDamaged>> {
        if tag == 0 || tag == TAG_CLAIMED {
            return None;
        }
        let window = Self { partition: tag as u16, gpa, hpa, len };
        Some(if window.tag() == tag { Ok(window) } else { Err(WindowDamaged) })
    }
}

/// An entry of the window table is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowDamaged;

/// The windows in a copy of a header page: one item for each entry that is in use.
pub fn windows(page: &[u8]) -> impl Iterator<Item = Result<Window, WindowDamaged>> + '_ {
    let table = page.get(WINDOWS_OFFSET..WINDOWS_OFFSET + WINDOWS_MAX * WINDOW_WORDS * 8).unwrap_or(&[]);
    table.chunks_exact(WINDOW_WORDS * 8).filter_map(|entry| {
        let mut words = entry.chunks_exact(8).map(|w| w.try_into().map_or(0, u64::from_le_bytes));
        let (gpa, hpa, len, tag) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Window::from_words(gpa, hpa, len, tag)
    })
}
