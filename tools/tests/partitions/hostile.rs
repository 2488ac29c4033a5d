//! Guests that attack (`rt-partitions/hostile`), beside a real-time guest that must not notice anything. Each ends in traced
//! refusals or as a stopped partition. The table of attacks is in docs/hostile-guests.md.

mod lives;
mod modes;
mod ring;
mod seeds;
mod survivors;

use crate::bystander::{BEGUN, ENOUGH, assert_untouched};
use crate::system::{Left, is_long, load, machine, run_in};
use crate::worst_case;
use partita_host::emulator::{Clock, ConsoleInput, MachineKind, ScriptStep};
use partita_host::outcome::RunOutcome;
use partita_host::run::Session;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::names::StopCause;
use partita_trace::snapshot::Body;
use std::env::VarError;

/// The attacker's number.
const HOSTILE: u16 = 1;
/// The console's command that lets the attack begin.
const BEGIN: &str = "wrmsr 1 0xc0000103 7";

/// How much of an attack there is: in the short form, in the long one, and in Bochs' short form, where time passes more slowly.
fn amount(short: u64, long: u64, bochs: u64) -> u64 {
    match (machine(), is_long()) {
        (MachineKind::Qemu | MachineKind::Kvm, false) | (MachineKind::Bochs(_), true) => short,
        (MachineKind::Qemu | MachineKind::Kvm, true) => long,
        (MachineKind::Bochs(_), false) => bochs,
    }
}

/// What all that is random in the attacks begins with, and in which the runs of a test differ: 1, or what `PARTITA_SEED` says.
fn seed() -> u64 {
    const NAME: &str = "PARTITA_SEED";
    match std::env::var(NAME) {
        Ok(text) => {
            text.parse().unwrap_or_else(|error| panic!("{NAME} is {text:?}, not a number from 0 to 2^64 - 1: {error}"))
        }
        Err(VarError::NotPresent) => 1,
        Err(error) => panic!("{NAME}: {error}"),
    }
}

/// An attack on a system.
struct Attack<'a> {
    clock: Clock,
    /// Its options, but for its seed, and that it waits.
    options: &'a str,
    seed: u64,
    /// Whether it has two vCPUs.
    is_pair: bool,
    /// Its memory.
    memory: &'a str,
    /// Each ring of the hypervisor's trace.
    ring: &'a str,
    /// What becomes of it when it reboots.
    on_reboot: &'a str,
    /// Of the run, in seconds.
    timeout: u64,
}

impl Attack<'_> {
    /// One vCPU, by instruction count.
    fn new(options: &str) -> Attack<'_> {
        let (clock, memory, ring, on_reboot) = (Clock::Icount, "2 MiB", "8 MiB", "end");
        Attack { clock, options, seed: seed(), is_pair: false, memory, ring, on_reboot, timeout: 300 }
    }

    fn pair(options: &str) -> Attack<'_> {
        Attack { is_pair: true, ..Attack::new(options) }
    }

    /// Runs it with these steps at the console, before the one that ends the real-time guest, and asserts what holds for
    /// every attack: the hypervisor comes to its end, and the real-time guest has noticed nothing. The attack begins when that
    /// guest is quiet.
    fn run(&self, steps: &[ScriptStep]) -> Left {
        let cmdline = format!("{} seed={} wait=1", self.options, self.seed);
        let memory = format!("memory = \"{}\"\nimage = {{ kind = \"payload\", name = \"hostile\"", self.memory);
        let changes = [
            ("attack=pages", cmdline.as_str()),
            ("pcpus = [1]", if self.is_pair { "pcpus = [1, 4]" } else { "pcpus = [1]" }),
            ("memory = \"2 MiB\"\nimage = { kind = \"payload\", name = \"hostile\"", memory.as_str()),
            ("ring = \"8 MiB\"", &format!("ring = \"{}\"", self.ring)),
            ("on_reboot = \"end\"", &format!("on_reboot = \"{}\"", self.on_reboot)),
        ];
        let is_quiet = ScriptStep::Await { console: "quiet".to_owned(), text: BEGUN.to_owned() };
        let steps = [&[is_quiet, command(BEGIN)], steps, &[command(ENOUGH)]].concat();
        let session = Session { input: ConsoleInput::Steps(steps), ..Session::default() };
        let left = run_in(&load("hostile.toml", &changes), self.clock, self.timeout, &session);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        assert!(!left.console("hostile").contains("WRONG"), "{}", left.consoles());
        let last = starts(&left).into_iter().chain(stops(&left).iter().map(|stop| stop.tsc)).max().unwrap();
        let first = begins(&left);
        println!("the attack took {} ticks", last.saturating_sub(first));
        assert_untouched(&left, first, last);
        worst_case::hold(&left, if self.is_pair { &[1, 4] } else { &[1] });
        left
    }
}

