//! What Linux's 64-bit boot protocol asks for besides kernel, page tables and GDT: the boot parameters ("zero page")
//! (Linux, Documentation/arch/x86/{boot,zero-page}.rst, arch/x86/include/uapi/asm/bootparam.h).

use super::host_area::Fields;
use super::memory_map;
use partita_abi::guest;

/// Bytes of `boot_params`.
const BOOT_PARAMS_LEN: usize = 4096;
/// Where the setup header lies, in the file and in `boot_params` alike.
pub(super) const SETUP_HEADER: usize = 0x1F1;
/// Where the setup header cannot reach: the EDD table follows it in `boot_params`.
pub(super) const SETUP_HEADER_END_MAX: usize = 0x290;

const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1E8;
const VID_MODE: usize = 0x1FA;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const CMD_LINE_PTR: usize = 0x228;
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY_LEN: usize = 20;
/// A loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xFF;
/// The video mode "normal": the kernel does not ask.
const VID_MODE_NORMAL: u16 = 0xFFFF;

/// The boot parameters: `setup_header` as in the file (from offset [`SETUP_HEADER`]), filled in.
pub(super) fn boot_params(setup_header: &[u8], memory: u64, cmdline: u32, initrd: Option<(u32, u32)>) -> Fields {
    let mut params = Fields::zeroed(BOOT_PARAMS_LEN);
    params.put(SETUP_HEADER, setup_header);
    params.put_u64(ACPI_RSDP_ADDR, guest::RSDP);
    params.put(VID_MODE, &VID_MODE_NORMAL.to_le_bytes());
    params.put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    params.put_u32(CMD_LINE_PTR, cmdline);
    let (start, len) = initrd.unwrap_or((0, 0));
    params.put_u32(RAMDISK_IMAGE, start).put_u32(RAMDISK_SIZE, len);
    let map = memory_map(memory);
    params.put(E820_ENTRIES, &[map.len() as u8]);
    for (index, (start, len, kind)) in map.into_iter().enumerate() {
        let at = E820_TABLE + index * E820_ENTRY_LEN;
        params.put_u64(at, start).put_u64(at + 8, len).put_u32(at + 16, kind as u32);
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u64_at(fields: &Fields, at: usize) -> u64 {
        u64::from_le_bytes(fields.bytes()[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn boot_params_are_filled_in() {
        let header = vec![0x55; 0x7B];
        let params = boot_params(&header, 256 << 20, 0xE_4000, Some((0xF00_0000, 999)));
        assert_eq!(params.bytes().len(), 4096);
        assert_eq!(params.bytes()[0x1F1], 0x55);
        assert_eq!(params.bytes()[0x210], 0xFF);
        assert_eq!(u64_at(&params, 0x70), guest::RSDP);
        assert_eq!(u64_at(&params, 0x218), 999 << 32 | 0xF00_0000);
        assert_eq!(params.bytes()[0x1E8], 3);
        assert_eq!(u64_at(&params, 0x2D0 + 40), 0x10_0000);
        assert_eq!(u64_at(&params, 0x2D0 + 48), (256 << 20) - 0x10_0000);
        assert_eq!(params.bytes()[0x2D0 + 20 + 16], 2);
    }
}
