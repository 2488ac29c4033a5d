//! Why a guest was left (SDM vol. 3 section 28.2, appendix C).

mod instruction_error;
mod name;

use super::event::InterruptionInfo;

pub use instruction_error::InstructionError;

/// Basic exit reasons, bits 15:0 of the exit-reason field.
#[rustfmt::skip]
pub mod reason {
    /// An exception of the exception bitmap, or an NMI.
    pub const EXCEPTION_OR_NMI: u16 = 0;
    /// Physical interrupt.
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    /// Triple fault.
    pub const TRIPLE_FAULT: u16 = 2;
    /// Physical INIT.
    pub const INIT: u16 = 3;
    /// Start-up IPI, while waiting for one.
    pub const SIPI: u16 = 4;
    /// SMI behind an I/O instruction.
    pub const IO_SMI: u16 = 5;
    /// Any other SMI.
    pub const OTHER_SMI: u16 = 6;
    /// The guest can take an interrupt.
    pub const INTERRUPT_WINDOW: u16 = 7;
    /// The guest can take an NMI.
    pub const NMI_WINDOW: u16 = 8;
    /// Task switch.
    pub const TASK_SWITCH: u16 = 9;
    /// CPUID.
    pub const CPUID: u16 = 10;
    /// GETSEC.
    pub const GETSEC: u16 = 11;
    /// HLT.
    pub const HLT: u16 = 12;
    /// INVD.
    pub const INVD: u16 = 13;
    /// INVLPG.
    pub const INVLPG: u16 = 14;
    /// RDPMC.
    pub const RDPMC: u16 = 15;
    /// RDTSC.
    pub const RDTSC: u16 = 16;
    /// RSM in system management mode.
    pub const RSM: u16 = 17;
    /// VMCALL.
    pub const VMCALL: u16 = 18;
    /// VMCLEAR.
    pub const VMCLEAR: u16 = 19;
    /// VMLAUNCH.
    pub const VMLAUNCH: u16 = 20;
    /// VMPTRLD.
    pub const VMPTRLD: u16 = 21;
    /// VMPTRST.
    pub const VMPTRST: u16 = 22;
    /// VMREAD.
    pub const VMREAD: u16 = 23;
    /// VMRESUME.
    pub const VMRESUME: u16 = 24;
    /// VMWRITE.
    pub const VMWRITE: u16 = 25;
    /// VMXOFF.
    pub const VMXOFF: u16 = 26;
    /// VMXON.
    pub const VMXON: u16 = 27;
    /// MOV to or from a control register, CLTS, LMSW.
    pub const CR_ACCESS: u16 = 28;
    /// MOV to or from a debug register.
    pub const DR_ACCESS: u16 = 29;
    /// IN, OUT and their string forms.
    pub const IO: u16 = 30;
    /// RDMSR.
    pub const RDMSR: u16 = 31;
    /// WRMSR.
    pub const WRMSR: u16 = 32;
    /// Failed entry: the guest's state.
    pub const INVALID_GUEST_STATE: u16 = 33;
    /// Failed entry: the list of MSRs to load.
    pub const MSR_LOADING: u16 = 34;
    /// MWAIT.
    pub const MWAIT: u16 = 36;
    /// Monitor trap flag.
    pub const MONITOR_TRAP: u16 = 37;
    /// MONITOR.
    pub const MONITOR: u16 = 39;
    /// PAUSE.
    pub const PAUSE: u16 = 40;
    /// Failed entry: a machine check.
    pub const ENTRY_MACHINE_CHECK: u16 = 41;
    /// The guest's TPR fell below the threshold.
    pub const TPR_BELOW_THRESHOLD: u16 = 43;
    /// Access to the APIC-access page.
    pub const APIC_ACCESS: u16 = 44;
    /// An EOI that is virtual.
    pub const VIRTUAL_EOI: u16 = 45;
    /// LGDT, LIDT, SGDT, SIDT.
    pub const GDTR_IDTR: u16 = 46;
    /// LLDT, LTR, SLDT, STR.
    pub const LDTR_TR: u16 = 47;
    /// EPT violation: an access that the tables do not allow.
    pub const EPT_VIOLATION: u16 = 48;
    /// EPT misconfiguration: an entry of the tables that is not legal.
    pub const EPT_MISCONFIGURATION: u16 = 49;
    /// INVEPT.
    pub const INVEPT: u16 = 50;
    /// RDTSCP.
    pub const RDTSCP: u16 = 51;
    /// The preemption timer counted down to 0.
    pub const PREEMPTION_TIMER: u16 = 52;
    /// INVVPID.
    pub const INVVPID: u16 = 53;
    /// WBINVD or WBNOINVD.
    pub const WBINVD: u16 = 54;
    /// XSETBV.
    pub const XSETBV: u16 = 55;
    /// A write to the virtual APIC page.
    pub const APIC_WRITE: u16 = 56;
    /// RDRAND.
    pub const RDRAND: u16 = 57;
    /// INVPCID.
    pub const INVPCID: u16 = 58;
    /// VMFUNC.
    pub const VMFUNC: u16 = 59;
    /// ENCLS.
    pub const ENCLS: u16 = 60;
    /// RDSEED.
    pub const RDSEED: u16 = 61;
    /// The page-modification log is full.
    pub const PML_FULL: u16 = 62;
    /// XSAVES.
    pub const XSAVES: u16 = 63;
    /// XRSTORS.
    pub const XRSTORS: u16 = 64;
    /// PCONFIG.
    pub const PCONFIG: u16 = 65;
    /// Sub-page permissions: a miss, or a misconfiguration.
    pub const SUB_PAGE: u16 = 66;
    /// UMWAIT.
    pub const UMWAIT: u16 = 67;
    /// TPAUSE.
    pub const TPAUSE: u16 = 68;
    /// LOADIWKEY.
    pub const LOADIWKEY: u16 = 69;
    /// ENCLV.
    pub const ENCLV: u16 = 70;
    /// ENQCMD, without a translation of its PASID.
    pub const ENQCMD: u16 = 72;
    /// ENQCMDS, without a translation of its PASID.
    pub const ENQCMDS: u16 = 73;
    /// A bus lock.
    pub const BUS_LOCK: u16 = 74;
    /// No instruction boundary for too long.
    pub const NOTIFY: u16 = 75;
    /// SEAMCALL.
    pub const SEAMCALL: u16 = 76;
    /// TDCALL.
    pub const TDCALL: u16 = 77;
    /// RDMSRLIST.
    pub const RDMSRLIST: u16 = 78;
    /// WRMSRLIST.
    pub const WRMSRLIST: u16 = 79;
}

