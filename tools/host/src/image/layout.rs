//! Where the parts of an image lie in a partition's memory.

use super::elf::Load;
use super::{HIGH_RAM_BASE, ImageError, LOW_RAM_END, Module, PAGE, SEGMENTS_MAX, Segment};

/// A module that has its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedModule<'a> {
    /// Guest-physical address.
    pub(super) start: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Its command line.
    pub(super) cmdline: &'a str,
}

/// Whether all of a range is RAM by [`super::memory_map`].
pub(super) fn is_ram(start: u64, len: u64, memory: u64) -> bool {
    start.checked_add(len).is_some_and(|end| end <= LOW_RAM_END || (start >= HIGH_RAM_BASE && end <= memory))
}

/// The segments of an ELF file, by address.
pub(super) fn place_loads(loads: &[Load<'_>], memory: u64) -> Result<Vec<Segment>, ImageError> {
    if loads.len() > SEGMENTS_MAX {
        return Err(ImageError::TooManySegments { found: loads.len(), max: SEGMENTS_MAX });
    }
    let mut segments = Vec::new();
    for load in loads {
        let (gpa, mem_len) = (load.paddr, load.mem_len);
        if load.data.len() as u64 > mem_len {
            return Err(ImageError::DamagedElf(format!("segment {} is larger in the file than in memory", load.index)));
        }
        if !is_ram(gpa, mem_len, memory) {
            let end = gpa.saturating_add(mem_len);
            return Err(ImageError::SegmentOutside { index: load.index, start: gpa, end, memory });
        }
        segments.push(Segment { gpa, mem_len, data: load.data.to_vec() });
    }
    segments.sort_by_key(|segment| segment.gpa);
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.end() > second.gpa
        {
            return Err(ImageError::SegmentsOverlap { first: first.gpa, second: second.gpa });
        }
    }
    if segments.is_empty() { Err(ImageError::NothingToLoad) } else { Ok(segments) }
}

/// Checks that the first instruction is among the bytes of `segments`.
pub(super) fn check_entry(entry: u64, segments: &[Segment]) -> Result<(), ImageError> {
    let has = |segment: &Segment| entry.checked_sub(segment.gpa).is_some_and(|at| at < segment.data.len() as u64);
    if segments.iter().any(has) { Ok(()) } else { Err(ImageError::EntryOutside { entry }) }
}

/// First address above `segments` and the first MiB.
pub(super) fn floor(segments: &[Segment]) -> u64 {
    segments.iter().map(Segment::end).max().unwrap_or(0).max(HIGH_RAM_BASE)
}

/// Places `modules` as high as memory allows, the first one highest, each on a page boundary, above `segments`, to which
/// they are added.
pub(super) fn place_modules<'a>(
    modules: &[Module<'a>],
    memory: u64,
    segments: &mut Vec<Segment>,
) -> Result<Vec<PlacedModule<'a>>, ImageError> {
    // One more is for boot data.
    let found = segments.len() + modules.len() + 1;
    if found > SEGMENTS_MAX {
        return Err(ImageError::TooManySegments { found, max: SEGMENTS_MAX });
    }
    let floor = floor(segments);
    let mut limit = memory;
    let mut placed = Vec::new();
    for (number, module) in modules.iter().enumerate() {
        let len = module.data.len() as u64;
        let start = place_high(len, floor, limit).map_err(|room| ImageError::ModuleTooLarge { number, len, room })?;
        limit = start;
        placed.push(PlacedModule { start, len, cmdline: module.cmdline });
        if len > 0 {
            segments.push(Segment::of_bytes(start, module.data.to_vec()));
        }
    }
    Ok(placed)
}

/// Places an initial RAM disk as high as `limit` allows, on a page boundary, above `floor`.
pub(super) fn place_initrd(initrd: &[u8], floor: u64, limit: u64) -> Result<Segment, ImageError> {
    let len = initrd.len() as u64;
    let gpa = place_high(len, floor, limit).map_err(|room| ImageError::InitrdTooLarge { len, room })?;
    Ok(Segment::of_bytes(gpa, initrd.to_vec()))
}

/// Checks that an initial RAM disk of `len` bytes fits into `memory` bytes at all, whatever the kernel needs.
///
/// # Errors
/// It does not.
pub fn check_initrd(len: usize, memory: u64) -> Result<(), ImageError> {
    let len = len as u64;
    place_high(len, HIGH_RAM_BASE, memory).map(drop).map_err(|room| ImageError::InitrdTooLarge { len, room })
}

/// The highest page boundary from `floor` on that leaves `len` bytes below `limit`, or the bytes that are free.
fn place_high(len: u64, floor: u64, limit: u64) -> Result<u64, u64> {
    let room = limit.saturating_sub(floor);
    let start = limit.checked_sub(len).ok_or(room)? / PAGE * PAGE;
    if start < floor { Err(room) } else { Ok(start) }
}
