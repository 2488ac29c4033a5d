//! PVH ELF64 images: Partita's own payloads, and any kernel with a PVH note.

use super::host_area::HostArea;
use super::{HIGH_RAM_BASE, ImageError, LinkedImage, Segment, is_ram, place_initrd, start_info};
use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, NoteType, PT_LOAD, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use partita_core::system::Entry;

/// Type of the note that holds the PVH entry point (Xen, xen/include/public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
const ENDIAN: LittleEndian = LittleEndian;

type Header = FileHeader64<LittleEndian>;

/// Links the PVH ELF64 file `elf` for a partition with `memory` bytes. `initrd` becomes its only module.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link(elf: &[u8], memory: u64, cmdline: &str, initrd: Option<&[u8]>) -> Result<LinkedImage, ImageError> {
    let header = Header::parse(elf).map_err(|error| ImageError::NotElf(error.to_string()))?;
    if !header.is_little_endian() || header.e_machine(ENDIAN) != EM_X86_64 {
        return Err(ImageError::NotElf(format!("machine {}", header.e_machine(ENDIAN).0)));
    }
    let headers = header.program_headers(ENDIAN, elf).map_err(|error| ImageError::DamagedElf(error.to_string()))?;
    let mut segments = load_segments(headers, elf, memory)?;
    let entry = pvh_entry(headers, elf)?;
    let Some(holder) = segments.iter().find(|s| (s.gpa..s.end()).contains(&entry)) else {
        return Err(ImageError::EntryOutside { entry });
    };
    let entry = u32::try_from(entry).map_err(|_| ImageError::EntryOutside { entry: holder.gpa })?;

    let floor = segments.iter().map(Segment::end).max().unwrap_or(0).max(HIGH_RAM_BASE);
    let module = initrd.map(|initrd| place_initrd(initrd, floor, memory)).transpose()?;
    let mut area = HostArea::new();
    let place = module.as_ref().map(|module| (module.gpa, module.mem_len));
    let start_info = start_info::place(&mut area, memory, cmdline, place)?;
    // The host area lies below 1 MiB.
    let start_info = start_info as u32;
    segments.push(area.into_segment());
    segments.extend(module);
    Ok(LinkedImage { segments, entry: Entry::Pvh { entry, start_info } })
}

fn load_segments(
    headers: &[ProgramHeader64<LittleEndian>],
    elf: &[u8],
    memory: u64,
) -> Result<Vec<Segment>, ImageError> {
    let mut segments = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        if header.p_type(ENDIAN) != PT_LOAD || header.p_memsz(ENDIAN) == 0 {
            continue;
        }
        let damaged = |why: &str| ImageError::DamagedElf(format!("segment {index} {why}"));
        let (gpa, mem_len) = (header.p_paddr(ENDIAN), header.p_memsz(ENDIAN));
        let data = header.data(ENDIAN, elf).map_err(|()| damaged("lies outside the file"))?;
        if data.len() as u64 > mem_len {
            return Err(damaged("is larger in the file than in memory"));
        }
        if !is_ram(gpa, mem_len, memory) {
            return Err(ImageError::SegmentOutside { index, start: gpa, end: gpa.saturating_add(mem_len), memory });
        }
        segments.push(Segment { gpa, mem_len, data: data.to_vec() });
    }
    segments.sort_by_key(|segment| segment.gpa);
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.end() > second.gpa
        {
            return Err(ImageError::SegmentsOverlap { first: first.gpa, second: second.gpa });
        }
    }
    if segments.is_empty() { Err(ImageError::NothingToLoad) } else { Ok(segments) }
}

fn pvh_entry(headers: &[ProgramHeader64<LittleEndian>], elf: &[u8]) -> Result<u64, ImageError> {
    let damaged = |error: object::Error| ImageError::DamagedElf(error.to_string());
    for header in headers.iter().filter(|header| header.p_type(ENDIAN) == PT_NOTE) {
        let Some(mut notes) = header.notes(ENDIAN, elf).map_err(damaged)? else { continue };
        while let Some(note) = notes.next().map_err(damaged)? {
            if note.name() != b"Xen" || note.n_type(ENDIAN) != XEN_ELFNOTE_PHYS32_ENTRY {
                continue;
            }
            let desc = note.desc();
            if let Ok(entry) = <[u8; 8]>::try_from(desc) {
                return Ok(u64::from_le_bytes(entry));
            }
            if let Ok(entry) = <[u8; 4]>::try_from(desc) {
                return Ok(u64::from(u32::from_le_bytes(entry)));
            }
            return Err(ImageError::DamagedElf(format!("its PVH note has {} bytes, not 4 or 8", desc.len())));
        }
    }
    Err(ImageError::NoPvhNote)
}

