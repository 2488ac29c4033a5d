//! The multiboot header (Multiboot Specification 0.6.96, section 3.1): what an image asks of its loader.

use super::ImageError;

const MAGIC: u32 = 0x1BAD_B002;
/// The header lies completely within so many bytes of the file, on a multiple of four.
const SEARCHED: usize = 8192;
const ALIGN: usize = 4;
/// Bytes of magic, flags and checksum, and with the addresses behind them.
const HEADER_LEN: usize = 12;
const ADDRESSES_LEN: usize = 32;
/// Flags that a loader must obey or refuse the image.
const MANDATORY: u32 = 0xFFFF;
/// Modules lie on page boundaries. Here they always do.
const PAGE_ALIGN: u32 = 1 << 0;
/// The memory map is wanted. Here it is always given.
const MEMORY_INFO: u32 = 1 << 1;
/// A video mode is wanted.
const VIDEO_MODE: u32 = 1 << 2;
/// The header says where the image is loaded.
const HAS_ADDRESSES: u32 = 1 << 16;

/// Where the header says that the image is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Offset in the file of the first byte that is loaded.
    pub(super) offset: usize,
    /// Offset behind the last one; `None` for all that there are.
    pub(super) offset_end: Option<usize>,
    /// Guest-physical address of the first byte.
    pub(super) load: u32,
    /// Guest-physical address behind the memory that is cleared behind the bytes; `None` for none.
    pub(super) bss_end: Option<u32>,
    /// First instruction.
    pub(super) entry: u32,
}

/// Finds the header of `image` and reads it. `None` where it leaves the addresses to the executable's own header.
///
/// # Errors
/// There is none, or it asks for what Partita does not have, or makes no sense.
pub(super) fn parse(image: &[u8]) -> Result<Option<Addresses>, ImageError> {
    let at = find(image)?;
    let word = |index: usize| u32_at(image, at + index * 4).unwrap_or(0);
    let flags = word(1);
    if flags & VIDEO_MODE != 0 {
        return Err(ImageError::MultibootVideo);
    }
    let unknown = flags & MANDATORY & !(PAGE_ALIGN | MEMORY_INFO);
    if unknown != 0 {
        return Err(ImageError::MultibootFlags { unknown });
    }
    if flags & HAS_ADDRESSES == 0 {
        return Ok(None);
    }
    if at + ADDRESSES_LEN > image.len().min(SEARCHED) {
        return Err(ImageError::MultibootAddresses("the header is cut off before them"));
    }
    let (header, load, load_end, bss_end, entry) = (word(3), word(4), word(5), word(6), word(7));
    let bad = |why| Err(ImageError::MultibootAddresses(why));
    let Some(before) = header.checked_sub(load) else { return bad("load_addr is above header_addr") };
    let Some(offset) = at.checked_sub(before as usize) else {
        return bad("load_addr is before the beginning of the file");
    };
    let offset_end = match load_end.checked_sub(load) {
        _ if load_end == 0 => None,
        Some(len) if len > 0 => Some(offset.saturating_add(len as usize)),
        _ => return bad("load_end_addr is not above load_addr"),
    };
    if offset_end.is_some_and(|end| end > image.len()) {
        return bad("load_end_addr is behind the end of the file");
    }
    let bss_end = (bss_end != 0).then_some(bss_end);
    Ok(Some(Addresses { offset, offset_end, load, bss_end, entry }))
}

