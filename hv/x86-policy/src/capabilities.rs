//! What the CPU can do, and whether that is enough.

/// Who made the CPU: the vendor decides how it virtualises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// AMD, and Hygon, whose CPUs are AMD's in all that matters here.
    Amd,
    /// Intel.
    Intel,
    /// Anybody else.
    #[default]
    Other,
}

/// What CPUID says, as far as the hypervisor asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFacts {
    /// The vendor.
    pub vendor: Vendor,
    /// Highest basic leaf.
    pub max_basic: u32,
    /// Highest extended leaf.
    pub max_extended: u32,
    /// x2APIC mode.
    pub x2apic: bool,
    /// TSC-deadline mode of the APIC timer.
    pub tsc_deadline: bool,
    /// XSAVE.
    pub xsave: bool,
    /// VMX.
    pub vmx: bool,
    /// SVM.
    pub svm: bool,
    /// The firmware switched SVM off (VM_CR.SVMDIS). Not in CPUID: the caller fills it in, once SVM is known.
    pub svm_disabled: bool,
    /// No-execute pages.
    pub nx: bool,
    /// 1 GiB pages.
    pub page_1gib: bool,
    /// The TSC's rate never changes.
    pub invariant_tsc: bool,
    /// Physical address bits.
    pub physical_bits: u8,
    /// Address space identifiers, the host's 0 included.
    pub asids: u32,
    /// Nested paging.
    pub nested_paging: bool,
    /// #VMEXIT saves the next RIP.
    pub next_rip: bool,
    /// VMCB clean bits.
    pub vmcb_clean: bool,
    /// TLB flush of one ASID.
    pub flush_by_asid: bool,
    /// Decode assists.
    pub decode_assists: bool,
    /// Virtual GIF.
    pub vgif: bool,
    /// Virtual NMI.
    pub vnmi: bool,
}

/// VM_CR: bit 4 is SVMDIS.
pub const VM_CR_MSR: u32 = 0xC001_0114;
/// VM_CR.SVMDIS: the firmware switched SVM off.
pub const VM_CR_SVMDIS: u64 = 1 << 4;

const EXT_FEATURES: u32 = 0x8000_0001;
const EXT_POWER: u32 = 0x8000_0007;
const EXT_SIZES: u32 = 0x8000_0008;
const EXT_SVM: u32 = 0x8000_000A;

impl CpuFacts {
    /// Collects the facts; `cpuid` executes CPUID for a leaf and subleaf and returns EAX, EBX, ECX, EDX. Leaves past
    /// the maximum, where some CPUs answer with another leaf, are not asked for.
    pub fn collect(mut cpuid: impl FnMut(u32, u32) -> [u32; 4]) -> Self {
        let [max_basic, b, c, d] = cpuid(0, 0);
        let max_extended = cpuid(0x8000_0000, 0)[0];
        let vendor = match [b, d, c].map(u32::to_le_bytes) {
            [[b'A', b'u', b't', b'h'], [b'e', b'n', b't', b'i'], [b'c', b'A', b'M', b'D']] => Vendor::Amd,
            [[b'H', b'y', b'g', b'o'], [b'n', b'G', b'e', b'n'], [b'u', b'i', b'n', b'e']] => Vendor::Amd,
            [[b'G', b'e', b'n', b'u'], [b'i', b'n', b'e', b'I'], [b'n', b't', b'e', b'l']] => Vendor::Intel,
            _ => Vendor::Other,
        };
        let mut leaf = |number: u32| {
            let max = if number < 0x8000_0000 { max_basic } else { max_extended };
            if number <= max { cpuid(number, 0) } else { [0; 4] }
        };
        let [_, _, ecx1, _] = leaf(1);
        let [_, _, ext_ecx, ext_edx] = leaf(EXT_FEATURES);
        let [_, _, _, power_edx] = leaf(EXT_POWER);
        let [sizes_eax, ..] = leaf(EXT_SIZES);
        let svm = bit(ext_ecx, 2);
        let [_, asids, _, svm_edx] = if svm { leaf(EXT_SVM) } else { [0; 4] };
        Self {
            vendor,
            max_basic,
            max_extended,
            x2apic: bit(ecx1, 21),
            tsc_deadline: bit(ecx1, 24),
            xsave: bit(ecx1, 26),
            vmx: bit(ecx1, 5),
            svm,
            svm_disabled: false,
            nx: bit(ext_edx, 20),
            page_1gib: bit(ext_edx, 26),
            invariant_tsc: bit(power_edx, 8),
            physical_bits: sizes_eax as u8,
            asids,
            nested_paging: bit(svm_edx, 0),
            next_rip: bit(svm_edx, 3),
            vmcb_clean: bit(svm_edx, 5),
            flush_by_asid: bit(svm_edx, 6),
            decode_assists: bit(svm_edx, 7),
            vgif: bit(svm_edx, 16),
            vnmi: bit(svm_edx, 25),
        }
    }

