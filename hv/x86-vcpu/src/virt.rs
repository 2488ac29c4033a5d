//! The virtualisation contract: what a vendor's extension, SVM or VMX, gives to the code that they share.
//!
//! The vendor is chosen once, at boot; from there on everything is resolved at compile time, and nothing on the exit path is
//! `dyn`.

use core::fmt;

use partita_trace::names::ExitReason;
use partita_x86_policy::cpuid::HypercallInstruction;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy};
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::start_state::StartState;

use crate::cpu::idt::WokenBy;
use crate::memory::nested::NestedFormat;
use crate::memory::pool::{Pool, PoolExhausted};
use crate::vcpu::Vcpu;

/// The guest's general-purpose registers, but for RSP and RAX, which the contract has functions for. The order is
/// that of the entry code: what is popped last before an entry is pushed first after the exit. [Quick exits](crate::vcpu::quick) save
/// those from RDI on only.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct GuestRegisters {
    pub rbp: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rcx: u64,
    pub rdx: u64,
}

impl GuestRegisters {
    /// As a start has them.
    pub fn at(state: &StartState) -> Self {
        let StartState { rbx, rdx, rsi, rdi, .. } = *state;
        Self { rbx, rdx, rsi, rdi, ..Self::default() }
    }
}

/// Registers of a dump, in its order. Of a segment the selector; its base is a register of its own where it matters.
pub const DUMPED: [&str; 39] = [
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rbp",
    "rsp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "rflags",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "efer",
    "cs",
    "ss",
    "ds",
    "es",
    "fs",
    "gs",
    "tr",
    "fs base",
    "gs base",
    "kernel gs",
    "gdtr",
    "idtr",
    "dr6",
    "dr7",
    "cpl",
    "pat",
];

/// The registers of a guest, by [`DUMPED`].
pub type Dumped = [u64; DUMPED.len()];

/// An exception that a guest can be given (APM vol. 2 section 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// #UD.
    InvalidOpcode,
    /// #GP with error code 0.
    GeneralProtection,
    /// #DB, with DR6 as the CPU left it.
    Debug,
    /// #AC with error code 0.
    AlignmentCheck,
}

/// What a guest did that needs the hypervisor, in the terms that the handlers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// RDMSR.
    MsrRead,
    /// WRMSR.
    MsrWrite,
    /// An access to an I/O port: [`VirtualCpu::io_access`] tells which.
    Io,
    /// VMMCALL or VMCALL.
    Hypercall,
    /// A physical NMI that has been taken already: a kick, or nothing.
    Nmi,
    /// The guest is about to return from its NMI handler. Only where [`VirtualCpu::HOLDS_NMIS`] is false.
    NmiReturn,
    /// The guest can take the NMI that waits for it. Only where [`VirtualCpu::HOLDS_NMIS`] is true.
    NmiWindow,
    /// #DB: the single step that the hypervisor asked for has been made, or the guest's own.
    Debug,
    /// #AC, the guest's own.
    Alignment,
    /// An access outside the guest's memory.
    NestedPageFault {
        /// Guest-physical address.
        gpa: u64,
        /// The vendor's description of the access.
        detail: u64,
    },
    /// A triple fault.
    Shutdown,
    /// An instruction that is skipped: WBINVD, INVD. Its length in bytes.
    Skip(u64),
    /// XSETBV, where it is not the guest's own: its length in bytes.
    Xsetbv(u64),
    /// A change of a control register of which a part is not the guest's: made for it, and skipped.
    ControlRegister,
    /// An instruction that the guest's CPU does not have: #UD.
    Absent,
    /// An instruction that the guest's CPU refuses: #GP.
    Refused,
    /// The CPU refused the guest's state.
    InvalidState,
    /// The CPU did not try to enter the guest.
    EntryRefused,
    /// Anything else, by the vendor's number.
    Other(u64),
}

