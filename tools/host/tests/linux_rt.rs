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

/// cyclictest's wake-ups: one a millisecond.
const LOOPS: u64 = 1000;
/// The same in Bochs, whose pCPUs idle as slowly as they work.
const BOCHS_LOOPS: u64 = 200;

/// What cyclictest printed, in microseconds.
struct Cyclictest {
    min: u64,
    max: u64,
}

/// Runs cyclictest on Linux in a partition, and asserts that neither its timer nor its HLT cost an exit.
fn measure(machine: MachineKind, loops: u64, timeout: Duration) -> Cyclictest {
    let path = cargo_build::repository().unwrap().join("rt-partitions/systems/linux-rt.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let wanted = format!("cmdline = \"cyclictest_loops={loops} ");
    let text = text.replacen("cmdline = \"", &wanted, 1);
    assert!(text.contains(&wanted), "{text}");
    let system = SystemFile::parse(&text, &path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = RunOptions {
        machine,
        clock: Clock::Icount,
        timeout,
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
    println!("{machine}: {figures}");
    let figure = |name: &str| -> u64 {
        let after = figures.split(name).nth(1).unwrap_or_else(|| panic!("{name} in {figures:?}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(figure(" C:"), loops, "{figures}");

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

    // As many timer interrupts as loops, and as many HLTs, a millisecond each: not one exit of any kind. That takes less than
    // the loops by what cyclictest's start and end take.
    let times: Vec<u64> = merged(&trace)
        .filter_map(|item| match item {
            Item::Frame { frame, .. } if matches!(frame.body, Body::Event(Event::Exit { .. })) => Some(frame.tsc),
            _ => None,
        })
        .collect();
    assert_eq!(times.len() as u64, exits.iter().map(|(_, count)| count).sum::<u64>(), "the ring holds every exit");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    let millisecond = trace.tsc_hz.unwrap() / 1000;
    assert!(longest >= (loops - 10) * millisecond, "the longest time without an exit is {longest} ticks");
    Cyclictest { min: figure("Min:"), max: figure("Max:") }
}

#[test]
#[ignore = "fetches Debian packages and runs QEMU for half a minute; ci/test.sh runs it"]
fn cyclictest_runs_without_exits_for_timer_and_halt() {
    let Cyclictest { min, max } = measure(MachineKind::Qemu, LOOPS, Duration::from_secs(240));
    assert!(max >= min && max < 100, "{min} to {max} us");
}

/// 50 million instructions a second make a wake-up 20 times as long as in QEMU.
#[test]
#[ignore = "runs Bochs for some minutes; ci/test.sh --long runs it"]
fn in_bochs_it_does_so_with_vmx_and_svm() {
    let haswell = "bochs:corei7_haswell_4770".parse().unwrap();
    for machine in [haswell, MachineKind::BOCHS_VMX, MachineKind::BOCHS_SVM] {
        let Cyclictest { min, max } = measure(machine, BOCHS_LOOPS, Duration::from_secs(1500));
        assert!(max >= min && max < 300, "{machine}: {min} to {max} us");
    }
}
