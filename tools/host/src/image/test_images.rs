//! Hand-made images for tests.

/// One PT_LOAD segment.
pub(super) struct TestSegment {
    pub(super) paddr: u64,
    pub(super) memsz: u64,
    pub(super) data: Vec<u8>,
}

/// A small PVH ELF64 file: header, program headers, note, segments.
pub(super) struct TestElf {
    pub(super) class: u8,
    pub(super) machine: u16,
    pub(super) note: Option<u32>,
    pub(super) segments: Vec<TestSegment>,
}

impl Default for TestElf {
    fn default() -> Self {
        let segment = TestSegment { paddr: 0x20_0000, memsz: 0x2000, data: vec![0x90; 16] };
        Self { class: 2, machine: 62, note: Some(0x20_0004), segments: vec![segment] }
    }
}

impl TestElf {
    pub(super) fn build(&self) -> Vec<u8> {
        let mut note = Vec::new();
        if let Some(entry) = self.note {
            for word in [4u32, 4, 18] {
                note.extend(word.to_le_bytes());
            }
            note.extend(b"Xen\0");
            note.extend(entry.to_le_bytes());
        }
        let count = self.segments.len() + 1;
        let mut elf = vec![0x7F, b'E', b'L', b'F', self.class, 1, 1];
        elf.resize(16, 0);
        elf.extend(2u16.to_le_bytes());
        elf.extend(self.machine.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(0u32.to_le_bytes());
        for half in [64u16, 56, count as u16, 64, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * count as u64;
        let mut header = |kind: u32, paddr: u64, filesz: u64, memsz: u64| {
            elf.extend(kind.to_le_bytes());
            elf.extend(4u32.to_le_bytes());
            for word in [offset, paddr, paddr, filesz, memsz, 4] {
                elf.extend(word.to_le_bytes());
            }
            offset += filesz;
        };
        header(4, 0, note.len() as u64, note.len() as u64);
        for segment in &self.segments {
            header(1, segment.paddr, segment.data.len() as u64, segment.memsz);
        }
        elf.extend(note);
        self.segments.iter().for_each(|segment| elf.extend(&segment.data));
        elf
    }
}

/// A synthetic bzImage with a payload of `payload_len` bytes.
pub(super) fn bzimage(payload_len: usize) -> Vec<u8> {
    let mut image = vec![0u8; 2 * 512];
    image[0x1F1] = 1;
    let syssize = payload_len.div_ceil(16) as u32;
    image[0x1F4..0x1F8].copy_from_slice(&syssize.to_le_bytes());
    image[0x1FE..0x200].copy_from_slice(&0xAA55u16.to_le_bytes());
    image[0x200..0x202].copy_from_slice(&[0xEB, 0x6A]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020Fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x22C..0x230].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
    image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    image[0x234] = 1;
    image[0x236..0x238].copy_from_slice(&1u16.to_le_bytes());
    image[0x238..0x23C].copy_from_slice(&2047u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x100_0000u32.to_le_bytes());
    image.extend(std::iter::repeat_n(0xCC, payload_len));
    image
}