#[cfg(test)]
mod tests {
    use super::super::test_images::{TestElf, TestSegment};
    use super::*;
    use partita_abi::guest;
    use proptest::prelude::*;

    const MEMORY: u64 = 4 << 20;

    fn link_test(elf: &TestElf) -> Result<LinkedImage, ImageError> {
        link(&elf.build(), MEMORY, "x=1", None)
    }

    #[test]
    fn segments_and_entry_are_taken_over() {
        let linked = link_test(&TestElf::default()).unwrap();
        let [text, boot] = &linked.segments[..] else { panic!("{:?}", linked.segments) };
        assert_eq!((boot.gpa, text.gpa, text.mem_len), (guest::HOST_BASE, 0x20_0000, 0x2000));
        assert_eq!(text.data, [0x90; 16]);
        assert_eq!(linked.entry, Entry::Pvh { entry: 0x20_0004, start_info: guest::HOST_BASE as u32 });
    }

    #[test]
    fn an_initrd_becomes_a_module_at_the_top() {
        let linked = link(&TestElf::default().build(), MEMORY, "", Some(&[7; 5000])).unwrap();
        let module = linked.segments.last().unwrap();
        assert_eq!((module.gpa, module.mem_len), (MEMORY - 8192, 5000));
        let error = link(&TestElf::default().build(), MEMORY, "", Some(&vec![0; 2 << 20])).unwrap_err();
        assert_eq!(error, ImageError::InitrdTooLarge { len: 2 << 20, room: MEMORY - 0x20_2000 });
    }

    #[test]
    fn unfit_files_are_refused_by_name() {
        let with = |change: fn(&mut TestElf)| {
            let mut elf = TestElf::default();
            change(&mut elf);
            link_test(&elf).unwrap_err()
        };
        assert!(matches!(link(b"#!/bin/sh\n", MEMORY, "", None), Err(ImageError::NotElf(_))));
        assert!(matches!(with(|elf| elf.machine = 243), ImageError::NotElf(_)));
        assert!(matches!(with(|elf| elf.class = 1), ImageError::NotElf(_)));
        assert_eq!(with(|elf| elf.note = None), ImageError::NoPvhNote);
        assert_eq!(with(|elf| elf.segments.clear()), ImageError::NothingToLoad);
        assert_eq!(with(|elf| elf.note = Some(0x30_0000)), ImageError::EntryOutside { entry: 0x30_0000 });
        let outside = |start, end| ImageError::SegmentOutside { index: 1, start, end, memory: MEMORY };
        assert_eq!(with(|elf| elf.segments[0].paddr = MEMORY), outside(MEMORY, MEMORY + 0x2000));
        assert_eq!(with(|elf| elf.segments[0].paddr = 0xE_1000), outside(0xE_1000, 0xE_3000));
        assert_eq!(with(|elf| elf.segments[0].paddr = u64::MAX), outside(u64::MAX, u64::MAX));
        let second = TestSegment { paddr: 0x20_1000, memsz: 0x1000, data: vec![1] };
        let mut elf = TestElf::default();
        elf.segments.push(second);
        assert_eq!(link_test(&elf), Err(ImageError::SegmentsOverlap { first: 0x20_0000, second: 0x20_1000 }));
        assert!(matches!(with(|elf| elf.segments[0].memsz = 8), ImageError::DamagedElf(_)));
        assert!(link_test(&TestElf { note: None, ..TestElf::default() }).unwrap_err().to_string().contains("link it"));
    }

    #[test]
    fn a_cut_file_is_refused() {
        let bytes = TestElf::default().build();
        for len in 0..bytes.len() {
            assert!(link(&bytes[..len], MEMORY, "", None).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_refused() {
        let long = "x".repeat(guest::HOST_LEN as usize);
        assert!(matches!(link(&TestElf::default().build(), MEMORY, &long, None), Err(ImageError::HostAreaFull { .. })));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic_nor_leave_memory(flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
            let mut bytes = TestElf::default().build();
            for (at, value) in flips {
                let at = at as usize % bytes.len();
                bytes[at] = value;
            }
            if let Ok(linked) = link(&bytes, MEMORY, "", Some(&[0; 100])) {
                for segment in &linked.segments {
                    prop_assert!(segment.end() <= MEMORY && segment.data.len() as u64 <= segment.mem_len);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(link(&bytes, MEMORY, "", None).is_err());
        }
    }
}
