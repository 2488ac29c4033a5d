//! How late the timer of a real-time guest is beside each kind of neighbour (`rt-partitions/guest-tests/src/punctual.rs`).
//!
//! QEMU runs one CPU after the other, so that lateness there tells of the emulator; Bochs runs them side by side, five
//! instructions of each in turn: nothing that a neighbour does may cost more than that.

use crate::system::{Left, load, machine, run_with_commands};
use crate::worst_case;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// Instructions of a CPU before it is the next one's turn in Bochs.
const QUANTUM: u64 = 5;
const CLAIMS: usize = 2;
const GUEST_PCPU: u16 = 2;
const NEIGHBOUR_PCPU: u16 = 1;
const END_MARK: u32 = 301;
const LATENESS_MARKS: [(u32, &str); 2] = [(303, "spinning"), (304, "halted")];
/// Fewest one-shots of each kind.
const SHOTS_MIN: u64 = 50;
/// The same in QEMU.
const SHOTS_MIN_TYPED: u64 = 5;
/// To print the answers takes time, in which the guest measures. None asks the guest's pCPU for anything, as `smp` does.
const PASS_TIME: [&str; 4] = ["vcpus", "exits", "trace", "partitions"];
const ENOUGH: &str = "wrmsr 2 0xc0000103 7";
/// SMP calls to the neighbour's pCPU, each from the console.
const CALLS: [&str; 12] = ["rdmsr 1 0xc0000103"; 12];
/// Lives that the neighbour's pCPU has at least, where it is to have several.
const LIVES_MIN: usize = 3;

fn mark(left: &Left, wanted: u32) -> (u64, u64) {
    let regions = left.trace.regions.iter().filter(|region| matches!(region.owner, Owner::Partition { number: 0, .. }));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let mut marks = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id, first, second }) if id == wanted => Some((first, second)),
        _ => None,
    });
    marks.next().unwrap_or_else(|| panic!("no mark {wanted}\n{}", left.consoles()))
}

/// Runs the guest beside a neighbour, and asserts that its timer is as punctual as the machine.
fn beside(name: &str, changes: &[(&str, &str)], commands: &[&str]) -> Left {
    let commands = [commands, &[ENOUGH]].concat();
    let changes = [&[("pcpus = [2, 3]", "pcpus = [2]"), ("test=quiet", "test=punctual")], changes].concat();
    let left = run_with_commands(&load("restart.toml", &changes), Clock::Icount, 120, &commands);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("quiet", CLAIMS);
    let (spun, halted) = mark(&left, END_MARK);
    // What is typed comes in the host's time, and QEMU's guests go on meanwhile as fast as it can.
    let least = if machine() == MachineKind::Qemu { SHOTS_MIN_TYPED } else { SHOTS_MIN };
    assert!(spun >= least && halted >= least, "{spun} and {halted} one-shots\n{}", left.consoles());
    for (id, how) in LATENESS_MARKS {
        let (least, greatest) = mark(&left, id);
        println!("{name}: {spun} one-shots, {how}: {least} to {greatest} ticks late");
        if machine() != MachineKind::Qemu {
            assert!(greatest - least <= QUANTUM, "{name}, {how}: {least} to {greatest} ticks late");
        }
    }
    worst_case::hold(&left, &[NEIGHBOUR_PCPU, GUEST_PCPU]);
    let forbidden = [ExitReason::Interrupt, ExitReason::Halt, ExitReason::NestedPageFault];
    for reason in forbidden {
        assert_eq!(left.count(GUEST_PCPU, HistogramId::Exit(reason)), 0, "{reason:?}\n{}", left.consoles());
    }
    left
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_guest_that_spins_and_one_that_halts() {
    for state in ["spin_if1", "hlt"] {
        beside(state, &[("state=spin_if0", &format!("state={state}"))], &PASS_TIME);
    }
}

/// The calls are served by the neighbour's pCPU; the guest's is asked nothing.
#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_smp_calls_to_another() {
    let left = beside("SMP calls", &[("state=spin_if0", "state=spin_if1")], &CALLS);
    let kicks = left.count(NEIGHBOUR_PCPU, HistogramId::Exit(ExitReason::Kick));
    assert!(kicks >= CALLS.len() as u64, "{kicks} kicks of the neighbour\n{}", left.consoles());
}

