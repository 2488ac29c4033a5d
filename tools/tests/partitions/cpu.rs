//! All of the CPU that the policy does not withhold works in a guest, on its first vCPU and on its second.

use crate::guests::{PCPUS, assert_refused, by_machine, exits, guest, refusals};
use crate::system::{Left, load, machine, options, run, uses_vmx};
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::run::{BareRun, run_bare};
use partita_trace::names::ExitReason;
use partita_trace::names::PolicyKind::Instruction;

/// Exits that nothing of the CPU's own costs a guest, but for #AC and #DB, which are always intercepted.
const NONE: [ExitReason; 4] =
    [ExitReason::Interrupt, ExitReason::Halt, ExitReason::NestedPageFault, ExitReason::Shutdown];

/// XSETBV that the guest tries in vain, on both of its vCPUs.
const REFUSED_XSETBV: usize = 2 * 6;

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

/// Claims of the guest about XSAVE: Bochs' CPU with VMX has AVX-512 and protection keys, so that XCR0 has more values, and
/// XSAVES; that with SVM has no compact form.
pub(crate) fn xsave_claims() -> usize {
    by_machine(56, 66, 44)
}

#[test]
#[ignore = "boots an emulator"]
fn floating_point_and_vector_state_is_kept() {
    for (clock, smp_call_hz) in [(Clock::Icount, 10_000), (Clock::Host, 10_000)] {
        let left = guest("xsave", clock, smp_call_hz, xsave_claims());
        // VMX exits at each XSETBV, and the hypervisor passes the CPU's refusals on.
        assert_refused(&left, if uses_vmx() { REFUSED_XSETBV } else { 0 }, 0);
        assert_none(&left, &NONE);
        assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
        assert!(uses_vmx() || exits(&left, ExitReason::Xsetbv) == 0, "{}", left.consoles());
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
    let left = unrefused("paging", Clock::Icount, 0, by_machine(58, 64, 48));
    assert_none(&left, &[ExitReason::Exception, ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn exceptions_are_the_guests_own() {
    let left = unrefused("exceptions", Clock::Icount, 0, 136);
    // Bochs checks alignment, QEMU not: an #AC on each vCPU.
    assert_eq!(exits(&left, ExitReason::Exception), if machine() == MachineKind::Qemu { 0 } else { 2 });
    assert_none(&left, &[ExitReason::DebugTrap]);
}

#[test]
#[ignore = "boots an emulator"]
fn breakpoints_and_single_steps_come_where_they_should() {
    for (clock, smp_call_hz) in [(Clock::Icount, 10_000), (Clock::Host, 1000)] {
        let left = unrefused("debug", clock, smp_call_hz, 139);
        assert!(exits(&left, ExitReason::DebugTrap) > 0, "#DB is intercepted");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn features_are_there_as_shown() {
    let left = guest("features", Clock::Icount, 0, by_machine(132, 144, 92));
    let refused = refusals(&left);
    // MONITOR and MWAIT, which Bochs' CPU with SVM has not, and VMRUN and SKINIT or VMXOFF, on the first vCPU.
    assert_eq!(refused.len(), by_machine(4, 3, 2), "{refused:?}");
    assert!(refused.iter().all(|(kind, ..)| *kind == Instruction), "{refused:?}");
    // And on the second.
    assert_refused(&left, 2 * refused.len(), 0);
}

/// Claims about what is behind an instruction. SVM tells of few where they end, prefixes included; Bochs' CPU with it has less.
fn boundary_claims() -> usize {
    by_machine(750, 805, 750)
}

/// Claims of them on the bare machine, whose CPU passes prefixes, but lacks what only a partition has. The same on each machine.
const BARE_BOUNDARY_CLAIMS: usize = 587;

/// User code's hypercalls and, where the CPU has not asked for the privilege level itself, WBINVD and INVD.
fn refused_to_user_code() -> usize {
    by_machine(6, 4, 2)
}

#[test]
#[ignore = "boots an emulator"]
fn what_exits_ends_as_on_a_cpu_by_instruction_count() {
    let left = guest("boundaries", Clock::Icount, 2000, boundary_claims());
    assert_refused(&left, refused_to_user_code(), 0);
    assert!(exits(&left, ExitReason::Kick) > 10, "kicks came in between");
}

/// The same of the other path out of a guest and back.
#[test]
#[ignore = "boots an emulator"]
fn exits_without_a_trace_end_likewise_by_instruction_count() {
    let changes = [("test=cpu", "test=boundaries"), ("[[partition]]", "[trace]\nexits = false\n\n[[partition]]")];
    let left = run(&load("guest.toml", &changes), Clock::Icount, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("guest", boundary_claims());
    assert_refused(&left, refused_to_user_code(), 0);
    assert_eq!(exits(&left, ExitReason::Cpuid), 0);
}

/// The test of the test.
#[test]
#[ignore = "boots an emulator"]
fn a_cpu_ends_instructions_likewise_by_instruction_count() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = cargo_build::payload("guest-tests").unwrap();
    let bare = BareRun {
        kernel: &kernel,
        module: None,
        cmdline: "test=boundaries",
        pcpus: 2,
        memory: 128 << 20,
        has_end_marker: true,
    };
    let report = run_bare(&bare, &options(Clock::Icount, 60, dir.path())).unwrap();
    let console = std::fs::read_to_string(report.dir.join("payload.log")).unwrap_or_default();
    assert_eq!(report.outcome, RunOutcome::Success, "{console}");
    let held = console.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(held, BARE_BOUNDARY_CLAIMS, "{console}");
}