/// The exit-reason field (SDM vol. 3 section 25.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReason(pub u32);

impl ExitReason {
    /// The basic reason, one of [`reason`].
    #[inline]
    pub const fn basic(self) -> u16 {
        self.0 as u16
    }

    /// The basic reason in words.
    pub const fn name(self) -> &'static str {
        name::name(self.basic())
    }

    /// Whether the exit comes from enclave mode.
    #[inline]
    pub const fn enclave(self) -> bool {
        self.0 & (1 << 27) != 0
    }

    /// Whether an exit by the monitor trap flag is pending behind this one.
    #[inline]
    pub const fn pending_monitor_trap(self) -> bool {
        self.0 & (1 << 28) != 0
    }

    /// Whether the guest was not entered at all. Its state is then as the fields had it, and no field about the exit is
    /// valid but the reason and the qualification (SDM vol. 3 section 27.8).
    #[inline]
    pub const fn entry_failed(self) -> bool {
        self.0 & (1 << 31) != 0
    }
}

/// Why the guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmxExit {
    /// CPUID.
    Cpuid,
    /// RDMSR, or WRMSR.
    Msr {
        /// Whether it is WRMSR.
        write: bool,
    },
    /// IN or OUT: [`crate::ports::IoAccess::from_vmx`] tells more.
    Io,
    /// VMCALL.
    Vmcall,
    /// A physical NMI: a kick. It has been taken: NMIs are blocked until the host's IRET (SDM vol. 3 section 28.5.5).
    Nmi,
    /// The guest can take an NMI, as was asked for.
    NmiWindow,
    /// The guest can take an interrupt, as was asked for.
    InterruptWindow,
    /// The preemption timer counted down to 0.
    PreemptionTimer,
    /// One instruction is over, as the monitor trap flag asked for.
    MonitorTrap,
    /// HLT, if it exits.
    Hlt,
    /// PAUSE, if it exits.
    Pause,
    /// An access that the extended page tables do not allow: [`super::qualification::EptViolation`] tells more.
    EptViolation,
    /// An entry of the extended page tables is not legal, a fault of the hypervisor: [`super::ept::explain`] names the entry.
    EptMisconfiguration,
    /// An access to a control register: [`super::qualification::CrAccess`] tells more.
    CrAccess,
    /// An access to a debug register: [`super::qualification::DrAccess`] tells more.
    DrAccess,
    /// An exception of the exception bitmap. Its error code is in a field of its own; of #DB, DR6 is
    /// [`super::qualification::DebugException`]'s to make.
    Exception {
        /// Its vector.
        vector: u8,
    },
    /// A task switch, by CALL, JMP, IRET or a task gate, none of it done: stop the partition.
    ///
    /// SVM lets the CPU switch tasks, VMX leaves all of it to the hypervisor, which would have to read and write the guest's TSS
    /// and GDT through its page tables. Code in 64-bit and compatibility mode cannot get here: it gets #GP without an exit.
    /// Neither would #GP do for the rest: of a task gate in the IDT the guest would lose the event and could meet the gate
    /// again on its way to #GP, and so exit for ever.
    TaskSwitch,
    /// RDPMC: the guest has no performance counters and gets #GP.
    Rdpmc,
    /// INVD, which always exits, or WBINVD: to be skipped.
    CacheFlush,
    /// XSETBV, which always exits: the hypervisor checks the value and sets it for its guest.
    Xsetbv,
    /// An instruction whose feature CPUID hides (VMX's own, MONITOR, MWAIT, GETSEC, ENCLS, ...): the guest gets #UD.
    HiddenInstruction,
    /// A physical interrupt.
    ExternalInterrupt,
    /// A physical INIT.
    Init,
    /// A start-up IPI for a guest that waits for one.
    Sipi,
    /// A physical SMI.
    Smi,
    /// A triple fault of the guest.
    TripleFault,
    /// The guest was not entered, for its state: [`super::guest_state::GuestState::check`] names the rule.
    InvalidGuestState,
    /// The guest was not entered, for the list of MSRs to load: the exit qualification is the number of the entry, from 1.
    MsrLoading,
    /// The guest was not entered, for a machine check.
    EntryMachineCheck,
    /// Any other reason: the whole field.
    Other(u32),
}

