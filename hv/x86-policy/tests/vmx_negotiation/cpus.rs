//! Capability MSRs of CPUs.
//!
//! Where a set is called recorded, all its values stand so in one public register dump of that CPU (VirtualBox's CPU profiles and
//! logs, hypervisors' debug notes). Where it is called composed, it is put together from what the SDM's appendix A
//! defines, what the CPU is documented to have, and values that are the same on its recorded relatives. Bochs's are recorded,
//! too: read by RDMSR in a boot sector in Debian's package of its version 2.7. IA32_FEATURE_CONTROL is 5 (locked, on) where no
//! dump tells it.

use partita_x86_policy::vmx::capability::{VmxCapabilities, msr};

/// The capability MSRs of one CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) name: &'static str,
    pub(crate) feature_control: u64,
    pub(crate) basic: u64,
    /// Pin-based, processor-based, exit, entry.
    pub(crate) plain: [u64; 4],
    /// The same, where bit 55 of `basic` is set.
    pub(crate) exact: Option<[u64; 4]>,
    pub(crate) misc: u64,
    pub(crate) cr4_fixed1: u64,
    pub(crate) secondary: Option<u64>,
    pub(crate) ept_vpid: Option<u64>,
}

impl Cpu {
    /// RDMSR, which this CPU faults on where it has no such MSR.
    pub(crate) fn read(&self, number: u32) -> u64 {
        let exact = |index: usize| self.exact.map(|all| all[index]);
        match number {
            msr::FEATURE_CONTROL => Some(self.feature_control),
            msr::BASIC => Some(self.basic),
            msr::PINBASED => Some(self.plain[0]),
            msr::PROCBASED => Some(self.plain[1]),
            msr::EXIT => Some(self.plain[2]),
            msr::ENTRY => Some(self.plain[3]),
            msr::MISC => Some(self.misc),
            msr::CR0_FIXED0 => Some(0x8000_0021),
            msr::CR0_FIXED1 => Some(0xFFFF_FFFF),
            msr::CR4_FIXED0 => Some(0x2000),
            msr::CR4_FIXED1 => Some(self.cr4_fixed1),
            msr::PROCBASED2 => self.secondary,
            msr::EPT_VPID_CAP => self.ept_vpid,
            msr::TRUE_PINBASED => exact(0),
            msr::TRUE_PROCBASED => exact(1),
            msr::TRUE_EXIT => exact(2),
            msr::TRUE_ENTRY => exact(3),
            _ => None,
        }
        .unwrap_or_else(|| panic!("{}: RDMSR of {number:#x}, which it does not have", self.name))
    }

    pub(crate) fn capabilities(&self) -> VmxCapabilities {
        VmxCapabilities::collect(|number| self.read(number))
    }
}

const PLAIN: [u64; 4] = [0x7F_0000_0016, 0xFFF9_FFFE_0401_E172, 0x007F_FFFF_0003_6DFF, 0xFFFF_0000_11FF];
const EXACT: [u64; 4] = [0x7F_0000_0016, 0xFFF9_FFFE_0400_6172, 0x007F_FFFF_0003_6DFB, 0xFFFF_0000_11FB];

/// Core 2, Merom. Composed; the control words as a dump of a CPU without secondary controls has them.
pub(crate) const MEROM: Cpu = Cpu {
    name: "Merom",
    feature_control: 5,
    basic: 0x001A_0400_0000_0007,
    plain: [0x1F_0000_0016, 0x77B9_FFFE_0401_E172, 0x0003_EFFF_0003_6DFF, 0x1FFF_0000_11FF],
    exact: None,
    misc: 0x0004_03C0,
    cr4_fixed1: 0x27FF,
    secondary: None,
    ept_vpid: None,
};

/// The first Core i7, Nehalem. Recorded but for CR4, EPT and VPID, and the true controls, composed.
pub(crate) const NEHALEM: Cpu = Cpu {
    name: "Nehalem",
    feature_control: 5,
    basic: 0x00DA_0400_0000_000E,
    plain: PLAIN,
    exact: Some(EXACT),
    misc: 0x0004_01C5,
    cr4_fixed1: 0x27FF,
    secondary: Some(0x7F_0000_0000),
    ept_vpid: Some(0x0F01_0611_4141),
};

/// The first CPUs with unrestricted guests, Westmere. Recorded, from a dump that does not name the CPU: what it has is Westmere's.
pub(crate) const WESTMERE: Cpu = Cpu {
    name: "Westmere",
    feature_control: 5,
    basic: 0x00DA_0400_0000_000F,
    plain: PLAIN,
    exact: Some(EXACT),
    misc: 0x0004_01E7,
    cr4_fixed1: 0x0002_67FF,
    secondary: Some(0xFF_0000_0000),
    ept_vpid: Some(0x0F01_0611_4141),
};

/// Sandy Bridge-E, Core i7-3960X. Recorded.
pub(crate) const SANDY_BRIDGE: Cpu = Cpu {
    name: "Sandy Bridge-E",
    feature_control: 5,
    basic: 0x00DA_0400_0000_0010,
    plain: PLAIN,
    exact: Some(EXACT),
    misc: 0x1004_01E5,
    cr4_fixed1: 0x0006_27FF,
    secondary: Some(0x04FF_0000_0000),
    ept_vpid: Some(0x0F01_0613_4141),
};

/// Ivy Bridge, a mobile Core i7 of family 6 model 58. Recorded.
pub(crate) const IVY_BRIDGE: Cpu = Cpu {
    name: "Ivy Bridge",
    feature_control: 5,
    basic: 0x00DA_0400_0000_0010,
    plain: PLAIN,
    exact: Some(EXACT),
    misc: 0x1004_01E5,
    cr4_fixed1: 0x0017_67FF,
    secondary: Some(0x08FF_0000_0000),
    ept_vpid: Some(0x0F01_0611_4141),
};

