//! Kicks of a guest that floods itself with interrupts and NMIs: neither a kick is lost, nor anything of the guest's own,
//! of which the guest takes care: it ends with a failure if one does not come, or comes twice.

use crate::kicks::{Kicked, Run, in_state};
use partita_host::emulator::Clock;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::snapshot::Body;

/// The guest's mark that counts its interrupts and NMIs, and after how many of each it makes one
/// (`rt-partitions/latency/src/flood.rs`).
const MARK: u32 = 200;
const TURNS_PER_MARK: u64 = 256;
/// In each of so many parts of the calls, the guest has to go on.
const PARTS: usize = 10;

/// What the guest's marks say: when, how many interrupts, how many NMIs.
fn marks(kicked: &Kicked) -> Vec<(u64, u64, u64)> {
    let regions = kicked.left.trace.regions.iter();
    let of_guest = regions.filter(|region| matches!(region.owner, Owner::Partition { .. }));
    let frames = of_guest.flat_map(|region| &region.dump.rings).flat_map(|ring| ring.frames());
    let marks = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id: MARK, first, second }) => Some((frame.tsc, first, second)),
        _ => None,
    });
    marks.collect()
}

fn flood(run: &Run) {
    let kicked = run.one("flood");
    let consoles = kicked.left.consoles();
    let marks = marks(&kicked);
    let first = marks.first().unwrap_or_else(|| panic!("the guest made no mark\n{consoles}")).1;
    for (number, &(time, interrupts, nmis)) in (0..).zip(&marks) {
        let expected = first + number * TURNS_PER_MARK;
        assert_eq!((interrupts, nmis), (expected, expected), "the mark at {time}\n{consoles}");
    }
    for (number, part) in kicked.calls.chunks(kicked.calls.len().div_ceil(PARTS)).enumerate() {
        let (from, to) = (part[0], part[part.len() - 1]);
        let made = marks.iter().filter(|(time, ..)| (from..=to).contains(time)).count();
        assert!(made > 0, "no mark in part {number} of the calls, from {from} to {to}\n{consoles}");
    }
    let last = marks[marks.len() - 1].1;
    println!("flood: {} calls, {last} interrupts and as many NMIs in {} marks", kicked.calls.len(), marks.len());
}

#[test]
#[ignore = "boots an emulator"]
fn no_interrupt_is_lost_among_kicks_by_instruction_count() {
    flood(&Run { clock: Clock::Icount, pause: true, smp_call_hz: 1_000_000, in_state: in_state(), before: 5000 });
}

/// With a thread for each core, and a guest that never pauses.
#[test]
#[ignore = "boots an emulator"]
fn no_interrupt_is_lost_among_kicks_by_threads() {
    flood(&Run { clock: Clock::Host, pause: false, smp_call_hz: 50_000, in_state: 100_000, before: 1000 });
}
