//! Multiboot images (Multiboot Specification 0.6.96): ELF files, or anything whose header says where it is loaded.

use super::elf::{self, Elf};
use super::host_area::HostArea;
use super::layout::{check_entry, is_ram, place_loads, place_modules};
use super::multiboot_header::{self, Addresses};
use super::{ImageError, LinkedImage, Segment, Target, multiboot_info};
use partita_core::system::Entry;

/// Links the multiboot image `image`.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link(image: &[u8], target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    let (mut segments, entry) = match multiboot_header::parse(image)? {
        Some(addresses) => (vec![by_addresses(image, &addresses, target.memory)?], addresses.entry.into()),
        None if image.starts_with(elf::MAGIC) => {
            let file = Elf::parse(image)?;
            (place_loads(&file.loads, target.memory)?, file.physical_entry()?)
        }
        None => return Err(ImageError::MultibootWithoutAddresses),
    };
    check_entry(entry, &segments)?;
    let entry = u32::try_from(entry).map_err(|_| ImageError::EntryOutside { entry })?;
    let modules = place_modules(target.modules, target.memory, &mut segments)?;
    let mut area = HostArea::new();
    let info = multiboot_info::place(&mut area, target.memory, target.cmdline, &modules)?;
    segments.push(area.into_segment());
    Ok(LinkedImage { segments, entry: Entry::Multiboot { entry, info } })
}

fn by_addresses(image: &[u8], addresses: &Addresses, memory: u64) -> Result<Segment, ImageError> {
    let end = addresses.offset_end.unwrap_or(image.len());
    let outside = ImageError::MultibootAddresses("they lie outside the file");
    let data = image.get(addresses.offset..end).ok_or(outside)?.to_vec();
    let (gpa, len) = (u64::from(addresses.load), data.len() as u64);
    let mem_len = match addresses.bss_end.map(|end| u64::from(end).checked_sub(gpa)) {
        None => len,
        Some(Some(mem_len)) if mem_len >= len => mem_len,
        Some(_) => return Err(ImageError::MultibootAddresses("bss_end_addr is below the end of what is loaded")),
    };
    if !is_ram(gpa, mem_len, memory) {
        return Err(ImageError::FlatOutside { start: gpa, end: gpa + mem_len, memory });
    }
    Ok(Segment { gpa, mem_len, data })
}
