//! Partitions that are stopped, started and restarted from the console, in whatever state their vCPUs are.

use crate::guests::by_machine;
use crate::system::{Left, clocks, load, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;

const QUIET_CLAIMS: usize = 9;
/// Ends the real-time guest, and so the run.
const ENOUGH: &str = "wrmsr 3 0xc0000103 7";
/// The second waits until the first is over: together they pass time, in which the guests get somewhere.
const PASS_TIME: [&str; 2] = ["hold 4 100", "hold 4 1"];
/// R15 of a vCPU of the pulse in its first state; the others follow.
const SHOWN: u64 = 0x5050_0000;
const INTERRUPT_FLAG: u64 = 1 << 9;

/// The pulse with two pCPUs, 1 and 2, beside the real-time guest on pCPUs 3 and 4.
fn run(clock: Clock, cmdline: &str, changes: &[(&str, &str)], commands: &[&str]) -> Left {
    let mut all =
        vec![("pcpus = [2, 3]", "pcpus = [3, 4]"), ("pcpus = [1]", "pcpus = [1, 2]"), ("state=spin_if0", cmdline)];
    all.extend(changes);
    let commands = [&PASS_TIME[..], commands, &PASS_TIME, &[ENOUGH]].concat();
    let left = run_with_commands(&load("restart.toml", &all), clock, 120, &commands);
    left.assert_claims("quiet", QUIET_CLAIMS);
    left
}

fn assert_success(left: &Left) {
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
}

/// Asserts that so many lives began, of so many vCPUs, and that each found everything fresh.
fn assert_fresh(left: &Left, lives: usize, vcpus: usize) {
    let life = &["pulse: fresh", "pulse: vCPU 1: fresh"][..vcpus];
    assert_eq!(left.console("pulse").lines().collect::<Vec<_>>(), life.repeat(lives), "{}", left.consoles());
}

/// A register in a dump.
fn register(dump: &[String], name: &str) -> u64 {
    let words: Vec<&str> = dump.iter().skip(1).flat_map(|line| line.split_whitespace()).collect();
    let value = words.windows(2).find(|pair| pair[0] == name).unwrap_or_else(|| panic!("no {name}: {dump:?}"))[1];
    u64::from_str_radix(value, 16).unwrap()
}

/// A pCPU's line in the answer to `smp`: what it does, and how it is kicked.
fn line_of(left: &Left, pcpu: usize, nth: usize) -> String {
    let lines = left.answers_to("smp", nth);
    let line = lines.iter().find(|line| line.split_whitespace().next() == Some(&pcpu.to_string()));
    line.unwrap_or_else(|| panic!("{lines:?}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_answer(left: &Left, command: &str, nth: usize, expected: &str) {
    let answer = left.answers_to(command, nth);
    assert!(matches!(&answer[..], [line] if line.starts_with(expected)), "{command}: {answer:?}\n{}", left.consoles());
}

/// Both vCPUs stay in a state; the second may wait for its start.
fn restarts_from(clock: Clock, number: u64, state: &str, vcpus: usize) {
    let cmdline = format!("state={state} vcpus={vcpus}");
    let once = [&["regs pulse.0", "regs pulse.1", "restart pulse"][..], &PASS_TIME].concat();
    let commands = [once.repeat(2), vec!["regs pulse.0", "regs pulse.1", "vcpus"]].concat();
    let left = run(clock, &cmdline, &[], &commands);
    assert_success(&left);
    assert_fresh(&left, 3, vcpus);
    for nth in 0..3 {
        for vcpu in 0..2 {
            let dump = left.answers_to(&format!("regs pulse.{vcpu}"), nth);
            if vcpu < vcpus {
                assert_eq!(dump[0], format!("vCPU pulse.{vcpu} on pCPU {}:", vcpu + 1));
                assert_eq!(register(&dump, "r15"), SHOWN + number, "{state}: {dump:#?}");
                assert!((0x10_0000..0x20_0000).contains(&register(&dump, "rip")), "{state}: {dump:#?}");
                let takes_interrupts = register(&dump, "rflags") & INTERRUPT_FLAG != 0;
                assert_eq!(takes_interrupts, ["spin_if1", "hlt"].contains(&state), "{state}: {dump:#?}");
            } else {
                assert_eq!(dump, ["vCPU pulse.1 waits for its start-up IPI: it has no registers yet"]);
            }
        }
    }
    for nth in 0..2 {
        assert_answer(&left, "restart pulse", nth, "partition pulse was restarted; it took ");
    }
}

fn it_starts_again_from_every_state(clock: Clock) {
    let states = ["spin_if0", "spin_if1", "hlt", "nmi"];
    // With SVM in Bochs no kick reaches a guest that handles an NMI.
    let states = by_machine(&states[..], &states[..], &states[..3]);
    for (number, state) in (0..).zip(states) {
        restarts_from(clock, number, state, 2);
    }
    restarts_from(clock, 0, "spin_if0", 1);
}

#[test]
#[ignore = "boots an emulator"]
fn it_starts_again_from_every_state_by_instruction_count() {
    it_starts_again_from_every_state(Clock::Icount);
}

#[test]
#[ignore = "boots an emulator"]
fn it_starts_again_from_every_state_by_threads() {
    it_starts_again_from_every_state(Clock::Host);
}

#[test]
#[ignore = "boots an emulator"]
fn one_that_ended_by_itself_starts_again() {
    for clock in clocks() {
        let changes = [("expect = \"run\"", "expect = \"finish\"")];
        let commands = ["partitions", "smp", "stop pulse", "restart pulse"];
        let again = [&PASS_TIME[..], &["partitions", "start pulse"]].concat();
        let left = run(clock, "state=finish", &changes, &[&commands[..], &again].concat());
        assert_success(&left);
        assert_fresh(&left, 3, 1);
        for nth in 0..2 {
            let partitions = left.answers_to("partitions", nth);
            assert!(
                partitions[2].contains(" pulse ") && partitions[2].contains(" finished, success "),
                "{partitions:?}"
            );
        }
        for pcpu in [1, 2] {
            assert!(line_of(&left, pcpu, 0).contains("online down vector 0"), "{}", left.consoles());
        }
        assert_answer(&left, "stop pulse", 0, "partition pulse is not stopped: it does not run; start it");
        assert_answer(&left, "restart pulse", 0, "partition pulse was restarted; it took ");
        assert_answer(&left, "start pulse", 0, "partition pulse runs");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn one_that_faulted_starts_again() {
    for clock in clocks() {
        let commands = [&["partitions", "smp", "restart pulse"][..], &PASS_TIME, &["partitions"]].concat();
        let left = run(clock, "state=triple_fault", &[], &commands);
        assert_eq!(left.outcome, RunOutcome::PartitionFailed { reason: "failure".into() }, "{}", left.consoles());
        assert_fresh(&left, 2, 1);
        for nth in 0..2 {
            let partitions = left.answers_to("partitions", nth);
            assert!(partitions[2].contains(" stopped: triple fault "), "{partitions:?}");
        }
        for pcpu in [1, 2] {
            assert!(line_of(&left, pcpu, 0).contains("online down vector 0"), "{}", left.consoles());
        }
    }
}

#[test]
#[ignore = "boots an emulator"]
fn the_console_says_what_became_of_a_partition() {
    for clock in clocks() {
        let stop =
            ["smp", "stop pulse", "stop pulse", "smp", "partitions", "vcpus", "regs pulse.0", "rdmsr 1 0xc0000103"];
        let start = ["start pulse", "start 1", "start pulse"];
        let end =
            ["smp", "partitions", "restart 1", "restart no", "stop 2", "start quiet", "stop pulse", "restart pulse"];
        let commands = [&stop[..], &start, &PASS_TIME, &end].concat();
        let left = run(clock, "state=spin_if0 vcpus=2", &[], &commands);
        assert_success(&left);
        for (nth, expected) in ["runs its guest NMI 0", "down vector 0", "runs its guest NMI 0"].into_iter().enumerate()
        {
            for pcpu in [1, 2] {
                let line = line_of(&left, pcpu, nth);
                assert!(line.contains(expected) && line.ends_with(" ticks"), "{line}\n{}", left.consoles());
            }
        }
        assert_answer(&left, "stop pulse", 0, "partition pulse is stopped");
        assert_answer(&left, "stop pulse", 1, "partition pulse is not stopped: it does not run; start it");
        let [stopped, runs] = [0, 1].map(|nth| left.answers_to("partitions", nth)[2].clone());
        assert!(
            stopped.contains(" stopped from the console ") && runs.contains(" still running "),
            "{stopped}\n{runs}"
        );
        let starts = [stopped, runs].map(|line| line.split_whitespace().rev().nth(1).map(str::to_owned));
        assert_eq!(starts, [Some("1".into()), Some("2".into())]);
        assert_answer(&left, "regs pulse.0", 0, "vCPU pulse.0 does not run; start its partition");
        assert_answer(&left, "rdmsr 1 0xc0000103", 0, "rdmsr 0xc0000103 on pCPU 1: 0x");
        assert_answer(&left, "start pulse", 0, "partition pulse runs");
        let runs_already = "partition pulse is not started: it runs already; stop it first, or restart it";
        assert_answer(&left, "start pulse", 1, runs_already);
        assert_answer(&left, "start 1", 0, runs_already);
        assert_answer(&left, "restart 1", 0, "partition pulse was restarted; it took ");
        assert_answer(&left, "restart no", 0, "no partition no; `partitions` lists them");
        assert_answer(&left, "stop 2", 0, "no partition 2; `partitions` lists them");
        assert_answer(&left, "start quiet", 0, "partition quiet is not started: it runs already");
        assert_answer(&left, "stop pulse", 2, "partition pulse is stopped");
        assert_answer(&left, "restart pulse", 0, "partition pulse was restarted; it took ");
        assert!(!left.console("pulse").contains("STALE"), "{}", left.consoles());
    }
}

/// With threads, because time passes there while everyone waits. A step may take 5 s.
#[test]
#[ignore = "boots an emulator"]
fn one_that_is_stuck_is_named_and_starts_again() {
    let stop = ["hold 1 6500", "stop pulse", "partitions", "start pulse"];
    let start = ["stop pulse", "hold 1 6500", "start pulse", "hold 1 1", "partitions", "start pulse"];
    let left = run(Clock::Host, "state=spin_if0", &[], &[&stop[..], &PASS_TIME, &start, &PASS_TIME].concat());
    assert_success(&left);
    let late = "pCPU 1 did not leave its guest within 5000 ms; see `smp` for its state";
    assert_answer(&left, "stop pulse", 0, &format!("partition pulse is not stopped: {late}"));
    assert_answer(&left, "start pulse", 0, "partition pulse runs");
    assert_answer(&left, "stop pulse", 1, "partition pulse is stopped");
    let late = "pCPU 1 did not load the partition's memory within 5000 ms; see `smp` for its state";
    assert_answer(&left, "start pulse", 1, &format!("partition pulse is not started: {late}"));
    assert_answer(&left, "start pulse", 2, "partition pulse runs");
    for (nth, state) in ["stopped from the console", "not started"].into_iter().enumerate() {
        let partitions = left.answers_to("partitions", nth);
        assert!(partitions[2].contains(state), "{partitions:?}");
    }
    assert_fresh(&left, 3, 1);
}
