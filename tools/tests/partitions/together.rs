//! Two real-time guests at once, beside a busy neighbour.

use crate::system::{Left, load, run};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// The guests, by number, with their pCPUs, whose numbers are their APIC IDs.
const GUESTS: [(&str, u16, [u16; 2]); 2] = [("left", 0, [1, 2]), ("right", 1, [3, 4])];
const CLAIMS: usize = 9;
const XSAVE_CLAIMS: usize = 56;
/// Marks around the part in which the guests do their work; the second one has the rounds.
const BEGIN_MARK: u32 = 310;
const END_MARK: u32 = 311;
/// The vector that a guest's CPUs send each other.
const PEER_VECTOR: u8 = 0x51;
/// What a CPU writes into its timer's entry of the local vector table: when it starts the timer, and when it stops it.
const TIMER_ENTRY: u64 = 0x832;

/// When a guest made a mark, and what the mark has.
fn mark(left: &Left, guest: u16, wanted: u32) -> (u64, u64) {
    let is_guest = |owner: &Owner| matches!(owner, Owner::Partition { number, .. } if *number == guest);
    let regions = left.trace.regions.iter().filter(|region| is_guest(&region.owner));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let mut marks = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id, first, .. }) if id == wanted => Some((frame.tsc, first)),
        _ => None,
    });
    marks.next().unwrap_or_else(|| panic!("guest {guest} made no mark {wanted}\n{}", left.consoles()))
}

fn assert_unrefused(left: &Left) {
    for (name, number, _) in GUESTS {
        let line = format!("partita: partition {number} \"{name}\": finished, success; refused: 0 accesses, 0 IPIs");
        assert!(left.console("hypervisor").lines().any(|found| found == line), "{line}\n{}", left.consoles());
    }
}

/// Each guest's CPUs sent their interrupts, and left the guest for nothing else while they worked.
fn assert_alone(left: &Left, number: u16, pcpus: [u16; 2]) {
    let (begin, _) = mark(left, number, BEGIN_MARK);
    let (end, rounds) = mark(left, number, END_MARK);
    for (pcpu, peer) in [(pcpus[0], pcpus[1]), (pcpus[1], pcpus[0])] {
        let events = left.events(pcpu);
        let between: Vec<_> = events.iter().filter(|(tsc, _)| (begin..end).contains(tsc)).collect();
        let mut sent = 0;
        for (_, event) in &between {
            match event {
                Event::IcrForward { vector: PEER_VECTOR, targets: 1, icr, .. } if *icr >> 32 == u64::from(peer) => {
                    sent += 1
                }
                Event::Exit { reason: ExitReason::IcrWrite, .. }
                | Event::Exit { reason: ExitReason::MsrWrite, detail: TIMER_ENTRY, .. } => {}
                other => panic!("pCPU {pcpu}: {other:?}\n{}", left.consoles()),
            }
        }
        assert_eq!(sent, rounds, "pCPU {pcpu} sends one interrupt in each round");
        for reason in [ExitReason::Interrupt, ExitReason::Halt, ExitReason::NestedPageFault] {
            assert_eq!(left.count(pcpu, HistogramId::Exit(reason)), 0, "pCPU {pcpu}: {reason:?}");
        }
    }
}

fn two_guests_work_at_once(clock: Clock, milliseconds: u32) {
    let both = [1, 2].map(|seed| {
        let line = format!("test=together seed={seed}");
        (line.clone(), format!("{line} ms={milliseconds}"))
    });
    let changes = both.each_ref().map(|(old, new)| (old.as_str(), new.as_str()));
    let left = run(&load("two-rtvms.toml", &changes), clock, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    for (name, number, pcpus) in GUESTS {
        left.assert_claims(name, CLAIMS);
        assert_alone(&left, number, pcpus);
    }
    assert_unrefused(&left);
    let last_begin = GUESTS.map(|(_, number, _)| mark(&left, number, BEGIN_MARK).0).into_iter().max();
    let first_end = GUESTS.map(|(_, number, _)| mark(&left, number, END_MARK).0).into_iter().min();
    assert!(last_begin < first_end, "both work at the same time: {last_begin:?} {first_end:?}");
}

#[test]
#[ignore = "boots an emulator"]
fn two_guests_work_at_once_by_instruction_count() {
    two_guests_work_at_once(Clock::Icount, 30);
}

#[test]
#[ignore = "boots an emulator"]
fn two_guests_work_at_once_by_threads() {
    two_guests_work_at_once(Clock::Host, 1500);
}

/// Each with patterns of its own, kicks in between.
#[test]
#[ignore = "boots an emulator"]
fn two_guests_keep_their_own_vector_state() {
    let changes = [
        ("test=together seed=1", "test=xsave seed=1"),
        ("test=together seed=2", "test=xsave seed=2"),
        ("smp_call_hz = 0", "smp_call_hz = 10000"),
    ];
    let left = run(&load("two-rtvms.toml", &changes), Clock::Icount, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    for (name, ..) in GUESTS {
        left.assert_claims(name, XSAVE_CLAIMS);
    }
    assert_unrefused(&left);
}
