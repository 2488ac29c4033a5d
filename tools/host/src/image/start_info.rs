//! The PVH start info (Xen, xen/include/public/arch-x86/hvm/start_info.h, version 1).

use super::ImageError;
use super::host_area::{Fields, HostArea, c_string};
use super::memory_map;
use partita_abi::guest;

const MAGIC: u32 = 0x336E_C578;
const VERSION: u32 = 1;
const START_INFO_LEN: usize = 56;
const MODULE_LEN: usize = 32;
const MEMMAP_LEN: usize = 24;

/// Builds the start info for a partition with `memory` bytes in `area`; `module` is address and length of its only
/// module. Returns the guest-physical address.
pub(super) fn place(
    area: &mut HostArea,
    memory: u64,
    cmdline: &str,
    module: Option<(u64, u64)>,
) -> Result<u64, ImageError> {
    let map = memory_map(memory);
    let mut entries = Fields::zeroed(map.len() * MEMMAP_LEN);
    for (index, (start, len, kind)) in map.into_iter().enumerate() {
        let at = index * MEMMAP_LEN;
        entries.put_u64(at, start).put_u64(at + 8, len).put_u32(at + 16, kind as u32);
    }
    // The start info goes first: its address is the start of the area, easy to find in a dump.
    let start_info_len = START_INFO_LEN;
    let memmap_at = area.next(8) + start_info_len as u64;
    let modules_at = memmap_at + entries.bytes().len() as u64;
    let mut modules = Fields::zeroed(if module.is_some() { MODULE_LEN } else { 0 });
    if let Some((start, len)) = module {
        modules.put_u64(0, start).put_u64(8, len);
    }
    let cmdline_at = modules_at + modules.bytes().len() as u64;

    let mut info = Fields::zeroed(start_info_len);
    info.put_u32(0, MAGIC)
        .put_u32(4, VERSION)
        .put_u32(12, u32::from(module.is_some()))
        .put_u64(16, if module.is_some() { modules_at } else { 0 })
        .put_u64(24, cmdline_at)
        .put_u64(32, guest::RSDP)
        .put_u64(40, memmap_at)
        .put_u32(48, map.len() as u32);
    let at = area.place(8, info.bytes())?;
    area.place(8, entries.bytes())?;
    area.place(8, modules.bytes())?;
    area.place(1, &c_string(cmdline))?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn every_pointer_leads_to_what_it_names() {
        let mut area = HostArea::new();
        let at = place(&mut area, 64 << 20, "a=b", Some((0x3F0_0000, 77))).unwrap();
        assert_eq!(at, guest::HOST_BASE);
        let bytes = area.into_segment().data;
        let offset = |address: u64| (address - guest::HOST_BASE) as usize;
        assert_eq!(bytes[..4], 0x336E_C578u32.to_le_bytes());
        assert_eq!(bytes[4..16], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let module = offset(u64_at(&bytes, 16));
        assert_eq!((u64_at(&bytes, module), u64_at(&bytes, module + 8)), (0x3F0_0000, 77));
        assert_eq!(&bytes[offset(u64_at(&bytes, 24))..], b"a=b\0");
        assert_eq!(u64_at(&bytes, 32), guest::RSDP);
        let map = offset(u64_at(&bytes, 40));
        assert_eq!(bytes[48..56], [3, 0, 0, 0, 0, 0, 0, 0]);
        let entry =
            |n: usize| (u64_at(&bytes, map + n * 24), u64_at(&bytes, map + n * 24 + 8), bytes[map + n * 24 + 16]);
        assert_eq!(entry(0), (0, 0xA_0000, 1));
        assert_eq!(entry(1), (0xE_0000, 0x2_0000, 2));
        assert_eq!(entry(2), (0x10_0000, (64 << 20) - 0x10_0000, 1));
    }
}
