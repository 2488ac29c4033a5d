//! A system that is run for a test, and what it left.

use partita_host::cargo_build;
use partita_host::emulator::{Clock, ConsoleInput, MachineKind, answers};
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, Session, run_system_in};
use partita_host::system_file::SystemFile;
use partita_host::trace::{Owner, Trace, TraceRegion};
use partita_host::witness::{Agreement, WitnessError};
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::snapshot::Body;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file beside the systems of the tests.
pub(crate) fn file(name: &str) -> PathBuf {
    cargo_build::repository().unwrap().join("rt-partitions/systems/tests").join(name)
}

/// A system of the tests, with changes: each the text that is there, and what takes its place.
pub(crate) fn load(name: &str, changes: &[(&str, &str)]) -> SystemFile {
    let path = file(name);
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{name} has no {old:?}");
        text = text.replacen(old, new, 1);
    }
    SystemFile::parse(&text, &path).unwrap()
}

/// What a run left.
pub(crate) struct Left {
    pub(crate) outcome: RunOutcome,
    pub(crate) trace: Trace,
    pub(crate) witness: Option<Result<Agreement, WitnessError>>,
    pub(crate) dir: tempfile::TempDir,
}

/// Runs a system, and tells how long it took.
pub(crate) fn run(system: &SystemFile, clock: Clock, timeout: u64) -> Left {
    run_in(system, clock, timeout, &Session::default())
}

/// Runs a system, and gives the hypervisor's console these commands, each when the one before it is done. The outcome is no
/// success if it does not take all.
pub(crate) fn run_with_commands(system: &SystemFile, clock: Clock, timeout: u64, commands: &[&str]) -> Left {
    let lines = commands.iter().map(|command| (*command).to_owned()).collect();
    run_in(system, clock, timeout, &Session { input: ConsoleInput::Script(lines), ..Session::default() })
}

/// Runs a system by instruction count, and compares its trace with the emulator's own log.
pub(crate) fn run_with_witness(system: &SystemFile, timeout: u64) -> Left {
    run_in(system, Clock::Icount, timeout, &Session { witness: true, ..Session::default() })
}

/// The machine that the tests run in.
pub(crate) fn machine() -> MachineKind {
    MachineKind::of_environment().unwrap()
}

/// Whether that has Intel VMX.
pub(crate) fn uses_vmx() -> bool {
    matches!(machine(), MachineKind::Bochs(cpu) if !cpu.has_svm)
}

/// The clocks that the machine has.
pub(crate) fn clocks() -> Vec<Clock> {
    match machine() {
        MachineKind::Qemu => vec![Clock::Icount, Clock::Host],
        MachineKind::Bochs(_) => vec![Clock::Icount],
        MachineKind::Kvm => vec![Clock::Host],
    }
}

/// How many times as long as in QEMU a run may take in Bochs.
const BOCHS_TIMES: u64 = 10;

/// How tests run systems, with logs and trace below this directory.
pub(crate) fn options(clock: Clock, timeout: u64, dir: &Path) -> RunOptions {
    let machine = machine();
    let factor = if machine == MachineKind::Qemu { 1 } else { BOCHS_TIMES };
    RunOptions {
        machine,
        clock,
        timeout: Duration::from_secs(timeout * factor),
        out_dir: dir.join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    }
}

/// Runs a system with these taking part.
pub(crate) fn run_in(system: &SystemFile, clock: Clock, timeout: u64, session: &Session) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let options = options(clock, timeout, dir.path());
    let started = Instant::now();
    let report = run_system_in(system, &options, session).unwrap();
    println!("{}: {clock:?}, {:.1} s", system.cmdlines.join(", "), started.elapsed().as_secs_f64());
    let trace = Trace::load(&report.dir).unwrap_or_else(|error| {
        let console = std::fs::read_to_string(report.dir.join("hypervisor.log")).unwrap_or_default();
        panic!("{error}\n{}\n{console}", report.outcome)
    });
    Left { outcome: report.outcome, trace, witness: report.witness, dir }
}

impl Left {
    /// What was printed on the console of a partition, or of the hypervisor.
    pub(crate) fn console(&self, name: &str) -> String {
        let log = self.dir.path().join("out").join(format!("{name}.log"));
        String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned()
    }

