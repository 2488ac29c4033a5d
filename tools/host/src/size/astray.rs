//! Whether code that stays mapped refers to code that does not.
//!
//! Instructions are not decoded from the beginning: whatever looks like an operand counts if it is exactly where a function begins,
//! or in a constant or variable. So what is found wrongly is rare. Pointers that boot stores for later are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Context;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use super::sections::{ONLY_BOOT, ONLY_SVM, ONLY_VMX};

/// A reference to code that need not be mapped when it is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Astray {
    /// The function that has it.
    pub user: String,
    /// The function that it leads to.
    pub target: String,
    /// Where the pointer lies, if it is not the instruction's own operand: in a table of functions, such as that of a `dyn` type.
    pub table: Option<u64>,
}

/// When code is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapped {
    Always,
    AtBoot,
    OnSvm,
    OnVmx,
}

impl Mapped {
    /// Whether code of this kind must not refer to such a function. What is chosen by the vendor at run time is trusted.
    fn must_not_reach(self, target: Self) -> bool {
        match target {
            Self::Always => false,
            Self::AtBoot => self != Self::AtBoot,
            Self::OnSvm => self == Self::OnVmx,
            Self::OnVmx => self == Self::OnSvm,
        }
    }
}

/// References of the hypervisor's ELF file to functions that need not be mapped: to boot's from elsewhere, or from a vendor's code to the
/// other vendor's. Calls, jumps, addresses in instructions, and pointers in constants and variables whose nearest beginning, as
/// far as code refers to it, is used there.
///
/// # Errors
/// It is no ELF file, or lacks sections.
pub fn references_astray(elf: &[u8]) -> anyhow::Result<Vec<Astray>> {
    let image = Image::read(elf)?;
    let mut found = BTreeSet::new();
    let mut uses: BTreeMap<u64, Vec<(u64, Mapped)>> = BTreeMap::new();
    for (from, bytes) in &image.code {
        let mapped = image.mapped(*from);
        for (at, target) in operands(*from, bytes) {
            if image.is_data(target) {
                uses.entry(target).or_default().push((at, mapped));
            } else if let Some(name) = image.functions.get(&target)
                && mapped.must_not_reach(image.mapped(target))
            {
                found.insert(image.astray(at, name, None));
            }
        }
    }
    let words: Vec<_> = image.data.iter().flat_map(|(from, bytes)| words(*from, bytes)).collect();
    for (at, value) in &words {
        if image.is_data(*value) {
            uses.entry(*value).or_default().push((*at, Mapped::Always));
        }
    }
    for (at, value) in words {
        let Some(name) = image.functions.get(&value) else { continue };
        let target = image.mapped(value);
        let section =
            image.data.iter().map(|(from, bytes)| *from..from + bytes.len() as u64).find(|range| range.contains(&at));
        let users = section.and_then(|section| uses.range(section.start..=at).next_back());
        let unseen = [(at, Mapped::Always)];
        let users = users.map_or(&unseen[..], |(_, users)| users);
        found.extend(
            users
                .iter()
                .filter(|(_, mapped)| mapped.must_not_reach(target))
                .map(|(user, _)| image.astray(*user, name, Some(at))),
        );
    }
    Ok(found.into_iter().collect())
}

