//! Kicks: the housekeeping core calls a real-time core again and again, whatever its guest does. None may be lost.

mod bursts;

use crate::guests::guest;
use crate::system::{Left, is_long, load, machine, run, uses_vmx};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::KickKind;

/// The housekeeping core: it counts the kicks, too. The only pCPU that it calls is the target.
const CALLER: u16 = 0;
const TARGET: u16 = 1;
/// The states of a guest, and the most ticks that half of the kicks may take to have it leave, on VMX in Bochs.
const STATES: [(&str, u64); 4] = [("spin_if1", 30), ("spin_if0", 30), ("hlt", 30), ("exit_storm", IN_A_STORM)];
/// The same in a storm of exits: at most a whole exit more.
const IN_A_STORM: u64 = 150;
/// What a storm can consist of (`rt-partitions/guest-tests/src/leave.rs`); `each` has all in turn.
const STORMS: [&str; 8] = ["cpuid", "rdmsr", "wrmsr", "in", "hypercall", "icr", "wbinvd", "each"];

/// Bursts of two kicks in each of three states, and how many of them all have their kicks as close as they have to be, at least.
const BURSTS: u64 = 1860;
const BURSTS_MIN: usize = 3000;

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
    /// The ticks from each of their kicks to the guest's exit, in order of size.
    to_exit: Vec<u64>,
}

impl Kicked {
    /// Asserts that half of the kicks took no longer, on VMX in Bochs.
    fn assert_median(&self, state: &str, most: u64) {
        let median = self.to_exit[self.to_exit.len().div_ceil(2) - 1];
        println!(
            "{state}: the median from kick to exit is {median} ticks, the most {}",
            self.to_exit[self.to_exit.len() - 1]
        );
        assert!(median <= most || !uses_vmx(), "{state}: the median from kick to exit is {median} ticks");
    }
}

impl Run {
    /// Runs, and asserts that no kick was lost.
    pub(crate) fn one(&self, state: &str) -> Kicked {
        let options = format!("group=kick state={state} pause={}", u8::from(self.pause));
        self.of_guest(state, "latency", &options)
    }

    /// The same of a guest that leaves all the time, for the same.
    fn storm(&self, kind: &str) -> Kicked {
        self.of_guest(kind, "guest-tests", &format!("test=exit_storm kind={kind}"))
    }

    fn of_guest(&self, state: &str, payload: &str, options: &str) -> Kicked {
        let Self { clock, smp_call_hz, in_state, before, .. } = *self;
        let rounds = in_state + before;
        let system = load(
            "kicks.toml",
            &[
                ("smp_call_hz = 100000", &format!("smp_call_hz = {smp_call_hz}")),
                ("smp_call_rounds = 1000", &format!("smp_call_rounds = {rounds}")),
                ("name = \"latency\"", &format!("name = \"{payload}\"")),
                ("group=kick state=spin_if1 pause=1", options),
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
        let to_exit = events.iter().filter_map(|(tsc, event)| match event {
            Event::SmpCallServed { kind: KickKind::Nmi, kick_to_exit, .. } if *tsc > sits_from => {
                Some(u64::from(*kick_to_exit))
            }
            _ => None,
        });
        let mut to_exit: Vec<u64> = to_exit.collect();
        to_exit.sort_unstable();
        Kicked { left, calls, to_exit }
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
    for (state, most) in STATES {
        run.one(state).assert_median(state, most);
    }
}

/// Not back to back: several exits have to come between two calls, or each would find the guest at the same instruction. The
/// short form has one storm, of exits of each kind in turn.
#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_in_storms_of_each_kind_by_instruction_count() {
    let (in_state, kinds) = if is_long() { (100_000, &STORMS[..]) } else { (5000, &STORMS[7..]) };
    let run = Run { clock: Clock::Icount, pause: true, smp_call_hz: 50_000, in_state, before: 1000 };
    for kind in kinds {
        run.storm(kind).assert_median(kind, IN_A_STORM);
    }
}

/// With a thread for each core, and a guest that never pauses. The short form has a tenth of the calls: the host's CPUs, which
/// the threads share, make it take minutes otherwise.
fn threaded(state: &str) {
    let in_state = if is_long() { 100_000 } else { 10_000 };
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
    let in_state = if is_long() { 200 } else { 100 };
    let run = Run { clock: Clock::Icount, pause: false, smp_call_hz: 1000, in_state, before: 50 };
    for (state, _) in STATES {
        run.one(state);
    }
}

/// Two kicks, the second at every distance behind the first: for an SMP call and for a guest's NMI, in either order. Each is
/// served in the time that a kick takes. A hypervisor that only looks at what is asked before it enters the guest loses the
/// second one if it comes between the look and the entry.
#[test]
#[ignore = "boots an emulator"]
fn none_of_two_in_a_burst_is_lost() {
    let hits = bursts::around_calls(if is_long() { 10 * BURSTS } else { BURSTS });
    println!("bursts to a guest that spins, halts, storms: {hits:?}");
    assert!(hits.iter().sum::<usize>() >= BURSTS_MIN || machine() == MachineKind::Qemu, "{hits:?}");
}

/// A kick at every distance behind an exit of each kind.
#[test]
#[ignore = "boots an emulator"]
fn none_of_two_is_lost_at_an_exit() {
    let hits = bursts::around_exits(if is_long() { 10_000 } else { 600 });
    println!("kicks at an exit for {}: {hits:?}", STORMS[..7].join(", "));
}

/// A kick at every distance from an INIT, with which a target's local APIC is reset, and from the start that follows.
#[test]
#[ignore = "boots an emulator"]
fn none_of_two_is_lost_at_a_start() {
    let hits = bursts::around_starts(if is_long() { 9000 } else { 900 });
    println!("calls at an INIT: {hits:?}");
}

/// Two kicks within one exit: the guest's CPUs send each other and themselves 2,000 NMIs in each run, each for itself, while the
/// housekeeping core calls them back to back. Bursts at chosen distances, which Bochs has, make up for no lost kick.
#[test]
#[ignore = "boots an emulator"]
fn none_of_two_is_lost_among_back_to_back_calls() {
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
