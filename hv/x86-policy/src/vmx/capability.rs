//! What the CPU says that VMX can do (SDM vol. 3 appendix A).
//!
//! The capability MSRs are read once on each pCPU, by [`VmxCapabilities::collect`]; what Partita makes of them is in
//! [`super::control`].

mod ept_vpid;
mod missing;
mod registers;

pub use ept_vpid::{EptVpid, Invept, Invvpid};
pub use missing::Missing;
pub use registers::{Allowed, Basic, FeatureControl, FixedBits, Misc};

/// The capability MSRs.
#[rustfmt::skip]
pub mod msr {
    /// IA32_FEATURE_CONTROL. On every CPU with VMX.
    pub const FEATURE_CONTROL: u32 = 0x03A;
    /// IA32_VMX_BASIC. This one and those up to IA32_VMX_VMCS_ENUM are on every CPU with VMX.
    pub const BASIC: u32 = 0x480;
    /// IA32_VMX_PINBASED_CTLS.
    pub const PINBASED: u32 = 0x481;
    /// IA32_VMX_PROCBASED_CTLS.
    pub const PROCBASED: u32 = 0x482;
    /// IA32_VMX_EXIT_CTLS.
    pub const EXIT: u32 = 0x483;
    /// IA32_VMX_ENTRY_CTLS.
    pub const ENTRY: u32 = 0x484;
    /// IA32_VMX_MISC.
    pub const MISC: u32 = 0x485;
    /// IA32_VMX_CR0_FIXED0.
    pub const CR0_FIXED0: u32 = 0x486;
    /// IA32_VMX_CR0_FIXED1.
    pub const CR0_FIXED1: u32 = 0x487;
    /// IA32_VMX_CR4_FIXED0.
    pub const CR4_FIXED0: u32 = 0x488;
    /// IA32_VMX_CR4_FIXED1.
    pub const CR4_FIXED1: u32 = 0x489;
    /// IA32_VMX_VMCS_ENUM.
    pub const VMCS_ENUM: u32 = 0x48A;
    /// IA32_VMX_PROCBASED_CTLS2. There if secondary controls can be activated.
    pub const PROCBASED2: u32 = 0x48B;
    /// IA32_VMX_EPT_VPID_CAP. There with EPT or VPID.
    pub const EPT_VPID_CAP: u32 = 0x48C;
    /// IA32_VMX_TRUE_PINBASED_CTLS. This one and the three behind it are there if bit 55 of IA32_VMX_BASIC is set.
    pub const TRUE_PINBASED: u32 = 0x48D;
    /// IA32_VMX_TRUE_PROCBASED_CTLS.
    pub const TRUE_PROCBASED: u32 = 0x48E;
    /// IA32_VMX_TRUE_EXIT_CTLS.
    pub const TRUE_EXIT: u32 = 0x48F;
    /// IA32_VMX_TRUE_ENTRY_CTLS.
    pub const TRUE_ENTRY: u32 = 0x490;
}

/// CR0.PE and CR0.PG, which an unrestricted guest may clear (SDM vol. 3 section 25.8).
const CR0_PE_PG: u64 = 1 << 0 | 1 << 31;

/// What VMX can do on one pCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxCapabilities {
    /// Whether VMX may be switched on.
    pub feature_control: FeatureControl,
    /// The VMCS, and which MSRs there are.
    pub basic: Basic,
    /// Pin-based controls.
    pub pin: Allowed,
    /// Primary processor-based controls.
    pub primary: Allowed,
    /// Secondary ones; nothing is allowed where there are none.
    pub secondary: Allowed,
    /// Primary exit controls.
    pub exit: Allowed,
    /// Entry controls.
    pub entry: Allowed,
    /// CR0 in VMX operation.
    pub cr0: FixedBits,
    /// CR4 in VMX operation.
    pub cr4: FixedBits,
    /// The rest.
    pub misc: Misc,
    /// EPT and VPID; nothing is there if the CPU has neither.
    pub ept_vpid: EptVpid,
}

impl VmxCapabilities {
    /// Collects them; `read_msr` executes RDMSR. Only MSRs that the CPU has are asked for, provided that its CPUID shows
    /// VMX.
    pub fn collect(mut read_msr: impl FnMut(u32) -> u64) -> Self {
        let mut read = |msr| read_msr(msr);
        let feature_control = FeatureControl(read(msr::FEATURE_CONTROL));
        let basic = Basic(read(msr::BASIC));
        let [pin, primary, exit, entry] = if basic.true_controls() {
            [msr::TRUE_PINBASED, msr::TRUE_PROCBASED, msr::TRUE_EXIT, msr::TRUE_ENTRY]
        } else {
            [msr::PINBASED, msr::PROCBASED, msr::EXIT, msr::ENTRY]
        }
        .map(|number| Allowed::new(number, read(number)));
        let has_secondary = primary.can_be_1(super::control::Primary::ACTIVATE_SECONDARY_CONTROLS.bits());
        let secondary = Allowed::new(msr::PROCBASED2, if has_secondary { read(msr::PROCBASED2) } else { 0 });
        let has_ept_or_vpid = secondary.can_be_1(super::control::Secondary::ENABLE_EPT.bits())
            || secondary.can_be_1(super::control::Secondary::ENABLE_VPID.bits());
        Self {
            feature_control,
            basic,
            pin,
            primary,
            secondary,
            exit,
            entry,
            cr0: FixedBits { must_be_1: read(msr::CR0_FIXED0), may_be_1: read(msr::CR0_FIXED1) },
            cr4: FixedBits { must_be_1: read(msr::CR4_FIXED0), may_be_1: read(msr::CR4_FIXED1) },
            misc: Misc(read(msr::MISC)),
            ept_vpid: EptVpid(if has_ept_or_vpid { read(msr::EPT_VPID_CAP) } else { 0 }),
        }
    }

    /// What CR0 of an unrestricted guest has to be: PE and PG are its own. CR0 of the hypervisor has to be as `cr0` says,
    /// CR4 of both as `cr4` says.
    pub const fn guest_cr0(&self) -> FixedBits {
        FixedBits { must_be_1: self.cr0.must_be_1 & !CR0_PE_PG, may_be_1: self.cr0.may_be_1 }
    }
}
