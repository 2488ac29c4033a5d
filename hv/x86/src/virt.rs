//! The virtualisation contract: what a vendor's extension (SVM; VMX is next) gives to the code that they share.
//!
//! The vendor is chosen once, by entering `run` of one of them; from there on everything is resolved at compile
//! time, and nothing on the exit path is `dyn`.

use partita_core::system::Entry;
use partita_trace::names::ExitReason;
use partita_x86_policy::cpuid::HypercallInstruction;
use partita_x86_policy::ports::IoAccess;

use crate::cpu::idt::WokenBy;
use crate::memory::pool::{Pool, PoolExhausted};
use crate::vcpu::Vcpu;

/// The guest's general-purpose registers, but for RSP and RAX, which the contract has functions for. The order is
/// that of the entry code: what is popped last before an entry is pushed first after the exit. The first six are those
/// that Rust code preserves.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct GuestRegisters {
    pub rbx: u64,
    pub rbp: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rcx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub rdx: u64,
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
    /// An access to an I/O port.
    Io {
        /// The access.
        access: IoAccess,
        /// RIP of the instruction after it.
        next_rip: u64,
    },
    /// VMMCALL or VMCALL.
    Hypercall,
    /// A physical NMI: a kick, or nothing.
    Nmi,
    /// The guest is about to return from its NMI handler.
    NmiReturn,
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
    /// An instruction that the guest's CPU does not have: #UD.
    Absent,
    /// An instruction that the guest's CPU refuses: #GP.
    Refused,
    /// The CPU refused the guest's state.
    InvalidState,
    /// Anything else, by the vendor's number.
    Other(u64),
}

/// A vendor's virtual CPU. All functions are for the pCPU it runs on.
pub trait VirtualCpu: Sized + 'static {
    /// How its guests call the hypervisor.
    const HYPERCALL: HypercallInstruction;

    /// Switches the extension on, on this pCPU, with a page of its own at this physical address.
    ///
    /// # Safety
    /// The CPU must have the extension, and the page belong to this pCPU alone.
    unsafe fn enable(page: u64);

    /// Holds back interrupts of every kind, from now on but while a guest runs.
    fn hold_back();

    /// Enters the loop of a vCPU, for ever. The stack begins anew below `frame`.
    ///
    /// # Safety
    /// The extension is on and interrupts of every kind held back; `frame` is the address of
    /// [`EXIT_FRAME_LEN`](crate::cpu::percpu::EXIT_FRAME_LEN) bytes above this pCPU's stack; the vCPU is complete and used
    /// by nobody else.
    unsafe fn run(frame: u64, vcpu: *mut Vcpu<Self>, registers: GuestRegisters) -> !;

    /// Carves and fills what a vCPU needs. `maps` are its partition's.
    ///
    /// # Errors
    /// If the pool is exhausted.
    fn new(pool: &mut Pool, nested_root: u64, maps: PermissionMaps) -> Result<Self, PoolExhausted>;

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
    /// Whether CR0.PG is set.
    fn paging(&self) -> bool;
    /// CR4.
    fn cr4(&self) -> u64;
    /// EFER as the guest sees it.
    fn efer(&self) -> u64;
    /// Sets EFER to what the policy allows the guest.
    fn set_efer(&mut self, value: u64);

    /// All of them, for a dump; `general` are those that this does not hold. Not for the exit path.
    fn registers(&self, general: &GuestRegisters) -> Dumped;

    /// Continues `len` bytes behind the current instruction, and ends that as the CPU would: under TF a #DB is delivered at
    /// the next entry, unless another exception is.
    fn skip(&mut self, len: u64);
    /// The same, with `rip` the address behind it.
    fn skip_to(&mut self, rip: u64);

    /// Traps behind an IN or OUT that a breakpoint of the guest is on; after it has been skipped.
    fn trap_on_io(&mut self, access: IoAccess);
    /// Delivers an exception at the next entry.
    fn inject_exception(&mut self, exception: Exception);
    /// Whether something will be delivered at the next entry.
    fn delivers(&self) -> bool;
    /// Delivers an NMI at the next entry, and watches for the guest's return from it.
    fn inject_nmi(&mut self);
    /// Whether to exit at the guest's IRET.
    fn watch_nmi_return(&mut self, on: bool);
    /// Begins the single step that tells when the guest has returned from its NMI handler.
    fn step_nmi_return(&mut self);
    /// Whether it is under way.
    fn steps_nmi_return(&self) -> bool;
    /// Whether a #DB that came is that of this step, if of the guest, too.
    fn has_stepped(&self) -> bool;
    /// Ends it, behind its #DB: hides it from the guest. `true` if the guest has a #DB of its own from the same instruction.
    fn end_nmi_return(&mut self) -> bool;
    /// Whether the last instruction holds interrupts back until the next one is done (STI, MOV SS).
    fn in_shadow(&self) -> bool;
    /// Makes it so again.
    fn enter_shadow(&mut self);

    /// Forgets what was to be delivered at the next entry, or cut short by an exit: its guest is no more.
    fn discard_events(&mut self);
    /// Sets the state after power-on, before a life of the partition: whatever the guest before left is gone.
    fn power_on(&mut self, registers: &mut GuestRegisters);
    /// Sets the state of a first vCPU, and its registers, after [`Self::power_on`].
    fn start_at(&mut self, entry: &Entry, registers: &mut GuestRegisters);
    /// Sets the state that INIT and a start-up IPI with `vector` leave (APM vol. 2 section 14.1.3).
    fn start_up(&mut self, vector: u8, registers: &mut GuestRegisters);

    /// Told at the first exit after a start: what has to hold for one entry only, such as a TLB flush, ends here.
    fn started(&mut self);

    /// After an exit for an NMI: lets the NMI in. On return it has been taken, NMIs are held back again, and what the
    /// exit kept from the guest is delivered at the next entry.
    fn take_nmi(&mut self);
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
    /// How the trace and the histograms count it.
    #[inline]
    pub const fn reason(&self) -> ExitReason {
        match self {
            Self::Cpuid => ExitReason::Cpuid,
            Self::MsrRead => ExitReason::MsrRead,
            Self::MsrWrite => ExitReason::MsrWrite,
            Self::Io { access, .. } if access.input => ExitReason::IoIn,
            Self::Io { .. } => ExitReason::IoOut,
            Self::Hypercall => ExitReason::Hypercall,
            Self::Nmi => ExitReason::Kick,
            Self::NmiReturn => ExitReason::NmiReturn,
            Self::Debug => ExitReason::DebugTrap,
            Self::Alignment => ExitReason::Exception,
            Self::NestedPageFault { .. } => ExitReason::NestedPageFault,
            Self::Shutdown => ExitReason::Shutdown,
            Self::Skip(_) | Self::Absent | Self::Refused => ExitReason::VirtInstruction,
            Self::InvalidState => ExitReason::InvalidState,
            Self::Other(_) => ExitReason::Other,
        }
    }
}
