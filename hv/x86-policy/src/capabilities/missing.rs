//! What a CPU lacks that the hypervisor needs.

use core::fmt::{Display, Formatter, Result};

use crate::vmx::capability;

/// What a CPU lacks that the hypervisor needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// x2APIC mode.
    X2apic,
    /// SVM and VMX.
    Virtualization,
    /// The firmware switched SVM off.
    SvmDisabled,
    /// Nested paging.
    NestedPaging,
    /// An ASID for a guest.
    Asids {
        /// How many there are, the host's included.
        found: u32,
    },
    /// No-execute pages.
    NoExecute,
    /// Something of VMX.
    Vmx(capability::Missing),
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        const CURE: &str = "in QEMU use version 9 or later with -cpu max, in Bochs model=tigerlake";
        const SVM_CURE: &str = "in QEMU use version 9 or later with -cpu max";
        match self {
            Self::X2apic => {
                write!(f, "this CPU has no x2APIC (CPUID 1 ECX bit 21), by which partitions own their APICs; {CURE}")
            }
            Self::Virtualization => write!(
                f,
                "this CPU has neither SVM (CPUID 0x80000001 ECX bit 2) nor VMX (CPUID 1 ECX bit 5), one of which runs the guests; \
                 {CURE}"
            ),
            Self::SvmDisabled => {
                write!(
                    f,
                    "SVM is switched off (MSR 0xc0010114 bit 4); switch virtualisation on in the firmware's set-up"
                )
            }
            Self::NestedPaging => {
                write!(
                    f,
                    "this CPU has no nested paging (CPUID 0x8000000a EDX bit 0), which keeps guests apart; {SVM_CURE}"
                )
            }
            Self::Asids { found } => {
                write!(
                    f,
                    "this CPU has {found} ASIDs (CPUID 0x8000000a EBX), a guest needs one beside the host's; {SVM_CURE}"
                )
            }
            Self::NoExecute => {
                write!(f, "this CPU has no no-execute pages (CPUID 0x80000001 EDX bit 20); {CURE}")
            }
            Self::Vmx(missing) => missing.fmt(f),
        }
    }
}

impl core::error::Error for Missing {}
