//! The hypervisor's sections.

use std::collections::BTreeMap;

use anyhow::Context;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionKind};
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
const ONLY_BOOT: &str = ".text.only_boot";
const ONLY_SVM: &str = ".text.only_svm";
const ONLY_VMX: &str = ".text.only_vmx";

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

    /// Names of functions that call or jump to a function that need not be mapped, with that one: to boot's from elsewhere, or
    /// from a vendor's code to the other vendor's. Found without decoding instructions: a near call, or a jump, by its
    /// displacement or through a word in memory, to exactly where a function begins. Pointers that are called in other ways are not seen.
    ///
    /// # Errors
    /// It is no ELF file, or lacks symbols or sections.
    pub fn calls_astray(elf: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
        let file = object::File::parse(elf).context("not an ELF file")?;
        let range = |name: &str| {
            let section = file.section_by_name(name).with_context(|| format!("no section {name}"))?;
            anyhow::Ok(section.address()..section.address() + section.size())
        };
        let (boot, svm, vmx) = (range(ONLY_BOOT)?, range(ONLY_SVM)?, range(ONLY_VMX)?);
        let functions: BTreeMap<u64, &str> = file
            .symbols()
            .filter(|symbol| symbol.kind() == object::SymbolKind::Text)
            .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
            .collect();
        let mut found = Vec::new();
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let from = section.address();
            if boot.contains(&from) {
                continue;
            }
            let bytes = section.data().context("a section without data")?;
            for (offset, window) in bytes.windows(6).enumerate() {
                let &[first, opcode, a, b, c, d] = window else { continue };
                let next = section.address() + offset as u64 + 6;
                let near = next.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
                let target = match (first, opcode) {
                    // CALL, JMP, and a conditional jump of two bytes.
                    (_, 0xE8 | 0xE9) | (0x0F, 0x80..=0x8F) => near,
                    // CALL and JMP through a word that is addressed from RIP, as the library's code has them.
                    (0xFF, 0x15 | 0x25) => match word_at(&file, near) {
                        Some(target) => target,
                        None => continue,
                    },
                    _ => continue,
                };
                let is_astray = boot.contains(&target)
                    || svm.contains(&target) && vmx.contains(&from)
                    || vmx.contains(&target) && svm.contains(&from);
                if let (true, Some(callee)) = (is_astray, functions.get(&target)) {
                    let caller = functions.range(..next).next_back().map_or("?", |(_, name)| name);
                    found.push((caller.to_owned(), (*callee).to_owned()));
                }
            }
        }
        Ok(found)
    }
}

/// The word of 64 bits at an address, if the file has it.
fn word_at(file: &object::File<'_>, address: u64) -> Option<u64> {
    let section =
        file.sections().find(|section| (section.address()..section.address() + section.size()).contains(&address))?;
    let bytes = section.data_range(address, 8).ok()??;
    bytes.try_into().ok().map(u64::from_le_bytes)
}
