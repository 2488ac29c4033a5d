//! ELF64 files without a boot protocol: started at their entry point in long mode, with PVH's start info for the rest.

use super::elf::{Class, Elf};
use super::host_area::HostArea;
use super::layout::{check_entry, place_loads, place_modules};
use super::{ImageError, LinkedImage, Target, long_mode, start_info};
use partita_core::system::Entry;

/// Links the ELF64 file `elf`.
///
/// # Errors
/// What makes it unfit, by name.
pub(super) fn link(elf: &Elf<'_>, target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    if elf.class != Class::Elf64 {
        return Err(ImageError::PlainElf32);
    }
    let mut segments = place_loads(&elf.loads, target.memory)?;
    let entry = elf.physical_entry()?;
    check_entry(entry, &segments)?;
    let modules = place_modules(target.modules, target.memory, &mut segments)?;
    let mut area = HostArea::new();
    let start_info = start_info::place(&mut area, target.memory, target.cmdline, &modules)?;
    let long_mode::LongMode { page_tables, gdt } = long_mode::place(&mut area)?;
    segments.push(area.into_segment());
    Ok(LinkedImage { segments, entry: Entry::Long { entry, start_info, page_tables, gdt } })
}