/// Haswell, a desktop CPU. Composed from the recorded Broadwell without what came with that.
pub(crate) const HASWELL: Cpu =
    Cpu { name: "Haswell", secondary: Some(0x7CFF_0000_0000), cr4_fixed1: 0x0017_27FF, ..BROADWELL };

/// Broadwell, Core i7-5600U. Recorded.
pub(crate) const BROADWELL: Cpu = Cpu {
    name: "Broadwell",
    feature_control: 5,
    basic: 0x00DA_0400_0000_0012,
    plain: PLAIN,
    exact: Some(EXACT),
    misc: 0x3004_81E5,
    cr4_fixed1: 0x0037_67FF,
    secondary: Some(0x0005_7CFF_0000_0000),
    ept_vpid: Some(0x0F01_0633_4141),
};

/// Coffee Lake, a Core of family 6 model 158 stepping 10 with 6 cores. Recorded.
pub(crate) const COFFEE_LAKE: Cpu = Cpu {
    name: "Coffee Lake",
    feature_control: 0x2_0005,
    basic: 0x00DA_0400_0000_0004,
    plain: [0x7F_0000_0016, 0xFFF9_FFFE_0401_E172, 0x01FF_FFFF_0003_6DFF, 0x0003_FFFF_0000_11FF],
    exact: Some([0x7F_0000_0016, 0xFFF9_FFFE_0400_6172, 0x01FF_FFFF_0003_6DFB, 0x0003_FFFF_0000_11FB]),
    misc: 0x7004_C1E7,
    cr4_fixed1: 0x0037_27FF,
    secondary: Some(0x005F_BCFF_0000_0000),
    ept_vpid: Some(0x0F01_0673_4141),
};

/// Skylake-SP. Composed: Coffee Lake without SGX, with posted interrupts, APIC virtualisation, VMCS shadowing and TSC scaling.
pub(crate) const SKYLAKE_SP: Cpu = Cpu {
    name: "Skylake-SP",
    feature_control: 5,
    plain: [0xFF_0000_0016, 0xFFF9_FFFE_0401_E172, 0x01FF_FFFF_0003_6DFF, 0x0003_FFFF_0000_11FF],
    exact: Some([0xFF_0000_0016, 0xFFF9_FFFE_0400_6172, 0x01FF_FFFF_0003_6DFB, 0x0003_FFFF_0000_11FB]),
    cr4_fixed1: 0x0077_27FF,
    secondary: Some(0x025F_7FFF_0000_0000),
    ..COFFEE_LAKE
};

/// Tiger Lake. Composed: Skylake-SP with CET, IA32_RTIT_CTL, and SGX, as documented.
pub(crate) const TIGER_LAKE: Cpu = Cpu {
    name: "Tiger Lake",
    basic: 0x01DA_0500_0000_0013,
    plain: [0xFF_0000_0016, 0xFFF9_FFFE_0401_E172, 0x13FF_FFFF_0003_6DFF, 0x0017_FFFF_0000_11FF],
    exact: Some([0xFF_0000_0016, 0xFFF9_FFFE_0400_6172, 0x13FF_FFFF_0003_6DFB, 0x0017_FFFF_0000_11FB]),
    cr4_fixed1: 0x00F7_7FFF,
    secondary: Some(0x03DF_FFFF_0000_0000),
    ept_vpid: Some(0x0F01_06F3_4141),
    ..SKYLAKE_SP
};

/// Bochs 2.7, `model=tigerlake`. Recorded.
pub(crate) const BOCHS_TIGERLAKE: Cpu = Cpu {
    name: "Bochs tigerlake",
    feature_control: 5,
    basic: 0x01D8_1000_0000_0004,
    plain: [0x7F_0000_0016, 0xFFF9_FFFE_0401_E172, 0x107F_FFFF_0003_6DFF, 0x0010_FFFF_0000_11FF],
    exact: Some([0x7F_0000_0016, 0xFFF9_FFFE_0400_6172, 0x107F_FFFF_0003_6DFB, 0x0010_FFFF_0000_11FB]),
    misc: 0x6004_01E0,
    cr4_fixed1: 0x00F7_2FFF,
    secondary: Some(0x0297_7FFF_0000_0000),
    ept_vpid: Some(0x0F01_06B3_4141),
};

/// Bochs 2.7, `model=corei7_haswell_4770`: no monitor trap flag, and no XSAVES. Recorded.
pub(crate) const BOCHS_HASWELL: Cpu = Cpu {
    name: "Bochs corei7_haswell_4770",
    feature_control: 5,
    basic: 0x00D8_1000_0000_002B,
    plain: [0x7F_0000_0016, 0xF7F9_FFFE_0401_E172, 0x007F_FFFF_0003_6DFF, 0xFFFF_0000_11FF],
    exact: Some([0x7F_0000_0016, 0xF7F9_FFFE_0400_6172, 0x007F_FFFF_0003_6DFB, 0xFFFF_0000_11FB]),
    misc: 0x2004_01E0,
    cr4_fixed1: 0x0017_27FF,
    secondary: Some(0x0004_7FFF_0000_0000),
    ept_vpid: Some(0x0F01_0633_4141),
};

/// Those that Partita runs on.
pub(crate) const GOOD: [Cpu; 10] = [
    WESTMERE,
    SANDY_BRIDGE,
    IVY_BRIDGE,
    HASWELL,
    BROADWELL,
    COFFEE_LAKE,
    SKYLAKE_SP,
    TIGER_LAKE,
    BOCHS_TIGERLAKE,
    BOCHS_HASWELL,
];
