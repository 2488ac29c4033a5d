//! Two real-time guests at once, beside a busy neighbour.

use crate::cpu::xsave_claims;
use crate::system::{Left, load, machine, run};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// The guests, by number, with their pCPUs, whose numbers are their APIC IDs.
const GUESTS: [(&str, u16, [u16; 2]); 2] = [("left", 0, [1, 2]), ("right", 1, [3, 4])];
/// The pCPU of the busy neighbour, and how often it leaves the guest at least for each of the things that it does.
const NEIGHBOUR: u16 = 5;
const BUSY_EXITS: usize = 10;
const CLAIMS: usize = 9;
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

/// The neighbour, that never rests: its pCPU left the guest from the one time to the other, for both things that it does.
fn assert_busy(left: &Left, first: u64, last: u64) {
    let events = left.events(NEIGHBOUR);
    let between = || events.iter().filter(|(tsc, _)| (first..=last).contains(tsc));
    let exits = [ExitReason::Cpuid, ExitReason::IoOut].map(|wanted| {
        let is_it = |event: &Event| matches!(event, Event::Exit { reason, .. } if *reason == wanted);
        between().filter(|(_, event)| is_it(event)).count()
    });
    println!("exits of the neighbour meanwhile: {exits:?}");
    assert!(exits.iter().all(|count| *count >= BUSY_EXITS), "{exits:?}\n{}", left.consoles());
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
                Event::Exit { reason: ExitReason::IcrWrite, detail16: 1, detail: icr, .. }
                    if *icr as u8 == PEER_VECTOR && *icr >> 32 == u64::from(peer) =>
                {
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
    let [one, other] = both.each_ref().map(|(old, new)| (old.as_str(), new.as_str()));
    // The neighbour's exits tell that it is at work: more of them than it has else.
    let changes = [one, other, ("rounds=512", "rounds=16")];
    let left = run(&load("two-rtvms.toml", &changes), clock, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    for (name, number, pcpus) in GUESTS {
        left.assert_claims(name, CLAIMS);
        assert_alone(&left, number, pcpus);
    }
    assert_unrefused(&left);
    let last_begin = GUESTS.map(|(_, number, _)| mark(&left, number, BEGIN_MARK).0).into_iter().max();
    let first_end = GUESTS.map(|(_, number, _)| mark(&left, number, END_MARK).0).into_iter().min();
    let (Some(first), Some(last)) = (last_begin, first_end) else { panic!() };
    assert!(first < last, "both work at the same time: {first} {last}");
    assert_busy(&left, first, last);
}

#[test]
#[ignore = "boots an emulator"]
fn two_guests_work_at_once_by_instruction_count() {
    // An instruction takes 20 ns in Bochs, and so does the guests' start.
    two_guests_work_at_once(Clock::Icount, if machine() == MachineKind::Qemu { 30 } else { 300 });
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
        left.assert_claims(name, xsave_claims());
    }
    assert_unrefused(&left);
}
