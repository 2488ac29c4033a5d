//! Rules about the images and where they are entered.

use partita_abi::guest::{ACPI_LEN, RSDP};

use super::{Segment, Violation};
use crate::memory::Range;
use crate::system::{Entry, SystemConfig};

type Report<'r, 'a> = &'r mut dyn FnMut(Violation<'a>);

/// Bytes that must be there at each address that a partition starts with, at least: the smallest of the structures
/// (`hvm_start_info`, version 0, has 40 bytes, a GDT with the data segment at 0x18 has 32), so that none begins at the
/// very end of the memory.
const STRUCTURE_MIN: u64 = 32;

pub(super) fn check<'a>(
    system: &'a SystemConfig,
    segments: impl Iterator<Item = Segment> + Clone,
    report: Report<'_, 'a>,
) {
    check_entries(system, segments.clone(), report);
    check_places(system, segments.clone(), report);
    check_overlaps(system, segments, report);
}

fn range(segment: &Segment) -> Range {
    Range { start: segment.gpa, end: segment.end() }
}

fn check_entries<'a>(
    system: &'a SystemConfig,
    segments: impl Iterator<Item = Segment> + Clone,
    report: Report<'_, 'a>,
) {
    for (number, partition) in system.partitions.iter().enumerate() {
        let (name, memory_bytes) = (partition.name.as_str(), partition.memory_bytes);
        let mut must_be_inside = |what, gpa: u64, len: u64| {
            let inside = gpa.checked_add(len).is_some_and(|end| end <= memory_bytes);
            if !inside {
                report(Violation::EntryOutsideMemory { partition: name, what, gpa, memory_bytes });
            }
            inside
        };
        let first = match partition.entry {
            Entry::Pvh { entry, start_info } => {
                must_be_inside("start info", start_info.into(), STRUCTURE_MIN);
                u64::from(entry)
            }
            Entry::Linux64 { entry, boot_params, page_tables, gdt } => {
                must_be_inside("boot parameters", boot_params, STRUCTURE_MIN);
                must_be_inside("page table", page_tables, STRUCTURE_MIN);
                must_be_inside("GDT", gdt, STRUCTURE_MIN);
                entry
            }
            Entry::Multiboot { entry, info } => {
                must_be_inside("multiboot information", info.into(), STRUCTURE_MIN);
                u64::from(entry)
            }
            Entry::Long { entry, start_info, page_tables, gdt } => {
                must_be_inside("start info", start_info, STRUCTURE_MIN);
                must_be_inside("page table", page_tables, STRUCTURE_MIN);
                must_be_inside("GDT", gdt, STRUCTURE_MIN);
                entry
            }
            Entry::Real { segment, offset } => u64::from(segment) * 16 + u64::from(offset),
            Entry::Missing => continue,
        };
        let is_loaded =
            |gpa| segments.clone().any(|segment| segment.partition as usize == number && segment.overlaps(gpa, 1));
        if must_be_inside("entry point", first, 1) && !is_loaded(first) {
            report(Violation::EntryNotLoaded { partition: name, gpa: first });
        }
    }
}

fn check_places<'a>(system: &'a SystemConfig, segments: impl Iterator<Item = Segment>, report: Report<'_, 'a>) {
    for segment in segments {
        let Some(partition) = system.partitions.get(segment.partition as usize) else {
            let count = system.partitions.len();
            report(Violation::SegmentWithoutPartition { partition: segment.partition, count });
            continue;
        };
        let (name, memory_bytes) = (partition.name.as_str(), partition.memory_bytes);
        if segment.gpa >= memory_bytes {
            report(Violation::SegmentOutsideMemory { partition: name, gpa: segment.gpa, memory_bytes });
        } else if segment.end() > memory_bytes {
            report(Violation::ImageDoesNotFit { partition: name, end: segment.end(), memory_bytes });
        }
        if segment.overlaps(RSDP, ACPI_LEN) {
            report(Violation::SegmentOverAcpi { partition: name, range: range(&segment) });
        }
    }
}

/// Compares each segment with those after it. A bundle has at most
/// [`partita_abi::bundle::SECTIONS_MAX`] of them, so that this ends soon, and it runs before any partition does.
fn check_overlaps<'a>(
    system: &'a SystemConfig,
    segments: impl Iterator<Item = Segment> + Clone,
    report: Report<'_, 'a>,
) {
    for (number, a) in segments.clone().enumerate() {
        let Some(partition) = system.partitions.get(a.partition as usize) else { continue };
        let later = segments.clone().skip(number + 1).filter(|b| b.partition == a.partition);
        for b in later.filter(|b| b.overlaps(a.gpa, a.mem_len)) {
            report(Violation::SegmentOverlap { partition: &partition.name, ranges: [range(&a), range(&b)] });
        }
    }
}
