use std::collections::BTreeSet;

use super::*;
use crate::system::{
    Entry, Expectation, Housekeeping, Identity, LapicMode, MmioRange, Name, OnReboot, Partition, PortRange, SerialPort,
    SmpCallMode, TraceConfig,
};

const MIB: u64 = 1 << 20;

fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

fn partition(text: &str, pcpus: &[u16]) -> Partition {
    Partition {
        name: name(text),
        pcpus: pcpus.iter().copied().collect(),
        lapic: LapicMode::Passthrough,
        memory_bytes: 64 * MIB,
        memory_at: None,
        entry: Entry::Pvh { entry: 0x10_0040, start_info: 0xE_4000 },
        identity: Identity::Partita,
        console: None,
        io_ports: heapless::Vec::new(),
        mmio: heapless::Vec::new(),
        expect: Expectation::Finish,
        on_reboot: OnReboot::Restart,
        is_required: true,
    }
}

/// A system, its segments and its machine, for a test to break.
struct Case {
    system: SystemConfig,
    segments: Vec<Segment>,
    machine: MachineFacts,
}

/// Two partitions and nothing against any rule.
fn sound() -> Case {
    let mut linux = partition("linux", &[1]);
    linux.entry = Entry::Linux64 { entry: 0x100_0200, boot_params: 0xE_4000, page_tables: 0xE_8000, gdt: 0xE_5000 };
    linux.console = Some(SerialPort::Com2);
    linux.memory_at = Some(512 * MIB);
    let partitions = [partition("rt0", &[2, 3]), linux].into_iter().collect();
    Case {
        system: SystemConfig {
            name: name("demo"),
            housekeeping: Housekeeping {
                pcpu: 0,
                smp_call_hz: 1000,
                smp_call_deadline_ms: 100,
                smp_call_rounds: 0,
                smp_call_mode: SmpCallMode::Each,
            },
            trace: TraceConfig { ring_bytes: 64 << 10, exits: true },
            partitions,
        },
        segments: vec![
            Segment { partition: 0, gpa: 0x10_0000, mem_len: 0x8000 },
            Segment { partition: 1, gpa: 0x100_0000, mem_len: 8 * MIB },
            Segment { partition: 1, gpa: 0xE_4000, mem_len: 0x5000 },
        ],
        machine: MachineFacts { pcpus: 4 },
    }
}

impl Case {
    fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let segments = self.segments.iter().copied();
        let count = check(&self.system, segments, Some(&self.machine), |violation| rules.push(violation.rule()));
        assert_eq!(count, rules.len());
        rules
    }
}

const HPET: u64 = 0xFED0_0000;

fn ports(case: &mut Case, partition: usize, first: u16, last: u16) {
    case.system.partitions[partition].io_ports.push(PortRange { first, last }).unwrap();
}

fn mmio(case: &mut Case, partition: usize, [gpa, hpa, bytes]: [u64; 3]) {
    case.system.partitions[partition].mmio.push(MmioRange { gpa, hpa, bytes }).unwrap();
}

type Break = (Rule, fn(&mut Case));

