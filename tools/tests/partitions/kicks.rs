//! Kicks: the housekeeping core calls a real-time core again and again, whatever its guest does. None may be lost.

use crate::system::{load, run};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;

const TARGET: u16 = 1;
const STATES: [&str; 4] = ["spin_if1", "spin_if0", "hlt", "exit_storm"];

/// Full length, or that of a quick run.
fn rounds(full: u32, short: u32) -> u32 {
    if std::env::var("PARTITA_LONG").is_ok_and(|long| long == "1") { full } else { short }
}

fn kick(clock: Clock, pause: u8, smp_call_hz: u32, rounds: u32) {
    for state in STATES {
        let system = load(
            "kicks.toml",
            &[
                ("smp_call_hz = 100000", &format!("smp_call_hz = {smp_call_hz}")),
                ("smp_call_rounds = 1000", &format!("smp_call_rounds = {rounds}")),
                ("state=spin_if1 pause=1", &format!("state={state} pause={pause}")),
            ],
        );
        let left = run(&system, clock, 900);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        let line = format!("partita: {rounds} rounds of SMP calls, {rounds} calls, 0 late\n");
        assert!(left.console("hypervisor").contains(&line), "{consoles}");
        let counts = [
            left.count(TARGET, HistogramId::KickNmi),
            left.count(0, HistogramId::SmpCall),
            left.count(TARGET, HistogramId::KickVector),
        ];
        // The vector is the call that gave the pCPU its vCPU.
        assert_eq!(counts, [rounds.into(), rounds.into(), 1], "{state}: {consoles}");
        let exits = left.count(TARGET, HistogramId::Exit(ExitReason::Kick));
        println!("{state}: {exits} exits by a kick");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_instruction_count() {
    kick(Clock::Icount, 1, 1_000_000, rounds(100_000, 10_000));
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_with_a_thread_for_each_core() {
    kick(Clock::Host, 0, 1_000_000, rounds(100_000, 10_000));
}

#[test]
#[ignore = "boots an emulator"]
fn none_is_lost_by_a_guest_that_never_pauses() {
    kick(Clock::Icount, 0, 1000, rounds(200, 20));
}
