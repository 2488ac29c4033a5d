//! The numbers and words of a trace, as they are for ever: a change here needs a new version of the format.

use crate::common::{Memory, SPEC};
use partita_trace::event::Event;
use partita_trace::histogram::{BANK_LEN, BUCKETS, HISTOGRAM_LEN, HistogramId};
use partita_trace::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PcpuStateName, PolicyKind, StopCause};

/// Each event with its `kind_arg`, and payload words.
const GOLDEN: &[(Event, u32, u64, u64)] = &[
    (Event::Exit { reason: ExitReason::Kick, detail16: 0x1234, ticks: 105, detail: 0xD }, 0x1234_0910, 105, 0xD),
    (Event::IcrForward { vector: 0xEC, targets: 3, ticks: 61, icr: 0xC00EC }, 0x0003_EC11, 61, 0xC00EC),
    (Event::IcrRefused { cause: IcrRefusal::ForeignDestination, icr: 0x30 }, 0x0000_0212, 0x30, 0),
    (Event::SmpCall { targets: 2, late: 1, ticks: 175, first_late: 3 }, 0x0010_0214, 175, 3),
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
    (
        Event::SmpCallServed {
            peer: 7,
            kind: KickKind::Vector,
            by_caller: true,
            post_to_kick: 0x10,
            kick_to_exit: 0x3C,
            exit_to_run: 0x60,
            run_to_ack: u32::MAX,
        },
        0x1100_0723,
        0x0000_003C_0000_0010,
        0xFFFF_FFFF_0000_0060,
    ),
    (Event::PcpuClock { pcpu: 3, ahead: 40, behind: 55 }, 0x0000_0324, 40, 55),
    (Event::PcpuState { pcpu: 2, state: PcpuStateName::Parked }, 0x0200_0225, 0, 0),
    (Event::PartitionLoaded { partition: 1, bytes: 2 << 20, ticks: 70_000 }, 0x0000_0126, 2 << 20, 70_000),
    (Event::HypervisorEntered {}, 0x0000_0027, 0, 0),
];

/// Kinds that no event has any more. Their numbers are never used again.
const RETIRED: &[u8] = &[19, 21];

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
fn retired_kinds_are_unknown() {
    let doc = include_str!("../../../docs/trace-format.md");
    for kind in RETIRED {
        assert!(Event::KINDS.iter().all(|(known, _)| known != kind), "{kind} is used again");
        assert_eq!(Event::decode(*kind, 0, 0, 0), None);
        assert!(
            doc.contains(&format!("| {kind} | (retired) |")),
            "docs/trace-format.md does not say that {kind} is retired"
        );
    }
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
fn a_served_call_tells_its_caller_and_its_target_whoever_wrote_it() {
    let served = |arg| Event::decode(35, arg, 0, 0).unwrap();
    assert_eq!(served(0x10_0007).caller_and_target(2), Some((2, 7)));
    assert_eq!(served(0x00_0007).caller_and_target(2), Some((7, 2)));
    // The kind of kick is no part of it.
    assert_eq!(served(0x11_FFFF).caller_and_target(0), Some((0, u16::MAX)));
    assert_eq!(Event::Mark { id: 7, first: 0, second: 0 }.caller_and_target(2), None);
}

#[test]
fn a_field_that_is_too_wide_is_cut_and_leaves_its_neighbours_alone() {
    let event = Event::SmpCall { targets: 0x1FFF, late: 0, ticks: 0, first_late: 0 };
    assert_eq!(event.encode().kind_arg, 0x000F_FF14);
}

#[cfg(not(miri))]
mod properties {
    use super::*;
    use partita_trace::event::{ARG_MAX, Encoded};
    use proptest::prelude::*;

    proptest! {
        /// Whatever the four legs are, each comes back, and none touches its neighbour.
        #[test]
        fn the_legs_of_a_served_call_survive(
            peer in any::<u16>(),
            by_vector in any::<bool>(),
            by_caller in any::<bool>(),
            legs in prop::array::uniform4(prop_oneof![Just(0), Just(u32::MAX), 0..1000u32, any::<u32>()]),
        ) {
            let kind = if by_vector { KickKind::Vector } else { KickKind::Nmi };
            let [post_to_kick, kick_to_exit, exit_to_run, run_to_ack] = legs;
            let event =
                Event::SmpCallServed { peer, kind, by_caller, post_to_kick, kick_to_exit, exit_to_run, run_to_ack };
            let Encoded { kind_arg, a, b } = event.encode();
            prop_assert_eq!([a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32], legs);
            prop_assert_eq!(Event::decode(kind_arg as u8, kind_arg >> 8, a, b), Some(event));
        }

        /// Whatever lies in a slot, it is an event that encodes to the same fields, or none.
        #[test]
        fn what_is_decoded_encodes_to_itself(kind in any::<u8>(), arg in 0..=ARG_MAX, a in any::<u64>(), b in any::<u64>()) {
            if let Some(event) = Event::decode(kind, arg, a, b) {
                let again = event.encode();
                prop_assert_eq!(again.kind_arg as u8, kind);
                prop_assert_eq!(Event::decode(kind, again.kind_arg >> 8, again.a, again.b), Some(event));
            }
        }
    }
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
         6 left x2APIC mode,7 touched the APIC page,8 policy,9 stopped by housekeeping,10 sibling vCPU ended,11 other,\
         12 powered off,13 rebooted,14 no image",
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
    check(PcpuStateName::ALL, |v| v as u8, PcpuStateName::name, "0 offline,1 online,2 parked,3 stopped");
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
