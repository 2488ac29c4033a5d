//! Storms of SMP calls: all pCPUs that serve calls call all others at once, whatever their guests do, and while a partition
//! is restarted. The console counts what was called, answered and run, and the counts must match exactly.

use crate::system::{Left, is_long, load, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// The second waits until the first is over: together they pass time, in which the guests start.
const PASS_TIME: [&str; 2] = ["hold 1 300", "hold 1 1"];
/// The pCPU of the partition that is restarted.
const PULSE: usize = 1;
/// A machine of 8 pCPUs, all in use.
const EIGHT: [(&str, &str); 2] = [("pcpus = 4", "pcpus = 8"), ("pcpus = [2, 3]", "pcpus = [2, 3, 4, 5, 6, 7]")];

fn run(clock: Clock, changes: &[(&str, &str)], commands: &[&str]) -> Left {
    let system = load("storm.toml", changes);
    let left = run_with_commands(&system, clock, 900, &[&PASS_TIME[..], commands, &["smp", "quit"]].concat());
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    let ran_on = left.console("hypervisor").matches("still running; refused: 0 accesses, 0 IPIs").count();
    assert_eq!(ran_on, system.config.partitions.len(), "{}", left.consoles());
    left
}

/// What a pCPU did: calls made, answered, late, not asked, served.
type Counts = [u64; 5];

/// The rows of a storm's table, without that of all, and the words below it.
fn storm(left: &Left, command: &str) -> (Vec<Counts>, String) {
    let answer = left.answers(command);
    let rows = answer.iter().skip(1).map_while(|line| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<usize>().ok()?;
        let counts: Vec<u64> = words.map(|word| word.replace(',', "").parse().unwrap()).collect();
        Some(counts.try_into().unwrap())
    });
    let rows: Vec<Counts> = rows.collect();
    let words = answer[rows.len() + 2..].join("\n");
    println!("{words}");
    (rows, words)
}

/// Every pCPU called every other so often, and each call was answered and ran once.
fn assert_all_to_all(left: &Left, pcpus: usize, rounds: u64) {
    let (rows, words) = storm(left, &format!("storm {rounds}"));
    let calls = (pcpus as u64 - 1) * rounds;
    assert_eq!(rows, vec![[calls, calls, 0, 0, calls]; pcpus], "{}", left.consoles());
    let all = pcpus as u64 * calls;
    let expected = format!(
        "storm: {all} calls, {all} answered, 0 late, 0 not asked, {all} served: each was answered, and ran once"
    );
    assert_eq!(words, expected);
}

/// The same, but neither the housekeeping core nor the pulse's pCPU call, which was restarted meanwhile.
fn assert_exact_beside_restarts(left: &Left, pcpus: usize, rounds: u64) {
    let (rows, words) = storm(left, &format!("storm {rounds} pulse"));
    let callers = pcpus as u64 - 2;
    let calls = (pcpus as u64 - 1) * rounds;
    for (pcpu, row) in rows.iter().enumerate() {
        let called =
            if pcpu <= PULSE { [0, 0, 0, 0, callers * rounds] } else { [calls, calls, 0, 0, (callers - 1) * rounds] };
        assert_eq!(*row, called, "pCPU {pcpu}\n{}", left.consoles());
    }
    assert_eq!(rows.len(), pcpus);
    assert!(words.contains("each was answered, and ran once"), "{words}");
    let restarts =
        words.lines().last().and_then(|line| line.strip_prefix("partition pulse was restarted ")?.split(' ').next());
    assert!(restarts.unwrap().parse::<u64>().unwrap() > 0, "{words}");
}

/// The guest that floods itself did so between the restarts. It ends with a failure if one of its own interrupts or NMIs
/// is lost or comes twice.
fn assert_flooded(left: &Left, clock: Clock) {
    let events = left.events(0);
    let stops = events.iter().filter(|(_, event)| matches!(event, Event::PartitionStop { .. }));
    let times: Vec<u64> = stops.map(|(tsc, _)| *tsc).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { panic!("{}", left.consoles()) };
    let hypervisor = left.trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let rings = hypervisor.flat_map(|region| region.dump.rings.iter()).filter(|ring| ring.ring == PULSE as u16);
    let is_ipi = |body: &Body| matches!(body, Body::Event(Event::Exit { reason: ExitReason::IcrWrite, .. }));
    let meanwhile = |tsc: &u64| (first..=last).contains(&tsc);
    let frames = rings.flat_map(|ring| ring.frames());
    let sent = frames.filter(|frame| is_ipi(&frame.body) && meanwhile(&frame.tsc)).count();
    println!("{sent} IPIs of the guest to itself between {} restarts", times.len());
    // With threads a life may be over before a guest whose thread does not run gets to it.
    let least = if clock == Clock::Icount { times.len() } else { 1 };
    assert!(sent >= least, "{sent} IPIs between {} restarts\n{}", times.len(), left.consoles());
}

fn storms(clock: Clock, pcpus: usize, rounds: u64, rounds_beside_restarts: u64) {
    let (all, beside) = (format!("storm {rounds}"), format!("storm {rounds_beside_restarts} pulse"));
    let changes: &[_] = if pcpus == 8 { &EIGHT } else { &[] };
    let left = run(clock, changes, &[&all, &beside]);
    assert_all_to_all(&left, pcpus, rounds);
    assert_exact_beside_restarts(&left, pcpus, rounds_beside_restarts);
    assert_flooded(&left, clock);
    for line in left.answers("smp").iter().skip(1) {
        assert!(line.contains(" online "), "{line}");
        assert_eq!(line.split_whitespace().rev().nth(2), Some("0"), "none was late: {line}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn no_call_is_lost_by_instruction_count() {
    storms(Clock::Icount, 4, 80_000, 10_000);
}

#[test]
#[ignore = "boots an emulator"]
fn no_call_is_lost_by_threads() {
    storms(Clock::Host, 4, 10_000, 1000);
}

/// Threads of 8 pCPUs wait for each other on a host with fewer: the short form has few rounds.
#[test]
#[ignore = "boots an emulator"]
fn no_call_is_lost_among_eight() {
    let times = if is_long() { 10 } else { 1 };
    storms(Clock::Icount, 8, 2000 * times, 500 * times);
    storms(Clock::Host, 8, 200 * times, 50 * times);
}
