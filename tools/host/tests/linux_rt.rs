//! Debian's unmodified PREEMPT_RT kernel as a real-time partition: `rt-partitions/systems/linux-rt.toml`.

use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, run_system};
use partita_host::system_file::SystemFile;
use partita_host::trace::{Item, Origin, Trace, histograms, merged};
use partita_trace::Event;
use partita_trace::snapshot::Body;
use std::time::Duration;

/// Ticks (nanoseconds under icount) of cyclictest's measurement, less what its start and end take.
const MEASUREMENT: u64 = 990_000_000;

#[test]
#[ignore = "fetches Debian packages and runs QEMU for half a minute; ci/test.sh runs it"]
fn cyclictest_runs_without_exits_for_timer_and_halt() {
    let root = cargo_build::repository().unwrap();
    let system = SystemFile::load(&root.join("rt-partitions/systems/linux-rt.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(240),
        out_dir: dir.path().join("run"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let report = run_system(&system, &options).unwrap();
    let console = String::from_utf8_lossy(&std::fs::read(dir.path().join("run/linux.log")).unwrap()).into_owned();
    assert_eq!(report.outcome, RunOutcome::Success, "{console}");

    // "linux-rt: T: 0 (   95) P:90 I:1000 C:   1000 Min:      3 Act:    3 Avg:    3 Max:       5", in microseconds.
    let figures = console.lines().find(|line| line.contains("T: 0 (")).expect("cyclictest's figures");
    let figure = |name: &str| -> u64 {
        let after = figures.split(name).nth(1).unwrap_or_else(|| panic!("{name} in {figures:?}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(figure(" C:"), 1000, "{figures}");
    assert!(figure("Max:") >= figure("Min:") && figure("Max:") < 100, "{figures}");

    let trace = Trace::load(&options.out_dir).unwrap();
    let (hist, _) = histograms(&trace);
    let exits: Vec<(&str, u64)> = hist
        .sources
        .iter()
        .filter(|source| source.kind == "exit" && source.source == Origin::AlwaysOn && source.pcpu == 1)
        .map(|source| (source.name, source.count))
        .collect();
    assert!(exits.iter().any(|(name, count)| *name == "cpuid" && *count > 0), "{exits:?}");
    for reason in ["halt", "interrupt", "nested_page_fault", "exception"] {
        assert!(exits.iter().all(|(name, _)| *name != reason), "{reason} in {exits:?}");
    }

    // A thousand timer interrupts, and as many HLTs, in a second: not one exit of any kind.
    let times: Vec<u64> = merged(&trace)
        .filter_map(|item| match item {
            Item::Frame { frame, .. } if matches!(frame.body, Body::Event(Event::Exit { .. })) => Some(frame.tsc),
            _ => None,
        })
        .collect();
    assert_eq!(times.len() as u64, exits.iter().map(|(_, count)| count).sum::<u64>(), "the ring holds every exit");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest >= MEASUREMENT, "the longest time without an exit is {longest} ticks");
}
