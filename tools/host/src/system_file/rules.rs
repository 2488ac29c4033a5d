//! The rules of [`partita_core::rules`], with places in the system file.

use super::{Part, Place, SystemFile, SystemFileError};
use crate::image::LinkedImage;
use partita_core::rules::{self, MachineFacts, Segment, Violation, check_system};

/// Checks all rules about the description of the system.
pub(super) fn check(file: &SystemFile) -> Result<(), SystemFileError> {
    let machine = MachineFacts { pcpus: usize::from(file.machine.pcpus) };
    let mut found = Vec::new();
    check_system(&file.config, Some(&machine), |violation| {
        found.push((place(file, &violation), violation.to_string()));
    });
    if found.is_empty() { Ok(()) } else { Err(file.problems(found)) }
}

/// What the rules find about the images, by partition number, after they were linked.
pub(super) fn image_problems(file: &SystemFile, images: &[LinkedImage]) -> Vec<(Place, String)> {
    let mut config = file.config.clone();
    for (partition, image) in config.partitions.iter_mut().zip(images) {
        partition.entry = image.entry;
    }
    let segments = (0u32..).zip(images).flat_map(|(partition, image)| {
        image.segments.iter().map(move |segment| Segment { partition, gpa: segment.gpa, mem_len: segment.mem_len })
    });
    let mut found = Vec::new();
    rules::check_images(&config, segments, |violation| {
        found.push((place(file, &violation), violation.to_string()));
    });
    found
}

/// Where the value stands that a violation is about; of two that collide, the later one.
fn place(file: &SystemFile, violation: &Violation<'_>) -> Place {
    let of = |name: &str, part: Part| {
        let number = file.config.partitions.iter().position(|partition| partition.name == name);
        number.map_or(Place::System, |number| Place::Partition(number, part))
    };
    match *violation {
        Violation::NameEmpty { partition } => {
            partition.map_or(Place::System, |number| Place::Partition(number, Part::Name))
        }
        Violation::NameCharacters { name } => of(name, Part::Name),
        Violation::NameDuplicate { partitions: [_, number], .. } => Place::Partition(number, Part::Name),
        Violation::RingSize { .. } => Place::Ring,
        Violation::DeadlineZero => Place::SmpCallDeadline,
        Violation::SmpCallRate { .. } => Place::SmpCallHz,
        Violation::SmpCallRounds { .. } => Place::SmpCallRounds,
        Violation::PartitionWithoutPcpu { partition }
        | Violation::HousekeepingGivenAway { partition, .. }
        | Violation::PcpuOwnedTwice { partitions: [_, partition], .. }
        | Violation::PcpuOutOfRange { partition: Some(partition), .. }
        | Violation::PcpuMissing { partition: Some(partition), .. } => of(partition, Part::Pcpus),
        Violation::PcpuOutOfRange { partition: None, .. }
        | Violation::PcpuMissing { partition: None, .. }
        | Violation::HousekeepingNotBoot { .. } => Place::HousekeepingPcpu,
        Violation::ConsoleOwnedTwice { partitions: [_, partition], .. } => of(partition, Part::Console),
        Violation::MemoryMisaligned { partition, what: "address", .. }
        | Violation::MemoryOutOfRange { partition, .. }
        | Violation::MemoryOverlap { partitions: [_, partition], .. } => of(partition, Part::MemoryAt),
        Violation::PortRangeBackward { partition, .. }
        | Violation::PortOwnedTwice { partitions: [_, partition], .. } => of(partition, Part::IoPorts),
        Violation::MmioMisaligned { partition, .. }
        | Violation::MmioOutOfRange { partition, .. }
        | Violation::MmioOwnedTwice { partitions: [_, partition], .. }
        | Violation::MmioOverlap { partition, .. } => of(partition, Part::Mmio),
        Violation::MemoryTooSmall { partition, .. }
        | Violation::MemoryTooLarge { partition, .. }
        | Violation::MemoryMisaligned { partition, .. } => of(partition, Part::Memory),
        Violation::EntryOutsideMemory { partition, .. }
        | Violation::EntryNotLoaded { partition, .. }
        | Violation::SegmentOutsideMemory { partition, .. }
        | Violation::ImageDoesNotFit { partition, .. }
        | Violation::SegmentOverlap { partition, .. }
        | Violation::SegmentOverAcpi { partition, .. } => of(partition, Part::Image),
        _ => Place::System,
    }
}
