//! The emulator's own log of exits, against the trace: what the hypervisor says it handled is what happened.

use crate::system::{load, run_with_witness};
use partita_host::outcome::RunOutcome;
use partita_host::witness::Agreement;

/// vCPUs of guest and survivor. Each ends in an exit from which it does not go on.
const VCPUS: usize = 3;

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
    assert_eq!(agreement.traced + agreement.unfinished.len(), agreement.exits);
    assert!(agreement.unfinished.len() <= VCPUS, "{agreement:?}");
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

/// INIT and SIPI again and again: a vCPU that waits for its start handles its last exit when it is started.
#[test]
#[ignore = "boots an emulator"]
fn so_are_those_of_vcpus_that_are_started_again() {
    let agreement = witnessed("smp", 10_000);
    assert!(agreement.exits > 1000 && agreement.deferred > 0, "{agreement:?}");
}

/// Each kind of exit that a guest can cause by an instruction.
#[test]
#[ignore = "boots an emulator"]
fn so_are_those_of_refused_instructions_and_ports() {
    for test in ["instructions", "io", "msr"] {
        witnessed(test, 1000);
    }
}
