//! Why the guest was left, in the terms that the handlers share.

use core::arch::asm;

use partita_x86_policy::vmx::event::{EventKind, InterruptionInfo};
use partita_x86_policy::vmx::exit::{InstructionError, VmxExit};
use partita_x86_policy::vmx::field;
use partita_x86_policy::vmx::qualification::{CrAccess, Gpr};

use super::VmxVcpu;
use crate::cpu::idt;
use crate::virt::{Exception, Exit, GuestRegisters, VirtualCpu};

const DEBUG_VECTOR: u8 = 1;
const ALIGNMENT_VECTOR: u8 = 17;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;

impl VmxVcpu {
    fn decode(&self) -> VmxExit {
        let vmcs = self.vmcs();
        VmxExit::decode(vmcs.read(field::EXIT_REASON), || vmcs.read(field::VM_EXIT_INTERRUPTION_INFORMATION))
    }

    /// Why the guest was left.
    pub(super) fn why(&mut self, registers: &GuestRegisters) -> Exit {
        match self.decode() {
            VmxExit::Cpuid => Exit::Cpuid,
            VmxExit::Msr { write: false } => Exit::MsrRead,
            VmxExit::Msr { write: true } => Exit::MsrWrite,
            VmxExit::Io => Exit::Io,
            VmxExit::Vmcall => Exit::Hypercall,
            VmxExit::Nmi => {
                unblock_nmis();
                self.redeliver();
                Exit::Nmi
            }
            VmxExit::PreemptionTimer => {
                // Before anyone looks what is asked: an NMI that comes behind this arms the timer anew.
                self.disarm();
                self.redeliver();
                Exit::Nmi
            }
            VmxExit::NmiWindow => Exit::NmiWindow,
            VmxExit::Exception { vector: DEBUG_VECTOR } => {
                self.restore_nmi_blocking();
                self.end_shadow();
                let info = InterruptionInfo(self.vmcs().read(field::VM_EXIT_INTERRUPTION_INFORMATION));
                // INT1 leaves the debug registers alone.
                if info.kind() == EventKind::HardwareException {
                    let qualification = self.vmcs().read(field::EXIT_QUALIFICATION);
                    self.note_debug_exception(qualification);
                }
                Exit::Debug
            }
            VmxExit::Exception { vector: ALIGNMENT_VECTOR } => {
                self.restore_nmi_blocking();
                Exit::Alignment
            }
            VmxExit::EptViolation => Exit::NestedPageFault {
                gpa: self.vmcs().read(field::GUEST_PHYSICAL_ADDRESS),
                detail: self.vmcs().read(field::EXIT_QUALIFICATION),
            },
            VmxExit::CrAccess => self.control_register(registers),
            VmxExit::Xsetbv => Exit::Xsetbv(0),
            VmxExit::CacheFlush => Exit::Skip(0),
            VmxExit::TripleFault => Exit::Shutdown,
            VmxExit::HiddenInstruction => Exit::Absent,
            VmxExit::Rdpmc => Exit::Refused,
            VmxExit::InvalidGuestState if self.wrap_rip() => Exit::ControlRegister,
            VmxExit::InvalidGuestState => Exit::InvalidState,
            _ => Exit::Other(self.vmcs().read(field::EXIT_REASON).into()),
        }
    }

    /// Whether an entry was refused because there has been none yet: the first one has failed, so that the next one is the first.
    pub(super) fn is_clear(&self) -> bool {
        self.vmcs().read(field::VM_INSTRUCTION_ERROR) == InstructionError::NOT_LAUNCHED.0
    }

    /// The CPU refused to try an entry.
    pub(super) fn refused(&self) -> Exit {
        Exit::EntryRefused
    }

    /// An IRET that was left for an exception has lifted the blocking of NMIs already, and runs again.
    fn restore_nmi_blocking(&mut self) {
        let info = InterruptionInfo(self.vmcs().read(field::VM_EXIT_INTERRUPTION_INFORMATION));
        let cut_short = InterruptionInfo(self.vmcs().read(field::IDT_VECTORING_INFORMATION));
        if info.nmi_unblocked_by_iret() && !cut_short.valid() {
            let state = self.interruptibility().with_nmi_blocking(true);
            self.set_interruptibility(state);
        }
    }

    /// MOV to CR0 or CR4 of what is not the guest's own: only what the guest reads there changes, the instruction then runs
    /// again, and the CPU checks and does the rest.
    fn control_register(&mut self, registers: &GuestRegisters) -> Exit {
        let access = CrAccess::decode(self.vmcs().read(field::EXIT_QUALIFICATION));
        let is_legal = match access {
            CrAccess::Write { cr: 0, from } => {
                let (value, own) = (self.general(from, registers), self.own_cr0());
                let is_legal = value & (CR0_NW | CR0_CD) != CR0_NW;
                if is_legal {
                    let shadow = self.cr0() & !own | value & own;
                    self.vmcs_mut().write(field::CR0_READ_SHADOW, shadow);
                }
                is_legal
            }
            // The features are hidden: their bits are reserved. CLTS and LMSW change no bit that exits.
            _ => false,
        };
        if !is_legal {
            self.inject_exception(Exception::GeneralProtection);
        }
        Exit::ControlRegister
    }

    /// A general-purpose register of the guest's.
    fn general(&self, register: Gpr, g: &GuestRegisters) -> u64 {
        match register {
            Gpr::Rax => self.rax(),
            Gpr::Rcx => g.rcx,
            Gpr::Rdx => g.rdx,
            Gpr::Rbx => g.rbx,
            Gpr::Rsp => self.rsp(),
            Gpr::Rbp => g.rbp,
            Gpr::Rsi => g.rsi,
            Gpr::Rdi => g.rdi,
            Gpr::R8 => g.r8,
            Gpr::R9 => g.r9,
            Gpr::R10 => g.r10,
            Gpr::R11 => g.r11,
            Gpr::R12 => g.r12,
            Gpr::R13 => g.r13,
            Gpr::R14 => g.r14,
            Gpr::R15 => g.r15,
        }
    }
}

/// An exit for an NMI leaves NMIs blocked until an IRET (SDM vol. 3 section 28.5.5): here is one, to the next instruction.
fn unblock_nmis() {
    // SAFETY: returns to the instruction behind it, with the same stack, flags and segments, which are the hypervisor's: 8 and
    // 16. An NMI that comes then has its handler.
    unsafe {
        asm!(
            "mov {0}, rsp",
            "push {ss}",
            "push {0}",
            "pushfq",
            "push {cs}",
            "lea {0}, [rip + 2f]",
            "push {0}",
            "iretq",
            "2:",
            out(reg) _,
            cs = const idt::CODE_SELECTOR,
            ss = const idt::DATA_SELECTOR,
        );
    }
}
