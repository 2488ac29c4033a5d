//! All of the CPU that the policy does not withhold works in a guest, on its first vCPU and on its second.

use crate::guests::{PCPUS, assert_refused, exits, guest, refusals};
use crate::system::Left;
use partita_host::emulator::Clock;
use partita_trace::names::ExitReason;
use partita_trace::names::PolicyKind::Instruction;

/// Exits that nothing of the CPU's own costs a guest, but for #AC and #DB, which are always intercepted.
const NONE: [ExitReason; 4] =
    [ExitReason::Interrupt, ExitReason::Halt, ExitReason::NestedPageFault, ExitReason::Shutdown];

fn assert_none(left: &Left, reasons: &[ExitReason]) {
    for reason in reasons {
        assert_eq!(exits(left, *reason), 0, "{reason:?} on pCPUs {PCPUS:?}\n{}", left.consoles());
    }
}

/// Runs a test of the guest to which nothing is refused.
fn unrefused(test: &str, clock: Clock, smp_call_hz: u32, claims: usize) -> Left {
    let left = guest(test, clock, smp_call_hz, claims);
    assert_refused(&left, 0, 0);
    assert_none(&left, &NONE);
    left
}

#[test]
#[ignore = "boots an emulator"]
fn floating_point_and_vector_state_is_kept() {
    for (clock, smp_call_hz) in [(Clock::Icount, 10_000), (Clock::Host, 10_000)] {
        let left = unrefused("xsave", clock, smp_call_hz, 56);
        assert_none(&left, &[ExitReason::Xsetbv, ExitReason::Exception, ExitReason::DebugTrap]);
        let kicks = exits(&left, ExitReason::Kick);
        assert!(kicks > 10, "{kicks} kicks came in between");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_start_finds_what_an_init_leaves() {
    let left = unrefused("init", Clock::Icount, 0, 62);
    assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn every_mode_can_be_entered_and_left() {
    let left = unrefused("modes", Clock::Icount, 1000, 76);
    assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn page_tables_are_the_guests_own() {
    let left = unrefused("paging", Clock::Icount, 0, 58);
    assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn exceptions_are_the_guests_own() {
    let left = unrefused("exceptions", Clock::Icount, 0, 128);
    // Nor #AC, as the emulator checks no alignment.
    assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn breakpoints_and_single_steps_come_where_they_should() {
    for (clock, smp_call_hz) in [(Clock::Icount, 10_000), (Clock::Host, 1000)] {
        let left = unrefused("debug", clock, smp_call_hz, 115);
        assert!(exits(&left, ExitReason::DebugTrap) > 0, "#DB is intercepted");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn features_are_there_as_shown() {
    let left = guest("features", Clock::Icount, 0, 132);
    let refused = refusals(&left);
    // MONITOR, MWAIT, VMRUN and SKINIT on the first vCPU.
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(refused.iter().all(|(kind, ..)| *kind == Instruction), "{refused:?}");
    // And on the second.
    assert_refused(&left, 2 * refused.len(), 0);
}