/// What is looked at.
struct Image<'a> {
    functions: BTreeMap<u64, &'a str>,
    code: Vec<(u64, &'a [u8])>,
    data: Vec<(u64, &'a [u8])>,
    special: [(Mapped, Range<u64>); 3],
}

impl<'a> Image<'a> {
    fn read(elf: &'a [u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(elf).context("not an ELF file")?;
        let range = |name: &str| {
            let section = file.section_by_name(name).with_context(|| format!("no section {name}"))?;
            anyhow::Ok(section.address()..section.address() + section.size())
        };
        let special =
            [(Mapped::AtBoot, range(ONLY_BOOT)?), (Mapped::OnSvm, range(ONLY_SVM)?), (Mapped::OnVmx, range(ONLY_VMX)?)];
        let of_kinds = |kinds: &[SectionKind]| {
            let wanted = file.sections().filter(|section| kinds.contains(&section.kind()) && section.address() != 0);
            wanted.map(|section| Ok((section.address(), section.data()?))).collect::<object::Result<Vec<_>>>()
        };
        let code = of_kinds(&[SectionKind::Text]).context("a section without bytes")?;
        let data = of_kinds(&[SectionKind::ReadOnlyData, SectionKind::ReadOnlyString, SectionKind::Data]);
        let data = data.context("a section without bytes")?;
        let functions = file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text);
        let functions = functions
            .filter_map(|symbol| {
                let name = symbol.name_bytes().ok()?;
                Some((symbol.address(), std::str::from_utf8(name).ok()?))
            })
            .collect();
        Ok(Self { functions, code, data, special })
    }

    fn mapped(&self, address: u64) -> Mapped {
        let found = self.special.iter().find(|(_, range)| range.contains(&address));
        found.map_or(Mapped::Always, |(mapped, _)| *mapped)
    }

    fn is_data(&self, address: u64) -> bool {
        self.data.iter().any(|(from, bytes)| (*from..from + bytes.len() as u64).contains(&address))
    }

    fn astray(&self, user: u64, target: &str, table: Option<u64>) -> Astray {
        let name = if self.is_data(user) { None } else { self.functions.range(..=user).next_back() };
        let user = name.map_or_else(|| format!("what lies at {user:#x}"), |(_, name)| (*name).to_owned());
        Astray { user, target: target.to_owned(), table }
    }
}

/// Aligned words of 64 bits, by their addresses.
fn words(from: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let skipped = from.next_multiple_of(8) - from;
    let aligned = bytes.get(skipped as usize..).unwrap_or_default().as_chunks().0;
    (from + skipped..).step_by(8).zip(aligned.iter().map(|word| u64::from_le_bytes(*word)))
}

/// What looks like an operand that is an address: where it is, and the address.
fn operands(from: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    bytes.windows(4).enumerate().flat_map(move |(offset, operand)| {
        let (before, at) = (bytes.get(..offset).unwrap_or_default(), from + offset as u64);
        let value = operand.try_into().map_or(0, i32::from_le_bytes);
        let near = (at + 4).wrapping_add_signed(value.into());
        let absolute = u64::from(value as u32);
        let near = is_relative(before).then_some((at, near));
        near.into_iter().chain(is_immediate(before).then_some((at, absolute)))
    })
}

/// Whether these bytes go before a displacement from RIP: of a call or jump, or of an operand in memory (SDM vol. 2 section 2.2.1.6).
fn is_relative(before: &[u8]) -> bool {
    matches!(before, [.., 0xE8 | 0xE9] | [.., 0x0F, 0x80..=0x8F])
        || matches!(before, [.., modrm] if modrm & 0xC7 == 0x05)
}

