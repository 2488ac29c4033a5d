//! Events, as exits report and entries deliver them, and what holds them back: interruption information
//! (SDM vol. 3 sections 25.8.3, 25.9.2 and 25.9.3) and the guest's non-register state (section 25.4.2).

/// What kind of event it is: bits 10:8 of interruption information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// 0: an interrupt from outside.
    ExternalInterrupt,
    /// 1: reserved.
    Reserved,
    /// 2: an NMI.
    Nmi,
    /// 3: any exception but those of kinds 5 and 6.
    HardwareException,
    /// 4: INT n.
    SoftwareInterrupt,
    /// 5: INT1.
    PrivilegedSoftwareException,
    /// 6: INT3 or INTO.
    SoftwareException,
    /// 7: not an event of the IDT; at an entry, a pending monitor trap.
    Other,
}

impl EventKind {
    /// Decodes the lowest three bits.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::ExternalInterrupt,
            1 => Self::Reserved,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => Self::Other,
        }
    }

    /// Whether an instruction asked for it, whose length the delivery needs, as its frame returns behind it.
    #[inline]
    pub const fn by_instruction(self) -> bool {
        matches!(self, Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException)
    }
}

const VECTOR: u32 = 0xFF;
const KIND_SHIFT: u32 = 8;
const KIND: u32 = 7 << KIND_SHIFT;
const KIND_NMI: u32 = 2 << KIND_SHIFT;
const KIND_HARDWARE_EXCEPTION: u32 = 3 << KIND_SHIFT;
const ERROR_CODE: u32 = 1 << 11;
const NMI_UNBLOCKED: u32 = 1 << 12;
const VALID: u32 = 1 << 31;
const NMI_VECTOR: u32 = 2;

/// Interruption information of an exit, IDT-vectoring information, or interruption information for an entry: the three
/// have one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptionInfo(pub u32);

impl InterruptionInfo {
    /// There is an event at all.
    pub const VALID: u32 = VALID;
    /// Tells, together with [`Self::NMI`], an NMI from all else.
    pub const WHAT: u32 = VALID | KIND;
    /// An NMI, of the bits [`Self::WHAT`].
    pub const NMI: u32 = VALID | KIND_NMI;

    /// Whether there is an event at all.
    #[inline]
    pub const fn valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// The vector.
    #[inline]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The kind.
    #[inline]
    pub const fn kind(self) -> EventKind {
        EventKind::from_bits(self.0 >> KIND_SHIFT)
    }

    /// Whether it is an NMI, and there is one.
    #[inline]
    pub const fn nmi(self) -> bool {
        self.0 & Self::WHAT == Self::NMI
    }

    /// Whether the event has an error code, in a field of its own.
    #[inline]
    pub const fn has_error_code(self) -> bool {
        self.0 & ERROR_CODE != 0
    }

    /// Whether the exit came while IRET was executed, which had already lifted the blocking of NMIs: the blocking has to be
    /// put back if the IRET is to run again (SDM vol. 3 section 28.2.3). Undefined if the exit cut an event short, if it is
    /// for a double fault, and in IDT-vectoring information.
    #[inline]
    pub const fn nmi_unblocked_by_iret(self) -> bool {
        self.0 & NMI_UNBLOCKED != 0
    }

    /// The event whose delivery an exit cut short, for the next entry; `None` if there is none. `self` is IDT-vectoring
    /// information, of which what is undefined is dropped; `error_code` and `instruction_length` read the fields of the exit,
    /// where needed (SDM vol. 3 section 28.2.4).
    #[inline]
    pub fn redeliver(
        self,
        error_code: impl FnOnce() -> u32,
        instruction_length: impl FnOnce() -> u32,
    ) -> Option<EntryEvent> {
        if !self.valid() {
            return None;
        }
        Some(EntryEvent {
            info: self.0 & (VALID | ERROR_CODE | KIND | VECTOR),
            error_code: self.has_error_code().then(error_code),
            instruction_length: self.kind().by_instruction().then(instruction_length),
        })
    }
}

/// An event to be delivered at an entry: the values of three fields, those only written that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryEvent {
    /// Interruption information.
    pub info: u32,
    /// The error code, if it has one.
    pub error_code: Option<u32>,
    /// Length of the instruction that asked for it, in bytes.
    pub instruction_length: Option<u32>,
}

impl EntryEvent {
    /// An NMI. With virtual NMIs the entry demands that they be not blocked, and blocks them.
    pub const NMI: Self = Self { info: VALID | KIND_NMI | NMI_VECTOR, error_code: None, instruction_length: None };

