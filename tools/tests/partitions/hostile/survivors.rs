//! Attacks that the attacker survives: it counts what it was refused, and the hypervisor counts the same.

use super::{Attack, last_word, lines, numbers, pass, refused, stops, words};
use crate::system::{Left, is_long};
use partita_host::emulator::Clock;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, StopCause};

/// What the attacker's last line says.
struct Said {
    tries: u64,
    accesses: u64,
    ipis: u64,
}

/// Runs an attack for so many milliseconds of the guests' time, which it has to be over in.
fn run(attack: &Attack<'_>, milliseconds: u64) -> (Left, Said) {
    let left = attack.run(&words(&pass(milliseconds)));
    let consoles = left.consoles();
    let lines = lines(&left);
    let last = lines.last().unwrap_or_else(|| panic!("{consoles}"));
    println!("{last}");
    assert!(last.ends_with(", 0 wrong"), "{consoles}");
    let (tries, refusals) = last.split_once(" tries, ").unwrap_or_else(|| panic!("{consoles}"));
    let (accesses, ipis) = numbers(refusals.split_once("refused ").unwrap().1);
    let said = Said { tries: tries.rsplit(' ').next().unwrap().parse().unwrap(), accesses, ipis };
    assert!(last_word(&left).starts_with("partita: partition 1 \"hostile\": finished, success; "), "{consoles}");
    let stops = stops(&left);
    assert!(
        matches!(stops[..], [stop] if stop.cause == StopCause::Finished && stop.detail == 0),
        "{stops:?}\n{consoles}"
    );
    (left, said)
}

/// The same, with an exact count on both sides.
fn run_exactly(attack: &Attack<'_>, milliseconds: u64) -> Left {
    let (left, said) = run(attack, milliseconds);
    assert!(said.tries > 0);
    assert_eq!(refused(&left), (said.accesses, said.ipis), "{}", left.consoles());
    left
}

fn exits(left: &Left, reason: ExitReason) -> u64 {
    [1, 4].iter().map(|pcpu| left.count(*pcpu, HistogramId::Exit(reason))).sum()
}

#[test]
#[ignore = "boots an emulator"]
fn every_msr_is_read_and_written() {
    let steps = if is_long() { 100_000 } else { 2000 };
    let left = run_exactly(&Attack::new(&format!("attack=msrs seed=1 steps={steps}")), 600 + steps / 25);
    let reads = exits(&left, ExitReason::MsrRead);
    assert!(reads > 3 * 0x2000 - 100, "{reads} reads of registers");
}

#[test]
#[ignore = "boots an emulator"]
fn every_port_is_read_and_written() {
    // String forms at every so many ports.
    let stride = if is_long() { 1 } else { 64 };
    let left = run_exactly(&Attack::new(&format!("attack=ports seed=1 steps={stride}")), 1500 + 4000 / stride);
    let (reads, writes) = (exits(&left, ExitReason::IoIn), exits(&left, ExitReason::IoOut));
    assert!(reads >= 3 * 65_500 && writes >= 3 * 65_500, "{reads} reads, {writes} writes");
}

#[test]
#[ignore = "boots an emulator"]
fn local_vectors_have_no_forbidden_mode() {
    let steps = if is_long() { 200_000 } else { 10_000 };
    run_exactly(&Attack::new(&format!("attack=lvt seed=1 steps={steps}")), 300 + steps / 20);
}

#[test]
#[ignore = "boots an emulator"]
fn no_hypercall_does_harm() {
    let steps = if is_long() { 1_000_000 } else { 30_000 };
    let left = run_exactly(&Attack::new(&format!("attack=hypercalls seed=1 steps={steps}")), 200 + steps / 100);
    assert!(exits(&left, ExitReason::Hypercall) > steps / 2);
}

#[test]
#[ignore = "boots an emulator"]
fn no_privileged_instruction_gets_through() {
    let steps = if is_long() { 1000 } else { 20 };
    run_exactly(&Attack::new(&format!("attack=instructions seed=1 steps={steps}")), 100 + steps * 4);
}

fn every_class_of_ipi(clock: Clock, options: &str, milliseconds: u64) {
    let options = format!("attack=icr seed=1 {options}");
    run_exactly(&Attack { clock, ..Attack::pair(&options) }, milliseconds);
}

#[test]
#[ignore = "boots an emulator"]
fn no_ipi_reaches_another_by_instruction_count() {
    let steps = if is_long() { 30_000 } else { 2000 };
    every_class_of_ipi(Clock::Icount, &format!("steps={steps}"), 1000 + steps / 2);
}

/// To the first destinations only, both of its vCPUs among them: where the host has fewer cores than the machine, each start of
/// a vCPU waits for its thread.
#[test]
#[ignore = "boots an emulator"]
fn no_ipi_reaches_another_by_threads() {
    every_class_of_ipi(Clock::Host, "count=5 steps=100", 12_000);
}

fn storm(clock: Clock, steps: u64, milliseconds: u64) {
    let steps = if is_long() { 5000 } else { steps };
    let options = format!("attack=storm seed=1 steps={steps}");
    let left = run_exactly(
        &Attack { clock, ..Attack::pair(&options) },
        if is_long() { 40 * milliseconds } else { milliseconds },
    );
    let kinds = [
        ExitReason::Cpuid,
        ExitReason::MsrRead,
        ExitReason::MsrWrite,
        ExitReason::IoIn,
        ExitReason::IoOut,
        ExitReason::Hypercall,
        ExitReason::IcrWrite,
    ];
    for kind in kinds {
        assert!(exits(&left, kind) > 100, "{kind:?}: {}", exits(&left, kind));
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_exits_is_not_noticed_by_instruction_count() {
    storm(Clock::Icount, 500, 500);
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_exits_is_not_noticed_by_threads() {
    storm(Clock::Host, 200, 5000);
}
