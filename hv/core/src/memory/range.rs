//! Ranges of host-physical addresses, and the free memory as a list of them.

use heapless::Vec;

/// Most separate ranges that memory can fall into while it is divided.
pub const RANGES_MAX: usize = 128;

/// Host-physical addresses from `start` up to, and without, `end`. Empty if `end` is not above `start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
}

impl Range {
    /// The range of `len` bytes at `start`; cut off at the end of the address space.
    pub const fn at(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Its bytes.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an address is in both.
    pub const fn overlaps(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// Whether all addresses of the other are in this one.
    pub const fn contains(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The addresses that are in both.
    pub const fn intersection(&self, other: &Self) -> Self {
        let start = if self.start > other.start { self.start } else { other.start };
        let end = if self.end < other.end { self.end } else { other.end };
        Self { start, end }
    }
}

impl core::fmt::Display for Range {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

/// Memory falls into more than [`RANGES_MAX`] ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyRanges;

/// Free memory: ranges in ascending order that neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub(super) struct Free {
    ranges: Vec<Range, RANGES_MAX>,
}

impl Free {
    /// All of `ranges`, which may be in any order, overlap or be empty.
    pub(super) fn of(ranges: &[Range]) -> Result<Self, TooManyRanges> {
        let mut sorted: Vec<Range, RANGES_MAX> = Vec::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            sorted.push(*range).map_err(|_| TooManyRanges)?;
        }
        sorted.sort_unstable();
        let mut free = Self::default();
        for range in sorted {
            match free.ranges.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => free.ranges.push(range).map_err(|_| TooManyRanges)?,
            }
        }
        Ok(free)
    }

    /// All free bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Bytes of `range` that are free.
    pub(super) fn bytes_in(&self, range: &Range) -> u64 {
        self.ranges.iter().map(|free| free.intersection(range).len()).sum()
    }

    /// Takes what is free of `taken`; returns how many bytes that was.
    pub(super) fn take(&mut self, taken: &Range) -> Result<u64, TooManyRanges> {
        let before = self.bytes();
        let mut left: Vec<Range, RANGES_MAX> = Vec::new();
        for range in &self.ranges {
            let parts = if range.overlaps(taken) {
                [Range { start: range.start, end: taken.start }, Range { start: taken.end, end: range.end }]
            } else {
                [*range, Range::default()]
            };
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                left.push(part).map_err(|_| TooManyRanges)?;
            }
        }
        self.ranges = left;
        Ok(before - self.bytes())
    }

    /// What can be had of each free range at the given alignment (a power of two).
    fn aligned(&self, align: u64) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().filter_map(move |range| {
            let start = range.start.checked_next_multiple_of(align)?;
            Some(Range { start, end: range.end }).filter(|range| !range.is_empty())
        })
    }

    /// The lowest free range of so many bytes at the given alignment.
    pub(super) fn find(&self, bytes: u64, align: u64) -> Option<Range> {
        let found = self.aligned(align).find(|range| range.len() >= bytes)?;
        Some(Range::at(found.start, bytes))
    }

    /// The highest free range of so many bytes that ends at `end` or below, at the given alignment.
    pub(super) fn find_last(&self, bytes: u64, align: u64, end: u64) -> Option<Range> {
        let below = Range { start: 0, end };
        let starts = self.ranges.iter().rev().filter_map(|range| {
            let free = range.intersection(&below);
            let start = free.end.checked_sub(bytes)? & !(align - 1);
            Some(start).filter(|&start| start >= free.start)
        });
        starts.map(|start| Range::at(start, bytes)).next()
    }

    /// Bytes of the largest range that can be had at the given alignment.
    pub(super) fn largest(&self, align: u64) -> u64 {
        self.aligned(align).map(|range| range.len()).max().unwrap_or(0)
    }
}
