//! The multiboot information (Multiboot Specification 0.6.96, section 3.3).

use super::host_area::{Fields, HostArea, c_string};
use super::layout::PlacedModule;
use super::{HIGH_RAM_BASE, ImageError, LOW_RAM_END, memory_map};

/// Bytes of the structure, up to and without the fields of video.
const INFO_LEN: usize = 88;
const MODULE_LEN: usize = 16;
/// Bytes of a range of the memory map, its size field included, which does not count itself.
const RANGE_LEN: usize = 24;
const SIZE_FIELD: usize = 4;
/// mem_lower and mem_upper, the command line, modules, memory map, name of the loader.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const LOADER: &str = "Partita";

/// Builds the information for a partition with `memory` bytes in `area`. Returns its guest-physical address. What it
/// points to lies below 4 GiB, as all memory of a partition.
pub(super) fn place(
    area: &mut HostArea,
    memory: u64,
    cmdline: &str,
    modules: &[PlacedModule<'_>],
) -> Result<u32, ImageError> {
    let map = memory_map(memory);
    let mut ranges = Fields::zeroed(map.len() * RANGE_LEN);
    for (index, (start, len, kind)) in map.into_iter().enumerate() {
        let at = index * RANGE_LEN;
        ranges.put_u32(at, (RANGE_LEN - SIZE_FIELD) as u32);
        ranges.put_u64(at + 4, start).put_u64(at + 12, len).put_u32(at + 20, kind as u32);
    }
    let mut list = Fields::zeroed(modules.len() * MODULE_LEN);
    for (index, module) in modules.iter().enumerate() {
        let at = index * MODULE_LEN;
        let text = area.place(1, &c_string(module.cmdline))? as u32;
        let (start, end) = (module.start as u32, (module.start + module.len) as u32);
        list.put_u32(at, start).put_u32(at + 4, end).put_u32(at + 8, text);
    }
    let mut info = Fields::zeroed(INFO_LEN);
    info.put_u32(0, FLAGS)
        .put_u32(4, (LOW_RAM_END >> 10) as u32)
        .put_u32(8, (memory.saturating_sub(HIGH_RAM_BASE) >> 10) as u32)
        .put_u32(16, area.place(1, &c_string(cmdline))? as u32)
        .put_u32(20, modules.len() as u32)
        .put_u32(24, area.place(4, list.bytes())? as u32)
        .put_u32(44, ranges.bytes().len() as u32)
        .put_u32(48, area.place(4, ranges.bytes())? as u32)
        .put_u32(64, area.place(1, &c_string(LOADER))? as u32);
    Ok(area.place(8, info.bytes())? as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_abi::guest::HOST_BASE;

    #[test]
    fn every_pointer_leads_to_what_it_names() {
        let mut area = HostArea::new();
        let modules = [(0x3F_0000, 77, "first"), (0x3E_0000, 5, "")];
        let modules = modules.map(|(start, len, cmdline)| PlacedModule { start, len, cmdline });
        let info = place(&mut area, 4 << 20, "a=b", &modules).unwrap();
        let bytes = area.into_segment().data;
        let at = |address: u32| (u64::from(address) - HOST_BASE) as usize;
        let word = |address: u32| u32::from_le_bytes(bytes[at(address)..][..4].try_into().unwrap());
        let long = |address: u32| u64::from(word(address)) | u64::from(word(address + 4)) << 32;
        let text = |address: u32| bytes[at(address)..].split(|byte| *byte == 0).next().unwrap();
        assert_eq!([word(info), word(info + 4), word(info + 8)], [0x24D, 640, 3 << 10]);
        assert_eq!(text(word(info + 16)), b"a=b");
        assert_eq!(text(word(info + 64)), b"Partita");
        assert_eq!(word(info + 20), 2);
        let list = word(info + 24);
        assert_eq!([word(list), word(list + 4)], [0x3F_0000, 0x3F_004D]);
        assert_eq!([word(list + 16), word(list + 20)], [0x3E_0000, 0x3E_0005]);
        assert_eq!((text(word(list + 8)), text(word(list + 24))), (&b"first"[..], &b""[..]));
        let (map, len) = (word(info + 48), word(info + 44));
        assert_eq!(len, 72);
        let range =
            |n: u32| (word(map + n * 24), long(map + n * 24 + 4), long(map + n * 24 + 12), word(map + n * 24 + 20));
        assert_eq!(range(0), (20, 0, 0xA_0000, 1));
        assert_eq!(range(1), (20, 0xE_0000, 0x2_0000, 2));
        assert_eq!(range(2), (20, 0x10_0000, 3 << 20, 1));
    }
}
