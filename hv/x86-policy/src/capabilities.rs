//! What the CPU can do, and whether that is enough.

mod missing;
mod virtualization;

pub use missing::Missing;
pub use virtualization::{Backend, SvmCapabilities, Virtualization, Vmx};

use crate::vmx::capability::VmxCapabilities;
use crate::vmx::control;

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
        // Intel's leaves end before this one, and without SVM its revision is 0.
        let [revision, asids, _, svm_edx] = if vendor == Vendor::Amd { leaf(EXT_SVM) } else { [0; 4] };
        // Bochs 2.7's generic CPU model has SVM, but forgets the bit that says so.
        let svm = bit(ext_ecx, 2) || revision as u8 != 0;
        Self {
            vendor,
            max_basic,
            max_extended,
            x2apic: bit(ecx1, 21),
            tsc_deadline: bit(ecx1, 24),
            xsave: bit(ecx1, 26),
            vmx: bit(ecx1, 5),
            svm,
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

    /// Which backend runs the guests, by CPUID alone.
    ///
    /// # Errors
    /// The first feature missing that both need, or that there is neither.
    pub const fn backend(&self) -> Result<Backend, Missing> {
        if !self.x2apic {
            return Err(Missing::X2apic);
        }
        if !self.nx {
            return Err(Missing::NoExecute);
        }
        match (self.svm, self.vmx) {
            (true, _) => Ok(Backend::Svm),
            (false, true) => Ok(Backend::Vmx),
            (false, false) => Err(Missing::Virtualization),
        }
    }

    /// What runs the guests, and what of it the hypervisor may use. `read_msr` executes RDMSR; only MSRs that the CPU has are
    /// asked for.
    ///
    /// # Errors
    /// The first feature missing without which the hypervisor cannot run.
    pub fn virtualization(&self, mut read_msr: impl FnMut(u32) -> u64) -> Result<Virtualization, Missing> {
        match self.backend()? {
            Backend::Svm if read_msr(VM_CR_MSR) & VM_CR_SVMDIS != 0 => Err(Missing::SvmDisabled),
            Backend::Svm => Ok(Virtualization::Svm(self.svm_capabilities()?)),
            Backend::Vmx => {
                let capabilities = VmxCapabilities::collect(read_msr);
                let controls = control::negotiate(&capabilities).map_err(Missing::Vmx)?;
                Ok(Virtualization::Vmx(Vmx { capabilities, controls }))
            }
        }
    }

    const fn svm_capabilities(&self) -> Result<SvmCapabilities, Missing> {
        if !self.nested_paging {
            return Err(Missing::NestedPaging);
        }
        if self.asids < 2 {
            return Err(Missing::Asids { found: self.asids });
        }
        Ok(SvmCapabilities {
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
        let Ok(Virtualization::Svm(capabilities)) = facts.virtualization(|_| 0) else { panic!("{facts:?}") };
        assert_eq!(capabilities.asids, 16);
        assert!(!capabilities.next_rip && !capabilities.vnmi && !capabilities.flush_by_asid);
        assert!(capabilities.page_1gib);
    }

    #[test]
    fn svm_shows_in_its_own_leaf_too() {
        let with = |max, ecx, revision, vendor: &'static str| {
            CpuFacts::collect(move |leaf, _| match leaf {
                0 if vendor == "Intel" => [0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69],
                0x8000_0000 => [max, 0, 0, 0],
                0x8000_0001 => [0, 0, ecx, 1 << 20],
                0x8000_000A => [revision, 64, 0, 1 | 1 << 3],
                _ => qemu_max(leaf, 0),
            })
        };
        // Bochs 2.7, model bx_generic, as measured.
        let bochs = with(0x8000_000A, 0x101, 1, "AMD");
        assert!(bochs.svm && bochs.nested_paging && bochs.next_rip && bochs.asids == 64);
        assert_eq!(bochs.backend(), Ok(Backend::Svm));
        assert!(!with(0x8000_000A, 0x101, 0, "AMD").svm, "QEMU's -svm");
        assert!(!with(0x8000_0008, 0x101, 1, "AMD").svm, "a leaf past the maximum");
        assert!(!with(0x8000_000A, 0x101, 1, "Intel").svm, "not AMD's");
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
            (CpuFacts { svm: false, ..good }, Missing::Virtualization, ["neither SVM", "-cpu max"]),
            (CpuFacts { nested_paging: false, ..good }, Missing::NestedPaging, ["nested paging", "-cpu max"]),
            (CpuFacts { asids: 1, ..good }, Missing::Asids { found: 1 }, ["1 ASIDs", "-cpu max"]),
            (CpuFacts { nx: false, ..good }, Missing::NoExecute, ["no-execute", "-cpu max"]),
        ] {
            assert_eq!(facts.virtualization(|_| 0), Err(missing));
            let text = missing.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