/// A vendor's virtual CPU. All functions are for the pCPU it runs on.
pub trait VirtualCpu: Sized + 'static {
    /// How its guests call the hypervisor.
    const HYPERCALL: HypercallInstruction;
    /// Whether the CPU itself keeps a guest's NMIs back until the guest's IRET; else IRET is intercepted.
    const HOLDS_NMIS: bool;
    /// Entries of its nested page tables.
    const NESTED: NestedFormat;

    /// Fills its permission map of model-specific registers.
    fn fill_msr_map(policy: MsrPolicy, map: &mut [u8; MSRPM_LEN]);

    /// Switches the extension on, on this pCPU, with a page of its own at this physical address. `false` if the CPU refuses.
    ///
    /// # Safety
    /// The CPU must have the extension, and the page belong to this pCPU alone.
    unsafe fn enable(page: u64) -> bool;

    /// Makes this vCPU the only one of the pCPU that executes this. From now on interrupts of every kind are held back but
    /// while a guest runs; where NMIs cannot be, each makes the next entry end at once instead.
    ///
    /// # Safety
    /// The extension is on; nobody else uses the vCPU, and this pCPU has no other.
    unsafe fn take_over(&mut self);

    /// Takes a vCPU over, waits until it is to start, and runs it, for ever. The stack begins anew below
    /// [the frame of this pCPU](crate::vcpu::frame::own).
    ///
    /// # Safety
    /// As for [`Self::take_over`]; the vCPU is complete and used by nobody else.
    unsafe fn run(vcpu: *mut Vcpu<Self>) -> !;

    /// Carves and fills what a vCPU needs. `maps` are its partition's.
    ///
    /// # Errors
    /// If the pool is exhausted.
    fn new(pool: &mut Pool, nested_root: u64, maps: PermissionMaps) -> Result<Self, PoolExhausted>;

    /// Why the guest was left. An NMI that it was left for has been taken on return, and what the exit kept from the guest is delivered
    /// at the next entry.
    fn exit(&mut self, registers: &GuestRegisters) -> Exit;

    /// RAX.
    fn rax(&self) -> u64;
    /// Sets RAX.
    fn set_rax(&mut self, value: u64);
    /// RIP.
    fn rip(&self) -> u64;
    /// RSP.
    fn rsp(&self) -> u64;
    /// Privilege level, 0 to 3.
    fn privilege(&self) -> u8;
    /// CR0 as the guest sees it.
    fn cr0(&self) -> u64;
    /// CR4 as the guest sees it.
    fn cr4(&self) -> u64;
    /// EFER as the guest sees it.
    fn efer(&self) -> u64;
    /// Sets EFER to what the policy allows the guest.
    fn set_efer(&mut self, value: u64);

    /// All of them, for a dump; `general` are those that this does not hold. Not for the exit path.
    fn registers(&self, general: &GuestRegisters) -> Dumped;

    /// Continues `len` bytes behind the current instruction; `true` if its end does more, which is [`Self::end_step`]'s.
    #[must_use]
    fn go_on(&mut self, len: u64) -> bool;
    /// The same behind an access to an I/O port.
    #[must_use]
    fn go_behind_io(&mut self) -> bool;
    /// Ends, as the CPU would, an instruction that [`Self::go_on`] said this is needed of: RF is cleared, and under TF a #DB is
    /// delivered at the next entry, unless another exception is.
    fn end_step(&mut self);
    /// Skips the current instruction, of `len` bytes, all in all.
    fn skip(&mut self, len: u64) {
        if self.go_on(len) {
            self.end_step();
        }
    }

    /// After an exit for an access to an I/O port: which.
    fn io_access(&self) -> IoAccess;
    /// Whether an IN or OUT of the guest may trap.
    fn may_trap_on_io(&self) -> bool;
    /// Traps behind an IN or OUT that a breakpoint of the guest is on; after it has been skipped.
    fn trap_on_io(&mut self);
    /// Delivers an exception at the next entry.
    fn inject_exception(&mut self, exception: Exception);
    /// Delivers, at the next entry, the guest's own exception that the last exit was for.
    fn reflect_exception(&mut self, exception: Exception) {
        self.inject_exception(exception);
    }
    /// Whether something will be delivered at the next entry.
    fn delivers(&self) -> bool;
    /// Delivers an NMI, at the next entry or, where the CPU holds NMIs back, when the guest can take it; else watches for
    /// the guest's return from it.
    fn inject_nmi(&mut self);
    /// After an exit for [`Exit::NmiWindow`]: delivers the NMI that waits, or what else waits for the guest's IRET.
    fn open_nmi_window(&mut self) {}

    // The following are for where the CPU does not hold a guest's NMIs back.

    /// Whether to exit at the guest's IRET.
    fn watch_nmi_return(&mut self, _on: bool) {}
    /// Begins the single step that tells when the guest has returned from its NMI handler.
    fn step_nmi_return(&mut self) {}
    /// Whether it is under way.
    fn steps_nmi_return(&self) -> bool {
        false
    }
    /// Whether a #DB that came is that of this step, if of the guest, too.
    fn has_stepped(&self) -> bool {
        false
    }
    /// Ends it, behind its #DB: hides it from the guest. `true` if the guest has a #DB of its own from the same instruction.
    fn end_nmi_return(&mut self) -> bool {
        false
    }
    /// Whether the last instruction holds interrupts back until the next one is done (STI, MOV SS).
    fn in_shadow(&self) -> bool {
        false
    }
    /// Makes it so again.
    fn enter_shadow(&mut self) {}

    /// Forgets what was to be delivered at the next entry, or cut short by an exit: its guest is no more.
    fn discard_events(&mut self);
    /// Sets the state of a start of the partition: whatever the guest before left is gone, model-specific registers included.
    fn power_on(&mut self, state: &StartState, registers: &mut GuestRegisters);
    /// Sets the state that INIT and a start-up IPI leave: model-specific registers stay as they are.
    fn start_up(&mut self, state: &StartState, registers: &mut GuestRegisters);

    /// Says in words why the guest is entered no longer, behind [`Exit::InvalidState`], [`Exit::EntryRefused`] or
    /// [`Exit::Other`]. Not for the exit path.
    ///
    /// # Errors
    /// Those of `out`.
    fn explain(&self, exit: Exit, out: &mut impl fmt::Write) -> fmt::Result;

    /// Told at the first exit after a start: what has to hold for one entry only, such as a TLB flush, ends here.
    fn started(&mut self);

    /// Does something with NMIs, and interrupts if they are on, let in.
    fn let_in(act: impl FnOnce());
    /// Waits to be kicked, unless `idle` says that there is something to do.
    fn park_while(by: WokenBy, idle: impl Fn() -> bool);
}

