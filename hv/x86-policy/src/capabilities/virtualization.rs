//! What runs the guests, and what of it may be used.

use core::fmt::{Display, Formatter, Result};

use crate::cpuid_hidden::HiddenFeatures;
use crate::vmx::capability::VmxCapabilities;
use crate::vmx::control::Controls;

/// A virtualisation extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// AMD's.
    Svm,
    /// Intel's.
    Vmx,
}

/// What runs the guests, and what of it the hypervisor may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// AMD's SVM.
    Svm(SvmCapabilities),
    /// Intel's VMX.
    Vmx(Vmx),
}

impl Virtualization {
    /// Which extension it is.
    pub const fn backend(&self) -> Backend {
        match self {
            Self::Svm(_) => Backend::Svm,
            Self::Vmx(_) => Backend::Vmx,
        }
    }

    /// Whether nested tables may map 1 GiB at once.
    pub const fn page_1gib(&self) -> bool {
        match self {
            Self::Svm(svm) => svm.page_1gib,
            Self::Vmx(vmx) => vmx.capabilities.ept_vpid.page_1gib(),
        }
    }

    /// The features that a guest must not be shown, whatever the CPU has.
    pub fn hidden_features(&self) -> HiddenFeatures {
        match self {
            Self::Svm(_) => HiddenFeatures::default(),
            Self::Vmx(vmx) => vmx.controls.hidden_features(),
        }
    }

    /// Whether this pCPU can run what was made for another: tables, and the VMCS of a vCPU.
    pub const fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Svm(this), Self::Svm(other)) => this.page_1gib || !other.page_1gib,
            (Self::Vmx(this), Self::Vmx(other)) => {
                other.controls.fit(&this.capabilities)
                    && other.capabilities.basic.revision() == this.capabilities.basic.revision()
                    && other.capabilities.ept_vpid.0 & !this.capabilities.ept_vpid.0 == 0
            }
            _ => false,
        }
    }
}

/// For the boot report.
impl Display for Virtualization {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Svm(svm) => write!(f, "SVM with nested paging, {} ASIDs", svm.asids),
            Self::Vmx(vmx) => {
                f.write_str("VMX with EPT, unrestricted guests")?;
                if vmx.controls.vpid() { f.write_str(", VPID") } else { Ok(()) }
            }
        }
    }
}

/// What the hypervisor may use of SVM beyond what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SvmCapabilities {
    /// The VMCB's next RIP is valid after an intercepted instruction; else its length must be known.
    pub next_rip: bool,
    /// VMCB clean bits save loads at VMRUN.
    pub vmcb_clean: bool,
    /// TLB flushes can name one ASID; else they take all.
    pub flush_by_asid: bool,
    /// EXITINFO1 and the VMCB tell operands.
    pub decode_assists: bool,
    /// The CPU keeps NMIs back until the guest's IRET; else IRET is intercepted.
    pub vnmi: bool,
    /// Nested tables may map 1 GiB at once.
    pub page_1gib: bool,
    /// Address space identifiers, the host's 0 included; at least 2.
    pub asids: u32,
}

/// What the hypervisor may use of VMX, and has negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmx {
    /// What the CPU can do.
    pub capabilities: VmxCapabilities,
    /// The controls that vCPUs start with.
    pub controls: Controls,
}
