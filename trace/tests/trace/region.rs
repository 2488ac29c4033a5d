//! The region and its header.

use crate::common::{Memory, SPEC};
use partita_trace::layout::{
    HEADER_LEN, LayoutError, PCPUS_MAX, Region, RegionHeader, RegionSpec, WINDOWS_MAX, Window, WindowsFull, windows,
};
use partita_trace::ring::{SLOTS_MAX, SLOTS_MIN};

#[test]
fn the_header_says_what_the_spec_said() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let bytes = memory.bytes();
    assert_eq!(RegionHeader::parse(&bytes).unwrap().spec, SPEC);
    assert_eq!(RegionHeader::parse(&bytes[..HEADER_LEN]).unwrap().spec, SPEC);
    // SAFETY: the memory is a region's.
    let opened = unsafe { Region::open(memory.base(), SPEC.len()) }.unwrap();
    assert_eq!(opened.header(), region.header());
    assert!(region.ring(2).is_none() && region.histograms(2).is_none());
    assert_eq!(SPEC.len() % 4096, 0);
}

#[test]
fn the_rings_and_banks_do_not_overlap_and_end_in_the_region() {
    let header = RegionHeader { spec: SPEC };
    let places = [
        (0, HEADER_LEN),
        (header.ring_offset(0).unwrap(), SPEC.ring_stride()),
        (header.ring_offset(1).unwrap(), SPEC.ring_stride()),
        (header.bank_offset(0).unwrap(), partita_trace::histogram::BANK_LEN),
        (header.bank_offset(1).unwrap(), partita_trace::histogram::BANK_LEN),
    ];
    for pair in places.windows(2) {
        assert_eq!(pair[0].0 + pair[0].1, pair[1].0);
        assert_eq!(pair[1].0 % 64, 0);
    }
    assert!(places[4].0 + places[4].1 <= SPEC.len());
}

#[test]
fn a_spec_out_of_range_is_refused() {
    let memory = Memory::new(SPEC.len());
    let before = memory.bytes();
    // SAFETY: the memory is this test's, and the length is the one given.
    let init = |len: usize, spec: RegionSpec| unsafe { Region::init(memory.base(), len, &spec) }.err().unwrap();
    let all = SPEC.len();
    assert_eq!(init(all, RegionSpec { pcpus: 0, ..SPEC }), LayoutError::BadPcpus { pcpus: 0 });
    let pcpus = PCPUS_MAX + 1;
    assert_eq!(init(all, RegionSpec { pcpus, ..SPEC }), LayoutError::BadPcpus { pcpus: u32::from(pcpus) });
    for slots in [0, 100, SLOTS_MIN / 2, SLOTS_MAX * 2] {
        assert_eq!(init(all, RegionSpec { ring_slots: slots, ..SPEC }), LayoutError::BadSlots { slots });
    }
    let long = RegionSpec { pcpus: PCPUS_MAX, ring_slots: SLOTS_MAX, ..SPEC };
    assert_eq!(init(all, long), LayoutError::TooLong { len: long.len() as u64 });
    let needed = all as u64;
    assert_eq!(init(all - 1, SPEC), LayoutError::TooShort { needed, actual: needed - 1 });
    assert_eq!(memory.bytes(), before, "a refused region is untouched");
    // SAFETY: one page into the memory, with what is left of it.
    let error = unsafe { Region::init(memory.base().add(4096), all - 4096, &RegionSpec { histograms: false, ..SPEC }) };
    assert_eq!(error.err(), Some(LayoutError::Misaligned));
}

