//! ELF files, of 32 and of 64 bits, as far as loading a kernel needs them.

use super::ImageError;
use object::LittleEndian;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, Machine, NoteType, PT_INTERP, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

/// Type of the note that holds the PVH entry point (Xen, xen/include/public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
const ENDIAN: LittleEndian = LittleEndian;
/// What an ELF file begins with.
pub(super) const MAGIC: &[u8] = b"\x7FELF";
/// Where the class stands in the file, and that of 32 bits.
const CLASS_AT: usize = 4;
const CLASS_32: u8 = 1;

/// How wide a file's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Elf32,
    Elf64,
}

/// A segment that is to be loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'d> {
    /// Its number among the program headers.
    pub(super) index: usize,
    /// Where its symbols think that it is.
    pub(super) vaddr: u64,
    /// Where it is loaded.
    pub(super) paddr: u64,
    /// Bytes in memory, not 0.
    pub(super) mem_len: u64,
    /// Its bytes.
    pub(super) data: &'d [u8],
}

/// An ELF file for x86.
#[derive(Debug)]
pub(super) struct Elf<'d> {
    pub(super) class: Class,
    /// What is to be loaded, in the file's order.
    pub(super) loads: Vec<Load<'d>>,
    /// The entry point, as the file says it.
    entry: u64,
    /// From the PVH note; damaged notes are no harm to who does not need them.
    pvh_entry: Result<Option<u64>, ImageError>,
}

impl<'d> Elf<'d> {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no ELF file for x86, is damaged, or is a program for an operating system.
    pub(super) fn parse(bytes: &'d [u8]) -> Result<Self, ImageError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ImageError::NotElf("it does not begin as one".into()));
        }
        if bytes.get(CLASS_AT) == Some(&CLASS_32) {
            Self::read::<FileHeader32<LittleEndian>>(bytes, Class::Elf32, EM_386)
        } else {
            Self::read::<FileHeader64<LittleEndian>>(bytes, Class::Elf64, EM_X86_64)
        }
    }

    fn read<H: FileHeader<Endian = LittleEndian>>(
        bytes: &'d [u8],
        class: Class,
        machine: Machine,
    ) -> Result<Self, ImageError> {
        let header = H::parse(bytes).map_err(|error| ImageError::NotElf(error.to_string()))?;
        let found = header.e_machine(ENDIAN);
        if !header.is_little_endian() || found != machine {
            return Err(ImageError::NotElf(format!("machine {}", found.0)));
        }
        let headers =
            header.program_headers(ENDIAN, bytes).map_err(|error| ImageError::DamagedElf(error.to_string()))?;
        let mut loads = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            match header.p_type(ENDIAN) {
                PT_INTERP => return Err(ImageError::NeedsInterpreter),
                PT_LOAD => {}
                _ => continue,
            }
            let mem_len = header.p_memsz(ENDIAN).into();
            if mem_len == 0 {
                continue;
            }
            let outside = || ImageError::DamagedElf(format!("segment {index} lies outside the file"));
            let data = header.data(ENDIAN, bytes).map_err(|()| outside())?;
            let (vaddr, paddr) = (header.p_vaddr(ENDIAN).into(), header.p_paddr(ENDIAN).into());
            loads.push(Load { index, vaddr, paddr, mem_len, data });
        }
        let entry = header.e_entry(ENDIAN).into();
        Ok(Self { class, loads, entry, pvh_entry: pvh_entry(headers, bytes) })
    }

    /// The entry point of the PVH note, a physical address, if there is one.
    ///
    /// # Errors
    /// The notes are damaged.
    pub(super) fn pvh_entry(&self) -> Result<Option<u64>, ImageError> {
        self.pvh_entry.clone()
    }

    /// The physical address of the file's entry point: the file says a virtual one.
    ///
    /// # Errors
    /// It is in no segment.
    pub(super) fn physical_entry(&self) -> Result<u64, ImageError> {
        let places = self.loads.iter().filter_map(|load| {
            let offset = self.entry.checked_sub(load.vaddr)?;
            if offset < load.mem_len { load.paddr.checked_add(offset) } else { None }
        });
        places.into_iter().next().ok_or(ImageError::EntryOutside { entry: self.entry })
    }
}

fn pvh_entry<P: ProgramHeader<Endian = LittleEndian>>(headers: &[P], bytes: &[u8]) -> Result<Option<u64>, ImageError> {
    let damaged = |error: object::Error| ImageError::DamagedElf(error.to_string());
    for header in headers.iter().filter(|header| header.p_type(ENDIAN) == PT_NOTE) {
        let Some(mut notes) = header.notes(ENDIAN, bytes).map_err(damaged)? else { continue };
        while let Some(note) = notes.next().map_err(damaged)? {
            if note.name() != b"Xen" || note.n_type(ENDIAN) != XEN_ELFNOTE_PHYS32_ENTRY {
                continue;
            }
            let desc = note.desc();
            if let Ok(entry) = <[u8; 8]>::try_from(desc) {
                return Ok(Some(u64::from_le_bytes(entry)));
            }
            if let Ok(entry) = <[u8; 4]>::try_from(desc) {
                return Ok(Some(u64::from(u32::from_le_bytes(entry))));
            }
            return Err(ImageError::DamagedElf(format!("its PVH note has {} bytes, not 4 or 8", desc.len())));
        }
    }
    Ok(None)
}
