//! Why a VMX guest was left, and what the qualification says.

use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::vmx::exit::{ExitReason, InstructionError, VmxExit, reason};
use partita_x86_policy::vmx::qualification::{
    CrAccess, DebugException, DrAccess, EptViolation, Gpr, TaskSwitch, TaskSwitchSource, invalid_guest_state,
};
use proptest::prelude::*;

fn decode(exit_reason: u32) -> VmxExit {
    VmxExit::decode(exit_reason, || panic!("asked for the interruption information"))
}

#[test]
fn exits_are_told_apart() {
    for (exit_reason, exit) in [
        (1, VmxExit::ExternalInterrupt),
        (2, VmxExit::TripleFault),
        (3, VmxExit::Init),
        (4, VmxExit::Sipi),
        (5, VmxExit::Smi),
        (6, VmxExit::Smi),
        (7, VmxExit::InterruptWindow),
        (8, VmxExit::NmiWindow),
        (9, VmxExit::TaskSwitch),
        (10, VmxExit::Cpuid),
        (11, VmxExit::HiddenInstruction),
        (12, VmxExit::Hlt),
        (13, VmxExit::CacheFlush),
        (15, VmxExit::Rdpmc),
        (18, VmxExit::Vmcall),
        (28, VmxExit::CrAccess),
        (29, VmxExit::DrAccess),
        (30, VmxExit::Io),
        (31, VmxExit::Msr { write: false }),
        (32, VmxExit::Msr { write: true }),
        (36, VmxExit::HiddenInstruction),
        (37, VmxExit::MonitorTrap),
        (39, VmxExit::HiddenInstruction),
        (40, VmxExit::Pause),
        (48, VmxExit::EptViolation),
        (49, VmxExit::EptMisconfiguration),
        (52, VmxExit::PreemptionTimer),
        (54, VmxExit::CacheFlush),
        (55, VmxExit::Xsetbv),
        // What is never asked for, or does not exist.
        (14, VmxExit::Other(14)),
        (35, VmxExit::Other(35)),
        (44, VmxExit::Other(44)),
        (62, VmxExit::Other(62)),
        (0xFFFF, VmxExit::Other(0xFFFF)),
    ] {
        assert_eq!(decode(exit_reason), exit, "{exit_reason}");
    }
}

/// VMCLEAR to VMXON, INVEPT, INVVPID, VMFUNC.
#[test]
fn a_guest_has_no_vmx() {
    for exit_reason in (19..=27).chain([50, 53, 59]) {
        assert_eq!(decode(exit_reason), VmxExit::HiddenInstruction, "{exit_reason}");
    }
}

#[test]
fn a_kick_is_told_from_an_exception() {
    let exit = |info| VmxExit::decode(0, || info);
    assert_eq!(exit(0x8000_0202), VmxExit::Nmi, "as Bochs was seen to say");
    assert_eq!(exit(0x8000_1202), VmxExit::Nmi, "undefined bit 12");
    assert_eq!(exit(0x8000_0301), VmxExit::Exception { vector: 1 });
    assert_eq!(exit(0x8000_0B11), VmxExit::Exception { vector: 17 });
    assert_eq!(exit(0x8000_0603), VmxExit::Exception { vector: 3 });
    assert_eq!(exit(0x8000_0302), VmxExit::Exception { vector: 2 }, "no NMI by its type");
}

#[test]
fn a_failed_entry_is_no_exit() {
    assert_eq!(decode(0x8000_0021), VmxExit::InvalidGuestState, "as Bochs was seen to say");
    assert_eq!(decode(0x8000_0022), VmxExit::MsrLoading);
    assert_eq!(decode(0x8000_0029), VmxExit::EntryMachineCheck);
    assert_eq!(decode(0x8000_000A), VmxExit::Other(0x8000_000A));
    assert_eq!(decode(0x8000_0000), VmxExit::Other(0x8000_0000), "no NMI was taken");
    assert_eq!(decode(33), VmxExit::Other(33));
    let exit = ExitReason(0x8000_0021);
    assert!(exit.entry_failed() && !exit.enclave() && !exit.pending_monitor_trap());
    assert_eq!(exit.basic(), reason::INVALID_GUEST_STATE);
    assert_eq!(invalid_guest_state(0), None);
    assert!(invalid_guest_state(4).unwrap().contains("link pointer"));
}