    /// What the hypervisor may use.
    ///
    /// # Errors
    /// The first feature missing without which it cannot run.
    pub const fn check(&self) -> Result<Capabilities, Missing> {
        if !self.x2apic {
            return Err(Missing::X2apic);
        }
        if !self.svm {
            return Err(if self.vmx { Missing::SvmButVmx } else { Missing::Svm });
        }
        if self.svm_disabled {
            return Err(Missing::SvmDisabled);
        }
        if !self.nested_paging {
            return Err(Missing::NestedPaging);
        }
        if self.asids < 2 {
            return Err(Missing::Asids { found: self.asids });
        }
        if !self.nx {
            return Err(Missing::NoExecute);
        }
        Ok(Capabilities {
            next_rip: self.next_rip,
            vmcb_clean: self.vmcb_clean,
            flush_by_asid: self.flush_by_asid,
            decode_assists: self.decode_assists,
            vnmi: self.vnmi,
            page_1gib: self.page_1gib,
            asids: self.asids,
        })
    }
}

const fn bit(register: u32, number: u32) -> bool {
    register & (1 << number) != 0
}

/// What the hypervisor may use beyond what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
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

/// What a CPU lacks that the hypervisor needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// x2APIC mode.
    X2apic,
    /// SVM, and VMX too.
    Svm,
    /// SVM; VMX is there, which Partita does not use yet.
    SvmButVmx,
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
}

impl core::fmt::Display for Missing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const CURE: &str = "in QEMU use version 9 or later with -cpu max";
        match self {
            Self::X2apic => {
                write!(f, "this CPU has no x2APIC (CPUID 1 ECX bit 21), by which partitions own their APICs; {CURE}")
            }
            Self::Svm => write!(f, "this CPU has no SVM (CPUID 0x80000001 ECX bit 2), which runs the guests; {CURE}"),
            Self::SvmButVmx => {
                write!(
                    f,
                    "this CPU has VMX, not used yet, but no SVM (CPUID 0x80000001 ECX bit 2); use an AMD CPU, {CURE}"
                )
            }
            Self::SvmDisabled => {
                write!(
                    f,
                    "SVM is switched off (MSR 0xc0010114 bit 4); switch virtualisation on in the firmware's set-up"
                )
            }
            Self::NestedPaging => {
                write!(
                    f,
                    "this CPU has no nested paging (CPUID 0x8000000a EDX bit 0), which keeps guests apart; {CURE}"
                )
            }
            Self::Asids { found } => {
                write!(
                    f,
                    "this CPU has {found} ASIDs (CPUID 0x8000000a EBX), a guest needs one beside the host's; {CURE}"
                )
            }
            Self::NoExecute => {
                write!(f, "this CPU has no no-execute pages (CPUID 0x80000001 EDX bit 20); {CURE}")
            }
        }
    }
}

impl core::error::Error for Missing {}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's `-cpu max`, as measured; leaves past a maximum answer with rubbish, as they do there.
    fn qemu_max(leaf: u32, _: u32) -> [u32; 4] {
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        match leaf {
            0 => [0xD, word(b"Auth"), word(b"cAMD"), word(b"enti")],
            1 => [0, 0, 1 << 21 | 1 << 26, 0],
            0x8000_0000 => [0x8000_000A, 0, 0, 0],
            0x8000_0001 => [0, 0, 1 << 2, 1 << 20 | 1 << 26],
            0x8000_0008 => [0x3028, 0, 0, 0],
            0x8000_000A => [1, 16, 0, 1 | 1 << 16 | 1 << 28],
            _ => [u32::MAX; 4],
        }
    }

    #[test]
    fn qemu_max_is_enough() {
        let mut facts = CpuFacts::collect(qemu_max);
        assert_eq!(facts.vendor, Vendor::Amd);
        assert_eq!(facts.physical_bits, 40);
        assert!(facts.vgif && !facts.tsc_deadline);
        // 0x80000007 answers 0 in reality; here it answers rubbish below the maximum.
        facts.invariant_tsc = false;
        let capabilities = facts.check().unwrap();
        assert_eq!(capabilities.asids, 16);
        assert!(!capabilities.next_rip && !capabilities.vnmi && !capabilities.flush_by_asid);
        assert!(capabilities.page_1gib);
    }

    #[test]
    fn leaves_past_the_maximum_are_not_believed() {
        let facts = CpuFacts::collect(|leaf, _| match leaf {
            0 | 0x8000_0000 => [leaf, 0, 0, 0],
            _ => [u32::MAX; 4],
        });
        assert_eq!(facts, CpuFacts { max_extended: 0x8000_0000, ..CpuFacts::default() });
    }

    #[test]
    fn what_is_missing_is_named_with_its_cure() {
        let good = CpuFacts::collect(qemu_max);
        for (facts, missing, words) in [
            (CpuFacts { x2apic: false, ..good }, Missing::X2apic, ["x2APIC", "-cpu max"]),
            (CpuFacts { svm: false, ..good }, Missing::Svm, ["SVM", "-cpu max"]),
            (CpuFacts { svm: false, vmx: true, ..good }, Missing::SvmButVmx, ["VMX", "AMD"]),
            (CpuFacts { svm_disabled: true, ..good }, Missing::SvmDisabled, ["SVM", "firmware"]),
            (CpuFacts { nested_paging: false, ..good }, Missing::NestedPaging, ["nested paging", "-cpu max"]),
            (CpuFacts { asids: 1, ..good }, Missing::Asids { found: 1 }, ["1 ASIDs", "-cpu max"]),
            (CpuFacts { nx: false, ..good }, Missing::NoExecute, ["no-execute", "-cpu max"]),
        ] {
            assert_eq!(facts.check(), Err(missing));
            let text = missing.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
