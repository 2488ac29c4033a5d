//! The numbers and words of a trace, as they are for ever: a change here needs a new version of the format.

use crate::common::{Memory, SPEC};
use partita_trace::event::Event;
use partita_trace::histogram::{BANK_LEN, BUCKETS, HISTOGRAM_LEN, HistogramId};
use partita_trace::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PolicyKind, StopCause};

/// Each event with its `kind_arg`, and payload words.
const GOLDEN: &[(Event, u32, u64, u64)] = &[
    (Event::Exit { reason: ExitReason::Kick, detail16: 0x1234, ticks: 105, detail: 0xD }, 0x1234_0910, 105, 0xD),
    (Event::IcrForward { vector: 0xEC, targets: 3, ticks: 61, icr: 0xC00EC }, 0x0003_EC11, 61, 0xC00EC),
    (Event::IcrRefused { cause: IcrRefusal::ForeignDestination, icr: 0x30 }, 0x0000_0212, 0x30, 0),
    (Event::Kick { kind: KickKind::Vector, sender: 5, sent: 1000, ticks: 41 }, 0x0005_0113, 1000, 41),
    (Event::SmpCall { targets: 2, late: 1, ticks: 175, first_late: 3 }, 0x0010_0214, 175, 3),
    (Event::SmpCallServed { caller: 7, posted: 900, ticks: 12 }, 0x0000_0715, 900, 12),
    (Event::GuestNmi { target: 2, icr: 0x400 }, 0x0000_0216, 0x400, 0),
    (Event::GuestInit { target: 3, icr: 0x500 }, 0x0000_0317, 0x500, 0),
    (Event::GuestSipi { target: 3, vector: 0x9F, icr: 0x69F }, 0x9F00_0318, 0x69F, 0),
    (Event::NmiInjected { another: true, rip: 0x1000 }, 0x0000_0119, 0x1000, 0),
    (Event::PartitionStart { partition: 1, memory: 64 << 20, hpa: 0x4000_0000 }, 0x0000_011A, 64 << 20, 0x4000_0000),
    (
        Event::PartitionStop { partition: 1, cause: StopCause::TripleFault, detail: 0x7F, rip: 0xFFF0 },
        0x0300_011B,
        0x7F,
        0xFFF0,
    ),
    (
        Event::PolicyRefused { kind: PolicyKind::MsrWrite, target: 0xC000_0080, value: 0xD01 },
        0x0000_011C,
        0xC000_0080,
        0xD01,
    ),
    (Event::Sample { row: 0xABCDEF, ticks: 93, index: 1999 }, 0xABCD_EF1D, 93, 1999),
    (Event::Claim { passed: true, id: 4, left: 1, right: 2 }, 0x0000_091E, 1, 2),
    (Event::Mark { id: 1, first: 2, second: 3 }, 0x0000_011F, 2, 3),
    (Event::InterruptMode { partition: 2, mode: InterruptMode::Emulated, pcpus: 0b1100 }, 0x0100_0220, 0b1100, 0),
    (Event::PcpuOnline { pcpu: 3, hardware_id: 0x10 }, 0x0000_0321, 0x10, 0),
    (Event::WindowAdded { partition: 1, gpa: 0x20_0000, length: 0x10_0000 }, 0x0000_0122, 0x20_0000, 0x10_0000),
];

#[test]
fn every_event_has_its_golden_words() {
    for (event, kind_arg, a, b) in GOLDEN {
        let encoded = event.encode();
        assert_eq!((encoded.kind_arg, encoded.a, encoded.b), (*kind_arg, *a, *b), "{event:?}");
        assert_eq!(Event::decode(*kind_arg as u8, kind_arg >> 8, *a, *b), Some(*event));
    }
}

#[test]
fn no_event_is_without_golden_words() {
    let golden: Vec<_> = GOLDEN.iter().map(|(event, ..)| (event.kind(), event.name())).collect();
    assert_eq!(golden, Event::KINDS);
}

