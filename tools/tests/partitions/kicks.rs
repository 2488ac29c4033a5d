//! Kicks: the housekeeping core calls a real-time core again and again, whatever its guest does. None may be lost.

use crate::guests::guest;
use crate::system::{Left, is_long, load, machine, run};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::KickKind;

/// The housekeeping core: it counts the kicks, too. The only pCPU that it calls is the target.
const CALLER: u16 = 0;
const TARGET: u16 = 1;
const STATES: [&str; 4] = ["spin_if1", "spin_if0", "hlt", "exit_storm"];

/// A run of kicks.
pub(crate) struct Run {
    pub(crate) clock: Clock,
    /// Whether the guest's loop has a PAUSE.
    pub(crate) pause: bool,
    pub(crate) smp_call_hz: u32,
    /// Kicks that have to find the guest in its state.
    pub(crate) in_state: u32,
    /// Kicks beside them: those that come while the guest boots.
    pub(crate) before: u32,
}

/// What such a run left: each kick came once.
pub(crate) struct Kicked {
    pub(crate) left: Left,
    /// When each call was made whose kick found the guest in its state.
    pub(crate) calls: Vec<u64>,
}

impl Run {
    /// Runs, and asserts that no kick was lost.
    pub(crate) fn one(&self, state: &str) -> Kicked {
        let Self { clock, pause, smp_call_hz, in_state, before } = *self;
        let rounds = in_state + before;
        let system = load(
            "kicks.toml",
            &[
                ("smp_call_hz = 100000", &format!("smp_call_hz = {smp_call_hz}")),
                ("smp_call_rounds = 1000", &format!("smp_call_rounds = {rounds}")),
                ("state=spin_if1 pause=1", &format!("state={state} pause={}", u8::from(pause))),
            ],
        );
        let left = run(&system, clock, 1200);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        let line = format!("partita: {rounds} rounds of SMP calls, {rounds} calls, 0 late");
        assert!(left.console("hypervisor").lines().any(|found| found == line), "{consoles}");
        let events = left.events(CALLER);
        let traced = |wanted: KickKind| {
            let is_it = |event: &Event| matches!(event, Event::SmpCallServed { kind, .. } if *kind == wanted);
            let to_target = |event: &Event| event.caller_and_target(CALLER) == Some((CALLER, TARGET));
            events.iter().filter(|(_, event)| is_it(event) && to_target(event)).count() as u64
        };
        let counts = [HistogramId::SmpCall, HistogramId::KickNmi, HistogramId::KickVector];
        let counts = counts.map(|id| left.count(CALLER, id));
        // By vector came what was asked of the pCPU before it had its vCPU.
        let expected = [rounds.into(), rounds.into(), traced(KickKind::Vector)];
        assert_eq!((counts, traced(KickKind::Nmi)), (expected, rounds.into()), "{state}: {consoles}");
        // The last that the guest says before it sits is in its log.
        let sits_from = left.last_log(0).unwrap_or_else(|| panic!("the guest does not sit\n{consoles}"));
        let is_call = |(tsc, event): &(u64, Event)| matches!(event, Event::SmpCall { .. }) && *tsc > sits_from;
        let calls: Vec<u64> = events.iter().filter(|event| is_call(event)).map(|(tsc, _)| *tsc).collect();
        println!("{state}: {} of {rounds} kicks found the guest in its state", calls.len());
        assert!(calls.len() >= in_state as usize, "{state}: {}\n{consoles}", calls.len());
        Kicked { left, calls }
    }
}

/// Kicks by instruction count that have to find the guest in its state: a fifth of them in the short form in Bochs, which takes
/// some minutes for all.
pub(crate) fn in_state() -> u32 {
    if machine() == MachineKind::Qemu || is_long() { 100_000 } else { 20_000 }
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_instruction_count() {
    let run = Run { clock: Clock::Icount, pause: true, smp_call_hz: 1_000_000, in_state: in_state(), before: 5000 };
    for state in STATES {
        run.one(state);
    }
}

/// With a thread for each core, and a guest that never pauses. The short form has a fifth of the calls: the host's CPUs, which
/// the threads share, make it take minutes otherwise.
fn threaded(state: &str) {
    let in_state = if is_long() { 100_000 } else { 20_000 };
    Run { clock: Clock::Host, pause: false, smp_call_hz: 50_000, in_state, before: 1000 }.one(state);
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_threads_spinning_with_interrupts() {
    threaded("spin_if1");
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_threads_spinning_without_interrupts() {
    threaded("spin_if0");
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_threads_halted() {
    threaded("hlt");
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_threads_in_an_exit_storm() {
    threaded("exit_storm");
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_a_guest_that_never_pauses() {
    let run = Run { clock: Clock::Icount, pause: false, smp_call_hz: 1000, in_state: 200, before: 50 };
    for state in STATES {
        run.one(state);
    }
}

/// Two kicks within one exit: the guest's CPUs send each other and themselves 2,000 NMIs in each run, each for itself, while the
/// housekeeping core calls them back to back. A kick that comes behind the last look at what is asked, and before the entry,
/// would be lost by a hypervisor that only looks: the NMI would not come, and the guest wait for it in vain.
#[test]
#[ignore = "boots an emulator"]
fn none_of_two_in_a_burst_is_lost() {
    for smp_call_hz in [1_000_000, 200_000] {
        let left = guest("nmi", Clock::Icount, smp_call_hz, 19);
        let console = left.console("hypervisor");
        let calls = console.lines().find_map(|line| {
            let (rounds, calls) = line.strip_prefix("partita: ")?.split_once(" rounds of SMP calls, ")?;
            let calls = calls.strip_suffix(" calls, 0 late")?;
            Some((rounds.parse::<u64>().ok()?, calls.parse::<u64>().ok()?))
        });
        let (rounds, calls) = calls.unwrap_or_else(|| panic!("calls were late\n{console}"));
        println!("{calls} calls in {rounds} rounds among the guest's NMIs");
        assert!(calls > 2000, "{console}");
    }
}
