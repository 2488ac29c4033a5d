//! Capability MSRs, taken apart (SDM vol. 3 appendix A).

use super::Missing;

const fn bit(value: u64, number: u32) -> bool {
    value & (1 << number) != 0
}

/// IA32_FEATURE_CONTROL (SDM vol. 3 section 24.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureControl(pub u64);

impl FeatureControl {
    const LOCK: u64 = 1 << 0;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;

    /// Whether the register can no longer be written, until a reset.
    pub const fn locked(self) -> bool {
        self.0 & Self::LOCK != 0
    }

    /// Whether VMXON works in SMX operation, after GETSEC\[SENTER\].
    pub const fn vmx_in_smx(self) -> bool {
        bit(self.0, 1)
    }

    /// Whether VMXON works outside SMX operation, once the register is locked.
    pub const fn vmx_outside_smx(self) -> bool {
        self.0 & Self::VMX_OUTSIDE_SMX != 0
    }

    /// What has to be written to the register before VMXON, if anything: VMX outside SMX switched on, and locked. Each pCPU
    /// has its own.
    ///
    /// # Errors
    /// If the firmware has locked VMX off.
    pub const fn to_write(self) -> Result<Option<u64>, Missing> {
        match (self.locked(), self.vmx_outside_smx()) {
            (true, true) => Ok(None),
            (true, false) => Err(Missing::LockedOff { found: self.0 }),
            (false, _) => Ok(Some(self.0 | Self::VMX_OUTSIDE_SMX | Self::LOCK)),
        }
    }
}

/// IA32_VMX_BASIC (SDM vol. 3 section A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basic(pub u64);

impl Basic {
    /// Memory type write-back.
    pub const WRITE_BACK: u8 = 6;

    /// What the first word of a VMXON region and of a VMCS has to be.
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7FFF_FFFF
    }

    /// Bytes of a VMXON region and of a VMCS, at most 4096.
    pub const fn region_len(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1FFF
    }

    /// Whether addresses of such regions have 32 bits only; never on CPUs with 64-bit mode.
    pub const fn physical_32_bits(self) -> bool {
        bit(self.0, 48)
    }

    /// Whether the firmware can have a monitor of its own for system-management mode.
    pub const fn dual_monitor(self) -> bool {
        bit(self.0, 49)
    }

    /// Memory type by which the CPU accesses the VMCS: [`Self::WRITE_BACK`], on all known CPUs.
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50) as u8 & 0xF
    }

    /// Whether exits for INS and OUTS tell segment and address size by the VM-exit instruction information.
    pub const fn tells_string_io(self) -> bool {
        bit(self.0, 54)
    }

    /// Whether there are the IA32_VMX_TRUE_ MSRs, and so some controls that used to be always 1 can be 0.
    pub const fn true_controls(self) -> bool {
        bit(self.0, 55)
    }

    /// Whether any exception can be injected with or without an error code.
    pub const fn any_error_code(self) -> bool {
        bit(self.0, 56)
    }
}

/// The settings that one word of controls allows (SDM vol. 3 section A.3.1): its MSR has the bits that must be 1 in its low
/// half, those that may be 1 in its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The MSR that says so.
    pub msr: u32,
    /// Bits that cannot be 0.
    pub must_be_1: u32,
    /// Bits that can be 1.
    pub may_be_1: u32,
}

impl Allowed {
    /// The MSR `msr` with this value.
    pub const fn new(msr: u32, value: u64) -> Self {
        Self { msr, must_be_1: value as u32, may_be_1: (value >> 32) as u32 }
    }

    /// Whether all of `bits` can be 1.
    #[inline]
    pub const fn can_be_1(self, bits: u32) -> bool {
        bits & !self.may_be_1 == 0
    }

    /// Whether all of `bits` can be 0.
    #[inline]
    pub const fn can_be_0(self, bits: u32) -> bool {
        bits & self.must_be_1 == 0
    }

    /// Whether VM entry takes this word.
    pub const fn accepts(self, controls: u32) -> bool {
        self.can_be_1(controls) && self.can_be_0(!controls)
    }
}

/// Bits of CR0 or CR4 that are fixed in VMX operation (SDM vol. 3 sections A.7 and A.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedBits {
    /// Bits that have to be 1: the MSR that the SDM calls FIXED0.
    pub must_be_1: u64,
    /// Bits that may be 1: FIXED1.
    pub may_be_1: u64,
}

impl FixedBits {
    /// Whether a register may have this value.
    #[inline]
    pub const fn accepts(self, value: u64) -> bool {
        value & !self.may_be_1 == 0 && self.must_be_1 & !value == 0
    }

    /// The value with what is fixed as it has to be.
    #[inline]
    pub const fn apply(self, value: u64) -> u64 {
        value & self.may_be_1 | self.must_be_1
    }

    /// Bits that are fixed, to either.
    #[inline]
    pub const fn fixed(self) -> u64 {
        self.must_be_1 | !self.may_be_1
    }
}

/// IA32_VMX_MISC (SDM vol. 3 section A.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misc(pub u64);

impl Misc {
    /// The VMX-preemption timer counts down by 1 every so many ticks of the TSC, as a power of two: 0 to 31.
    pub const fn preemption_timer_shift(self) -> u32 {
        self.0 as u32 & 0x1F
    }

    /// Whether each exit stores EFER.LMA into the entry control "IA-32e mode guest". Always so with unrestricted guests.
    pub const fn stores_lma(self) -> bool {
        bit(self.0, 5)
    }

    /// Whether a guest can be entered in the activity state HLT.
    pub const fn can_enter_hlt(self) -> bool {
        bit(self.0, 6)
    }

    /// Whether a guest can be entered in the activity state shutdown.
    pub const fn can_enter_shutdown(self) -> bool {
        bit(self.0, 7)
    }

    /// Whether a guest can be entered in the activity state wait-for-SIPI.
    pub const fn can_enter_wait_for_sipi(self) -> bool {
        bit(self.0, 8)
    }

    /// Most CR3-target values.
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16) as u32 & 0x1FF
    }

    /// Most MSRs of one MSR-load or MSR-store area that are recommended.
    pub const fn max_msr_list(self) -> u32 {
        512 * (((self.0 >> 25) as u32 & 7) + 1)
    }

    /// Whether VMWRITE can write any field, those for exit information included.
    pub const fn writes_any_field(self) -> bool {
        bit(self.0, 29)
    }

    /// Whether software interrupts and exceptions can be injected with an instruction length of 0.
    pub const fn injects_length_0(self) -> bool {
        bit(self.0, 30)
    }
}
