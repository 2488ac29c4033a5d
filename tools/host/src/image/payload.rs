//! A payload of this repository in the place of what other people's tools make: its ELF64 file as a multiboot ELF32, as
//! by `objcopy -O elf32-i386`, or as a flat image, as by `objcopy -O binary`.

use super::elf::{Elf, Load};
use super::host_area::Fields;
use super::{ElfBoot, FlatMode, ImageError, LinkedImage, Target, link_elf, link_multiboot};
use object::{Object, ObjectSymbol};

/// Longest flat image that is made of an ELF file, in bytes: its segments can lie far apart.
const FLAT_MAX: u64 = 64 << 20;
/// Where a payload is entered by multiboot.
pub const MULTIBOOT_ENTRY: &str = "multiboot_entry";
const HEADER_LEN: usize = 52;
const PROGRAM_HEADER_LEN: usize = 32;
const ALIGN: usize = 16;

/// A flat image and the address that it is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Guest-physical address of its first byte.
    pub base: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Links a payload by `boot`. By multiboot it is an ELF32 file that is entered at `multiboot_entry`, else the ELF64 file
/// that it is.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link(elf: &[u8], boot: ElfBoot, target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    match boot {
        ElfBoot::Multiboot => link_multiboot(&to_elf32(elf, symbol(elf, MULTIBOOT_ENTRY)?)?, target),
        boot => link_elf(elf, Some(boot), target),
    }
}

impl FlatMode {
    /// Where a payload is entered as a flat image in this mode.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Real => "real_entry",
            Self::Protected => "protected_entry",
            Self::Long => "long_entry",
        }
    }
}

/// The address of the symbol `name` in an ELF file.
///
/// # Errors
/// It is no ELF file, or has no such symbol.
pub fn symbol(elf: &[u8], name: &str) -> Result<u64, ImageError> {
    let file = object::File::parse(elf).map_err(|error| ImageError::NotElf(error.to_string()))?;
    let found = file.symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok(name));
    found.map(|symbol| symbol.address()).ok_or_else(|| ImageError::NoSymbol { name: name.to_owned() })
}

/// The bytes of all segments of an ELF file, with zeros between them.
///
/// # Errors
/// It is no ELF file, or none that fits into one piece.
pub fn flatten(elf: &[u8]) -> Result<Flat, ImageError> {
    let elf = Elf::parse(elf)?;
    let loads: Vec<&Load<'_>> = elf.loads.iter().filter(|load| !load.data.is_empty()).collect();
    let base = loads.iter().map(|load| load.paddr).min().ok_or(ImageError::NothingToLoad)?;
    let mut bytes = Vec::new();
    for load in loads {
        let apart = || ImageError::DamagedElf(format!("segment {} is too far from the others", load.index));
        let start = load.paddr - base;
        let end = start.checked_add(load.data.len() as u64).filter(|end| *end <= FLAT_MAX).ok_or_else(apart)?;
        if (bytes.len() as u64) < end {
            bytes.resize(end as usize, 0);
        }
        if let Some(place) = bytes.get_mut(start as usize..end as usize) {
            place.copy_from_slice(load.data);
        }
    }
    Ok(Flat { base, bytes })
}

/// The ELF32 file for an i386 with the segments of an ELF file, entered at `entry`.
///
/// # Errors
/// It is no ELF file, or does not fit 32 bits.
pub fn to_elf32(elf: &[u8], entry: u64) -> Result<Vec<u8>, ImageError> {
    let elf = Elf::parse(elf)?;
    let narrow = |value: u64| {
        u32::try_from(value).map_err(|_| ImageError::DamagedElf(format!("{value:#x} does not fit into an ELF32 file")))
    };
    let count = elf.loads.len();
    let mut file = Fields::zeroed(HEADER_LEN + count * PROGRAM_HEADER_LEN);
    // 32 bits, little-endian, version 1; an executable for the i386.
    file.put(0, b"\x7FELF\x01\x01\x01").put(16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    file.put_u32(24, narrow(entry)?).put_u32(28, HEADER_LEN as u32);
    file.put(40, &[HEADER_LEN as u8, 0, PROGRAM_HEADER_LEN as u8, 0]).put(44, &(count as u16).to_le_bytes());
    let mut at = file.bytes().len().next_multiple_of(ALIGN);
    let mut contents: Vec<u8> = vec![0; at - file.bytes().len()];
    for (index, load) in elf.loads.iter().enumerate() {
        let len = load.data.len();
        let words = [1, at as u64, load.paddr, load.paddr, len as u64, load.mem_len, 7, ALIGN as u64];
        for (word, value) in words.into_iter().enumerate() {
            file.put_u32(HEADER_LEN + index * PROGRAM_HEADER_LEN + word * 4, narrow(value)?);
        }
        contents.extend(load.data);
        let padded = len.next_multiple_of(ALIGN);
        contents.resize(contents.len() + padded - len, 0);
        at += padded;
    }
    Ok([file.bytes(), &contents].concat())
}

#[cfg(test)]
mod tests {
    use super::super::test_images::{TestElf, TestSegment};
    use super::*;

    fn two_segments() -> Vec<u8> {
        let segment = |paddr, data: &[u8]| TestSegment { paddr, memsz: 0x100, data: data.to_vec() };
        TestElf { segments: vec![segment(0x20_0010, &[3, 4]), segment(0x20_0000, &[1, 2])], ..TestElf::default() }
            .build()
    }

    #[test]
    fn a_flat_image_has_all_bytes_in_place() {
        let Flat { base, bytes } = flatten(&two_segments()).unwrap();
        assert_eq!((base, bytes.len()), (0x20_0000, 0x12));
        assert_eq!((&bytes[..3], &bytes[15..]), (&[1, 2, 0][..], &[0, 3, 4][..]));
        let far = TestSegment { paddr: 1 << 40, memsz: 1, data: vec![1] };
        let mut elf = TestElf::default();
        elf.segments.push(far);
        assert!(flatten(&elf.build()).unwrap_err().to_string().contains("too far from the others"));
    }

    #[test]
    fn an_elf32_file_has_the_same_segments() {
        let elf64 = two_segments();
        let elf32 = to_elf32(&elf64, 0x20_0011).unwrap();
        let (wide, narrow) = (Elf::parse(&elf64).unwrap(), Elf::parse(&elf32).unwrap());
        assert_eq!(narrow.class, super::super::elf::Class::Elf32);
        assert_eq!(narrow.physical_entry(), Ok(0x20_0011));
        let parts = |elf: &Elf<'_>| -> Vec<_> {
            elf.loads.iter().map(|load| (load.paddr, load.mem_len, load.data.to_vec())).collect()
        };
        assert_eq!(parts(&wide), parts(&narrow));
        assert!(to_elf32(&elf64, 1 << 32).is_err());
    }

    #[test]
    fn a_missing_symbol_is_named() {
        let error = symbol(&two_segments(), "real_entry").unwrap_err();
        assert_eq!(error, ImageError::NoSymbol { name: "real_entry".into() });
    }
}
