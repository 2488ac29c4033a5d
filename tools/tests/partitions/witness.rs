//! The emulator's own log of exits, against the trace: what the hypervisor says it handled is what happened.

use crate::system::{load, run_with_witness};
use partita_host::outcome::RunOutcome;
use partita_host::witness::Agreement;

fn witnessed(test: &str, smp_call_hz: u32) -> Agreement {
    let (option, rate) = (format!("test={test}"), format!("smp_call_hz = {smp_call_hz}"));
    let system = load("guest.toml", &[("test=cpu", &option), ("smp_call_hz = 0", &rate)]);
    let left = run_with_witness(&system, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    let agreement = match left.witness {
        Some(Ok(agreement)) => agreement,
        other => panic!("{test}: {other:?}"),
    };
    println!("{test}: {agreement}");
    // An exit is traced before its vCPU waits, so that none is missing, not even the last ones.
    assert_eq!(agreement.traced, agreement.exits, "{agreement:?}");
    assert!(agreement.unfinished.is_empty(), "{agreement:?}");
    // The emulator's slices can end between an exit and its first time-stamp, if seldom: then another pCPU's comes first.
    assert!(agreement.deferred <= agreement.exits / 1000, "{agreement:?}");
    agreement
}

#[test]
#[ignore = "boots an emulator"]
fn every_exit_of_a_guest_is_in_the_trace() {
    let agreement = witnessed("cpu", 1000);
    assert!(agreement.exits > 1000, "{agreement:?}");
}

#[test]
#[ignore = "boots an emulator"]
fn so_are_those_of_ipis_and_nmis_among_kicks() {
    assert!(witnessed("icr", 10_000).exits > 500);
    assert!(witnessed("nmi", 10_000).exits > 5000);
}

/// INIT and SIPI again and again.
#[test]
#[ignore = "boots an emulator"]
fn so_are_those_of_vcpus_that_are_started_again() {
    assert!(witnessed("smp", 10_000).exits > 1000);
}

/// Each kind of exit that a guest can cause by an instruction.
#[test]
#[ignore = "boots an emulator"]
fn so_are_those_of_refused_instructions_and_ports() {
    for test in ["instructions", "io", "msr"] {
        witnessed(test, 1000);
    }
}
