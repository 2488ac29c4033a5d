//! Programs of a few instructions in the place of payload and hypervisor.

/// Where the code is loaded, and entered in 32-bit mode.
pub(crate) const LOAD: u32 = 0x10_0000;
/// A loop for ever.
pub(crate) const HANG: [u8; 2] = [0xEB, 0xFE];
/// An invalid instruction, without a handler.
pub(crate) const TRIPLE_FAULT: [u8; 2] = [0x0F, 0x0B];

/// An ELF64 file with one segment, for PVH and multiboot2.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let mut code = code.to_vec();
    code.resize(code.len().next_multiple_of(8), 0);
    // Magic, architecture, length, checksum; the tag that ends the list.
    let header = [0xE852_50D6u32, 0, 24, 0u32.wrapping_sub(0xE852_50D6 + 24), 0, 8];
    code.extend(header.iter().flat_map(|word| word.to_le_bytes()));
    let mut elf = b"\x7FELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    for word in [0x003E_0002u32, 1] {
        elf.extend(word.to_le_bytes());
    }
    for word in [u64::from(LOAD), 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [0u16, 0, 64, 56, 2, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut header = |kind: u32, offset: u64, address: u64, len: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(5u32.to_le_bytes());
        for word in [offset, address, address, len, len, 4] {
            elf.extend(word.to_le_bytes());
        }
    };
    header(4, 176, 0, 24);
    header(1, 200, LOAD.into(), code.len() as u64);
    // The descriptor has 8 bytes: QEMU reads as many from a 64-bit file.
    for word in [4u32, 8, 18, u32::from_le_bytes(*b"Xen\0"), LOAD, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(&code);
    elf
}
