//! The suite as a whole: it is deterministic, complete, and within its budgets.

use partita_host::emulator::MachineKind;
use partita_latency_tests::boot::{Boot, Place};
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::{BenchFile, QUICK_SAMPLES, SuiteOptions, run, run_some};
use partita_rows::{Group, Row};
use std::path::Path;

fn quick(machine: MachineKind, dir: &Path, jobs: usize) -> SuiteOptions {
    SuiteOptions { machine, samples: QUICK_SAMPLES, jobs, out_dir: dir.to_path_buf() }
}

/// Asserts that two runs, one boot at a time and two at a time, have the same rows, and that these are good.
fn assert_alike_and_within_budget(machine: MachineKind, measure: impl Fn(&SuiteOptions) -> BenchFile) -> BenchFile {
    let dir = tempfile::tempdir().unwrap();
    let file = measure(&quick(machine, &dir.path().join("one-at-a-time"), 1));
    let again = measure(&quick(machine, &dir.path().join("two-at-a-time"), 2));
    let text = |file: &BenchFile| serde_json::to_string_pretty(&file.rows).unwrap();
    assert_eq!(text(&file), text(&again));

    assert_eq!(file.machine, machine.result_name());
    let wanted = u64::from(QUICK_SAMPLES);
    for row in &file.rows {
        assert_eq!(row.partita.count, wanted, "{row:?}");
        assert!(row.bare.is_none_or(|bare| bare.count == wanted), "{row:?}");
        assert!(row.partita.min > 0, "nothing takes no time: {row:?}");
        for figures in [Some(row.partita), row.bare].into_iter().flatten() {
            assert!([figures.min, figures.p50, figures.p99, figures.max].is_sorted(), "{row:?}");
        }
    }
    assert_eq!(Budgets::of_repository(machine).unwrap().check(&file), []);
    file
}

fn assert_whole_suite(machine: MachineKind) {
    let file = assert_alike_and_within_budget(machine, |options| run(options).unwrap());
    assert_eq!(file.rows.len(), Row::ALL.len());
}

#[test]
#[ignore = "boots an emulator"]
fn two_runs_are_identical_complete_and_within_their_budgets() {
    assert_whole_suite(MachineKind::of_environment().unwrap());
}

/// Bochs takes some seconds until a boot's payload runs: the short form has the boots that budgets are about, without the bare
/// machine.
#[test]
#[ignore = "boots an emulator"]
fn two_runs_with_vmx_in_bochs_are_identical_and_within_their_budgets() {
    if std::env::var("PARTITA_LONG").is_ok_and(|value| value == "1") {
        return assert_whole_suite(MachineKind::BOCHS_VMX);
    }
    let boots = [Group::Exit, Group::Kick, Group::Broadcast].map(|group| Boot { place: Place::Partita, group });
    let file =
        assert_alike_and_within_budget(MachineKind::BOCHS_VMX, |options| run_some(options, boots.into_iter()).unwrap());
    for budgeted in [Row::ExitCpuid, Row::KickNmiToExit, Row::SmpCallRoundtrip, Row::SmpCallBroadcast3] {
        assert!(file.rows.iter().any(|row| row.name == budgeted.name()), "{}", budgeted.name());
    }
}

#[test]
#[ignore = "boots an emulator"]
fn two_runs_with_svm_in_bochs_are_identical_and_within_their_budgets() {
    assert_whole_suite(MachineKind::BOCHS_SVM);
}
