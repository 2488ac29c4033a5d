//! PVH images (Xen, docs/misc/pvh.pandoc): Partita's own payloads, and any kernel with a PVH note.

use super::elf::Elf;
use super::host_area::HostArea;
use super::layout::{check_entry, place_loads, place_modules};
use super::{ImageError, LinkedImage, Target, start_info};
use partita_core::system::Entry;

/// Links the ELF file `elf`.
///
/// # Errors
/// What makes it unfit, by name.
pub(super) fn link(elf: &Elf<'_>, target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    let entry = elf.pvh_entry()?.ok_or(ImageError::NoPvhNote)?;
    let mut segments = place_loads(&elf.loads, target.memory)?;
    check_entry(entry, &segments)?;
    let entry = u32::try_from(entry).map_err(|_| ImageError::EntryOutside { entry })?;
    let modules = place_modules(target.modules, target.memory, &mut segments)?;
    let mut area = HostArea::new();
    // The host area lies below 1 MiB.
    let start_info = start_info::place(&mut area, target.memory, target.cmdline, &modules)? as u32;
    segments.push(area.into_segment());
    Ok(LinkedImage { segments, entry: Entry::Pvh { entry, start_info } })
}
