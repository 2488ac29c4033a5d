//! Rules about the description alone.

use partita_abi::guest::{MEMORY_GRANULE, MEMORY_MAX};

use super::{HOST_PHYSICAL_MAX, MachineFacts, RING_BYTES_MAX, RING_BYTES_MIN, SMP_CALL_HZ_MAX, Violation};
use crate::memory::Range;
use crate::pcpu_set::PCPUS_MAX;
use crate::system::{Partition, SystemConfig};

type Report<'r, 'a> = &'r mut dyn FnMut(Violation<'a>);

pub(super) fn check<'a>(system: &'a SystemConfig, machine: Option<&MachineFacts>, report: Report<'_, 'a>) {
    check_names(system, report);
    check_housekeeping(system, report);
    check_pcpus(system, machine, report);
    check_consoles(system, report);
    check_memory(system, report);
}

/// Each pair of partitions once, with their numbers, in order.
fn pairs(system: &SystemConfig) -> impl Iterator<Item = [(usize, &Partition); 2]> {
    let numbered = || system.partitions.iter().enumerate();
    numbered().flat_map(move |a| numbered().skip(a.0 + 1).map(move |b| [a, b]))
}

fn check_names<'a>(system: &'a SystemConfig, report: Report<'_, 'a>) {
    let names = system.partitions.iter().enumerate().map(|(number, partition)| (Some(number), &partition.name));
    for (partition, name) in core::iter::once((None, &system.name)).chain(names) {
        if name.is_empty() {
            report(Violation::NameEmpty { partition });
        }
        // Names become parts of file names and of lines on a console.
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.starts_with('.') || !name.chars().all(is_fit) {
            report(Violation::NameCharacters { name });
        }
    }
    for [(a, first), (b, second)] in pairs(system) {
        if first.name == second.name && !first.name.is_empty() {
            report(Violation::NameDuplicate { name: &first.name, partitions: [a, b] });
        }
    }
    if system.partitions.is_empty() {
        report(Violation::NoPartition);
    }
}

fn check_housekeeping(system: &SystemConfig, report: Report<'_, '_>) {
    let bytes = system.trace.ring_bytes;
    if !bytes.is_power_of_two() || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&bytes) {
        report(Violation::RingSize { bytes });
    }
    let housekeeping = &system.housekeeping;
    if housekeeping.smp_call_deadline_ms == 0 {
        report(Violation::DeadlineZero);
    }
    let hz = housekeeping.smp_call_hz;
    if hz > SMP_CALL_HZ_MAX {
        report(Violation::SmpCallRate { hz });
    }
    let rounds = housekeeping.smp_call_rounds;
    if rounds > 0 && hz == 0 {
        report(Violation::SmpCallRounds { rounds });
    }
}

fn check_pcpus<'a>(system: &'a SystemConfig, machine: Option<&MachineFacts>, report: Report<'_, 'a>) {
    let exists = |partition, pcpu: u16, report: Report<'_, 'a>| {
        if usize::from(pcpu) >= PCPUS_MAX {
            report(Violation::PcpuOutOfRange { partition, pcpu });
        } else if let Some(machine) = machine.filter(|machine| usize::from(pcpu) >= machine.pcpus) {
            report(Violation::PcpuMissing { partition, pcpu, count: machine.pcpus });
        } else if partition.is_none() && pcpu != 0 {
            report(Violation::HousekeepingNotBoot { pcpu });
        }
    };
    exists(None, system.housekeeping.pcpu, report);
    // Who has a pCPU first, to be named when another claims it.
    let mut owners: [Option<&'a str>; PCPUS_MAX] = [None; PCPUS_MAX];
    for partition in &system.partitions {
        let name = partition.name.as_str();
        if partition.pcpus.is_empty() {
            report(Violation::PartitionWithoutPcpu { partition: name });
        }
        for &pcpu in &partition.pcpus {
            exists(Some(name), pcpu, report);
            if pcpu == system.housekeeping.pcpu {
                report(Violation::HousekeepingGivenAway { partition: name, pcpu });
            }
            match owners.get_mut(usize::from(pcpu)) {
                Some(Some(owner)) => report(Violation::PcpuOwnedTwice { pcpu, partitions: [owner, name] }),
                Some(owner) => *owner = Some(name),
                None => {}
            }
        }
    }
}

fn check_consoles<'a>(system: &'a SystemConfig, report: Report<'_, 'a>) {
    for [(_, a), (_, b)] in pairs(system) {
        if let Some(console) = a.console.filter(|_| a.console == b.console) {
            report(Violation::ConsoleOwnedTwice { console, partitions: [&a.name, &b.name] });
        }
    }
}

fn check_memory<'a>(system: &'a SystemConfig, report: Report<'_, 'a>) {
    for partition in &system.partitions {
        let (name, bytes) = (partition.name.as_str(), partition.memory_bytes);
        if bytes < MEMORY_GRANULE {
            report(Violation::MemoryTooSmall { partition: name, bytes });
        } else if bytes > MEMORY_MAX {
            report(Violation::MemoryTooLarge { partition: name, bytes });
        } else if !bytes.is_multiple_of(MEMORY_GRANULE) {
            report(Violation::MemoryMisaligned { partition: name, what: "size", value: bytes });
        }
        let Some(at) = partition.memory_at else { continue };
        if !at.is_multiple_of(MEMORY_GRANULE) {
            report(Violation::MemoryMisaligned { partition: name, what: "address", value: at });
        }
        let range = Range::at(at, bytes);
        if range.end > HOST_PHYSICAL_MAX {
            report(Violation::MemoryOutOfRange { partition: name, range });
        }
    }
    let fixed = |partition: &Partition| partition.memory_at.map(|at| Range::at(at, partition.memory_bytes));
    for [(_, a), (_, b)] in pairs(system) {
        let Some((of_a, of_b)) = fixed(a).zip(fixed(b)) else { continue };
        if of_a.overlaps(&of_b) {
            report(Violation::MemoryOverlap { partitions: [&a.name, &b.name], ranges: [of_a, of_b] });
        }
    }
}