    /// What the hypervisor's console showed between the echo of a command and the next prompt, line by line. Of a command
    /// that was given several times, the first; see [`Self::answers_to`].
    pub(crate) fn answers(&self, command: &str) -> Vec<String> {
        self.answers_to(command, 0)
    }

    /// The same of the command's echo with this number, from 0 on.
    pub(crate) fn answers_to(&self, command: &str, nth: usize) -> Vec<String> {
        let log = std::fs::read(self.dir.path().join("out/hypervisor.log")).unwrap();
        answers(&log, command, nth)
            .unwrap_or_else(|| panic!("{command:?} was not given {} times\n{}", nth + 1, self.consoles()))
    }

    /// The directory of the run.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// All consoles, for a message.
    pub(crate) fn consoles(&self) -> String {
        let names = std::iter::once("hypervisor").chain(self.trace.partitions.iter().map(String::as_str));
        names.map(|name| format!("--- {name}\n{}", self.console(name))).collect()
    }

    fn region(&self, is_wanted: impl Fn(&Owner) -> bool) -> &TraceRegion {
        let found = self.trace.regions.iter().find(|region| is_wanted(&region.owner));
        found.unwrap_or_else(|| panic!("a trace region is missing\n{}", self.consoles()))
    }

    /// The hypervisor's events on a pCPU, with their times.
    pub(crate) fn events(&self, pcpu: u16) -> Vec<(u64, Event)> {
        let region = self.region(|owner| *owner == Owner::Hypervisor);
        let ring = region.dump.rings.iter().find(|ring| ring.ring == pcpu).unwrap();
        assert_eq!(ring.summary().0.overwritten, 0, "the ring of pCPU {pcpu} keeps every event of the test");
        ring.frames().filter_map(|frame| event(&frame.body).map(|event| (frame.tsc, event))).collect()
    }

    /// When a partition wrote its last log line.
    pub(crate) fn last_log(&self, number: u16) -> Option<u64> {
        let region = self.region(|owner| matches!(owner, Owner::Partition { number: n, .. } if *n == number));
        let frames = region.dump.rings.iter().flat_map(|ring| ring.frames());
        frames.filter(|frame| matches!(frame.body, Body::Log(_))).map(|frame| frame.tsc).max()
    }

    /// The claims of a partition in its trace: held, failed.
    pub(crate) fn claims(&self, number: u16) -> (usize, usize) {
        let region = self.region(|owner| matches!(owner, Owner::Partition { number: n, .. } if *n == number));
        let frames = region.dump.rings.iter().flat_map(|ring| ring.frames());
        let passed = frames.filter_map(|frame| match event(&frame.body) {
            Some(Event::Claim { passed, .. }) => Some(passed),
            _ => None,
        });
        passed.fold((0, 0), |(held, failed), passed| (held + usize::from(passed), failed + usize::from(!passed)))
    }

    /// How many values an always-on histogram of a pCPU has.
    pub(crate) fn count(&self, pcpu: u16, id: HistogramId) -> u64 {
        let region = self.region(|owner| *owner == Owner::Hypervisor);
        let of_pcpu = region.dump.histograms.iter().filter(|entry| entry.pcpu == pcpu && entry.histogram.id == id);
        of_pcpu.map(|entry| entry.histogram.count).sum()
    }

    /// Asserts that a partition made so many claims, on its console and in its trace, and that all hold.
    pub(crate) fn assert_claims(&self, name: &str, expected: usize) {
        let console = self.console(name);
        let lines = |word: &str| console.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!((lines("ok "), lines("FAIL ")), (expected, 0), "{}", self.consoles());
        let number = self.trace.partitions.iter().position(|partition| partition == name).unwrap();
        assert_eq!(self.claims(number as u16), (expected, 0), "{}", self.consoles());
    }
}

fn event(body: &Body) -> Option<Event> {
    if let Body::Event(event) = body { Some(*event) } else { None }
}

/// The long form: on 8 pCPUs, and for ten times as long.
pub(crate) fn is_long() -> bool {
    std::env::var("PARTITA_LONG").is_ok_and(|value| value == "1")
}
