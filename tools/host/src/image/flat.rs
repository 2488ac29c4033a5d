//! Flat images: bytes that are loaded at an address and entered, in the mode that the system file says.

use super::host_area::HostArea;
use super::layout::{check_entry, is_ram};
use super::{ImageError, LinkedImage, Segment, Target, long_mode, start_info};
use partita_core::system::Entry;

/// In which mode a flat image is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlatMode {
    /// Real mode.
    Real,
    /// 32-bit protected mode without paging, EBX = PVH start info.
    Protected,
    /// Long mode, the low 4 GiB mapped to themselves, RDI = PVH start info.
    Long,
}

/// Where a flat image goes. Guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatPlace {
    /// Of its first byte.
    pub at: u64,
    /// Of its first instruction.
    pub entry: u64,
    /// In which mode.
    pub mode: FlatMode,
}

/// Links the flat image `bytes`.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link(bytes: &[u8], place: &FlatPlace, target: &Target<'_>) -> Result<LinkedImage, ImageError> {
    let FlatPlace { at, entry, mode } = *place;
    if bytes.is_empty() {
        return Err(ImageError::EmptyImage);
    }
    let (len, memory) = (bytes.len() as u64, target.memory);
    if !is_ram(at, len, memory) {
        return Err(ImageError::FlatOutside { start: at, end: at.saturating_add(len), memory });
    }
    let mut segments = vec![Segment::of_bytes(at, bytes.to_vec())];
    check_entry(entry, &segments)?;
    let mut area = HostArea::new();
    let start_info = |area: &mut HostArea| start_info::place(area, memory, target.cmdline, &[]);
    let entry = match mode {
        FlatMode::Real => {
            if !target.cmdline.is_empty() {
                return Err(ImageError::CmdlineInRealMode);
            }
            let (segment, offset) = real_address(entry).ok_or(ImageError::RealModeTooHigh { entry })?;
            return Ok(LinkedImage { segments, entry: Entry::Real { segment, offset } });
        }
        FlatMode::Protected => {
            let start_info = start_info(&mut area)? as u32;
            // All memory of a partition lies below 4 GiB.
            let entry = u32::try_from(entry).map_err(|_| ImageError::EntryOutside { entry })?;
            Entry::Pvh { entry, start_info }
        }
        FlatMode::Long => {
            let start_info = start_info(&mut area)?;
            let long_mode::LongMode { page_tables, gdt } = long_mode::place(&mut area)?;
            Entry::Long { entry, start_info, page_tables, gdt }
        }
    };
    segments.push(area.into_segment());
    Ok(LinkedImage { segments, entry })
}

/// CS and IP of an address below 1 MiB: CS is a multiple of 0x1000, so that a boot sector starts at 0:0x7C00.
fn real_address(entry: u64) -> Option<(u16, u16)> {
    let entry = u32::try_from(entry).ok().filter(|entry| *entry < 1 << 20)?;
    Some(((entry >> 16 << 12) as u16, entry as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_abi::guest;
    use proptest::prelude::*;

    const TARGET: Target<'static> = Target { memory: 4 << 20, cmdline: "", modules: &[] };

    #[test]
    fn each_mode_has_its_entry() {
        let link = |at, entry, mode| link(&[0xF4; 32], &FlatPlace { at, entry, mode }, &TARGET).unwrap();
        let boot_sector = link(0x7C00, 0x7C00, FlatMode::Real);
        assert_eq!(boot_sector.entry, Entry::Real { segment: 0, offset: 0x7C00 });
        assert_eq!(boot_sector.segments, [Segment::of_bytes(0x7C00, vec![0xF4; 32])]);
        assert_eq!(link(0x1_FFF8, 0x2_0004, FlatMode::Real).entry, Entry::Real { segment: 0x2000, offset: 4 });
        let protected = link(0x10_0000, 0x10_0002, FlatMode::Protected);
        assert_eq!(protected.entry, Entry::Pvh { entry: 0x10_0002, start_info: guest::HOST_BASE as u32 });
        let Entry::Long { entry: 0x1010, start_info: guest::HOST_BASE, page_tables, gdt } =
            link(0x1000, 0x1010, FlatMode::Long).entry
        else {
            panic!("long mode")
        };
        assert!(page_tables % 4096 == 0 && gdt > page_tables && gdt < guest::HOST_BASE + guest::HOST_LEN);
    }

    #[test]
    fn unfit_images_are_refused_by_name() {
        let place = |at, entry, mode| FlatPlace { at, entry, mode };
        let refused = |bytes: &[u8], place, cmdline| link(bytes, &place, &Target { cmdline, ..TARGET }).unwrap_err();
        let at_1 = place(0x10_0000, 0x10_0000, FlatMode::Long);
        assert_eq!(refused(&[], at_1, ""), ImageError::EmptyImage);
        let outside = |start, end| ImageError::FlatOutside { start, end, memory: 4 << 20 };
        assert_eq!(refused(&[0; 2], place(0x9_FFFF, 0x9_FFFF, FlatMode::Real), ""), outside(0x9_FFFF, 0xA_0001));
        assert_eq!(refused(&[0; 2], place(4 << 20, 0, FlatMode::Long), ""), outside(4 << 20, (4 << 20) + 2));
        assert_eq!(refused(&[0; 2], place(u64::MAX, 0, FlatMode::Long), ""), outside(u64::MAX, u64::MAX));
        let error = refused(&[0; 2], place(0x10_0000, 0x10_0002, FlatMode::Protected), "");
        assert_eq!(error, ImageError::EntryOutside { entry: 0x10_0002 });
        assert_eq!(
            refused(&[0; 2], place(0x10_0000, 0x10_0000, FlatMode::Real), ""),
            ImageError::RealModeTooHigh { entry: 0x10_0000 }
        );
        assert_eq!(refused(&[0; 2], place(0x7C00, 0x7C00, FlatMode::Real), "a=b"), ImageError::CmdlineInRealMode);
    }

    proptest! {
        #[test]
        fn a_real_address_leads_back(entry in 0u64..1 << 21) {
            match real_address(entry) {
                Some((segment, offset)) => {
                    prop_assert_eq!(u64::from(segment) * 16 + u64::from(offset), entry);
                    prop_assert!(segment % 0x1000 == 0);
                }
                None => prop_assert!(entry >= 1 << 20),
            }
        }
    }
}
