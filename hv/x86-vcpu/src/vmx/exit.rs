//! Why the guest was left, in the terms that the handlers share.

use partita_x86_policy::vmx::event::{EventKind, InterruptionInfo};
use partita_x86_policy::vmx::exit::{InstructionError, VmxExit, reason};
use partita_x86_policy::vmx::field;
use partita_x86_policy::vmx::qualification::{CrAccess, Gpr};

use super::VmxVcpu;
use crate::virt::{Exception, Exit, FrequentExit, GuestRegisters, VirtualCpu};

const DEBUG_VECTOR: u8 = 1;
const ALIGNMENT_VECTOR: u8 = 17;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;

impl VmxVcpu {
    /// Why the guest was left, if for something frequent.
    #[inline(always)]
    pub(super) fn frequent(&self) -> Option<FrequentExit> {
        let vmcs = self.vmcs();
        let is = u32::from;
        // The whole field: with any other bit set it is not frequent.
        match vmcs.read_present(field::EXIT_REASON) {
            exit if exit == is(reason::CPUID) => Some(FrequentExit::Cpuid),
            exit if exit == is(reason::RDMSR) => Some(FrequentExit::MsrRead),
            exit if exit == is(reason::WRMSR) => Some(FrequentExit::MsrWrite),
            exit if exit == is(reason::IO) => Some(FrequentExit::Io),
            exit if exit == is(reason::VMCALL) => Some(FrequentExit::Hypercall),
            exit if exit == is(reason::EXCEPTION_OR_NMI) => {
                let info = InterruptionInfo(vmcs.read_present(field::VM_EXIT_INTERRUPTION_INFORMATION));
                info.nmi().then_some(FrequentExit::Nmi)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn decode(&self) -> VmxExit {
        let vmcs = self.vmcs();
        VmxExit::decode(vmcs.read(field::EXIT_REASON), || vmcs.read(field::VM_EXIT_INTERRUPTION_INFORMATION))
    }

    /// Why the guest was left, if for something else.
    pub(super) fn rare_exit(&mut self, registers: &GuestRegisters) -> Exit {
        match self.decode() {
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
            Gpr::Rcx => g.scratch.rcx,
            Gpr::Rdx => g.scratch.rdx,
            Gpr::Rbx => g.scratch.rbx,
            Gpr::Rsp => self.rsp(),
            Gpr::Rbp => g.rbp,
            Gpr::Rsi => g.scratch.rsi,
            Gpr::Rdi => g.scratch.rdi,
            Gpr::R8 => g.scratch.r8,
            Gpr::R9 => g.scratch.r9,
            Gpr::R10 => g.scratch.r10,
            Gpr::R11 => g.scratch.r11,
            Gpr::R12 => g.r12,
            Gpr::R13 => g.r13,
            Gpr::R14 => g.r14,
            Gpr::R15 => g.r15,
        }
    }
}
