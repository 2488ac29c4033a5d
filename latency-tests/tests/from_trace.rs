//! Figures, histograms and comparisons of traces that a run left.

use partita_host::emulator::MachineKind;
use partita_latency_tests::boot::{Boot, Place};
use partita_latency_tests::compare::{Comparison, OldFile};
use partita_latency_tests::from_trace::figures_of;
use partita_latency_tests::{QUICK_SAMPLES, SuiteOptions, run_some};
use partita_rows::Group;

#[test]
#[ignore = "boots an emulator"]
fn the_figures_of_a_run_are_those_of_its_traces() {
    let dir = tempfile::tempdir().unwrap();
    let options = SuiteOptions {
        machine: MachineKind::Qemu,
        samples: QUICK_SAMPLES,
        is_long: false,
        jobs: 2,
        out_dir: dir.path().join("run"),
    };
    let places = [
        (Place::Partita, Group::Exit),
        (Place::Bare, Group::Exit),
        (Place::Partita, Group::Gap),
        // What the trace costs is derived.
        (Place::Partita, Group::Untraced),
    ];
    let boots = places.map(|(place, group)| Boot { place, group });
    let measured = run_some(&options, boots.into_iter()).unwrap();
    let json = dir.path().join("old.json");
    std::fs::write(&json, serde_json::to_vec(&measured).unwrap()).unwrap();

    let found = figures_of(std::slice::from_ref(&options.out_dir)).unwrap();
    assert_eq!(found.file, measured);
    let heading = |text: &str| found.charts.iter().any(|chart| chart.first().is_some_and(|line| line == text));
    assert!(heading("exit.cpuid, Partita: 200 samples") && heading("exit.cpuid, bare: 200 samples"));

    let old = OldFile::read_all(&json).unwrap();
    let comparison = Comparison::of(OldFile::fitting(&old, &found.file, &json).unwrap(), &found.file);
    assert!(found.file.row("trace.cost.cpuid").is_some());
    assert!(comparison.slower().is_empty() && comparison.gone().is_empty() && comparison.notes().is_empty());
}