/// Host-physical addresses of the permission maps of a partition.
#[derive(Clone, Copy, Debug)]
pub struct PermissionMaps {
    /// I/O ports.
    pub io: u64,
    /// MSRs.
    pub msr: u64,
}

impl Exit {
    /// How the trace and the histograms count it, as far as it tells.
    pub const fn reason(&self) -> ExitReason {
        match self {
            Self::Cpuid => ExitReason::Cpuid,
            Self::MsrRead => ExitReason::MsrRead,
            Self::MsrWrite => ExitReason::MsrWrite,
            // Of these, and of what a WRMSR is for, only the handler knows.
            Self::Io => ExitReason::IoOut,
            Self::Hypercall => ExitReason::Hypercall,
            Self::Nmi => ExitReason::Kick,
            Self::NmiReturn | Self::NmiWindow => ExitReason::NmiReturn,
            Self::Xsetbv(_) => ExitReason::Xsetbv,
            Self::Debug => ExitReason::DebugTrap,
            Self::Alignment => ExitReason::Exception,
            Self::NestedPageFault { .. } => ExitReason::NestedPageFault,
            Self::Shutdown => ExitReason::Shutdown,
            Self::Skip(_) | Self::Absent | Self::Refused | Self::ControlRegister => ExitReason::VirtInstruction,
            Self::InvalidState | Self::EntryRefused => ExitReason::InvalidState,
            Self::Other(_) => ExitReason::Other,
        }
    }
}