#[test]
fn any_flipped_bit_of_the_constant_header_is_found() {
    let memory = Memory::new(SPEC.len());
    memory.region(&SPEC);
    let mut page = memory.bytes()[..HEADER_LEN].to_vec();
    for bit in 0..128 * 8 {
        page[bit / 8] ^= 1 << (bit % 8);
        let error = RegionHeader::parse(&page).unwrap_err();
        let expected = if bit < 64 { LayoutError::BadMagic } else { LayoutError::BadCrc };
        assert_eq!(error, expected, "bit {bit}");
        page[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(RegionHeader::parse(&page).is_ok());
    assert!(matches!(RegionHeader::parse(&page[..HEADER_LEN - 1]), Err(LayoutError::TooShort { .. })));
    assert!(matches!(RegionHeader::parse(&[]), Err(LayoutError::TooShort { .. })));
}

/// A guest can write a header whose CRC is right and whose content is not.
#[test]
fn a_header_that_lies_is_refused_though_its_sum_is_right() {
    let memory = Memory::new(SPEC.len());
    memory.region(&SPEC);
    let page = memory.bytes()[..HEADER_LEN].to_vec();
    let lie = |word: usize, value: u64| {
        let mut page = page.clone();
        page[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&page[..120]);
        page[120..128].copy_from_slice(&u64::from(crc).to_le_bytes());
        RegionHeader::parse(&page)
    };
    assert!(lie(3, 7).is_ok(), "any frequency is fine");
    assert_eq!(lie(1, 1 << 32 | 9), Err(LayoutError::BadVersion { version: 9 }));
    assert_eq!(lie(1, 77 << 32 | 1), Err(LayoutError::BadWriter { writer: 77 }));
    assert_eq!(lie(7, 64 << 32 | 0x1_0002), Err(LayoutError::BadPcpus { pcpus: 0x1_0002 }));
    assert_eq!(lie(7, 0xFFFF_FFFF << 32 | 2), Err(LayoutError::BadSlots { slots: 0xFFFF_FFFF }));
    assert_eq!(lie(6, u64::MAX), Err(LayoutError::BadPlace { word: 6 }), "bytes behind the build ID are zero");
    for word in [2, 8, 9, 10, 11, 12, 13, 14] {
        for value in [1, 12_288, u64::MAX] {
            assert!(matches!(lie(word, value), Err(LayoutError::BadPlace { .. })), "word {word} = {value}");
        }
    }
    assert!(matches!(lie(7, 128 << 32 | 2), Err(LayoutError::BadPlace { word: 2 })));
}

#[test]
fn windows_are_kept_until_the_table_is_full() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let window = |i: u16| Window { partition: i, gpa: 0x20_0000, hpa: u64::from(i) << 30, len: 0x10_0000 };
    for i in 0..WINDOWS_MAX as u16 {
        region.add_window(window(i)).unwrap();
        let found: Vec<_> = windows(&memory.bytes()).map(Result::unwrap).collect();
        assert_eq!(found, (0..=i).map(window).collect::<Vec<_>>());
    }
    assert_eq!(region.add_window(window(99)), Err(WindowsFull));
    let moved = Window { gpa: 0x60_0000, ..window(5) };
    region.add_window(moved).unwrap();
    let found: Vec<_> = windows(&memory.bytes()).map(Result::unwrap).collect();
    let expected = (0..WINDOWS_MAX as u16).map(|i| if i == 5 { moved } else { window(i) });
    assert_eq!(found, expected.collect::<Vec<_>>(), "a partition's window takes the place of the one it had");
    let mut page = memory.bytes();
    page[1024 + 3 * 32 + 8] ^= 1;
    let states: Vec<_> = windows(&page).map(|w| w.is_ok()).collect();
    assert_eq!(states.iter().filter(|ok| !**ok).count(), 1);
    assert!(!states[3]);
    assert_eq!(windows(&[]).count(), 0);
}

#[cfg(not(miri))]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..HEADER_LEN + 64), words in any::<[u32; 30]>()) {
            bytes[..8].copy_from_slice(b"PARTITAT");
            for (chunk, word) in bytes[8..].chunks_mut(4).zip(words) {
                chunk.copy_from_slice(&(word >> (word % 32)).to_le_bytes());
            }
            let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes[..120]);
            bytes[120..128].copy_from_slice(&u64::from(crc).to_le_bytes());
            prop_assert!(RegionHeader::parse(&bytes).is_err());
            let _ = windows(&bytes).count();
        }
    }
}
