//! Exit qualifications (SDM vol. 3 section 28.2.1). That of an I/O instruction is [`crate::ports::IoAccess::from_vmx`]'s.

/// Qualification of an EPT violation (SDM vol. 3 table 28-7). The guest-physical address is in a field of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptViolation(pub u64);

impl EptViolation {
    /// Whether it is a read.
    #[inline]
    pub const fn read(self) -> bool {
        self.0 & (1 << 0) != 0
    }

    /// Whether it is a write. With accessed and dirty flags in the tables, the guest's page walks count as writes, too.
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// Whether it is an instruction fetch.
    #[inline]
    pub const fn fetch(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// Whether the entries on the way allow reads.
    #[inline]
    pub const fn readable(self) -> bool {
        self.0 & (1 << 3) != 0
    }

    /// Whether they allow writes.
    #[inline]
    pub const fn writable(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Whether they allow instruction fetches.
    #[inline]
    pub const fn executable(self) -> bool {
        self.0 & (1 << 5) != 0
    }

    /// Whether something is there and the access is not allowed; else nothing is there.
    #[inline]
    pub const fn present(self) -> bool {
        self.0 & (7 << 3) != 0
    }

    /// Whether the field with the guest-linear address is valid.
    #[inline]
    pub const fn linear_address_valid(self) -> bool {
        self.0 & (1 << 7) != 0
    }

    /// Whether the guest's own page tables lie there: it happened during their walk, not at the final address.
    #[inline]
    pub const fn table_walk(self) -> bool {
        self.linear_address_valid() && self.0 & (1 << 8) == 0
    }

    /// Whether an IRET had lifted the blocking of NMIs before: see
    /// [`InterruptionInfo::nmi_unblocked_by_iret`](super::event::InterruptionInfo::nmi_unblocked_by_iret).
    #[inline]
    pub const fn nmi_unblocked_by_iret(self) -> bool {
        self.0 & (1 << 12) != 0
    }
}

/// A general-purpose register, as qualifications number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// Decodes the lowest four bits.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 0xF {
            0 => Self::Rax,
            1 => Self::Rcx,
            2 => Self::Rdx,
            3 => Self::Rbx,
            4 => Self::Rsp,
            5 => Self::Rbp,
            6 => Self::Rsi,
            7 => Self::Rdi,
            8 => Self::R8,
            9 => Self::R9,
            10 => Self::R10,
            11 => Self::R11,
            12 => Self::R12,
            13 => Self::R13,
            14 => Self::R14,
            _ => Self::R15,
        }
    }
}

/// What is done to a control register (SDM vol. 3 table 28-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// MOV to it.
    Write {
        /// Number of the control register.
        cr: u8,
        /// The register with the new value.
        from: Gpr,
    },
    /// MOV from it.
    Read {
        /// Number of the control register.
        cr: u8,
        /// The register that gets the value.
        to: Gpr,
    },
    /// CLTS, of CR0.
    Clts,
    /// LMSW, of CR0.
    Lmsw {
        /// The new bits: PE, which it sets but does not clear, MP, EM and TS.
        source: u16,
    },
}

impl CrAccess {
    /// Decodes the qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        let cr = (qualification & 0xF) as u8;
        let register = Gpr::from_bits(qualification >> 8);
        match (qualification >> 4) & 3 {
            0 => Self::Write { cr, from: register },
            1 => Self::Read { cr, to: register },
            2 => Self::Clts,
            _ => Self::Lmsw { source: (qualification >> 16) as u16 },
        }
    }

    /// CR0 as CLTS or LMSW would leave it, from the CR0 that the guest sees; `None` for the others.
    #[inline]
    pub const fn cr0(self, old: u64) -> Option<u64> {
        const PE: u64 = 1;
        const TS: u64 = 1 << 3;
        match self {
            Self::Clts => Some(old & !TS),
            // PE, MP, EM and TS; of these PE stays if it is on.
            Self::Lmsw { source } => Some(old & !0xE | source as u64 & (0xE | PE)),
            Self::Write { .. } | Self::Read { .. } => None,
        }
    }
}

/// A MOV to or from a debug register (SDM vol. 3 table 28-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrAccess {
    /// Number of the debug register.
    pub dr: u8,
    /// Whether it is read.
    pub read: bool,
    /// The other register.
    pub register: Gpr,
}

impl DrAccess {
    /// Decodes the qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        Self {
            dr: (qualification & 7) as u8,
            read: qualification & (1 << 4) != 0,
            register: Gpr::from_bits(qualification >> 8),
        }
    }
}

/// Qualification of a #DB (SDM vol. 3 table 28-1): what DR6 would say. An exit leaves DR6 and DR7 alone; the #DB that the
/// hypervisor then delivers does so, too (section 28.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugException(pub u64);

impl DebugException {
    const BREAKPOINTS: u64 = 0xF;
    const BUS_LOCK: u64 = 1 << 11;
    const DEBUG_REGISTER: u64 = 1 << 13;
    const SINGLE_STEP: u64 = 1 << 14;
    const TRANSACTION: u64 = 1 << 16;
    const DR7_GENERAL_DETECT: u64 = 1 << 13;

    /// B0 to B3: the breakpoints that were met, whether or not they are on.
    #[inline]
    pub const fn breakpoints(self) -> u64 {
        self.0 & Self::BREAKPOINTS
    }

    /// BD: a MOV of a debug register under general detect.
    #[inline]
    pub const fn general_detect(self) -> bool {
        self.0 & Self::DEBUG_REGISTER != 0
    }

    /// BS: the single step of RFLAGS.TF, or of a taken branch.
    #[inline]
    pub const fn single_step(self) -> bool {
        self.0 & Self::SINGLE_STEP != 0
    }

    /// DR6 as the CPU would leave it (SDM vol. 3 section 18.2.3): of B0 to B3 those of this #DB only, BD and BS added, and
    /// the two bits that are 0 when they mean something, bus lock and transaction.
    #[inline]
    pub const fn dr6(self, old: u64) -> u64 {
        let set = self.0 & (Self::BREAKPOINTS | Self::DEBUG_REGISTER | Self::SINGLE_STEP);
        let cleared = self.0 & (Self::BUS_LOCK | Self::TRANSACTION);
        (old & !Self::BREAKPOINTS | set | Self::TRANSACTION) & !cleared
    }

    /// DR7 as the delivery of #DB leaves it: without general detect.
    #[inline]
    pub const fn dr7(self, old: u64) -> u64 {
        old & !Self::DR7_GENERAL_DETECT
    }
}

/// What began a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jmp,
    /// A task gate in the IDT.
    TaskGate,
}

/// Qualification of a task switch (SDM vol. 3 table 28-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new TSS.
    pub selector: u16,
    /// What began it.
    pub source: TaskSwitchSource,
}

impl TaskSwitch {
    /// Decodes the qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        let source = match (qualification >> 30) & 3 {
            0 => TaskSwitchSource::Call,
            1 => TaskSwitchSource::Iret,
            2 => TaskSwitchSource::Jmp,
            _ => TaskSwitchSource::TaskGate,
        };
        Self { selector: qualification as u16, source }
    }
}

/// What the CPU says of itself about a guest state that it refused (SDM vol. 3 section 27.8); `None` for nothing.
pub const fn invalid_guest_state(qualification: u64) -> Option<&'static str> {
    match qualification {
        2 => Some("a PDPTE is not legal"),
        3 => Some("an NMI is to be delivered behind MOV SS"),
        4 => Some("the VMCS link pointer is not legal"),
        _ => None,
    }
}
