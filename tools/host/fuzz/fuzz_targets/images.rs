//! Images from strangers: any bytes, and the same behind headers that are as good as they can be. What is linked lies in
//! memory, one piece beside the other.
//!
//! The module is taken in by its path: the whole crate with all that it needs takes minutes to build for this.
#![no_main]
#![allow(dead_code, unused_imports, reason = "not all of the module is called here")]

#[path = "../../src/image/mod.rs"]
mod image;

/// What the module uses of the rest of its crate.
mod system_file {
    pub(crate) fn human(bytes: u64) -> String {
        format!("{bytes} bytes")
    }
}

use image::{
    ElfBoot, FlatMode, FlatPlace, ImageError, LinkedImage, Module, SEGMENTS_MAX, Target, link_elf, link_flat,
    link_linux, link_multiboot, payload,
};
use libfuzzer_sys::fuzz_target;
use partita_abi::guest;

const MEMORY: u64 = 4 << 20;
const MODULES: &[Module<'static>] =
    &[Module { data: &[7; 5000], cmdline: "first" }, Module { data: &[8; 3], cmdline: "" }];

fuzz_target!(|data: &[u8]| {
    check(data);
    for class in [1, 2] {
        check(&with_elf_header(data, class));
    }
    check(&with_multiboot_header(data));
    check(&with_linux_header(data));
});

fn check(bytes: &[u8]) {
    let target = Target { memory: MEMORY, cmdline: "a=b", modules: MODULES };
    for boot in [None, Some(ElfBoot::Pvh), Some(ElfBoot::Multiboot), Some(ElfBoot::Plain)] {
        sound(link_elf(bytes, boot, &target));
    }
    sound(link_multiboot(bytes, &target));
    sound(link_linux(bytes, MEMORY, "a=b", Some(&[0; 100])));
    let number = |at: usize| bytes.get(at..at + 8).map_or(0, |b| b.try_into().map_or(0, u64::from_le_bytes));
    for mode in [FlatMode::Real, FlatMode::Protected, FlatMode::Long] {
        for place in
            [FlatPlace { at: number(0), entry: number(8), mode }, FlatPlace { at: 0x7C00, entry: 0x7C00, mode }]
        {
            sound(link_flat(bytes, &place, &Target { cmdline: "", modules: &[], ..target }));
        }
    }
    if let Ok(flat) = payload::flatten(bytes) {
        assert!(!flat.bytes.is_empty());
    }
    if let Ok(elf32) = payload::to_elf32(bytes, number(16)) {
        // What was made is read again.
        let _ = link_elf(&elf32, None, &target);
    }
    let _ = payload::symbol(bytes, "entry");
}

fn sound(linked: Result<LinkedImage, ImageError>) {
    let Ok(linked) = linked else { return };
    assert!(linked.segments.len() <= SEGMENTS_MAX);
    let mut ranges: Vec<_> = linked.segments.iter().map(|segment| (segment.gpa, segment.end())).collect();
    ranges.sort_unstable();
    assert!(linked.segments.iter().all(|s| s.data.len() as u64 <= s.mem_len && s.end() <= MEMORY));
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
    let acpi = guest::RSDP..guest::RSDP + guest::ACPI_LEN;
    assert!(ranges.iter().all(|range| range.1 <= acpi.start || range.0 >= acpi.end), "{ranges:x?}");
}

/// An ELF header with program headers right behind it, as many as fit.
fn with_elf_header(data: &[u8], class: u8) -> Vec<u8> {
    let (header_len, entry_len, machine): (u16, u16, u16) = if class == 1 { (52, 32, 3) } else { (64, 56, 62) };
    let count = (data.len() / usize::from(entry_len)).min(6) as u16;
    let mut file = vec![0x7F, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    let word = |value: u64| value.to_le_bytes()[..if class == 1 { 4 } else { 8 }].to_vec();
    for value in [0x20_0000, header_len.into(), 0] {
        file.extend(word(value));
    }
    file.extend(0u32.to_le_bytes());
    for half in [header_len, entry_len, count, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(data);
    file
}

/// A multiboot header whose flags and addresses are the first bytes.
fn with_multiboot_header(data: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    let flags = data.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes)) & !0xFFFC;
    let mut file = Vec::new();
    for word in [MAGIC, flags, MAGIC.wrapping_add(flags).wrapping_neg()] {
        file.extend(word.to_le_bytes());
    }
    file.extend(data.get(4..).unwrap_or_default());
    file
}

/// A setup header of protocol 2.15 that is as good as its numbers.
fn with_linux_header(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    file.resize(file.len().max(0x800), 0);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]);
    put(0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]);
    put(0x202, b"HdrS\x0F\x02");
    put(0x211, &[1]);
    put(0x236, &[1]);
    file
}
