//! What each format's loader leaves, and where.

use crate::claims::Claims;
use crate::content::{command_line, initrd, memory_map, module, rsdp};
use crate::state::{has, text_at, u8_at, u16_at, u32_at, u64_at};

/// PVH's start info (Xen, xen/include/public/arch-x86/hvm/start_info.h), version 1.
pub(crate) fn start_info(claims: &mut Claims, at: u64) {
    const MAGIC: u64 = 0x336E_C578;
    claims.equal("the start info has its magic", u32_at(at), MAGIC);
    claims.equal("the start info has version 1", u32_at(at + 4), 1);
    claims.equal("its flags are 0", u32_at(at + 8), 0);
    let expected = command_line(claims, u64_at(at + 24));
    rsdp(claims, Some(u64_at(at + 32)));
    let (map, ranges) = (u64_at(at + 40), u32_at(at + 48));
    let range = |n| {
        let at = map + n * 24;
        (u64_at(at), u64_at(at + 8), u32_at(at + 16))
    };
    memory_map(claims, expected, (0..ranges).map(range));
    let (list, modules) = (u64_at(at + 16), u32_at(at + 12));
    claims.equal("all modules are there", modules, expected.modules);
    for number in 0..modules {
        let at = list + number * 32;
        module(claims, number, u64_at(at), u64_at(at + 8), u64_at(at + 16));
    }
}

/// Multiboot's information (Multiboot Specification 0.6.96, section 3.3).
pub(crate) fn multiboot(claims: &mut Claims, at: u64) {
    /// Memory, command line, modules, memory map, name of the loader.
    const FLAGS: u64 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
    let flags = u32_at(at);
    claims.equal("the information has what was asked for", flags & FLAGS, FLAGS);
    claims.equal_here("it has nothing else", flags, FLAGS);
    let expected = command_line(claims, u32_at(at + 16));
    rsdp(claims, None);
    let lower = u32_at(at + 4);
    claims.holds("mem_lower is at most 640 KiB", (1..=640).contains(&lower));
    claims.equal_here("it is 640 KiB", lower, 640);
    let upper = expected.memory.saturating_sub(1 << 20) >> 10;
    claims.equal_here("mem_upper is the rest", u32_at(at + 8), upper);
    let (map, len) = (u32_at(at + 48), u32_at(at + 44));
    let mut next = map;
    let ranges = core::iter::from_fn(|| {
        let at = next;
        if at >= map + len {
            return None;
        }
        // The size of a range does not count itself.
        next = at + 4 + u32_at(at).max(20);
        Some((u64_at(at + 4), u64_at(at + 12), u32_at(at + 20)))
    });
    memory_map(claims, expected, ranges);
    let (list, modules) = (u32_at(at + 24), u32_at(at + 20));
    claims.equal("all modules are there", modules, expected.modules);
    for number in 0..modules {
        let at = list + number * 16;
        let (start, end) = (u32_at(at), u32_at(at + 4));
        module(claims, number, start, end.wrapping_sub(start), u32_at(at + 8));
    }
    let loader = text_at(u32_at(at + 64));
    claims.holds("the loader has a name", !loader.is_empty());
    claims.equal_here("it is Partita", u64::from(loader == "Partita"), 1);
}

/// Linux's boot parameters (Linux, Documentation/arch/x86/zero-page.rst).
pub(crate) fn boot_params(claims: &mut Claims, at: u64) {
    const LOADER_UNDEFINED: u8 = 0xFF;
    claims.equal("the boot parameters begin a page", at % 4096, 0);
    claims.equal("the setup header has its boot flag", u16_at(at + 0x1FE), 0xAA55);
    claims.holds("the setup header has its magic", has(at + 0x202, b"HdrS"));
    claims.equal("the loader has no number", u8_at(at + 0x210).into(), LOADER_UNDEFINED.into());
    let expected = command_line(claims, u32_at(at + 0x228));
    rsdp(claims, Some(u64_at(at + 0x70)));
    let range = |n| {
        let at = at + 0x2D0 + n * 20;
        (u64_at(at), u64_at(at + 8), u32_at(at + 16))
    };
    memory_map(claims, expected, (0..u64::from(u8_at(at + 0x1E8))).map(range));
    initrd(claims, u32_at(at + 0x218), u32_at(at + 0x21C));
}

/// Nobody tells a guest in real mode anything.
pub(crate) fn nothing(claims: &mut Claims) {
    rsdp(claims, None);
}
