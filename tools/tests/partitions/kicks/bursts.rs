//! Two kicks at once, or a kick and an exit: how far apart they were, by the hypervisor's trace
//! (`rt-partitions/guest-tests/src/bursts.rs`).

use crate::system::{Left, load, machine, run};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::names::{ExitReason, KickKind};
use partita_trace::snapshot::Body;
use std::ops::Range;

/// The housekeeping core, the guest's CPU that sends the NMIs, and the one that they go to.
const CALLER: u16 = 0;
const SENDER: u16 = 1;
const TARGET: u16 = 3;
/// Marks of the guest around each part.
const BEGIN_MARK: u32 = 320;
const END_MARK: u32 = 321;
/// pCPUs take turns of so many ticks in Bochs, so that distances are multiples of it. A guest that leaves all the time can fall
/// into step with the calls, and miss one: there are no two in a row that no burst has.
const TURN: i64 = 5;
/// Distances that matter: as long as the way out of the guest and back is.
const KICKS_APART: Range<i64> = -200..250;
const BEHIND_EXIT: Range<i64> = -20..200;
/// Ticks from which on an NMI is late, and the start that follows an INIT: what was lost comes with the next call, still later. Starts take
/// up to 2,230 ticks, as what an INIT asks for is built for size.
const LIMIT: u64 = 1500;
const START_LIMIT: u64 = 2300;
/// An INIT has its local APIC reset, too.
const INIT_APART: Range<i64> = -500..250;

/// Runs the guest, which counts its NMIs or starts, and claims so many things about them.
fn guest(test: &str, smp_call_hz: u32, bursts: u64, limit: u64, claims: usize) -> Left {
    // QEMU runs one CPU after the other: nothing is a few ticks away from anything, and a few bursts have to do.
    let options =
        if machine() == MachineKind::Qemu { "bursts=20".into() } else { format!("bursts={bursts} limit={limit}") };
    let changes = [
        ("smp_call_hz = 20000", format!("smp_call_hz = {smp_call_hz}")),
        ("test=bursts bursts=1860 limit=1500", format!("test={test} {options}")),
    ];
    let changes = changes.each_ref().map(|(old, new)| (*old, new.as_str()));
    let left = run(&load("bursts.toml", &changes), Clock::Icount, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("guest", claims);
    left
}

/// From when to when the parts of the run took place.
fn parts(left: &Left) -> Vec<Range<u64>> {
    let regions = left.trace.regions.iter().filter(|region| matches!(region.owner, Owner::Partition { number: 0, .. }));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    for frame in frames {
        match frame.body {
            Body::Event(Event::Mark { id: BEGIN_MARK, .. }) => begins.push(frame.tsc),
            Body::Event(Event::Mark { id: END_MARK, .. }) => ends.push(frame.tsc),
            _ => {}
        }
    }
    assert_eq!(begins.len(), ends.len(), "{}", left.consoles());
    begins.into_iter().zip(ends).map(|(begin, end)| begin..end).collect()
}

/// When the sender's requests were noted, each followed by its kick.
fn requests(left: &Left, is_wanted: fn(&Event) -> bool) -> Vec<u64> {
    left.events(SENDER).into_iter().filter(|(_, event)| is_wanted(event)).map(|(tsc, _)| tsc).collect()
}

fn is_nmi(event: &Event) -> bool {
    matches!(event, Event::GuestNmi { target: TARGET, .. })
}

fn is_init(event: &Event) -> bool {
    matches!(event, Event::GuestInit { target: TARGET, .. })
}

/// When the caller sent its kicks to the target.
fn calls(left: &Left) -> Vec<u64> {
    let kick = |(tsc, event)| match event {
        Event::SmpCallServed { kind: KickKind::Nmi, kick_to_exit, .. }
            if event.caller_and_target(CALLER) == Some((CALLER, TARGET)) =>
        {
            Some(tsc - u64::from(kick_to_exit))
        }
        _ => None,
    };
    left.events(CALLER).into_iter().filter_map(kick).collect()
}

/// How far each NMI of this part was behind what is next to it of `others`, which are in order. Asserts that all of
/// `distances` were hit, within a turn, and gives how many NMIs did.
fn hits(left: &Left, part: &Range<u64>, nmis: &[u64], others: &[u64], distances: &Range<i64>) -> usize {
    let distance = |nmi: &u64| {
        let next = others.partition_point(|other| other < nmi);
        let near = others.get(next.saturating_sub(1)..(next + 1).min(others.len())).unwrap_or_default();
        near.iter().map(|other| *nmi as i64 - *other as i64).min_by_key(|distance| distance.abs())
    };
    let of_part = nmis.iter().filter(|nmi| part.contains(nmi));
    let hits: Vec<i64> = of_part.filter_map(distance).filter(|distance| distances.contains(distance)).collect();
    let is_missed = |from: &i64| !hits.iter().any(|hit| (*from..from + 2 * TURN).contains(hit));
    let missed: Vec<i64> = distances.clone().step_by(TURN as usize).filter(is_missed).collect();
    assert_eq!(missed, [0; 0], "no NMI came so many ticks behind, in the part {part:?}\n{}", left.consoles());
    hits.len()
}

/// Bursts of the kick for an SMP call and that for an NMI, to a guest that spins, one that halts and one that leaves all the
/// time. Gives how many of each had their kicks as close as the way out of the guest and back is long.
pub(super) fn around_calls(bursts: u64) -> Vec<usize> {
    let left = guest("bursts", 20_000, bursts, LIMIT, 6);
    assert!(left.console("hypervisor").contains(" calls, 0 late"), "{}", left.consoles());
    if machine() == MachineKind::Qemu {
        return Vec::new();
    }
    let (calls, nmis) = (calls(&left), requests(&left, is_nmi));
    parts(&left).iter().map(|part| hits(&left, part, &nmis, &calls, &KICKS_APART)).collect()
}

/// The kick for an SMP call around an INIT and the start that follows it. Gives how many were that close.
pub(super) fn around_starts(bursts: u64) -> Vec<usize> {
    let left = guest("bursts_at_starts", 20_000, bursts, START_LIMIT, 2);
    assert!(left.console("hypervisor").contains(" calls, 0 late"), "{}", left.consoles());
    if machine() == MachineKind::Qemu {
        return Vec::new();
    }
    let (calls, inits) = (calls(&left), requests(&left, is_init));
    parts(&left).iter().map(|part| hits(&left, part, &inits, &calls, &INIT_APART)).collect()
}

/// A kick around an exit of each kind, with nobody else who kicks. Gives how many of each came in the exit's time.
pub(super) fn around_exits(bursts: u64) -> Vec<usize> {
    let left = guest("bursts_at_exits", 0, bursts, LIMIT, 14);
    if machine() == MachineKind::Qemu {
        return Vec::new();
    }
    let is_own = |event: &Event| matches!(event, Event::Exit { reason, .. } if *reason != ExitReason::Kick);
    let exits = left.events(TARGET).into_iter().filter(|(_, event)| is_own(event)).map(|(tsc, _)| tsc);
    let (mut exits, nmis): (Vec<u64>, _) = (exits.collect(), requests(&left, is_nmi));
    exits.sort_unstable();
    parts(&left).iter().map(|part| hits(&left, part, &nmis, &exits, &BEHIND_EXIT)).collect()
}
