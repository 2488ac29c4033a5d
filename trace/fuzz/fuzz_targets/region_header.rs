//! A header page from a guest: any bytes, with and without a right checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_trace::layout::{HEADER_LEN, REGION_LEN_MAX, RegionHeader, windows};
use partita_trace::reader::RegionDump;

fuzz_target!(|data: &[u8]| {
    let mut page = data.to_vec();
    page.resize(page.len().max(HEADER_LEN), 0);
    check(&page);
    page[..8].copy_from_slice(&partita_trace::layout::MAGIC);
    let crc = crc32(&page[..120]);
    page[120..128].copy_from_slice(&u64::from(crc).to_le_bytes());
    check(&page);
});

/// What a header that is taken promises, and decoding what follows it.
fn check(page: &[u8]) {
    if let Ok(header) = RegionHeader::parse(page) {
        let len = header.region_len();
        assert!(len <= REGION_LEN_MAX);
        for ring in 0..header.spec.pcpus {
            assert!(header.ring_offset(ring).is_some_and(|at| at + header.spec.ring_stride() <= len));
            assert!(header.bank_offset(ring).is_none_or(|at| at < len));
        }
    }
    windows(page).for_each(|_| ());
    if let Ok(dump) = RegionDump::parse(page, &[], None) {
        dump.rings.iter().for_each(|ring| assert_eq!(ring.frames().count() as u64, ring.summary().0.frames));
    }
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
