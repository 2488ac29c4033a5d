//! The hypervisor's sections.

use std::collections::BTreeMap;

use anyhow::Context;
use object::{Object, ObjectSection, ObjectSegment};
use serde::Serialize;

/// Bytes of the hypervisor's sections, as they lie in memory. All that can be executed is in sections `.text*`; constants, also
/// those of code, are in `.rodata*` and count as no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sections {
    /// Code that stays mapped, on AMD's CPUs: `.text`, which all CPUs have, and `.text.only_svm`.
    pub text_svm: u64,
    /// Code that stays mapped, on Intel's: `.text` and `.text.only_vmx`.
    pub text_vmx: u64,
    /// Code that is unmapped before the first partition starts: `.text.only_boot`.
    pub text_boot: u64,
    /// All four together, as the image has them.
    pub text_all: u64,
    /// Constants.
    pub rodata: u64,
    /// Variables with a first value.
    pub data: u64,
    /// Variables that are zero at first.
    pub bss: u64,
    /// All of it, and the boot pCPU's block.
    pub image: u64,
}

/// Section of the code that only boot needs.
pub(super) const ONLY_BOOT: &str = ".text.only_boot";
/// Section of the code that only AMD's CPUs need.
pub(super) const ONLY_SVM: &str = ".text.only_svm";
/// Section of the code that only Intel's CPUs need.
pub(super) const ONLY_VMX: &str = ".text.only_vmx";

impl Sections {
    /// Those of the hypervisor's ELF file.
    ///
    /// # Errors
    /// It is no ELF file, or lacks the sections that the hypervisor has.
    pub fn read(elf: &[u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(elf).context("not an ELF file")?;
        let sizes: BTreeMap<&str, u64> =
            file.sections().filter_map(|section| Some((section.name().ok()?, section.size()))).collect();
        let size = |name: &str| sizes.get(name).copied().with_context(|| format!("no section {name}"));
        let (text, boot, svm, vmx) = (size(".text")?, size(ONLY_BOOT)?, size(ONLY_SVM)?, size(ONLY_VMX)?);
        Ok(Self {
            text_svm: text + svm,
            text_vmx: text + vmx,
            text_boot: boot,
            text_all: text + boot + svm + vmx,
            rodata: sizes.iter().filter(|(name, _)| name.starts_with(".rodata")).map(|(_, size)| size).sum(),
            data: size(".data")?,
            bss: size(".bss")?,
            image: file.segments().map(|segment| segment.size()).sum(),
        })
    }
}
