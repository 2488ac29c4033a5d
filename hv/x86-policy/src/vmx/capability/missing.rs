//! What VMX lacks that the hypervisor needs.

use core::fmt::{Display, Formatter, Result};

/// What a CPU's VMX lacks, or does and must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// The firmware switched VMX off and locked that.
    LockedOff {
        /// IA32_FEATURE_CONTROL.
        found: u64,
    },
    /// VMCSs are addressed by 32 bits only.
    PhysicalWidth,
    /// A VMCS does not fit a page.
    RegionLen {
        /// Its bytes.
        found: u32,
    },
    /// VMCSs are not accessed as write-back memory.
    MemoryType {
        /// As what: the number of the memory type.
        found: u8,
    },
    /// A control cannot be switched on.
    Control {
        /// The capability MSR.
        msr: u32,
        /// Its bit of the control; what may be 1 is in its high half.
        bit: u32,
        /// The control's name in the SDM.
        name: &'static str,
    },
    /// A control cannot be switched off.
    Forced {
        /// The capability MSR.
        msr: u32,
        /// Its bit of the control; what must be 1 is in its low half.
        bit: u32,
        /// The control's name in the SDM.
        name: &'static str,
    },
    /// A property of EPT.
    Ept {
        /// The capability MSR.
        msr: u32,
        /// Its bit.
        bit: u32,
        /// What it stands for.
        what: &'static str,
    },
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        const CURE: &str = "use a CPU from Westmere (2010) on, in Bochs model=tigerlake";
        match self {
            Self::LockedOff { found } => write!(
                f,
                "VMX is switched off and locked (MSR 0x3a is {found:#x}, bit 2 is clear); switch virtualisation (VT-x) on in the \
                 firmware's set-up"
            ),
            Self::PhysicalWidth => write!(f, "this CPU's VMX has addresses of 32 bits only (MSR 0x480 bit 48); {CURE}"),
            Self::RegionLen { found } => {
                write!(f, "this CPU's VMCS has {found} bytes (MSR 0x480 bits 44:32), 1 to 4096 are valid; {CURE}")
            }
            Self::MemoryType { found } => write!(
                f,
                "this CPU's VMCS is of memory type {found} (MSR 0x480 bits 53:50), write-back, which is 6, is needed; {CURE}"
            ),
            Self::Control { msr, bit, name } => {
                write!(
                    f,
                    "this CPU's VMX has no \"{name}\" (MSR {msr:#x} bit {bit} is clear), which guests need; {CURE}"
                )
            }
            Self::Forced { msr, bit, name } => write!(
                f,
                "this CPU's VMX cannot do without \"{name}\" (MSR {msr:#x} bit {bit} is set), which would come between guests \
                 and their CPUs; {CURE}"
            ),
            Self::Ept { msr, bit, what } => {
                write!(
                    f,
                    "this CPU's EPT has no {what} (MSR {msr:#x} bit {bit} is clear), by which guests are kept apart; {CURE}"
                )
            }
        }
    }
}

impl core::error::Error for Missing {}
