//! Which exit of the emulator's log is which exit of the trace: written independently of the hypervisor's own table.

use super::{TracedExit, VmExit};
use partita_trace::names::ExitReason;
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::svm_exit::{SvmExit, code};

/// Exit code of RDPMC.
const RDPMC: u64 = 0x6F;

/// Whether the hypervisor has to trace `exit` as it traced `traced`.
pub(super) fn fits(exit: &VmExit, traced: &TracedExit) -> bool {
    let at_rip = |reason| traced.reason == reason && traced.detail == exit.rip;
    match SvmExit::decode(exit.code, exit.info1) {
        SvmExit::Cpuid => traced.reason == ExitReason::Cpuid,
        SvmExit::Msr { write: false } => traced.reason == ExitReason::MsrRead,
        // The log does not tell which MSR.
        SvmExit::Msr { write: true } => matches!(traced.reason, ExitReason::MsrWrite | ExitReason::IcrWrite),
        SvmExit::Ioio => {
            let access = IoAccess::from_svm(exit.info1);
            let reason = if access.input { ExitReason::IoIn } else { ExitReason::IoOut };
            traced.reason == reason && traced.detail16 == access.port
        }
        SvmExit::Vmmcall => traced.reason == ExitReason::Hypercall,
        SvmExit::Nmi => traced.reason == ExitReason::Kick,
        SvmExit::Iret => at_rip(ExitReason::NmiReturn),
        SvmExit::Exception { vector: 1 } => at_rip(ExitReason::DebugTrap),
        SvmExit::Exception { vector: 17 } => at_rip(ExitReason::Exception),
        SvmExit::Npf(info) => {
            let about = (traced.detail16, traced.detail);
            traced.reason == ExitReason::NestedPageFault && about == (info.0 as u16, exit.info2)
        }
        SvmExit::Shutdown => at_rip(ExitReason::Shutdown),
        SvmExit::CacheFlush | SvmExit::HiddenInstruction | SvmExit::Other(RDPMC) => at_rip(ExitReason::VirtInstruction),
        SvmExit::Invalid => traced.reason == ExitReason::InvalidState,
        _ => traced.reason == ExitReason::Other && traced.detail == exit.code,
    }
}

/// What people call an exit code.
pub(super) fn name(exit: &VmExit) -> String {
    match SvmExit::decode(exit.code, exit.info1) {
        SvmExit::Cpuid => "CPUID".into(),
        SvmExit::Msr { write: false } => "RDMSR".into(),
        SvmExit::Msr { write: true } => "WRMSR".into(),
        SvmExit::Ioio => {
            let access = IoAccess::from_svm(exit.info1);
            format!("{} port {:#x}", if access.input { "IN" } else { "OUT" }, access.port)
        }
        SvmExit::Vmmcall => "VMMCALL".into(),
        SvmExit::Nmi => "NMI".into(),
        SvmExit::Iret => "IRET".into(),
        SvmExit::Npf(_) => format!("nested page fault at {:#x}", exit.info2),
        SvmExit::Exception { vector } => format!("exception {vector}"),
        SvmExit::Shutdown => "shutdown".into(),
        SvmExit::Invalid => "invalid VMCB".into(),
        _ => match exit.code {
            code::XSETBV => "XSETBV".into(),
            code::HLT => "HLT".into(),
            code::INTR => "interrupt".into(),
            _ => "another exit".into(),
        },
    }
}