impl VmxExit {
    /// Decodes the exit-reason field; `interruption` reads the interruption-information field, for the one reason that
    /// needs it.
    #[inline]
    pub fn decode(exit_reason: u32, interruption: impl FnOnce() -> u32) -> Self {
        let exit = ExitReason(exit_reason);
        if exit.entry_failed() {
            return match exit.basic() {
                reason::INVALID_GUEST_STATE => Self::InvalidGuestState,
                reason::MSR_LOADING => Self::MsrLoading,
                reason::ENTRY_MACHINE_CHECK => Self::EntryMachineCheck,
                _ => Self::Other(exit_reason),
            };
        }
        match exit.basic() {
            reason::EXCEPTION_OR_NMI => {
                let info = InterruptionInfo(interruption());
                if info.nmi() { Self::Nmi } else { Self::Exception { vector: info.vector() } }
            }
            reason::CPUID => Self::Cpuid,
            reason::RDMSR => Self::Msr { write: false },
            reason::WRMSR => Self::Msr { write: true },
            reason::IO => Self::Io,
            reason::VMCALL => Self::Vmcall,
            reason::NMI_WINDOW => Self::NmiWindow,
            reason::INTERRUPT_WINDOW => Self::InterruptWindow,
            reason::PREEMPTION_TIMER => Self::PreemptionTimer,
            reason::MONITOR_TRAP => Self::MonitorTrap,
            reason::HLT => Self::Hlt,
            reason::PAUSE => Self::Pause,
            reason::EPT_VIOLATION => Self::EptViolation,
            reason::EPT_MISCONFIGURATION => Self::EptMisconfiguration,
            reason::CR_ACCESS => Self::CrAccess,
            reason::DR_ACCESS => Self::DrAccess,
            reason::TASK_SWITCH => Self::TaskSwitch,
            reason::RDPMC => Self::Rdpmc,
            reason::INVD | reason::WBINVD => Self::CacheFlush,
            reason::XSETBV => Self::Xsetbv,
            reason::VMCLEAR..=reason::VMXON | reason::INVEPT | reason::INVVPID | reason::VMFUNC => {
                Self::HiddenInstruction
            }
            reason::MONITOR | reason::MWAIT | reason::UMWAIT | reason::TPAUSE => Self::HiddenInstruction,
            reason::GETSEC | reason::ENCLS | reason::ENCLV | reason::PCONFIG => Self::HiddenInstruction,
            reason::SEAMCALL | reason::TDCALL | reason::LOADIWKEY => Self::HiddenInstruction,
            reason::RDMSRLIST | reason::WRMSRLIST => Self::HiddenInstruction,
            reason::EXTERNAL_INTERRUPT => Self::ExternalInterrupt,
            reason::INIT => Self::Init,
            reason::SIPI => Self::Sipi,
            reason::IO_SMI | reason::OTHER_SMI => Self::Smi,
            reason::TRIPLE_FAULT => Self::TripleFault,
            _ => Self::Other(exit_reason),
        }
    }
}
