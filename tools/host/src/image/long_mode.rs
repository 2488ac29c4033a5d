//! What a guest needs that starts in long mode: first page tables and a GDT.

use super::host_area::{Fields, HostArea};
use super::{ImageError, PAGE};

/// Bytes of a page table.
const TABLE_LEN: usize = 4096;
/// GiB that the first page tables map.
const MAPPED_GIB: usize = 4;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
/// Code at 0x10 is flat 64-bit, data at 0x18 flat; both are marked accessed, so that loading them does not write.
const CODE_64: (usize, u64) = (0x10, 0x00AF_9B00_0000_FFFF);
const DATA: (usize, u64) = (0x18, 0x00CF_9300_0000_FFFF);

/// Guest-physical addresses of what [`place`] made.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongMode {
    /// The PML4.
    pub(super) page_tables: u64,
    /// The GDT: 0x10 is code, 0x18 is data.
    pub(super) gdt: u64,
}

/// Puts page tables that map the first 4 GiB to themselves, and a GDT, into `area`.
pub(super) fn place(area: &mut HostArea) -> Result<LongMode, ImageError> {
    let page = PAGE as usize;
    let page_tables = area.next(page);
    area.place(page, identity_page_tables(page_tables).bytes())?;
    let gdt = area.place(page, gdt().bytes())?;
    Ok(LongMode { page_tables, gdt })
}

/// Page tables at guest-physical `base` that map the first 4 GiB to themselves with pages of 2 MiB: one PML4, one
/// PDPT, four page directories.
fn identity_page_tables(base: u64) -> Fields {
    let table = |n: usize| base + (n * TABLE_LEN) as u64;
    let mut tables = Fields::zeroed((2 + MAPPED_GIB) * TABLE_LEN);
    tables.put_u64(0, table(1) | PRESENT_WRITABLE);
    for gib in 0..MAPPED_GIB {
        tables.put_u64(TABLE_LEN + gib * 8, table(2 + gib) | PRESENT_WRITABLE);
        for entry in 0..512 {
            let address = ((gib * 512 + entry) as u64) << 21;
            tables.put_u64((2 + gib) * TABLE_LEN + entry * 8, address | LARGE | PRESENT_WRITABLE);
        }
    }
    tables
}

fn gdt() -> Fields {
    let mut gdt = Fields::zeroed(4 * 8);
    for (at, descriptor) in [CODE_64, DATA] {
        gdt.put_u64(at, descriptor);
    }
    gdt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tables_map_four_gib_to_themselves() {
        let u64_at = |fields: &Fields, at: usize| u64::from_le_bytes(fields.bytes()[at..at + 8].try_into().unwrap());
        let base = 0xE_6000;
        let tables = identity_page_tables(base);
        assert_eq!(tables.bytes().len(), 24 << 10);
        let follow = |entry: u64| ((entry & !0xFFF) - base) as usize;
        for address in [0u64, 0x20_0000, 0x1234_5678, 0xFFFF_FFFF] {
            let pml4 = u64_at(&tables, (address >> 39) as usize * 8);
            let pdpt = u64_at(&tables, follow(pml4) + (address >> 30 & 511) as usize * 8);
            let pd = u64_at(&tables, follow(pdpt) + (address >> 21 & 511) as usize * 8);
            assert_eq!(pd, address >> 21 << 21 | 0x83, "{address:#x}");
        }
    }
}
