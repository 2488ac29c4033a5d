//! Hand-made images for tests.

/// One PT_LOAD segment.
pub(crate) struct TestSegment {
    pub(crate) paddr: u64,
    pub(crate) memsz: u64,
    pub(crate) data: Vec<u8>,
}

/// A multiboot header without flags.
pub(crate) const MULTIBOOT: &[u8] = &[0x02, 0xB0, 0xAD, 0x1B, 0, 0, 0, 0, 0xFE, 0x4F, 0x52, 0xE4];

/// A small ELF file: header, program headers, note, segments.
pub(crate) struct TestElf {
    /// 1 for 32 bits, 2 for 64.
    pub(crate) class: u8,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    /// The PVH entry point.
    pub(crate) note: Option<u32>,
    /// Whether it names an interpreter.
    pub(crate) interpreter: bool,
    pub(crate) segments: Vec<TestSegment>,
}

impl Default for TestElf {
    fn default() -> Self {
        let segment = TestSegment { paddr: 0x20_0000, memsz: 0x2000, data: vec![0x90; 16] };
        let (note, segments) = (Some(0x20_0004), vec![segment]);
        Self { class: 2, machine: 62, entry: 0x20_0008, note, interpreter: false, segments }
    }
}

impl TestElf {
    pub(crate) fn build(&self) -> Vec<u8> {
        let is_narrow = self.class == 1 && self.machine == 3;
        let (header_len, program_header_len) = if is_narrow { (52u16, 32u16) } else { (64, 56) };
        let word = |value: u64| value.to_le_bytes()[..if is_narrow { 4 } else { 8 }].to_vec();
        let mut note = Vec::new();
        if let Some(entry) = self.note {
            for word in [4u32, 4, 18] {
                note.extend(word.to_le_bytes());
            }
            note.extend(b"Xen\0");
            note.extend(entry.to_le_bytes());
        }
        let count = self.segments.len() + 1 + usize::from(self.interpreter);
        let mut elf = vec![0x7F, b'E', b'L', b'F', self.class, 1, 1];
        elf.resize(16, 0);
        elf.extend(2u16.to_le_bytes());
        elf.extend(self.machine.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        for value in [self.entry, header_len.into(), 0] {
            elf.extend(word(value));
        }
        elf.extend(0u32.to_le_bytes());
        for half in [header_len, program_header_len, count as u16, 0, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        let mut offset = u64::from(header_len) + u64::from(program_header_len) * count as u64;
        let mut header = |kind: u32, paddr: u64, filesz: u64, memsz: u64| {
            elf.extend(kind.to_le_bytes());
            let places = [offset, paddr, paddr, filesz, memsz];
            if is_narrow {
                elf.extend(places.into_iter().chain([4, 4]).flat_map(word));
            } else {
                elf.extend(4u32.to_le_bytes());
                elf.extend(places.into_iter().chain([4]).flat_map(word));
            }
            offset += filesz;
        };
        header(4, 0, note.len() as u64, note.len() as u64);
        for segment in &self.segments {
            header(1, segment.paddr, segment.data.len() as u64, segment.memsz);
        }
        if self.interpreter {
            header(3, 0, 0, 0);
        }
        elf.extend(note);
        self.segments.iter().for_each(|segment| elf.extend(&segment.data));
        elf
    }
}

/// A synthetic bzImage with a payload of `payload_len` bytes.
pub(crate) fn bzimage(payload_len: usize) -> Vec<u8> {
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
