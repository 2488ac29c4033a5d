//! The PVH start info (Xen, xen/include/public/arch-x86/hvm/start_info.h, version 1).

use super::ImageError;
use super::host_area::{Fields, HostArea, c_string};
use super::layout::PlacedModule;
use super::memory_map;
use partita_abi::guest;

const MAGIC: u32 = 0x336E_C578;
const VERSION: u32 = 1;
const START_INFO_LEN: usize = 56;
const MODULE_LEN: usize = 32;
const MEMMAP_LEN: usize = 24;

/// Builds the start info for a partition with `memory` bytes in `area`. Returns its guest-physical address.
pub(super) fn place(
    area: &mut HostArea,
    memory: u64,
    cmdline: &str,
    modules: &[PlacedModule<'_>],
) -> Result<u64, ImageError> {
    let map = memory_map(memory);
    let mut entries = Fields::zeroed(map.len() * MEMMAP_LEN);
    for (index, (start, len, kind)) in map.into_iter().enumerate() {
        let at = index * MEMMAP_LEN;
        entries.put_u64(at, start).put_u64(at + 8, len).put_u32(at + 16, kind as u32);
    }
    // The start info goes first: its address is the start of the area, easy to find in a dump. What it points to follows.
    let memmap_at = area.next(8) + START_INFO_LEN as u64;
    let modules_at = memmap_at + entries.bytes().len() as u64;
    let mut list = Fields::zeroed(modules.len() * MODULE_LEN);
    let mut texts = c_string(cmdline);
    let cmdline_at = modules_at + list.bytes().len() as u64;
    for (index, module) in modules.iter().enumerate() {
        let at = index * MODULE_LEN;
        list.put_u64(at, module.start).put_u64(at + 8, module.len).put_u64(at + 16, cmdline_at + texts.len() as u64);
        texts.extend(c_string(module.cmdline));
    }

    let mut info = Fields::zeroed(START_INFO_LEN);
    info.put_u32(0, MAGIC)
        .put_u32(4, VERSION)
        .put_u32(12, modules.len() as u32)
        .put_u64(16, if modules.is_empty() { 0 } else { modules_at })
        .put_u64(24, cmdline_at)
        .put_u64(32, guest::RSDP)
        .put_u64(40, memmap_at)
        .put_u32(48, map.len() as u32);
    let at = area.place(8, info.bytes())?;
    area.place(8, entries.bytes())?;
    area.place(8, list.bytes())?;
    area.place(1, &texts)?;
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
        let modules = [(0x3F0_0000, 77, "first"), (0x3E0_0000, 5, "")].map(|(start, len, cmdline)| PlacedModule {
            start,
            len,
            cmdline,
        });
        let at = place(&mut area, 64 << 20, "a=b", &modules).unwrap();
        assert_eq!(at, guest::HOST_BASE);
        let bytes = area.into_segment().data;
        let offset = |address: u64| (address - guest::HOST_BASE) as usize;
        assert_eq!(bytes[..4], 0x336E_C578u32.to_le_bytes());
        assert_eq!(bytes[4..16], [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        let list = offset(u64_at(&bytes, 16));
        for (index, module) in modules.iter().enumerate() {
            let at = list + index * MODULE_LEN;
            assert_eq!((u64_at(&bytes, at), u64_at(&bytes, at + 8)), (module.start, module.len));
            let text = &bytes[offset(u64_at(&bytes, at + 16))..];
            assert!(text.starts_with(&c_string(module.cmdline)));
        }
        assert!(bytes[offset(u64_at(&bytes, 24))..].starts_with(b"a=b\0"));
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