#[test]
fn the_upper_half_is_not_the_reason() {
    let exit = ExitReason(1 << 27 | 1 << 28 | 10);
    assert!(exit.enclave() && exit.pending_monitor_trap() && !exit.entry_failed());
    assert_eq!(decode(exit.0), VmxExit::Cpuid);
}

#[test]
fn errors_of_instructions_have_their_words() {
    assert_eq!(
        InstructionError(5).to_string(),
        "VM-instruction error 5: VMRESUME with non-launched VMCS (SDM vol. 3 section 31.4)"
    );
    assert!(InstructionError::INVALID_CONTROLS.text().contains("control"));
    assert!(InstructionError::INVALID_HOST_STATE.text().contains("host-state"));
    for unused in [0, 14, 21, 27, 29, u32::MAX] {
        assert!(InstructionError(unused).text().contains("does not list"), "{unused}");
    }
}

/// The values that Bochs was seen to give, and one of a guest's page walk.
#[test]
fn ept_violations_say_what_was_tried() {
    let info = |qualification| {
        let violation = EptViolation(qualification);
        (violation.read(), violation.write(), violation.fetch(), violation.present(), violation.table_walk())
    };
    assert_eq!(info(0x181), (true, false, false, false, false));
    assert_eq!(info(0x182), (false, true, false, false, false));
    assert_eq!(info(0x18C), (false, false, true, true, false));
    assert_eq!(info(0x083), (true, true, false, false, true));
    assert_eq!(info(0x003), (true, true, false, false, false), "no linear address, as for PDPTEs");
    let allowed = |qualification| {
        let violation = EptViolation(qualification);
        (violation.readable(), violation.writable(), violation.executable())
    };
    assert_eq!(allowed(0x18C), (true, false, false));
    assert_eq!(allowed(0x19A), (true, true, false));
    assert_eq!(allowed(0x1A2), (false, false, true));
    assert!(EptViolation(0x1181).nmi_unblocked_by_iret() && EptViolation(0x181).linear_address_valid());
}

#[test]
fn io_accesses_are_decoded_as_those_of_svm() {
    for (qualification, svm) in [
        (0x00F4_0040, 0x00F4_0010), // OUT 0xF4, AL
        (0x0071_0048, 0x0071_0011), // IN AL, 0x71
        (0x0CFC_000B, 0x0CFC_0041), // IN EAX, DX
        (0x0CFA_0009, 0x0CFA_0021), // IN AX, DX
        (0x03F8_0030, 0x03F8_009C), // REP OUTSB
        (0xFFFF_0003, 0xFFFF_0040), // OUT DX, EAX
    ] {
        assert_eq!(IoAccess::from_vmx(qualification), IoAccess::from_svm(svm), "{qualification:#x}");
    }
}

#[test]
fn control_register_accesses_are_decoded() {
    assert_eq!(CrAccess::decode(0x000), CrAccess::Write { cr: 0, from: Gpr::Rax });
    assert_eq!(CrAccess::decode(0xF04), CrAccess::Write { cr: 4, from: Gpr::R15 });
    assert_eq!(CrAccess::decode(0x413), CrAccess::Read { cr: 3, to: Gpr::Rsp });
    assert_eq!(CrAccess::decode(0x020), CrAccess::Clts);
    assert_eq!(CrAccess::decode(0xFFF1_0070), CrAccess::Lmsw { source: 0xFFF1 });
}

#[test]
fn clts_and_lmsw_change_what_they_can() {
    assert_eq!(CrAccess::Clts.cr0(0x8005_003B), Some(0x8005_0033));
    assert_eq!(CrAccess::Lmsw { source: 0xFFF1 }.cr0(0x6000_0030), Some(0x6000_0031));
    assert_eq!(CrAccess::Lmsw { source: 0 }.cr0(0x3F), Some(0x31), "PE stays");
    assert_eq!(CrAccess::Lmsw { source: 0xE }.cr0(0x30), Some(0x3E));
    assert_eq!(CrAccess::decode(0).cr0(0x30), None);
}