fn command(line: &str) -> ScriptStep {
    ScriptStep::Command(line.to_owned())
}

/// The step that waits until the attacker's partition has ended.
fn until_end() -> ScriptStep {
    let texts = [" finished, ", " stopped: ", " rebooted", " powered off"].map(str::to_owned).to_vec();
    ScriptStep::Until { command: "partitions".to_owned(), texts }
}

/// The step that waits for a line of the attacker's.
fn await_line(text: String) -> ScriptStep {
    ScriptStep::Await { console: "hostile".to_owned(), text }
}

/// Longest hold of a pCPU, in milliseconds: a call to it waits no longer than 5 s for its end.
const HOLD_MAX: u64 = 4000;

/// Steps that pass time of the guests: every second one waits for the end of the one before it.
fn pass(milliseconds: u64) -> Vec<ScriptStep> {
    let parts = (0..milliseconds).step_by(HOLD_MAX as usize).map(|passed| HOLD_MAX.min(milliseconds - passed));
    parts.flat_map(|part| [command(&format!("hold 5 {part}")), command("hold 5 1")]).collect()
}

/// Lines of the attacker.
fn lines(left: &Left) -> Vec<String> {
    left.console("hostile").lines().map(|line| line.trim_end().to_owned()).collect()
}

/// When it says that it begins.
fn begins(left: &Left) -> u64 {
    let lines = lines(left);
    let time =
        lines.iter().find_map(|line| line.split_once(": begins at ")).unwrap_or_else(|| panic!("{}", left.consoles()));
    time.1.parse().unwrap()
}

/// The end of a life of the attacker's.
#[derive(Clone, Copy, Debug)]
struct Stop {
    tsc: u64,
    cause: StopCause,
    detail: u64,
}

/// The hypervisor's events; of a ring that an attack filled, the last ones.
fn events(left: &Left) -> impl Iterator<Item = (u64, Event)> {
    let hypervisor = left.trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let frames = hypervisor.flat_map(|region| &region.dump.rings).flat_map(|ring| ring.frames());
    frames.filter_map(|frame| if let Body::Event(event) = frame.body { Some((frame.tsc, event)) } else { None })
}

fn starts(left: &Left) -> Vec<u64> {
    let is_start = |event: &Event| matches!(event, Event::PartitionStart { partition: HOSTILE, .. });
    events(left).filter(|(_, event)| is_start(event)).map(|(tsc, _)| tsc).collect()
}

/// How its lives ended, in their order.
fn stops(left: &Left) -> Vec<Stop> {
    let stop = |(tsc, event)| match event {
        Event::PartitionStop { partition: HOSTILE, cause, detail, .. } => Some(Stop { tsc, cause, detail }),
        _ => None,
    };
    let mut stops: Vec<_> = events(left).filter_map(stop).collect();
    stops.sort_by_key(|stop| stop.tsc);
    stops
}

/// What the hypervisor says of it at the end.
fn last_word(left: &Left) -> String {
    let console = left.console("hypervisor");
    let line = console.lines().rfind(|line| line.starts_with("partita: partition 1 \"hostile\": "));
    line.unwrap_or_else(|| panic!("{}", left.consoles())).trim_end().to_owned()
}

/// Accesses and IPIs that the hypervisor refused it.
fn refused(left: &Left) -> (u64, u64) {
    let word = last_word(left);
    numbers(word.split_once("; refused: ").unwrap().1)
}

/// The first two numbers of a text.
fn numbers(text: &str) -> (u64, u64) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
