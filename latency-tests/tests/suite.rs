//! The suite as a whole: it is deterministic, complete, and within its budgets.

use partita_host::emulator::MachineKind;
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::{BenchFile, QUICK_SAMPLES, SuiteOptions, run};
use std::path::Path;

fn quick(machine: MachineKind, dir: &Path, jobs: usize) -> BenchFile {
    run(&SuiteOptions { machine, samples: QUICK_SAMPLES, jobs, out_dir: dir.to_path_buf() }).unwrap()
}

#[test]
#[ignore = "boots an emulator"]
fn two_runs_are_identical_complete_and_within_their_budgets() {
    let machine = MachineKind::of_environment().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = quick(machine, &dir.path().join("one-at-a-time"), 1);
    let again = quick(machine, &dir.path().join("two-at-a-time"), 2);
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
}
