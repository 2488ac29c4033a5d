//! Boot information, made by another implementation, by hand, and by chance.

use multiboot2::{
    Builder, CommandLineTag, MaybeDynSized, MemoryArea, MemoryAreaType, MemoryMapTag, ModuleTag, RsdpV1Tag, RsdpV2Tag,
};
use partita_multiboot2::{BootInformation, Error, HEAD_LEN, LEN_MAX, MemoryRange, Module, Tag, Tags, information_len};
use proptest::prelude::*;

/// A tag: type, length, contents, padding.
fn tag(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (8 + contents.len() as u32).to_le_bytes()].concat();
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Boot information of these tags and the end tag.
fn information(tags: &[Vec<u8>]) -> Vec<u8> {
    let tags = [tags.concat(), tag(0, &[])].concat();
    [words(&[(HEAD_LEN + tags.len()) as u32, 0]), tags].concat()
}

fn memory() -> Vec<u8> {
    tag(6, &words(&[24, 0, 0, 0, 0xA_0000, 0, 1, 0, 0xFEC0_0000, 0, 0x1000, 0, 2, 0]))
}

fn rsdp(revision: u8, len: u32, have: usize) -> Vec<u8> {
    let mut bytes = b"RSD PTR ".to_vec();
    bytes.resize(15, 0);
    bytes.push(revision);
    bytes.resize(20, 0);
    bytes.extend(len.to_le_bytes());
    bytes.resize(have.max(24), 0);
    bytes.truncate(have);
    bytes
}

#[test]
fn what_another_implementation_writes_is_read() {
    let areas = [
        MemoryArea::new(0, 0x9_FC00, MemoryAreaType::Available),
        MemoryArea::new(0xF_0000, 0x1_0000, MemoryAreaType::Reserved),
        MemoryArea::new(0x1_0000_0000, 0x8000_0000, MemoryAreaType::Available),
        MemoryArea::new(0x7FFE_0000, 0x2_0000, MemoryAreaType::AcpiAvailable),
    ];
    let module = ModuleTag::new(0x12_3000, 0x12_3456, "bundle");
    let rsdp = RsdpV2Tag::new(*b"PARTIT", 2, 0x7FFE_0000, 36, 0x7FFE_1000);
    let bytes = Builder::new()
        .cmdline(CommandLineTag::new("console serial=com2,9600"))
        .add_module(module)
        .mmap(MemoryMapTag::new(&areas))
        .rsdpv1(RsdpV1Tag::new(*b"PARTIT", 2, 0x7FFE_0000))
        .rsdpv2(rsdp)
        .build();
    let bytes = bytes.as_bytes();
    let read = BootInformation::read(bytes).unwrap();
    assert_eq!(information_len(*bytes.first_chunk().unwrap()), Ok(bytes.len()));
    assert_eq!(read.cmdline, "console serial=com2,9600");
    assert_eq!(read.module, Some(Module { start: 0x12_3000, len: 0x456 }));
    let rsdp = read.rsdp.unwrap();
    assert_eq!((rsdp.len(), &rsdp[..8]), (36, &b"RSD PTR "[..]));
    assert_eq!(rsdp.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), 0);
    let ranges: Vec<MemoryRange> = read.memory.ranges().collect();
    let expected = areas.map(|area| MemoryRange {
        start: area.start_address(),
        len: area.size(),
        is_available: area.typ() == MemoryAreaType::Available,
    });
    assert_eq!(ranges, expected);
}

#[test]
fn what_is_not_there_is_not_missed_but_for_the_memory() {
    let bytes = information(&[memory()]);
    let read = BootInformation::read(&bytes).unwrap();
    assert_eq!((read.cmdline, read.module, read.rsdp), ("", None, None));
    assert_eq!(read.memory.ranges().map(|range| range.is_available).collect::<Vec<_>>(), [true, false]);
    assert_eq!(BootInformation::read(&information(&[])), Err(Error::NoMemoryMap));
    // A tag of a type that is unknown, of a length that is no multiple of eight.
    let bytes = information(&[tag(0x1337, b"?"), memory(), tag(1, b"a b")]);
    assert_eq!(BootInformation::read(&bytes).unwrap().cmdline, "a b");
}

#[test]
fn what_is_wrong_is_named() {
    let error = |tags: &[Vec<u8>]| BootInformation::read(&information(tags)).unwrap_err();
    let module = |start, end| tag(3, &words(&[start, end]));
    assert_eq!(error(&[module(0x3000, 0x2000)]), Error::Module { start: 0x3000, end: 0x2000 });
    assert_eq!(error(&[module(0x3000, 0x3000)]), Error::Module { start: 0x3000, end: 0x3000 });
    assert_eq!(error(&[memory(), module(1, 2), module(2, 3)]), Error::Modules { found: 2 });
    assert_eq!(error(&[tag(3, &words(&[1]))]), Error::TagLength { kind: 3, len: 12 });
    assert_eq!(error(&[tag(6, &words(&[24]))]), Error::TagLength { kind: 6, len: 12 });
    for len in [0, 23, 25, u32::MAX] {
        assert_eq!(error(&[tag(6, &words(&[len, 0]))]), Error::MemoryEntry { len });
    }
    assert_eq!(error(&[tag(1, b"ab\xFFc\0")]), Error::CommandLine { valid: 2 });
    let mut endless = information(&[memory()]);
    let end = endless.len() - 8;
    endless[end] = 1;
    assert_eq!(BootInformation::read(&endless), Err(Error::NoEnd));
    endless[end + 4] = 9;
    assert_eq!(BootInformation::read(&endless), Err(Error::TagLength { kind: 1, len: 9 }));
    endless[end + 4] = 7;
    let short = BootInformation::read(&endless).unwrap_err();
    assert_eq!(short, Error::TagLength { kind: 1, len: 7 });
    assert!(short.to_string().contains("type 1 has a length of 7 bytes; boot with"), "{short}");
}

