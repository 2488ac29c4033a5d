//! A guest that powers itself off, or reboots: its partition ends well, or starts again, and the other notices nothing.

use crate::system::{Left, clocks, load, run, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::names::StopCause;

const HOUSEKEEPING: u16 = 0;
const GUEST: u16 = 2;
const SURVIVOR_CLAIMS: usize = 4;
/// Nothing is expected of the guest.
const FREE: (&str, &str) = (
    "cmdline = \"test=reboot_for_ever\"\nexpect = \"finish\"",
    "cmdline = \"test=reboot_for_ever\"\nexpect = \"anything\"",
);
/// Lives of the guest that reboot, in its test.
const REBOOTS: usize = 5;

fn guest(test: &str, others: &[(&str, &str)]) -> partita_host::system_file::SystemFile {
    let test = format!("test={test}");
    let changes = [&[("test=cpu", test.as_str()), ("pcpus = [2, 3]", "pcpus = [2]")], others].concat();
    load("guest.toml", &changes)
}

/// The end of the guest's first life as its vCPU recorded it, and how often.
fn ends(left: &Left) -> Vec<StopCause> {
    let events = left.events(GUEST).into_iter();
    let cause = |(_, event)| match event {
        Event::PartitionStop { partition: 0, cause, .. } => Some(cause),
        _ => None,
    };
    events.filter_map(cause).collect()
}

fn starts(left: &Left) -> Vec<u64> {
    let events = left.events(HOUSEKEEPING).into_iter();
    let is_start = |event: &Event| matches!(event, Event::PartitionStart { partition: 0, .. });
    events.filter(|(_, event)| is_start(event)).map(|(tsc, _)| tsc).collect()
}

fn has_line(left: &Left, line: &str) -> bool {
    left.console("hypervisor").lines().any(|found| found == line)
}

#[test]
#[ignore = "boots an emulator"]
fn a_power_off_is_a_success() {
    for clock in clocks() {
        let left = run(&guest("power_off", &[]), clock, 60);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        left.assert_claims("survivor", SURVIVOR_CLAIMS);
        assert_eq!(ends(&left), [StopCause::PowerOff]);
        let line = "partita: partition 0 \"guest\": powered off; refused: 0 accesses, 0 IPIs";
        assert!(has_line(&left, line), "{}", left.consoles());
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_reboot_starts_its_partition_again() {
    for clock in clocks() {
        let left = run(&guest("reboot", &[]), clock, 60);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        left.assert_claims("survivor", SURVIVOR_CLAIMS);
        let expected = [&[StopCause::Reboot; REBOOTS][..], &[StopCause::Finished]].concat();
        assert_eq!(ends(&left), expected, "{consoles}");
        assert_eq!(starts(&left).len(), REBOOTS + 1, "{consoles}");
        let line = format!("partita: partition 0 \"guest\" rebooted: start number {}", REBOOTS + 1);
        assert!(has_line(&left, &line), "{consoles}");
        assert!(left.console("guest").contains("ok   1000 the lives are counted"), "{consoles}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_reboot_can_be_an_end() {
    let left = run(&guest("reboot", &[("test=reboot\"", "test=reboot\"\non_reboot = \"end\"")]), Clock::Icount, 60);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    assert_eq!((ends(&left), starts(&left).len()), (vec![StopCause::Reboot], 1));
    let line = "partita: partition 0 \"guest\": rebooted; refused: 0 accesses, 0 IPIs";
    assert!(has_line(&left, line), "{}", left.consoles());
}

/// So that its restarts do not keep the housekeeping core from all else.
#[test]
#[ignore = "boots an emulator"]
fn a_guest_that_reboots_for_ever_waits_longer_and_longer() {
    let rounds = ("smp_call_hz = 0", "smp_call_hz = 1000\nsmp_call_rounds = 500");
    let survivor = ("test=survivor\"\nexpect = \"finish\"", "test=survivor\"\nexpect = \"anything\"");
    let left = run(&guest("reboot_for_ever", &[rounds, survivor, FREE]), Clock::Icount, 60);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    let starts = starts(&left);
    let lives: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..=6).contains(&lives.len()), "10, 20, 40, 80, 160 ms and the lives: {lives:?}");
    // Of the first, boot is a part; of each, what the guest prints, which takes Bochs most of it.
    let longer: Vec<u64> = lives[1..].windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(longer[0] > 0 && longer.windows(2).all(|pair| pair[1] > pair[0] + pair[0] / 2), "{lives:?}");
}

#[test]
#[ignore = "boots an emulator"]
fn a_guest_that_reboots_for_ever_can_be_stopped() {
    for clock in clocks() {
        // What is typed comes in the host's time: the survivor must not be done before, as its end is the run's.
        let commands = ["hold 1 500", "stop guest", "stop guest", "start guest", "stop guest", "quit"];
        let left = run_with_commands(&guest("reboot_for_ever", &[FREE]), clock, 60, &commands);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        let stopped = |nth| left.answers_to("stop guest", nth).join("\n");
        assert!(stopped(0).contains("partition guest is stopped"), "{consoles}");
        assert!(stopped(1).contains("is not stopped: it does not run"), "{consoles}");
        assert!(stopped(2).contains("partition guest is stopped"), "{consoles}");
    }
}