/// One way or more to break each rule, and no other.
const BREAKS: &[Break] = &[
    (Rule::NameEmpty, |c| c.system.name.clear()),
    (Rule::NameEmpty, |c| c.system.partitions[1].name.clear()),
    (Rule::NameCharacters, |c| c.system.partitions[0].name = name("rt/0")),
    (Rule::NameCharacters, |c| c.system.name = name("..")),
    (Rule::NameDuplicate, |c| c.system.partitions[1].name = name("rt0")),
    (Rule::NoPartition, |c| {
        c.system.partitions.clear();
        c.segments.clear();
    }),
    (Rule::RingSize, |c| c.system.trace.ring_bytes = 0),
    (Rule::RingSize, |c| c.system.trace.ring_bytes = 65535),
    (Rule::RingSize, |c| c.system.trace.ring_bytes = 2 << 10),
    (Rule::RingSize, |c| c.system.trace.ring_bytes = 16 << 20),
    (Rule::DeadlineZero, |c| c.system.housekeeping.smp_call_deadline_ms = 0),
    (Rule::SmpCallRate, |c| c.system.housekeeping.smp_call_hz = SMP_CALL_HZ_MAX + 1),
    (Rule::SmpCallRounds, |c| {
        c.system.housekeeping.smp_call_hz = 0;
        c.system.housekeeping.smp_call_rounds = 10;
    }),
    (Rule::PartitionWithoutPcpu, |c| c.system.partitions[0].pcpus.clear()),
    (Rule::PcpuOutOfRange, |c| c.system.partitions[0].pcpus[1] = 256),
    (Rule::PcpuOutOfRange, |c| c.system.housekeeping.pcpu = u16::MAX),
    (Rule::PcpuOwnedTwice, |c| c.system.partitions[0].pcpus[0] = 1),
    (Rule::PcpuOwnedTwice, |c| c.system.partitions[0].pcpus[0] = 3),
    (Rule::HousekeepingNotBoot, |c| {
        c.system.housekeeping.pcpu = 3;
        c.system.partitions[0].pcpus.truncate(1);
    }),
    (Rule::HousekeepingGivenAway, |c| c.system.partitions[0].pcpus[0] = 0),
    (Rule::PcpuMissing, |c| c.machine.pcpus = 3),
    (Rule::PcpuMissing, |c| c.system.housekeeping.pcpu = 4),
    (Rule::ConsoleOwnedTwice, |c| c.system.partitions[0].console = Some(SerialPort::Com2)),
    (Rule::MemoryTooSmall, |c| {
        c.system.partitions.truncate(1);
        c.system.partitions[0].memory_bytes = 2 * MIB - 1;
        c.segments.truncate(1);
    }),
    (Rule::MemoryTooLarge, |c| c.system.partitions[0].memory_bytes = (3 << 30) + 1),
    (Rule::MemoryMisaligned, |c| c.system.partitions[0].memory_bytes = 63 * MIB),
    (Rule::MemoryMisaligned, |c| c.system.partitions[1].memory_at = Some(513 * MIB)),
    (Rule::MemoryOutOfRange, |c| c.system.partitions[1].memory_at = Some((1 << 52) - 2 * MIB)),
    (Rule::MemoryOutOfRange, |c| c.system.partitions[1].memory_at = Some(u64::MAX - 2 * MIB + 1)),
    (Rule::MemoryOverlap, |c| c.system.partitions[0].memory_at = Some(450 * MIB)),
    (Rule::PortRangeBackward, |c| ports(c, 0, 0x200, 0x1FF)),
    (Rule::PortOwnedTwice, |c| {
        ports(c, 0, 0x200, 0x207);
        ports(c, 1, 0x207, 0x207);
    }),
    (Rule::MmioMisaligned, |c| mmio(c, 0, [HPET + 8, HPET, 4096])),
    (Rule::MmioMisaligned, |c| mmio(c, 0, [HPET, HPET + 8, 4096])),
    (Rule::MmioMisaligned, |c| mmio(c, 0, [HPET, HPET, 4097])),
    (Rule::MmioMisaligned, |c| mmio(c, 0, [HPET, HPET, 0])),
    (Rule::MmioOutOfRange, |c| mmio(c, 0, [63 * MIB, HPET, 4096])),
    (Rule::MmioOutOfRange, |c| mmio(c, 0, [MMIO_GPA_MAX - 4096, HPET, 8192])),
    (Rule::MmioOutOfRange, |c| mmio(c, 0, [HPET, HOST_PHYSICAL_MAX, 4096])),
    (Rule::MmioOutOfRange, |c| mmio(c, 0, [HPET, 0_u64.wrapping_sub(4096), 8192])),
    (Rule::MmioOwnedTwice, |c| {
        mmio(c, 0, [HPET, HPET, 8192]);
        mmio(c, 1, [HPET, HPET + 4096, 4096]);
    }),
    (Rule::MmioOverlap, |c| {
        mmio(c, 0, [HPET, HPET, 4096]);
        mmio(c, 0, [HPET, HPET + 4096, 4096]);
    }),
    (Rule::EntryOutsideMemory, |c| {
        c.system.partitions[0].entry = Entry::Multiboot { entry: 0x10_0040, info: 64 << 20 };
    }),
    (Rule::EntryOutsideMemory, |c| {
        let (page_tables, gdt) = (0xE_5000, 64 << 20);
        c.system.partitions[0].entry = Entry::Long { entry: 0x10_0040, start_info: 0xE_4000, page_tables, gdt };
    }),
    (Rule::EntryNotLoaded, |c| c.system.partitions[0].entry = Entry::Real { segment: 0x7C0, offset: 1 }),
    (Rule::EntryOutsideMemory, |c| {
        c.system.partitions[0].entry = Entry::Pvh { entry: 64 << 20, start_info: 0xE_4000 };
    }),
    (Rule::EntryOutsideMemory, |c| {
        c.system.partitions[0].entry = Entry::Pvh { entry: 0x10_0040, start_info: (64 << 20) - 8 };
    }),
    (Rule::EntryOutsideMemory, |c| {
        if let Entry::Linux64 { boot_params, .. } = &mut c.system.partitions[1].entry {
            *boot_params = u64::MAX;
        }
    }),
    (Rule::EntryOutsideMemory, |c| {
        if let Entry::Linux64 { page_tables, .. } = &mut c.system.partitions[1].entry {
            *page_tables = 64 * MIB;
        }
    }),
    (Rule::EntryOutsideMemory, |c| {
        if let Entry::Linux64 { gdt, .. } = &mut c.system.partitions[1].entry {
            *gdt = 64 * MIB;
        }
    }),
    (Rule::EntryNotLoaded, |c| c.segments[0].gpa += 0x41),
    (Rule::EntryNotLoaded, |c| c.segments[0].partition = 1),
    (Rule::SegmentWithoutPartition, |c| c.segments[2].partition = 2),
    (Rule::SegmentOutsideMemory, |c| c.segments[2].gpa = 64 * MIB),
    (Rule::SegmentOutsideMemory, |c| c.segments[2].gpa = u64::MAX),
    (Rule::ImageDoesNotFit, |c| c.segments[0].mem_len = 64 * MIB),
    (Rule::ImageDoesNotFit, |c| c.segments[1].mem_len = u64::MAX),
    (Rule::SegmentOverlap, |c| c.segments[2].gpa = 0x100_0000 - 1),
    (Rule::SegmentOverAcpi, |c| c.segments[2].gpa = 0xE_3FFF),
];