#[test]
fn debug_register_accesses_are_decoded() {
    assert_eq!(DrAccess::decode(0x707), DrAccess { dr: 7, read: false, register: Gpr::Rdi });
    assert_eq!(DrAccess::decode(0x816), DrAccess { dr: 6, read: true, register: Gpr::R8 });
}

#[test]
fn a_debug_exception_leaves_dr6_as_hardware_would() {
    const RESET: u64 = 0xFFFF_0FF0;
    let step = DebugException(0x4000);
    assert!(step.single_step() && !step.general_detect());
    assert_eq!(step.dr6(RESET), 0xFFFF_4FF0);
    assert_eq!(step.dr6(0xFFFF_2FF3), 0xFFFF_6FF0, "breakpoints of before are gone, the rest stays");
    assert_eq!(DebugException(0x5).dr6(RESET), 0xFFFF_0FF5);
    assert_eq!(DebugException(0x5).breakpoints(), 5);
    assert_eq!(DebugException(0x2000).dr6(RESET), 0xFFFF_2FF0);
    assert_eq!(DebugException(0x2000).dr7(0x2400), 0x400);
    assert_eq!(DebugException(0x1_0000).dr6(RESET), 0xFFFE_0FF0);
    assert_eq!(DebugException(0x800).dr6(RESET), 0xFFFF_07F0);
    assert_eq!(DebugException(0x4000).dr6(0xFFFE_0FF0), 0xFFFF_4FF0, "outside a transaction again");
    assert_eq!(DebugException(!0x1_680F).dr6(RESET), RESET, "reserved bits mean nothing");
}

#[test]
fn task_switches_are_decoded() {
    let task = |selector, source| TaskSwitch { selector, source };
    assert_eq!(TaskSwitch::decode(0x0000_0028), task(0x28, TaskSwitchSource::Call));
    assert_eq!(TaskSwitch::decode(0x4000_0030), task(0x30, TaskSwitchSource::Iret));
    assert_eq!(TaskSwitch::decode(0x8000_0038), task(0x38, TaskSwitchSource::Jmp));
    assert_eq!(TaskSwitch::decode(0xC000_FFFB), task(0xFFFB, TaskSwitchSource::TaskGate));
}

proptest! {
    /// Whatever the fields hold, decoding ends, and nothing of a failed entry is taken for an exit.
    #[test]
    fn decoding_is_total(exit_reason in any::<u32>(), low in 0..90u32, info in any::<u32>(), qualification in any::<u64>()) {
        for exit_reason in [exit_reason, low, exit_reason & !0xFFFF | low] {
            let exit = VmxExit::decode(exit_reason, || info);
            let failed = matches!(exit, VmxExit::InvalidGuestState | VmxExit::MsrLoading | VmxExit::EntryMachineCheck);
            prop_assert_eq!(failed, exit_reason >> 31 == 1 && [33, 34, 41].contains(&(exit_reason & 0xFFFF)));
            if exit_reason >> 31 == 1 && !failed {
                prop_assert_eq!(exit, VmxExit::Other(exit_reason));
            }
            if exit == VmxExit::Nmi {
                prop_assert_eq!(info & 0x8000_0700, 0x8000_0200);
            }
        }
        prop_assert!([1, 2, 4].contains(&IoAccess::from_vmx(qualification).size));
        let cr = CrAccess::decode(qualification);
        prop_assert_eq!(cr.cr0(info.into()).is_some(), qualification & 0x20 != 0);
        prop_assert!(DrAccess::decode(qualification).dr < 8);
        let _ = TaskSwitch::decode(qualification);
        prop_assert_eq!(DebugException(qualification).dr6(0xFFFF_0FF0) & !0x1_FFFF, 0xFFFE_0000);
    }
}
