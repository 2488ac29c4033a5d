//! What of an ELF file a loader needs.

/// The multiboot2 header lies within so many bytes of the file, on a multiple of eight (section 3.1.1 of the
/// specification).
const SEARCHED: usize = 32768;
const HEADER_ALIGN: usize = 8;
const HEADER_MAGIC: u32 = 0xE852_50D6;

const ELF_HEADER_LEN: usize = 64;
const ELF64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
/// Where an ELF64 header has the offset of the section headers, and their size, number and the index of their names.
const SECTION_OFFSET: std::ops::Range<usize> = 40..48;
const SECTION_COUNTS: std::ops::Range<usize> = 58..64;

/// The file without sections: symbols and debug information, which GRUB would load with the rest.
///
/// # Errors
/// It is no ELF64 file, or has no multiboot2 header.
pub(super) fn without_sections(elf: &[u8]) -> Result<Vec<u8>, &'static str> {
    const NO_ELF: &str = "it is no little-endian ELF64 file";
    const CUT: &str = "the ELF file is cut off; build it again";
    if !elf.starts_with(b"\x7FELF") || elf.get(4..6) != Some(&[ELF64, LITTLE_ENDIAN]) || elf.len() < ELF_HEADER_LEN {
        return Err(NO_ELF);
    }
    let word = |at: usize| elf.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let half = |at: usize| elf.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_le_bytes(*bytes)));
    let offset = |at: usize| word(at).and_then(|offset| usize::try_from(offset).ok());
    let (Some(headers), Some(header_len), Some(count)) = (offset(32), half(54), half(56)) else { return Err(CUT) };
    let end_of_headers = header_len.checked_mul(count).and_then(|len| headers.checked_add(len)).ok_or(CUT)?;
    let mut end = end_of_headers.max(ELF_HEADER_LEN);
    for header in (0..count).map(|index| headers + index * header_len) {
        let (Some(start), Some(len)) = (offset(header + 8), offset(header + 32)) else { return Err(CUT) };
        end = end.max(start.checked_add(len).ok_or(CUT)?);
    }
    let mut kernel = elf.get(..end).ok_or(CUT)?.to_vec();
    for range in [SECTION_OFFSET, SECTION_COUNTS] {
        kernel.get_mut(range).ok_or(CUT)?.fill(0);
    }
    let is_header = |bytes: &[u8]| bytes.starts_with(&HEADER_MAGIC.to_le_bytes());
    let searched = kernel.get(..SEARCHED).unwrap_or(&kernel);
    if searched.chunks(HEADER_ALIGN).any(is_header) {
        Ok(kernel)
    } else {
        Err("it has no multiboot2 header in its first 32 KiB; link it with Partita's runtime")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with one segment that ends at 0x200, a multiboot2 header at 0x100, and sections at 0x300.
    fn elf() -> Vec<u8> {
        let mut elf = vec![0xAA; 0x400];
        elf[..6].copy_from_slice(b"\x7FELF\x02\x01");
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[40..48].copy_from_slice(&0x300u64.to_le_bytes());
        elf[54..64].copy_from_slice(&[56, 0, 1, 0, 64, 0, 2, 0, 1, 0]);
        elf[64 + 8..64 + 16].copy_from_slice(&0x100u64.to_le_bytes());
        elf[64 + 32..64 + 40].copy_from_slice(&0x100u64.to_le_bytes());
        elf[0x100..0x104].copy_from_slice(&HEADER_MAGIC.to_le_bytes());
        elf
    }

    #[test]
    fn what_is_loaded_stays() {
        let kernel = without_sections(&elf()).unwrap();
        assert_eq!(kernel.len(), 0x200);
        assert_eq!(kernel[64..], elf()[64..0x200]);
        assert_eq!((&kernel[40..48], &kernel[58..64]), (&[0; 8][..], &[0; 6][..]));
        assert_eq!(kernel[54..58], [56, 0, 1, 0]);
    }

    #[test]
    fn what_cannot_boot_is_refused() {
        assert!(without_sections(b"MZ").unwrap_err().contains("no little-endian ELF64"));
        assert!(without_sections(&elf()[..0x1FF]).unwrap_err().contains("cut off"));
        let mut moved = elf();
        moved.copy_within(0x100..0x104, 0x104);
        moved[0x100] = 0;
        assert!(without_sections(&moved).unwrap_err().contains("no multiboot2 header"));
    }

    proptest! {
        #[test]
        fn any_file_can_be_asked(at in 0..64usize, bytes: [u8; 8], len in 0..0x400usize) {
            let mut elf = elf();
            elf[at..at + 8].copy_from_slice(&bytes);
            elf.truncate(len);
            let _ = without_sections(&elf);
        }
    }
}
