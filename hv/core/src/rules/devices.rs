//! Rules about the devices that partitions own: I/O ports and device memory. Which of them an architecture keeps for
//! itself, its policy says.

use partita_abi::guest::MEMORY_MAX;

use super::{HOST_PHYSICAL_MAX, Violation};
use crate::memory::Range;
use crate::system::{MmioRange, Partition, PortRange, SystemConfig};

type Report<'r, 'a> = &'r mut dyn FnMut(Violation<'a>);

/// Granule of device memory: a page.
pub const MMIO_GRANULE: u64 = 4096;
/// Guest-physical end of device memory: one third-level page table's reach.
pub const MMIO_GPA_MAX: u64 = 1 << 39;

pub(super) fn check<'a>(system: &'a SystemConfig, report: Report<'_, 'a>) {
    for partition in &system.partitions {
        check_own(partition, report);
    }
    for (number, a) in system.partitions.iter().enumerate() {
        for b in system.partitions.iter().skip(number + 1) {
            check_pair(a, b, report);
        }
    }
}

fn overlap(a: &PortRange, b: &PortRange) -> bool {
    a.first <= b.last && b.first <= a.last
}

fn guest(mmio: &MmioRange) -> Range {
    Range::at(mmio.gpa, mmio.bytes)
}

fn host(mmio: &MmioRange) -> Range {
    Range::at(mmio.hpa, mmio.bytes)
}

fn check_own<'a>(partition: &'a Partition, report: Report<'_, 'a>) {
    let name = partition.name.as_str();
    for range in &partition.io_ports {
        if range.first > range.last {
            report(Violation::PortRangeBackward { partition: name, range: *range });
        }
    }
    for (number, mmio) in partition.mmio.iter().enumerate() {
        let misaligned = |value: &u64| !value.is_multiple_of(MMIO_GRANULE);
        if let Some(&value) = [mmio.gpa, mmio.hpa, mmio.bytes].iter().find(|value| misaligned(value)) {
            report(Violation::MmioMisaligned { partition: name, value });
        } else if mmio.bytes == 0 {
            report(Violation::MmioMisaligned { partition: name, value: 0 });
        }
        let fits = |range: Range, end| range.start.checked_add(mmio.bytes).is_some_and(|last| last <= end);
        let memory_end = partition.memory_bytes.min(MEMORY_MAX);
        if mmio.gpa < memory_end || !fits(guest(mmio), MMIO_GPA_MAX) {
            report(Violation::MmioOutOfRange { partition: name, what: "guest-physical", range: guest(mmio) });
        }
        if !fits(host(mmio), HOST_PHYSICAL_MAX) {
            report(Violation::MmioOutOfRange { partition: name, what: "host-physical", range: host(mmio) });
        }
        for other in partition.mmio.iter().skip(number + 1).filter(|other| guest(mmio).overlaps(&guest(other))) {
            report(Violation::MmioOverlap { partition: name, ranges: [guest(mmio), guest(other)] });
        }
    }
}

fn check_pair<'a>(a: &'a Partition, b: &'a Partition, report: Report<'_, 'a>) {
    let partitions = [a.name.as_str(), b.name.as_str()];
    for of_a in &a.io_ports {
        for of_b in b.io_ports.iter().filter(|of_b| overlap(of_a, of_b)) {
            report(Violation::PortOwnedTwice { partitions, ranges: [*of_a, *of_b] });
        }
    }
    for of_a in &a.mmio {
        for of_b in b.mmio.iter().filter(|of_b| host(of_a).overlaps(&host(of_b))) {
            report(Violation::MmioOwnedTwice { partitions, ranges: [host(of_a), host(of_b)] });
        }
    }
}