/// Where the header begins.
fn find(image: &[u8]) -> Result<usize, ImageError> {
    let end = image.len().min(SEARCHED);
    let mut with_bad_checksum = None;
    for at in (0..(end + 1).saturating_sub(HEADER_LEN)).step_by(ALIGN) {
        if u32_at(image, at) != Some(MAGIC) {
            continue;
        }
        let sum = [0, 4, 8].iter().fold(0u32, |sum, word| sum.wrapping_add(u32_at(image, at + word).unwrap_or(0)));
        if sum == 0 {
            return Ok(at);
        }
        with_bad_checksum.get_or_insert(at);
    }
    Err(match with_bad_checksum {
        Some(at) => ImageError::MultibootChecksum { at },
        None => ImageError::NoMultibootHeader,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(at: usize, len: usize, words: &[u32]) -> Vec<u8> {
        let flags = words.first().copied().unwrap_or(0);
        let mut bytes = vec![0; len];
        let all = [&[MAGIC, flags, MAGIC.wrapping_add(flags).wrapping_neg()], words.get(1..).unwrap_or(&[])].concat();
        for (index, word) in all.into_iter().enumerate() {
            bytes[at + index * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_header_is_found_where_it_may_be() {
        for at in [0, 4, 100, 8192 - 12] {
            assert_eq!(parse(&image(at, 9000, &[3])), Ok(None), "{at}");
        }
        assert_eq!(parse(&image(8192 - 8, 9000, &[0])), Err(ImageError::NoMultibootHeader));
        assert_eq!(parse(&image(2, 9000, &[0])), Err(ImageError::NoMultibootHeader));
        assert_eq!(parse(&image(0, 12, &[0])), Ok(None));
        for len in 0..12 {
            assert_eq!(parse(&image(0, 12, &[0])[..len]), Err(ImageError::NoMultibootHeader));
        }
        let mut damaged = image(64, 9000, &[0]);
        damaged[68] = 1;
        assert_eq!(parse(&damaged), Err(ImageError::MultibootChecksum { at: 64 }));
        damaged[128..140].copy_from_slice(&image(0, 12, &[0]));
        assert_eq!(parse(&damaged), Ok(None));
    }

    #[test]
    fn what_partita_does_not_have_is_refused() {
        assert_eq!(parse(&image(0, 64, &[1 << 2 | 1])), Err(ImageError::MultibootVideo));
        assert_eq!(parse(&image(0, 64, &[1 << 15 | 3])), Err(ImageError::MultibootFlags { unknown: 1 << 15 }));
        // These may be ignored.
        assert_eq!(parse(&image(0, 64, &[0xFFFE << 16 | 3])), Ok(None));
    }

    #[test]
    fn addresses_are_taken_from_the_header() {
        let words = |header, load, load_end, bss_end| [HAS_ADDRESSES, header, load, load_end, bss_end, 0x10_0040];
        let parse = |words: &[u32]| super::parse(&image(0x40, 0x100, words));
        let addresses = Addresses {
            offset: 0x20,
            offset_end: Some(0xE0),
            load: 0x10_0000,
            bss_end: Some(0x10_1000),
            entry: 0x10_0040,
        };
        assert_eq!(parse(&words(0x10_0020, 0x10_0000, 0x10_00C0, 0x10_1000)), Ok(Some(addresses)));
        let open = Addresses { offset_end: None, bss_end: None, ..addresses };
        assert_eq!(parse(&words(0x10_0020, 0x10_0000, 0, 0)), Ok(Some(open)));
        let refused = |words: [u32; 6]| matches!(parse(&words), Err(ImageError::MultibootAddresses(_)));
        assert!(refused(words(0x0F_FFFF, 0x10_0000, 0, 0)));
        assert!(refused(words(0x10_0041, 0x10_0000, 0, 0)));
        assert!(refused(words(0x10_0020, 0x10_0000, 0x10_0000, 0)));
        assert!(refused(words(0x10_0020, 0x10_0000, 0x10_00E1, 0)));
        assert!(refused(words(0x10_0020, 0x10_0000, u32::MAX, 0)));
        let cut = image(0x40, 0x5C, &[HAS_ADDRESSES, 0, 0, 0, 0][..4]);
        assert!(matches!(super::parse(&cut), Err(ImageError::MultibootAddresses(_))));
    }

    proptest! {
        #[test]
        fn addresses_stay_in_the_file(words: [u32; 5], at in 0usize..40, len in 0usize..400) {
            let bytes = image(at * 4, at * 4 + 32 + len, &[&[HAS_ADDRESSES], &words[..]].concat());
            if let Ok(Some(found)) = parse(&bytes) {
                let end = found.offset_end.unwrap_or(bytes.len());
                prop_assert!(found.offset <= end && end <= bytes.len());
            }
        }
    }
}
