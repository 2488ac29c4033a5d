//! The suite as a whole: it is deterministic, complete, and within its budgets.

use partita_host::emulator::{Clock, MachineKind};
use partita_host::run::{RunOptions, run_system};
use partita_host::trace::Trace;
use partita_latency_tests::boot::{Boot, Place, rows_of};
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::extent::{Extent, overshoot};
use partita_latency_tests::samples::distribution;
use partita_latency_tests::systems::system;
use partita_latency_tests::{BenchFile, Figures, Images, QUICK_SAMPLES, SuiteOptions, run, run_some};
use partita_rows::row::Source;
use partita_rows::{Group, Row};
use std::path::Path;
use std::time::Duration;

fn quick(machine: MachineKind, dir: &Path, jobs: usize) -> SuiteOptions {
    SuiteOptions { machine, samples: QUICK_SAMPLES, is_long: false, jobs, out_dir: dir.to_path_buf() }
}

/// Asserts that two runs, one boot at a time and two at a time, have the same rows, and that these are good.
fn assert_alike_and_within_budget(machine: MachineKind, measure: impl Fn(&SuiteOptions) -> BenchFile) -> BenchFile {
    let dir = tempfile::tempdir().unwrap();
    let file = measure(&quick(machine, &dir.path().join("one-at-a-time"), 1));
    let again = measure(&quick(machine, &dir.path().join("two-at-a-time"), 2));
    let text = |file: &BenchFile| serde_json::to_string_pretty(&file.rows).unwrap();
    assert_eq!(text(&file), text(&again));

    assert_eq!(file.machine, machine.result_name());
    for row in &file.rows {
        let kind = Row::from_name(row.name).unwrap();
        let wanted = Extent::from(QUICK_SAMPLES).count_of(kind);
        assert!(wanted.is_none_or(|wanted| row.partita.count == wanted), "{row:?}");
        assert!(row.bare.is_none_or(|bare| Some(bare.count) == wanted), "{row:?}");
        // What is taken from a guest may be nothing, and so may what a trace costs that is no part of an exit.
        let may_be_none = kind.group() == Group::Quiet || kind.source() == Source::Derived;
        assert!(row.partita.min > 0 || may_be_none, "nothing takes no time: {row:?}");
        for figures in [Some(row.partita), row.bare].into_iter().flatten() {
            assert!([figures.min, figures.p50, figures.p99, figures.max].is_sorted(), "{row:?}");
        }
    }
    let budgets = Budgets::of_repository(machine).unwrap();
    let above: Vec<String> = budgets.check(&file).iter().map(ToString::to_string).collect();
    assert_eq!(above, [""; 0]);
    // In Bochs few samples can miss a row's maximum.
    if machine == MachineKind::Qemu {
        let loose: Vec<String> = budgets.loose(machine, &file).iter().map(ToString::to_string).collect();
        assert_eq!(loose, [""; 0], "bring the budgets down with `cargo partita bench --tighten`");
    }
    file
}

fn assert_whole_suite(machine: MachineKind) {
    let file = assert_alike_and_within_budget(machine, |options| run(options).unwrap());
    assert_eq!(file.rows.len(), rows_of(machine).len());
}

fn is_long() -> bool {
    std::env::var("PARTITA_LONG").is_ok_and(|value| value == "1")
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
    if is_long() {
        return assert_whole_suite(MachineKind::BOCHS_VMX);
    }
    let groups = [Group::Quiet, Group::Exit, Group::Kick, Group::Broadcast, Group::Untraced, Group::BesideExits];
    let boots = groups.map(|group| Boot { place: Place::Partita, group });
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

/// The boot of a polling guest that is not left alone: the trace has to explain every gap.
#[test]
#[ignore = "boots an emulator"]
fn a_guest_that_is_called_sees_gaps_that_are_the_hypervisors() {
    let machine = MachineKind::of_environment().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let images = Images::build(dir.path()).unwrap();
    let mut system = system(Group::Quiet, QUICK_SAMPLES.into(), &images.payload).unwrap();
    system.config.housekeeping.smp_call_hz = 50;
    let options = RunOptions {
        machine,
        clock: Clock::Icount,
        timeout: Duration::from_secs(300),
        out_dir: dir.path().join("called"),
        hypervisor: Some(images.hypervisor),
        keep_ram: false,
        quiet: true,
    };
    let report = run_system(&system, &options).unwrap();
    assert!(report.outcome.is_success(), "{}", report.outcome);
    let trace = Trace::load(&report.dir).unwrap();
    let of = |row| distribution(&trace, row, true, QUICK_SAMPLES).unwrap();
    let gaps: u64 = of(Row::QuietGaps).iter().map(|(_, count)| count).sum();
    // Where one pCPU runs after the other, two calls may come in one turn of the others.
    assert!((40..=51).contains(&gaps), "{gaps} gaps in a second of 50 calls");
    // Each was longer than what its exit took.
    let longest = of(Row::QuietGaps).last().unwrap().0;
    let stolen = of(Row::HousekeepingStolenPerS)[0].0;
    assert!(stolen > 0 && stolen < gaps * longest, "{stolen} ticks in {gaps} gaps of at most {longest}");
}

/// A million periods of the timer are as late as two hundred are, and as on the bare machine.
#[test]
#[ignore = "boots an emulator"]
fn a_million_periods_are_as_on_the_bare_machine() {
    let machine = MachineKind::of_environment().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let boots = [Place::Partita, Place::Bare].map(|place| Boot { place, group: Group::Timer });
    let options = SuiteOptions { is_long: is_long(), ..quick(machine, dir.path(), 2) };
    let file = run_some(&options, boots.into_iter()).unwrap();
    let row = file.row(Row::TimerPeriodic200us.name()).unwrap();
    let (partita, bare) = (row.partita, row.bare.unwrap());
    let all_but_max = |figures: Figures| Figures { max: 0, ..figures };
    assert_eq!(all_but_max(partita), all_but_max(bare));
    assert_eq!(partita.count, if is_long() { 1_000_000 } else { u64::from(QUICK_SAMPLES) });
    let overshoot = overshoot(&machine.result_name(), Row::TimerPeriodic200us.name(), partita.count);
    for figures in [partita, bare] {
        assert!(figures.p999 == figures.min && figures.max <= figures.min + overshoot, "{row:?}");
    }
}
