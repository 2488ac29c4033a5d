//! A guest that ends badly ends alone.

use crate::system::{Left, clocks, load, run, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::names::StopCause;

const SURVIVOR_CLAIMS: usize = 4;
const QUIET_CLAIMS: usize = 9;

fn end(test: &str, clock: Clock) -> Left {
    let system = load("guest.toml", &[("test=cpu", &format!("test={test}")), ("pcpus = [2, 3]", "pcpus = [2]")]);
    let left = run(&system, clock, 60);
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
    left
}

fn stops(left: &Left, pcpu: u16) -> Vec<(u64, u16, StopCause, u64)> {
    let events = left.events(pcpu).into_iter();
    let stop = |(tsc, event)| match event {
        Event::PartitionStop { partition, cause, detail, .. } => Some((tsc, partition, cause, detail)),
        _ => None,
    };
    events.filter_map(stop).collect()
}

/// The guest ends by `cause`, about `detail` if that is known; the other goes on and finishes.
fn assert_ends(test: &str, cause: StopCause, detail: Option<u64>, words: &str) {
    for clock in clocks() {
        let left = end(test, clock);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::PartitionFailed { reason: "failure".into() }, "{consoles}");
        let [(ended, partition, found, about)] = stops(&left, 2)[..] else { panic!("{consoles}") };
        assert_eq!((partition, found), (0, cause), "{consoles}");
        assert_eq!(detail.unwrap_or(about), about, "{consoles}");
        let [(finished, 1, StopCause::Finished, 0)] = stops(&left, 1)[..] else { panic!("{consoles}") };
        assert!(ended < finished, "the survivor goes on: {ended} {finished}");
        let console = left.console("hypervisor");
        let line = format!("partita: partition 0 \"guest\": {words}");
        assert!(console.lines().any(|found| found.starts_with(&line)), "{line}\n{consoles}");
        let survived = "partita: partition 1 \"survivor\": finished, success; refused: 0 accesses, 0 IPIs";
        assert!(console.lines().any(|found| found == survived), "{consoles}");
        // Its claim, and nothing behind it.
        let guest = left.console("guest");
        assert!(guest.lines().last().is_some_and(|line| line.starts_with("ok   1000 about to")), "{guest}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_triple_fault_stops_its_partition_only() {
    assert_ends("triple_fault", StopCause::TripleFault, None, "stopped: triple fault");
}

#[test]
#[ignore = "boots an emulator"]
fn an_access_outside_of_memory_stops_its_partition_only() {
    let words = "stopped: nested page fault (detail 0x80000000)";
    assert_ends("outside_memory", StopCause::NestedPageFault, Some(0x8000_0000), words);
}

#[test]
#[ignore = "boots an emulator"]
fn an_access_to_the_apic_page_stops_its_partition_only() {
    let words = "stopped: touched the APIC page (detail 0xfee00020)";
    assert_ends("apic_page", StopCause::ApicPage, Some(0xFEE0_0020), words);
}

#[test]
#[ignore = "boots an emulator"]
fn leaving_x2apic_mode_stops_its_partition_only() {
    let words = "stopped: left x2APIC mode (detail 0xfee00900)";
    assert_ends("leave_x2apic", StopCause::ApicModeLeft, Some(0xFEE0_0900), words);
}

#[test]
#[ignore = "boots an emulator"]
fn a_reported_failure_ends_its_partition_only() {
    assert_ends("finish_7", StopCause::FailureReported, Some(7), "finished, failure (status 0x7)");
    assert_ends("exit_byte", StopCause::FailureReported, Some(0x11), "finished, failure (status 0x11)");
}

#[test]
#[ignore = "boots an emulator"]
fn a_bad_trace_window_is_told_and_left_out() {
    for clock in clocks() {
        let left = end("bad_window", clock);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        assert!(left.console("hypervisor").contains("partita: the trace window of partition 0: "), "{consoles}");
        // The hypervisor's region, and the survivor's.
        assert_eq!(left.trace.regions.len(), 2, "{consoles}");
        assert!(left.trace.is_whole(), "{:?}", left.trace.damage);
    }
}

/// It leaves interrupts pending that could be taken for exceptions, or hold back all kicks, and its sibling goes on sending
/// such until it is stopped: again and again.
#[test]
#[ignore = "boots an emulator"]
fn interrupts_that_a_guest_leaves_behind_harm_nobody() {
    const LIVES: usize = 12;
    // The second hold waits for the end of the first, in which the guest comes to its end.
    const LIFE: [&str; 3] = ["restart guest", "hold 4 60", "hold 4 1"];
    let changes = [("test=cpu", "test=departs"), ("test=survivor", "test=quiet"), ("pcpus = [1]", "pcpus = [1, 4]")];
    let commands = [LIFE.repeat(LIVES), vec!["smp", "wrmsr 1 0xc0000103 7"]].concat();
    for clock in clocks() {
        let left = run_with_commands(&load("guest.toml", &changes), clock, 120, &commands);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        for nth in 0..LIVES {
            let answer = left.answers_to("restart guest", nth);
            assert!(answer[0].starts_with("partition guest was restarted"), "{consoles}");
        }
        // The first life may be over before it gets there; threads of a busy host may be slow.
        let leaves = left.console("guest").lines().filter(|line| line.starts_with("ok ")).count();
        let least = if clock == Clock::Icount { LIVES } else { LIVES / 2 };
        assert!((least..=LIVES + 1).contains(&leaves), "{leaves} of {LIVES}\n{consoles}");
        for line in left.answers("smp").iter().skip(1) {
            assert!(line.ends_with("ticks") || line.ends_with("is not asked"), "{line}\n{consoles}");
        }
        left.assert_claims("survivor", QUIET_CLAIMS);
    }
}