/// How often the neighbour's partition was started.
fn lives(left: &Left) -> usize {
    let is_start = |event: &Event| matches!(event, Event::PartitionStart { partition: 1, .. });
    left.events(0).iter().filter(|(_, event)| is_start(event)).count()
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_reboots() {
    let neighbour = [
        ("name = \"pulse\" }", "name = \"hostile\" }"),
        ("state=spin_if0", "attack=reboots"),
        ("memory = \"2 MiB\"", "memory = \"16 MiB\""),
        ("expect = \"run\"", "expect = \"run\"\non_reboot = \"restart\""),
    ];
    let left = beside("reboots", &neighbour, &PASS_TIME.repeat(if machine() == MachineKind::Qemu { 12 } else { 2 }));
    let lives = lives(&left);
    println!("reboots: {lives} lives of the neighbour");
    assert!(lives >= LIVES_MIN, "{lives} lives\n{}", left.consoles());
}

/// Each life of the neighbour ends at the first page that is not its own.
#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_guest_that_touches_foreign_pages() {
    let neighbour = [
        ("name = \"pulse\" }", "name = \"hostile\" }"),
        ("state=spin_if0", "attack=pages"),
        ("expect = \"run\"", "expect = \"anything\""),
    ];
    let life = [&["restart pulse"][..], &PASS_TIME].concat();
    let left = beside("foreign pages", &neighbour, &life.repeat(LIVES_MIN));
    let faults = left.count(NEIGHBOUR_PCPU, HistogramId::Exit(ExitReason::NestedPageFault));
    println!("foreign pages: {faults} nested page faults in {} lives", lives(&left));
    assert!(faults >= LIVES_MIN as u64, "{faults} nested page faults\n{}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_restarts() {
    let left = beside("restarts", &[], &["hold 0 100", "hold 0 1", "restart pulse 20"]);
    let answer = left.answers("restart pulse 20").join("\n");
    assert!(answer.starts_with("partition pulse was restarted 20 times"), "{answer}");
}

/// A neighbour that leaves its guest at least so often.
fn beside_exits(name: &str, payload: &str, cmdline: &str, pcpus: &str, least: u64) {
    let payload = format!("name = \"{payload}\" }}");
    let neighbour = [
        ("name = \"pulse\" }", payload.as_str()),
        ("state=spin_if0", cmdline),
        ("memory = \"2 MiB\"", "memory = \"16 MiB\""),
        ("pcpus = [1]", pcpus),
    ];
    let left = beside(name, &neighbour, &PASS_TIME);
    let exits: u64 = ExitReason::ALL.iter().map(|reason| left.count(NEIGHBOUR_PCPU, HistogramId::Exit(*reason))).sum();
    println!("{name}: {exits} exits of the neighbour");
    assert!(exits >= least, "{exits} exits of the neighbour\n{}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_an_exit_storm() {
    beside_exits("exit storm", "latency", "group=kick state=exit_storm", "pcpus = [1]", 1000);
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_busy_neighbour() {
    beside_exits("neighbour", "neighbour", "writes=32 rounds=16", "pcpus = [1]", 50);
}

#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_hostile_guest() {
    beside_exits("hostile storm", "hostile", "attack=storm steps=1000000", "pcpus = [1, 3]", 1000);
}

/// The neighbour writes to its console all the time.
#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_console_flood() {
    beside_exits("console flood", "neighbour", "console=flood rounds=16", "pcpus = [1]", 10);
}

/// INITs and start-up IPIs of one vCPU to the other, over and over.
#[test]
#[ignore = "boots an emulator"]
fn a_timer_is_punctual_beside_a_storm_of_resets() {
    beside_exits("storm of resets", "hostile", "attack=reset-storm steps=1000000", "pcpus = [1, 3]", 100);
}