    /// An exception, but #BP and #OF, which instructions ask for. Whether there is an error code is the vector's to say; the
    /// entry fails if it is not as the vector has it, and in real mode, where `protected` (CR0.PE) is false, there is none
    /// (SDM vol. 3 section 27.2.1.3).
    #[inline]
    pub const fn exception(vector: u8, error_code: u32, protected: bool) -> Self {
        let info = VALID | KIND_HARDWARE_EXCEPTION | vector as u32;
        if protected && has_error_code(vector) {
            Self { info: info | ERROR_CODE, error_code: Some(error_code), instruction_length: None }
        } else {
            Self { info, error_code: None, instruction_length: None }
        }
    }

    /// Whether it is an NMI: the guest's blocking of NMIs has to be lifted for the entry, if an exit cut its delivery short.
    #[inline]
    pub const fn is_nmi(self) -> bool {
        InterruptionInfo(self.info).nmi()
    }
}

/// Whether an exception pushes an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, as an entry demands it.
#[inline]
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// The guest's interruptibility state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interruptibility(pub u32);

impl Interruptibility {
    /// Interrupts are held back until the next instruction is done.
    pub const SHADOW: u32 = Self::STI | Self::MOV_SS;
    /// STI: interrupts are held back for one instruction.
    pub const STI: u32 = 1 << 0;
    /// MOV SS or POP SS: interrupts, NMIs and #DB are held back for one instruction.
    pub const MOV_SS: u32 = 1 << 1;
    /// SMIs are held back.
    pub const SMI: u32 = 1 << 2;
    /// NMIs are held back; with virtual NMIs, those of the guest.
    pub const NMI: u32 = 1 << 3;
    /// The exit interrupted an enclave.
    pub const ENCLAVE: u32 = 1 << 4;
    /// Bits that have a meaning.
    pub const KNOWN: u32 = Self::STI | Self::MOV_SS | Self::SMI | Self::NMI | Self::ENCLAVE;

    /// Whether the last instruction holds interrupts back until the next one is done.
    #[inline]
    pub const fn in_shadow(self) -> bool {
        self.0 & Self::SHADOW != 0
    }

    /// The next instruction is done.
    #[inline]
    pub const fn without_shadow(self) -> Self {
        Self(self.0 & !Self::SHADOW)
    }

    /// As if behind STI. An entry demands RFLAGS.IF for it, and refuses it together with MOV SS.
    #[inline]
    pub const fn with_sti(self) -> Self {
        Self(self.without_shadow().0 | Self::STI)
    }

    /// Whether NMIs are held back.
    #[inline]
    pub const fn blocks_nmi(self) -> bool {
        self.0 & Self::NMI != 0
    }

    /// NMIs held back, or not.
    #[inline]
    pub const fn with_nmi_blocking(self, on: bool) -> Self {
        Self(if on { self.0 | Self::NMI } else { self.0 & !Self::NMI })
    }
}

/// The guest's activity state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Activity {
    /// It executes instructions.
    #[default]
    Active = 0,
    /// It is in HLT.
    Hlt = 1,
    /// It is shut down, by a triple fault.
    Shutdown = 2,
    /// It waits for a start-up IPI.
    WaitForSipi = 3,
}

impl Activity {
    /// Decodes the field; `None` for a value without a meaning.
    #[inline]
    pub const fn from_field(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Active),
            1 => Some(Self::Hlt),
            2 => Some(Self::Shutdown),
            3 => Some(Self::WaitForSipi),
            _ => None,
        }
    }
}

/// Bits of the guest's pending debug exceptions: a #DB that comes behind the entry, with DR6 set as if by the guest's own
/// instruction.
pub mod pending_debug {
    /// B0 to B3: breakpoints whose condition was met, whether or not they are on.
    pub const BREAKPOINTS: u64 = 0xF;
    /// A bus lock, on CPUs that detect those.
    pub const BUS_LOCK: u64 = 1 << 11;
    /// One breakpoint at least that is on was met, or a transaction trapped.
    pub const ENABLED_BREAKPOINT: u64 = 1 << 12;
    /// The single step of RFLAGS.TF.
    pub const SINGLE_STEP: u64 = 1 << 14;
    /// In a transaction.
    pub const TRANSACTION: u64 = 1 << 16;
    /// Bits that have a meaning.
    pub const KNOWN: u64 = BREAKPOINTS | BUS_LOCK | ENABLED_BREAKPOINT | SINGLE_STEP | TRANSACTION;
}