#[test]
fn a_length_that_cannot_be_is_refused() {
    for found in [0, 7, LEN_MAX as u32 + 1, u32::MAX] {
        let [a, b, c, d] = found.to_le_bytes();
        assert_eq!(information_len([a, b, c, d, 0, 0, 0, 0]), Err(Error::Length { found }));
    }
    let whole = information(&[memory()]);
    let (have, len) = (whole.len() - 1, whole.len());
    assert_eq!(BootInformation::read(&whole[..have]), Err(Error::Cut { len, have }));
    assert_eq!(BootInformation::read(&whole[..5]), Err(Error::Length { found: 5 }));
}

#[test]
fn an_rsdp_is_whole_or_refused() {
    let read = |old: Option<Vec<u8>>, new: Option<Vec<u8>>| {
        let mut tags = vec![memory()];
        tags.extend(old.map(|rsdp| tag(14, &rsdp)));
        tags.extend(new.map(|rsdp| tag(15, &rsdp)));
        BootInformation::read(&information(&tags)).map(|read| read.rsdp.map(<[u8]>::len))
    };
    assert_eq!(read(Some(rsdp(0, 0, 20)), None), Ok(Some(20)));
    assert_eq!(read(Some(rsdp(0, 0, 20)), Some(rsdp(2, 36, 36))), Ok(Some(36)));
    assert_eq!(read(Some(rsdp(2, 36, 20)), Some(rsdp(2, 36, 36))), Ok(Some(36)), "the old one is not read");
    assert_eq!(read(None, Some(rsdp(2, 33, 36))), Ok(Some(33)));
    assert_eq!(read(Some(rsdp(2, 36, 20)), None), Err(Error::Rsdp { len: 36, have: 20 }));
    assert_eq!(read(None, Some(rsdp(0, 0, 19))), Err(Error::Rsdp { len: 20, have: 19 }));
    assert_eq!(read(None, Some(rsdp(2, 37, 40))), Err(Error::Rsdp { len: 37, have: 40 }));
    assert_eq!(read(None, Some(rsdp(2, 19, 36))), Err(Error::Rsdp { len: 19, have: 36 }));
    assert_eq!(read(None, Some(rsdp(2, u32::MAX, 36))), Err(Error::Rsdp { len: u32::MAX as usize, have: 36 }));
}

fn any_tag() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(1u32), Just(3), Just(6), Just(14), Just(15), 0u32..24];
    (kind, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(kind, contents)| tag(kind, &contents))
}

proptest! {
    /// Whatever the bytes are, reading ends, and what it gives lies within them: no slice can be outside.
    #[test]
    fn no_bytes_lead_astray(bytes in prop::collection::vec(any::<u8>(), 0..400), len in 0u32..500) {
        let mut bytes = bytes;
        if let Some(head) = bytes.first_chunk_mut() {
            *head = len.to_le_bytes();
        }
        if let Ok(read) = BootInformation::read(&bytes) {
            prop_assert!(read.memory.ranges().count() <= bytes.len() / 24);
        }
    }

    /// Nor do tags with lengths that fit.
    #[test]
    fn no_tags_lead_astray(tags in prop::collection::vec(any_tag(), 0..8), at in any::<prop::sample::Index>(), value: u8) {
        let mut bytes = information(&tags);
        let at = at.index(bytes.len() - 4) + 4;
        bytes[at] = value;
        if let Ok(read) = BootInformation::read(&bytes) {
            prop_assert!(read.rsdp.is_none_or(|rsdp| (20..=36).contains(&rsdp.len())));
            prop_assert!(read.module.is_none_or(|module| module.len > 0));
            prop_assert!(!read.cmdline.contains('\0'));
        }
    }

    /// There are as many tags as were made, if none is broken.
    #[test]
    fn all_tags_are_seen(kinds in prop::collection::vec(20u32..30, 0..20)) {
        let bytes = information(&kinds.iter().map(|&kind| tag(kind, &[0; 5])).collect::<Vec<_>>());
        let seen: Vec<_> = Tags::new(&bytes[HEAD_LEN..]).collect();
        let expected: Vec<_> = kinds.iter().map(|&kind| Ok(Tag::Other { kind })).collect();
        prop_assert_eq!(seen, expected);
    }
}
