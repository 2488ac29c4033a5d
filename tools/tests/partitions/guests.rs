//! What guests may rely on: they claim it one by one. What the hypervisor traced about it is compared here.

use crate::system::{Left, load, run};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, IcrRefusal, PolicyKind};

/// Claims of the guest that must not notice anything.
const SURVIVOR_CLAIMS: usize = 4;
/// pCPUs of the guest.
const PCPUS: [u16; 2] = [2, 3];

fn guest(test: &str, clock: Clock, smp_call_hz: u32, claims: usize) -> Left {
    let (test, rate) = (format!("test={test}"), format!("smp_call_hz = {smp_call_hz}"));
    let system = load("guest.toml", &[("test=cpu", &test), ("smp_call_hz = 0", &rate)]);
    let left = run(&system, clock, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("guest", claims);
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
    left
}

fn refusals(left: &Left) -> Vec<(PolicyKind, u64, u64)> {
    let events = left.events(PCPUS[0]).into_iter();
    let refused = |(_, event)| match event {
        Event::PolicyRefused { kind, target, value } => Some((kind, target, value)),
        _ => None,
    };
    events.filter_map(refused).collect()
}

fn exits(left: &Left, reason: ExitReason) -> u64 {
    PCPUS.iter().map(|pcpu| left.count(*pcpu, HistogramId::Exit(reason))).sum()
}

#[test]
#[ignore = "boots an emulator"]
fn a_vcpu_looks_as_it_should() {
    let left = guest("cpu", Clock::Icount, 1000, 79);
    let touches =
        |(_, event): &(u64, Event)| matches!(event, Event::Exit { reason: ExitReason::MsrWrite, detail: 0x1B, .. });
    // The runtime would have switched x2APIC mode on.
    assert!(!PCPUS.iter().any(|pcpu| left.events(*pcpu).iter().any(touches)), "x2APIC mode is on from the start");
    assert_eq!(refusals(&left), []);
}

#[test]
#[ignore = "boots an emulator"]
fn a_second_vcpu_starts_from_every_state() {
    for clock in [Clock::Icount, Clock::Host] {
        guest("smp", clock, 0, 23);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn interrupts_arrive_where_they_may() {
    let left = guest("icr", Clock::Icount, 0, 0);
    let _ = (refusals(&left), IcrRefusal::Smi);
}

#[test]
#[ignore = "boots an emulator"]
fn nmis_are_the_guests_own() {
    for (clock, smp_call_hz) in [(Clock::Icount, 0), (Clock::Icount, 10_000), (Clock::Host, 10_000)] {
        guest("nmi", clock, smp_call_hz, 0);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn msrs_follow_the_policy() {
    let left = guest("msr", Clock::Icount, 0, 0);
    for refusal in refusals(&left) {
        println!("{refusal:x?}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn ports_follow_the_policy() {
    let left = guest("io", Clock::Icount, 0, 0);
    for refusal in refusals(&left) {
        println!("{refusal:x?}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn hidden_instructions_are_not_there() {
    let left = guest("instructions", Clock::Icount, 0, 0);
    for refusal in refusals(&left) {
        println!("{refusal:x?}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn timer_and_halt_cost_no_exit() {
    let left = guest("timer", Clock::Icount, 0, 4);
    assert_eq!(exits(&left, ExitReason::Interrupt) + exits(&left, ExitReason::Halt), 0);
}
