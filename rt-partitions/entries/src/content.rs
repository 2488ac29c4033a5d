//! What the loaders of all formats tell: memory, command line, modules, the RSDP.

use crate::claims::Claims;
use crate::state::{has, text_at};

/// End of conventional memory, and start of the memory above the first MiB.
const LOW_END: u64 = 0xA_0000;
const HIGH_BASE: u64 = 0x10_0000;
/// A range of memory that can be used, by PVH, multiboot and E820.
const RAM: u64 = 1;
/// Where Partita's own area begins.
const FIRMWARE: u64 = 0xE_0000;

/// The modules that the tests load.
const MODULES: [(&[u8], &str); 2] =
    [(include_bytes!("../modules/first.txt"), "first"), (include_bytes!("../modules/second.txt"), "the second module")];

/// What the command line tells of the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Bytes of the partition's memory.
    pub(crate) memory: u64,
    /// How many modules there are.
    pub(crate) modules: u64,
}

/// Claims about the command line at `address`: it is complete.
pub(crate) fn command_line(claims: &mut Claims, address: u64) -> Expected {
    let text = text_at(address);
    claims.holds("the command line is there to its end", text.ends_with(" end"));
    let number = |key: &str| {
        let value = text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or(0_u64)
    };
    Expected { memory: number("memory") << 20, modules: number("modules") }
}

/// Claims about a map of memory: start, length and kind of each range.
pub(crate) fn memory_map(claims: &mut Claims, expected: Expected, ranges: impl Iterator<Item = (u64, u64, u64)>) {
    let (mut low, mut high, mut hole_is_ram, mut firmware_is_told) = (0, 0, false, false);
    for (start, len, kind) in ranges {
        let end = start.saturating_add(len);
        match start {
            0 if kind == RAM => low = end,
            HIGH_BASE if kind == RAM => high = end,
            _ => {}
        }
        hole_is_ram |= kind == RAM && start < HIGH_BASE && end > LOW_END;
        firmware_is_told |= kind != RAM && start == FIRMWARE && end == HIGH_BASE;
    }
    claims.holds("there is memory from 0 on", low > 0);
    claims.holds("there is memory from 1 MiB on", high > HIGH_BASE);
    claims.holds("there is no memory between them", !hole_is_ram);
    claims.equal_here("the low memory has 640 KiB", low, LOW_END);
    claims.equal_here("the high memory goes to the end", high, expected.memory);
    claims.equal_here("Partita's area is told of", firmware_is_told.into(), 1);
}

/// Claims about a module: where it is, its bytes, and where its command line is.
pub(crate) fn module(claims: &mut Claims, number: u64, start: u64, len: u64, cmdline: u64) {
    let Some((bytes, text)) = MODULES.get(number as usize) else { return };
    bytes_of(claims, start, len, bytes);
    // Elsewhere it is the name of the file.
    claims.equal_here("its command line is there", u64::from(text_at(cmdline) == *text), 1);
}

/// Claims about an initial RAM disk, which is the first module's file.
pub(crate) fn initrd(claims: &mut Claims, start: u64, len: u64) {
    let [(bytes, _), ..] = MODULES;
    bytes_of(claims, start, len, bytes);
}

fn bytes_of(claims: &mut Claims, start: u64, len: u64, bytes: &[u8]) {
    claims.equal("the module has its length", len, bytes.len() as u64);
    claims.holds("its bytes are there", has(start, bytes));
    claims.equal("it begins on a page boundary", start % 4096, 0);
}

/// Claims about the RSDP: it is where the format says, or where a scan of the BIOS area finds it.
pub(crate) fn rsdp(claims: &mut Claims, told: Option<u64>) {
    let scanned = (FIRMWARE..HIGH_BASE).step_by(16).find(|address| has(*address, b"RSD PTR "));
    claims.holds("the RSDP is found by a scan", scanned.is_some());
    if let Some(told) = told {
        claims.equal("the RSDP is where the loader says", told, scanned.unwrap_or(0));
    }
}