#[test]
fn every_event_is_documented() {
    let doc = include_str!("../../../docs/trace-format.md");
    for (kind, name) in Event::KINDS {
        assert!(doc.contains(&format!("| {kind} | {name} |")), "docs/trace-format.md lacks event {kind}, {name}");
    }
}

#[test]
fn the_words_lie_in_a_slot_as_documented() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let mut writer = region.ring(1).unwrap().writer();
    for (i, (event, ..)) in GOLDEN.iter().enumerate() {
        writer.record(0x1122_3344_5566_0000 + i as u64, *event);
    }
    let bytes = memory.bytes();
    let slots = &bytes[region.header().ring_offset(1).unwrap() + 128..];
    for (i, (_, kind_arg, a, b)) in GOLDEN.iter().enumerate() {
        let words: Vec<u64> =
            slots[i * 32..][..32].chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
        let first = u64::from(*kind_arg) | (i as u64 * 32) << 32;
        assert_eq!(words, [first, 0x1122_3344_5566_0000 + i as u64, *a, *b]);
    }
}

#[test]
fn a_field_that_is_too_wide_is_cut_and_leaves_its_neighbours_alone() {
    let event = Event::SmpCall { targets: 0x1FFF, late: 0, ticks: 0, first_late: 0 };
    assert_eq!(event.encode().kind_arg, 0x000F_FF14);
}

#[test]
fn the_numbers_of_names_are_theirs() {
    fn check<T: Copy>(all: &[T], raw: impl Fn(T) -> u8, name: impl Fn(T) -> &'static str, golden: &str) {
        let ours: Vec<String> = all.iter().map(|&v| format!("{} {}", raw(v), name(v))).collect();
        assert_eq!(ours.join(","), golden);
    }
    check(
        ExitReason::ALL,
        |v| v as u8,
        ExitReason::name,
        "0 cpuid,1 rdmsr,2 wrmsr,3 icr,4 in,5 out,6 hypercall,7 halt,8 nested_page_fault,9 kick,10 nmi_return,\
         11 debug_trap,12 shutdown,13 xsetbv,14 virt_instruction,15 exception,16 interrupt,17 invalid_state,18 other",
    );
    check(
        StopCause::ALL,
        |v| v as u8,
        StopCause::name,
        "0 finished,1 failure reported,2 nested page fault,3 triple fault,4 unhandled exit,5 invalid guest state,\
         6 left x2APIC mode,7 touched the APIC page,8 policy,9 stopped by housekeeping,10 sibling vCPU ended,11 other",
    );
    check(
        IcrRefusal::ALL,
        |v| v as u8,
        IcrRefusal::name,
        "0 SMI,1 reserved delivery mode,2 foreign destination,3 illegal vector,4 reserved bits,5 other",
    );
    check(
        PolicyKind::ALL,
        |v| v as u8,
        PolicyKind::name,
        "0 msr read,1 msr write,2 port in,3 port out,4 cpuid,5 xsetbv,6 apic page,7 hypercall,8 instruction,9 other",
    );
    check(KickKind::ALL, |v| v as u8, KickKind::name, "0 nmi,1 vector");
    check(InterruptMode::ALL, |v| v as u8, InterruptMode::name, "0 LAPIC passthrough,1 emulated");
}

#[test]
fn histograms_lie_where_they_are_documented() {
    let ids: Vec<_> = (0..HistogramId::COUNT).filter_map(HistogramId::from_index).collect();
    assert_eq!(ids.len(), HistogramId::COUNT);
    assert!(ids.iter().enumerate().all(|(i, id)| id.as_index() == i));
    assert_eq!(HistogramId::from_index(HistogramId::COUNT), None);
    let others: Vec<_> = ids[ExitReason::COUNT..].iter().map(|id| (id.kind(), id.name())).collect();
    assert_eq!(others, [("ipi", "icr_forward"), ("kick", "nmi"), ("kick", "vector"), ("smp_call", "roundtrip")]);
    assert_eq!((BUCKETS, HISTOGRAM_LEN, BANK_LEN), (976, 3968, 3968 * 23));
}
