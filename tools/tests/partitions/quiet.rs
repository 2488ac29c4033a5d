//! A partition that is restarted a thousand times in a row, beside a real-time guest that must not notice it.

use crate::system::{Left, load, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, StopCause};
use partita_trace::snapshot::Body;

/// What a life of the pulse says if it finds everything fresh.
const FRESH: &str = "pulse: fresh\r\n";
const HOUSEKEEPING: u16 = 0;
const PULSE: u16 = 1;
/// pCPUs of the real-time guest, whose number is 0.
const QUIET: [u16; 2] = [2, 3];
const QUIET_CLAIMS: usize = 9;
/// Marks of the real-time guest, around the part in which it does not leave the guest.
const BEGIN_MARK: u32 = 300;
const END_MARK: u32 = 301;
/// Ends the real-time guest.
const ENOUGH: &str = "wrmsr 2 0xc0000103 7";

/// When the real-time guest made a mark.
fn marked(left: &Left, wanted: u32) -> u64 {
    let is_quiet = |owner: &Owner| matches!(owner, Owner::Partition { number: 0, .. });
    let regions = left.trace.regions.iter().filter(|region| is_quiet(&region.owner));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let mut times = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id, .. }) if id == wanted => Some(frame.tsc),
        _ => None,
    });
    times.next().unwrap_or_else(|| panic!("no mark {wanted}\n{}", left.consoles()))
}

fn times(left: &Left, pcpu: u16, is_it: impl Fn(&Event) -> bool) -> Vec<u64> {
    left.events(pcpu).into_iter().filter(|(_, event)| is_it(event)).map(|(tsc, _)| tsc).collect()
}

/// Takes the pulse's console for lives one after the other: how many told that they are fresh, if each said that or, as
/// its end came before, a part of it; panics if one said something else.
fn whole_lives(console: &str) -> usize {
    let mut rest = console;
    let mut whole = 0;
    while !rest.is_empty() {
        let common = rest.bytes().zip(FRESH.bytes()).take_while(|(a, b)| a == b).count();
        assert!(common > 0, "a life said {:?}", rest.lines().next());
        whole += usize::from(common == FRESH.len());
        rest = &rest[common..];
    }
    whole
}

/// Restarts the partition so often in a row, and then some times by commands of their own, which gives the lives more time.
fn a_guest_beside_restarts_notices_nothing(clock: Clock, in_a_row: usize, singly: usize) {
    let restarts = in_a_row + singly;
    let system = load("restart.toml", &[]);
    let command = format!("restart pulse {in_a_row}");
    let mut commands = vec!["hold 1 300", "hold 1 1", command.as_str()];
    commands.extend(std::iter::repeat_n("restart pulse", singly));
    commands.extend(["vcpus", "trace", "exits", ENOUGH]);
    let left = run_with_commands(&system, clock, 300, &commands);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("quiet", QUIET_CLAIMS);
    let answer = left.answers(&command).join("\n");
    assert!(answer.starts_with("partition pulse was restarted 1,000 times; each took "), "{answer}");
    println!("{answer}");
    for nth in 0..singly {
        let answer = left.answers_to("restart pulse", nth).join("\n");
        assert!(answer.starts_with("partition pulse was restarted; it took "), "{answer}");
    }

    let starts = times(&left, HOUSEKEEPING, |event| matches!(event, Event::PartitionStart { partition: 1, .. }));
    let stops = times(&left, HOUSEKEEPING, |event| {
        matches!(event, Event::PartitionStop { partition: 1, cause: StopCause::Housekeeping, .. })
    });
    let loads = times(
        &left,
        PULSE,
        |event| matches!(event, Event::PartitionLoaded { partition: 1, bytes, .. } if *bytes == 2 << 20),
    );
    assert_eq!((starts.len(), stops.len(), loads.len()), (restarts + 1, restarts, restarts + 1), "{}", left.consoles());

    let (Some(first), Some(last)) = (stops.first().copied(), starts.last().copied()) else { panic!() };
    assert!(marked(&left, BEGIN_MARK) < first && last < marked(&left, END_MARK), "the guest is quiet meanwhile");
    for pcpu in QUIET {
        let events = left.events(pcpu);
        let between: Vec<_> = events.iter().filter(|(tsc, _)| (first..=last).contains(tsc)).collect();
        assert!(between.is_empty(), "pCPU {pcpu}: {between:?}");
        // The histograms count every exit, and each is in the trace: so none came in between either. The guest's end kicks
        // its other pCPU, and the run may be over amid that.
        for &reason in ExitReason::ALL.iter().filter(|reason| **reason != ExitReason::Kick) {
            let is_it = |event: &Event| matches!(event, Event::Exit { reason: found, .. } if *found == reason);
            let traced = events.iter().filter(|(_, event)| is_it(event)).count() as u64;
            assert_eq!(left.count(pcpu, HistogramId::Exit(reason)), traced, "pCPU {pcpu}: {reason:?}");
        }
    }
    // The only call to them was the one that ends the guest.
    let kicks = QUIET.map(|pcpu| left.count(pcpu, HistogramId::Exit(ExitReason::Kick)));
    assert!(kicks[0] == 1 && kicks[1] <= 1, "{kicks:?}\n{}", left.consoles());

    let console = left.console("pulse");
    let whole = whole_lives(&console);
    println!("{whole} of {} lives were long enough to tell", restarts + 1);
    match clock {
        Clock::Icount => assert_eq!(whole, restarts + 1, "{console}"),
        // In a row a life has a millisecond, in which its thread may have to wait for the host.
        Clock::Host => assert!(whole > singly / 2, "{whole} {console}"),
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_thousand_restarts_are_not_noticed_by_instruction_count() {
    a_guest_beside_restarts_notices_nothing(Clock::Icount, 1000, 0);
}

#[test]
#[ignore = "boots an emulator"]
fn a_thousand_restarts_are_not_noticed_by_threads() {
    a_guest_beside_restarts_notices_nothing(Clock::Host, 1000, 30);
}
