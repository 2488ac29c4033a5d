//! What causes no exit: timer interrupts, HLT, EOI, and IPIs at their receiver. Told from the exit counts of two runs
//! that differ in their number of samples only: what set-up needs is the same in both.

use partita_host::emulator::MachineKind;
use partita_latency_tests::boot::{Boot, Place};
use partita_latency_tests::samples::exit_counts;
use partita_latency_tests::{Images, QUICK_SAMPLES};
use partita_rows::Group;
use std::collections::BTreeMap;
use std::path::Path;

/// pCPUs of the payload's vCPUs; see `systems/rows.toml`.
const SENDER: u16 = 1;
const RECEIVER: u16 = 2;
/// Most exits of both vCPUs that set-up, and the end, may need.
const SET_UP_MAX: u64 = 60;

type Counts = BTreeMap<(u16, &'static str), u64>;

fn exits(machine: MachineKind, group: Group, samples: u32, images: &Images, dir: &Path) -> Counts {
    let boot = Boot { place: Place::Partita, group };
    let dir = dir.join(format!("{boot}-{samples}"));
    let trace = boot.run(machine, images, samples, &dir).unwrap();
    // The rows are there: the counts are those of a whole run.
    boot.figures(&trace, samples, &dir).unwrap();
    exit_counts(&trace)
}

/// Exit counts with 200 samples of each row, and how they grow with another 200.
fn counts_and_growth(machine: MachineKind, group: Group) -> (Counts, Counts) {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::build(dir.path()).unwrap();
    let few = exits(machine, group, QUICK_SAMPLES, &images, dir.path());
    let many = exits(machine, group, 2 * QUICK_SAMPLES, &images, dir.path());
    assert!(few.keys().all(|key| many.contains_key(key)), "{few:?} {many:?}");
    let growth = many.iter().map(|(key, count)| (*key, count - few.get(key).copied().unwrap_or(0)));
    (few.clone(), growth.filter(|(_, count)| *count > 0).collect())
}

/// But for the kick by which each other vCPU learns that the partition has ended.
fn assert_free_of_interrupts_and_halts(counts: &Counts) {
    let is_end = |pcpu, reason, count| (pcpu, reason, count) == (RECEIVER, "kick", 1);
    for ((pcpu, reason), count) in counts.iter().filter(|((pcpu, reason), count)| !is_end(*pcpu, *reason, **count)) {
        assert!(!["halt", "interrupt", "kick", "nested_page_fault"].contains(reason), "pCPU {pcpu}: {count} {reason}");
    }
}

fn assert_timer_interrupts_and_halts_are_free(machine: MachineKind) {
    let (counts, growth) = counts_and_growth(machine, Group::Timer);
    assert_eq!(growth, Counts::new());
    assert_free_of_interrupts_and_halts(&counts);
    let all: u64 = counts.values().sum();
    assert!((1..=SET_UP_MAX).contains(&all), "{all}: {counts:?}");
}

fn assert_an_ipi_costs_its_sender_alone(machine: MachineKind) {
    let (counts, growth) = counts_and_growth(machine, Group::Ipi);
    assert_free_of_interrupts_and_halts(&counts);
    // What vCPU 0 sends: one to itself, one to a spinning and one to a halted vCPU 1, one that vCPU 1 answers.
    // What vCPU 1 sends: one that wakes vCPU 0 after that to the halted one, and the answer.
    let samples = u64::from(QUICK_SAMPLES);
    let expected = [((SENDER, "icr"), 4 * samples), ((RECEIVER, "icr"), 2 * samples)];
    assert_eq!(growth, Counts::from(expected));
}

#[test]
#[ignore = "boots an emulator"]
fn timer_interrupts_and_halts_cause_no_exit() {
    assert_timer_interrupts_and_halts_are_free(MachineKind::of_environment().unwrap());
}

#[test]
#[ignore = "boots an emulator"]
fn an_ipi_costs_one_exit_at_its_sender_and_none_at_its_receiver() {
    assert_an_ipi_costs_its_sender_alone(MachineKind::of_environment().unwrap());
}

#[test]
#[ignore = "boots an emulator"]
fn in_bochs_it_is_the_same() {
    for machine in [MachineKind::BOCHS_VMX, MachineKind::BOCHS_SVM] {
        assert_timer_interrupts_and_halts_are_free(machine);
        assert_an_ipi_costs_its_sender_alone(machine);
    }
}