/// Whether these bytes go before an immediate operand that is moved to a register or to memory, or pushed.
fn is_immediate(before: &[u8]) -> bool {
    const fn mode(modrm: u8) -> (u8, bool) {
        (modrm >> 6, modrm & 7 == 4)
    }
    /// With mode 0, no register but a displacement of 32 bits: from RIP by the ModRM byte, from 0 by the SIB byte.
    const fn is_displaced(byte: u8) -> bool {
        byte & 7 == 5
    }
    match *before {
        [.., 0xB8..=0xBF | 0x68] => true,
        [.., 0xC7, modrm] if mode(modrm).0 == 3 || mode(modrm) == (0, false) && !is_displaced(modrm) => true,
        [.., 0xC7, modrm, sib] if mode(modrm) == (0, true) && !is_displaced(sib) => true,
        [.., 0xC7, modrm, _] if mode(modrm) == (1, false) => true,
        [.., 0xC7, modrm, _, _] if mode(modrm) == (1, true) => true,
        [.., 0xC7, modrm, _, _, _, _] if mode(modrm) == (0, false) && is_displaced(modrm) => true,
        [.., 0xC7, modrm, sib, _, _, _, _] if mode(modrm) == (0, true) && is_displaced(sib) => true,
        [.., 0xC7, modrm, _, _, _, _] if mode(modrm) == (2, false) => true,
        [.., 0xC7, modrm, _, _, _, _, _] if mode(modrm) == (2, true) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(bytes: &[u8]) -> Vec<u64> {
        let padded = [&[0x90; 8], bytes, &[0x90; 4]].concat();
        operands(0x1000, &padded).map(|(_, target)| target).collect()
    }

    #[test]
    fn operands_are_found_whatever_goes_before_them() {
        let relative: [&[u8]; 6] =
            [&[0xE8], &[0xE9], &[0x0F, 0x84], &[0xFF, 0x15], &[0x48, 0x8D, 0x35], &[0x4C, 0x8B, 0x0D]];
        for before in relative {
            let behind = 0x1008 + before.len() as u64 + 4;
            let found = targets(&[before, &0x20_0000_u32.to_le_bytes()].concat());
            assert!(found.contains(&(behind + 0x20_0000)), "{before:x?}: {found:x?}");
        }
        let absolute: [&[u8]; 10] = [
            &[0xBF],
            &[0x48, 0xC7, 0xC0],
            &[0x68],
            &[0x48, 0xC7, 0x00],
            &[0x48, 0xC7, 0x40, 0x08],
            &[0x48, 0xC7, 0x44, 0x24, 0x10],
            &[0x48, 0xC7, 0x80, 0, 1, 0, 0],
            &[0x48, 0xC7, 0x84, 0x24, 0, 1, 0, 0],
            &[0x48, 0xC7, 0x05, 0, 1, 0, 0],
            &[0x48, 0xC7, 0x04, 0x25, 0, 1, 0, 0],
        ];
        for before in absolute {
            let found = targets(&[before, &0x20_1234_u32.to_le_bytes()].concat());
            assert!(found.contains(&0x20_1234), "{before:x?}: {found:x?}");
        }
        assert!(!targets(&[&[0x90][..], &0x20_1234_u32.to_le_bytes()].concat()).contains(&0x20_1234));
    }

    #[test]
    fn a_displacement_is_no_immediate() {
        for before in [&[0x48, 0xC7, 0x05][..], &[0x48, 0xC7, 0x04, 0x25]] {
            let found = targets(&[before, &0x20_1234_u32.to_le_bytes(), &[0; 4]].concat());
            assert!(!found.contains(&0x20_1234), "{before:x?}: {found:x?}");
        }
    }

    #[test]
    fn words_are_aligned() {
        let bytes: Vec<u8> = (0..20).collect();
        let found: Vec<_> = words(0x1004, &bytes).collect();
        assert_eq!(found, [(0x1008, 0x0B0A_0908_0706_0504), (0x1010, 0x1312_1110_0F0E_0D0C)]);
    }

    #[test]
    fn a_vendors_code_may_use_its_own_and_what_stays() {
        assert!(Mapped::Always.must_not_reach(Mapped::AtBoot) && Mapped::OnSvm.must_not_reach(Mapped::AtBoot));
        assert!(Mapped::OnSvm.must_not_reach(Mapped::OnVmx) && Mapped::OnVmx.must_not_reach(Mapped::OnSvm));
        assert!(!Mapped::OnVmx.must_not_reach(Mapped::OnVmx) && !Mapped::OnVmx.must_not_reach(Mapped::Always));
        assert!(!Mapped::Always.must_not_reach(Mapped::OnSvm) && !Mapped::AtBoot.must_not_reach(Mapped::AtBoot));
    }
}