#[test]
fn a_sound_system_violates_nothing() {
    assert_eq!(sound().rules(), []);
}

#[test]
fn each_break_violates_its_rule_and_no_other() {
    for (number, (rule, break_it)) in BREAKS.iter().enumerate() {
        let mut case = sound();
        break_it(&mut case);
        assert_eq!(case.rules(), [*rule], "break {number}");
    }
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let broken: BTreeSet<Rule> = BREAKS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(broken, Rule::ALL.iter().copied().collect());
}

#[test]
fn ids_are_unique_kebab_case_and_explained() {
    let ids: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    assert_eq!(ids.len(), Rule::ALL.len());
    for rule in Rule::ALL {
        assert!(rule.id().split('-').all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())));
        assert!(rule.explanation().ends_with('.'));
    }
}

#[test]
fn a_violation_says_the_rule_the_thing_the_value_and_the_cure() {
    for (_, break_it) in BREAKS {
        let mut case = sound();
        break_it(&mut case);
        check(&case.system, case.segments.iter().copied(), Some(&case.machine), |violation| {
            let text = violation.to_string();
            assert!(text.starts_with(&format!("{}: ", violation.rule().id())), "{text}");
            assert!(text.contains("; ") && !text.contains("  ") && !text.contains('\n'), "{text}");
        });
    }
    let overlap = Violation::PcpuOwnedTwice { pcpu: 3, partitions: ["rt0", "linux"] };
    let text = "pcpu-owned-twice: pCPU 3 belongs to both \"rt0\" and \"linux\"; give it to one of them";
    assert_eq!(overlap.to_string(), text);
}

#[test]
fn a_partition_without_an_image_asks_for_nothing_of_it() {
    let mut case = sound();
    case.system.partitions[0].entry = Entry::Missing;
    case.segments.remove(0);
    assert_eq!(case.rules(), []);
}

#[test]
fn without_a_machine_only_its_rule_is_left_out() {
    let mut case = sound();
    case.machine.pcpus = 1;
    assert!(case.rules().contains(&Rule::PcpuMissing));
    assert_eq!(check(&case.system, case.segments.iter().copied(), None, |_| {}), 0);
}

#[test]
fn all_violations_are_reported_at_once() {
    let mut case = sound();
    case.system.partitions[0].pcpus[0] = 0;
    case.system.trace.ring_bytes = 1;
    case.segments[1].mem_len = 64 * MIB;
    let expected = [Rule::RingSize, Rule::HousekeepingGivenAway, Rule::ImageDoesNotFit];
    assert_eq!(case.rules(), expected);
}

#[test]
fn the_limits_that_explanations_name_are_the_limits() {
    assert_eq!((RING_BYTES_MIN, RING_BYTES_MAX), (4 << 10, 8 << 20));
    assert_eq!(SMP_CALL_HZ_MAX, 1_000_000);
    assert_eq!(crate::pcpu_set::PCPUS_MAX, 256);
    assert_eq!((partita_abi::guest::MEMORY_GRANULE, partita_abi::guest::MEMORY_MAX), (2 * MIB, 3 << 30));
    assert_eq!(HOST_PHYSICAL_MAX, 1 << 52);
}
