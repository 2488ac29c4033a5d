//! The demonstration: cyclictest in a Debian PREEMPT_RT partition, alone and beside one that runs stress-ng.

use crate::system::is_long;
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::measure::cyclictest_report;
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, run_system};
use partita_host::system_file::SystemFile;
use partita_host::trace::Trace;
use std::time::Duration;

/// The longest latency in microseconds while the neighbour idles. Its own path takes 3; two vCPUs wake at the same time, of
/// which the emulator lets one wait.
const ALONE_MAX: u64 = 50;
/// While it works: the emulator has five pCPUs to run, in slices that a tick of the metronome cuts to 5 us.
const BESIDE_MAX: u64 = 100;
/// How many wake-ups, a millisecond each, the thread that cyclictest starts last may have missed: 16 beside a neighbour at work.
const STARTED_LATER: u64 = 25;
/// What the long form has in place of what the system file says.
const LONG: [(&str, &str); 2] =
    [("loops=500 begin=3 again=5", "loops=10000 begin=3 again=16"), ("work=4 seconds=2", "work=14 seconds=14")];

#[test]
#[ignore = "boots an emulator"]
fn a_real_time_linux_does_not_notice_a_busy_one() {
    let path = cargo_build::repository().unwrap().join("rt-partitions/systems/duo.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let (loops, timeout) = if is_long() { (10_000, 3600) } else { (500, 300) };
    for (short, long) in LONG {
        assert!(text.contains(short), "{short}");
        if is_long() {
            text = text.replace(short, long);
        }
    }
    let system = SystemFile::parse(&text, &path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(timeout),
        out_dir: dir.path().join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let run = run_system(&system, &options).unwrap();
    let console = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(options.out_dir.join(name)).unwrap_or_default()).into_owned()
    };
    assert_eq!(run.outcome, RunOutcome::Success, "{}\n{}", console("hypervisor.log"), console("rtvm.log"));
    let report = cyclictest_report(&system, &options.out_dir).unwrap().expect("the system asks for a report");
    println!("{report}");

    let [alone, beside] = report.measurements.as_slice() else { panic!("{report}") };
    for measurement in [alone, beside] {
        assert_eq!(measurement.forbidden_exits(), 0, "{report}");
        let figures = &measurement.figures;
        assert_eq!(figures.threads(), 2, "{report}");
        // The first thread that is done ends cyclictest; what the other one has by then counts.
        assert!(figures.total.iter().all(|total| *total + STARTED_LATER >= loops), "{report}");
        assert!(figures.total.iter().any(|total| *total + 5 >= loops), "{report}");
        assert!(figures.overflows.iter().all(|late| *late == 0), "{report}");
        let worst = measurement.worst.as_ref().expect("a wake-up takes more than a microsecond");
        assert_eq!(worst.wake_up.late_us, figures.longest(), "{report}");
        assert!((measurement.span.0..measurement.span.1).contains(&worst.tsc), "{report}");
    }
    assert!(alone.figures.longest() <= ALONE_MAX, "{report}");
    assert!(beside.figures.longest() <= BESIDE_MAX, "{report}");
    let text = report.to_string();
    for part in ["vCPU 1", "while neighbour works", "Within 1 ms of the last of these", "trace decode", "icount"] {
        assert!(text.contains(part), "{text}");
    }
    // The neighbour's own log says that it worked. In the long form the run is over before it says so: there its marks in the
    // trace say it, without which there is no report.
    let neighbour = console("neighbour.log");
    assert!(is_long() || neighbour.contains("report: stress-ng: info:"), "{neighbour}");
    assert!(Trace::load(&options.out_dir).unwrap().is_whole());
}
