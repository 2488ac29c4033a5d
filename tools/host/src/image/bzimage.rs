//! Linux kernels: bzImage files, started by the 64-bit boot protocol
//! (Linux, Documentation/arch/x86/boot.rst).

use super::boot_params::{SETUP_HEADER, SETUP_HEADER_END_MAX, boot_params};
use super::host_area::{HostArea, c_string};
use super::layout::place_initrd;
use super::{HIGH_RAM_BASE, ImageError, LinkedImage, PAGE, Segment, long_mode};
use partita_core::system::Entry;

const SECTOR: usize = 512;
const BOOT_FLAG: u16 = 0xAA55;
/// First protocol version with `xloadflags`.
const VERSION_MIN: u16 = 0x020C;
/// `loadflags`: the protected-mode code is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;
/// Where the 64-bit entry point lies in the protected-mode code.
const ENTRY_64_OFFSET: u64 = 0x200;
/// Setup sectors where the header says 0.
const SETUP_SECTS_DEFAULT: usize = 4;

/// What the setup header says, as far as loading needs it. Addresses and lengths in bytes.
struct SetupHeader<'a> {
    /// The header itself, from offset [`SETUP_HEADER`].
    bytes: &'a [u8],
    /// The protected-mode code.
    code: &'a [u8],
    initrd_addr_max: u32,
    alignment: u64,
    relocatable: bool,
    cmdline_size: usize,
    pref_address: u64,
    init_size: u64,
}

/// Links the bzImage `kernel` for a partition with `memory` bytes.
///
/// # Errors
/// What makes it unfit, by name.
pub fn link(kernel: &[u8], memory: u64, cmdline: &str, initrd: Option<&[u8]>) -> Result<LinkedImage, ImageError> {
    let header = SetupHeader::parse(kernel)?;
    if cmdline.len() > header.cmdline_size {
        return Err(ImageError::CmdlineTooLong { len: cmdline.len(), max: header.cmdline_size });
    }
    let load = header.load_address(memory)?;
    let kernel_end = load.saturating_add(header.footprint());
    let limit = memory.min(u64::from(header.initrd_addr_max).saturating_add(1));
    let initrd = initrd.map(|initrd| place_initrd(initrd, kernel_end, limit)).transpose()?;
    // Both lie below 3 GiB, as all memory of a partition.
    let ramdisk = initrd.as_ref().map(|segment| (segment.gpa as u32, segment.mem_len as u32));

    let mut area = HostArea::new();
    let long_mode::LongMode { page_tables, gdt } = long_mode::place(&mut area)?;
    let cmdline = area.place(16, &c_string(cmdline))?;
    let boot_params = area.place(PAGE as usize, boot_params(header.bytes, memory, cmdline as u32, ramdisk).bytes())?;

    let mut segments = vec![Segment::of_bytes(load, header.code.to_vec()), area.into_segment()];
    segments.extend(initrd);
    let entry = Entry::Linux64 { entry: load + ENTRY_64_OFFSET, boot_params, page_tables, gdt };
    Ok(LinkedImage { segments, entry })
}

impl<'a> SetupHeader<'a> {
    fn parse(kernel: &'a [u8]) -> Result<Self, ImageError> {
        let short = ImageError::NotBzImage("the file is too short");
        let bytes = |at: usize, len: usize| kernel.get(at..at + len).ok_or(short.clone());
        let byte = |at| bytes(at, 1).map(|b| b.first().copied().unwrap_or(0));
        let u16_at = |at| bytes(at, 2).map(|b| b.try_into().map_or(0, u16::from_le_bytes));
        let u32_at = |at| bytes(at, 4).map(|b| b.try_into().map_or(0, u32::from_le_bytes));
        let u64_at = |at| bytes(at, 8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));

        if u16_at(0x1FE)? != BOOT_FLAG {
            return Err(ImageError::NotBzImage("no boot flag 0xAA55 at offset 0x1fe"));
        }
        if bytes(0x202, 4)? != b"HdrS" {
            return Err(ImageError::NotBzImage("no setup header \"HdrS\" at offset 0x202"));
        }
        let version = u16_at(0x206)?;
        if version < VERSION_MIN {
            let [minor, major] = version.to_le_bytes();
            return Err(ImageError::OldBootProtocol { major, minor });
        }
        if byte(0x211)? & LOADED_HIGH == 0 {
            return Err(ImageError::NotBzImage("a zImage, which is loaded below 1 MiB"));
        }
        if u16_at(0x236)? & XLF_KERNEL_64 == 0 {
            return Err(ImageError::NoLinux64Entry);
        }
        // The jump instruction at 0x200 ends the header: its one-byte offset counts from 0x202.
        let end = (0x202 + usize::from(byte(0x201)?)).min(SETUP_HEADER_END_MAX);
        let header = kernel.get(SETUP_HEADER..end).ok_or(short.clone())?;
        if end < 0x264 {
            return Err(ImageError::NotBzImage("its setup header is shorter than its version says"));
        }
        let sectors = match usize::from(byte(SETUP_HEADER)?) {
            0 => SETUP_SECTS_DEFAULT,
            sectors => sectors,
        };
        let code_at = (sectors + 1) * SECTOR;
        let code_len = u32_at(0x1F4)? as usize * 16;
        let cut = ImageError::NotBzImage("the file is cut off: its header says that it is longer");
        // The last paragraph may be shorter than its 16 bytes.
        let code = kernel.get(code_at..).ok_or(cut.clone())?;
        if code.len() + 15 < code_len || code.len() as u64 <= ENTRY_64_OFFSET {
            return Err(cut);
        }
        let code = code.get(..code_len).unwrap_or(code);
        Ok(Self {
            bytes: header,
            code,
            initrd_addr_max: u32_at(0x22C)?,
            alignment: u64::from(u32_at(0x230)?),
            relocatable: byte(0x234)? != 0,
            cmdline_size: u32_at(0x238)? as usize,
            pref_address: u64_at(0x258)?,
            init_size: u64::from(u32_at(0x260)?),
        })
    }

    /// Bytes of memory from the load address on that the kernel uses before it has read the memory map.
    fn footprint(&self) -> u64 {
        self.init_size.max(self.code.len() as u64)
    }

    /// The preferred address; where memory ends too early for it, and the kernel lets itself be moved, the lowest
    /// address it can be at.
    fn load_address(&self, memory: u64) -> Result<u64, ImageError> {
        let end_at = |address: u64| address.saturating_add(self.footprint());
        let preferred = self.pref_address.max(HIGH_RAM_BASE);
        if end_at(preferred) <= memory {
            return Ok(preferred);
        }
        let lowest = HIGH_RAM_BASE.next_multiple_of(self.alignment.clamp(PAGE, 1 << 30));
        if self.relocatable && end_at(lowest) <= memory {
            return Ok(lowest);
        }
        let address = if self.relocatable { lowest.min(preferred) } else { preferred };
        Err(ImageError::KernelTooLarge { needed: end_at(address), memory })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_images::bzimage;
    use super::*;
    use partita_abi::guest;
    use proptest::prelude::*;

    const MEMORY: u64 = 64 << 20;

    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Result<LinkedImage, ImageError> {
        let mut image = bzimage(4096);
        change(&mut image);
        link(&image, MEMORY, "quiet", None)
    }

    #[test]
    fn a_kernel_is_placed_at_its_preferred_address() {
        let linked = link(&bzimage(5000), MEMORY, "quiet", Some(&[1; 4097])).unwrap();
        let [code, area, initrd] = &linked.segments[..] else { panic!("three segments") };
        assert_eq!((code.gpa, code.data.len()), (0x100_0000, 5000));
        assert_eq!(area.gpa, guest::HOST_BASE);
        assert!(area.end() <= guest::HOST_BASE + guest::HOST_LEN);
        assert_eq!((initrd.gpa, initrd.mem_len), (MEMORY - 8192, 4097));
        let Entry::Linux64 { entry, boot_params, page_tables, gdt } = linked.entry else { panic!("Linux") };
        assert_eq!((entry, page_tables), (0x100_0200, guest::HOST_BASE));
        let at = |address: u64, len: usize| &area.data[(address - guest::HOST_BASE) as usize..][..len];
        assert_eq!(at(gdt + 0x10, 8), 0x00AF_9B00_0000_FFFFu64.to_le_bytes());
        assert_eq!(at(boot_params + 0x202, 4), b"HdrS");
        let cmdline = u32::from_le_bytes(at(boot_params + 0x228, 4).try_into().unwrap());
        assert_eq!(at(u64::from(cmdline), 6), b"quiet\0");
        assert_eq!(at(boot_params + 0x218, 4), (initrd.gpa as u32).to_le_bytes());
        assert_eq!(boot_params % 4096, 0);
    }

    #[test]
    fn a_relocatable_kernel_moves_into_little_memory() {
        let linked = link(&bzimage(4096), 20 << 20, "", None).unwrap();
        assert_eq!(linked.segments[0].gpa, 0x20_0000);
        assert_eq!(
            link(&bzimage(4096), 16 << 20, "", None),
            Err(ImageError::KernelTooLarge { needed: 18 << 20, memory: 16 << 20 })
        );
        let mut fixed = bzimage(4096);
        fixed[0x234] = 0;
        let error = link(&fixed, 20 << 20, "", None).unwrap_err();
        assert_eq!(error, ImageError::KernelTooLarge { needed: 32 << 20, memory: 20 << 20 });
        assert!(error.to_string().contains("up to 32 MiB") && error.to_string().contains("raise its memory"));
    }

    #[test]
    fn unfit_kernels_are_refused_by_name() {
        assert!(matches!(link(b"text", MEMORY, "", None), Err(ImageError::NotBzImage(_))));
        assert!(matches!(with(|k| k[0x1FE] = 0), Err(ImageError::NotBzImage(_))));
        assert!(matches!(with(|k| k[0x202] = 0), Err(ImageError::NotBzImage(_))));
        assert!(matches!(with(|k| k[0x211] = 0), Err(ImageError::NotBzImage(_))));
        assert!(matches!(with(|k| k[0x201] = 0x10), Err(ImageError::NotBzImage(_))));
        assert!(matches!(with(|k| k.truncate(3000)), Err(ImageError::NotBzImage(_))));
        assert_eq!(with(|k| k[0x236] = 0), Err(ImageError::NoLinux64Entry));
        assert_eq!(with(|k| k[0x206] = 5), Err(ImageError::OldBootProtocol { major: 2, minor: 5 }));
        assert_eq!(with(|k| k[0x238..0x23C].fill(0)), Err(ImageError::CmdlineTooLong { len: 5, max: 0 }));
        assert!(matches!(
            link(&bzimage(4096), MEMORY, "", Some(&vec![0; 40 << 20])),
            Err(ImageError::InitrdTooLarge { .. })
        ));
    }

    #[test]
    fn an_initrd_stays_below_the_kernels_limit() {
        let mut kernel = bzimage(4096);
        kernel[0x22C..0x230].copy_from_slice(&0x2FF_FFFFu32.to_le_bytes());
        let linked = link(&kernel, MEMORY, "", Some(&[1; 10])).unwrap();
        assert_eq!(linked.segments[2].gpa, 0x2FF_F000);
    }

    proptest! {
        #[test]
        fn damaged_kernels_never_panic_nor_leave_memory(
            flips in proptest::collection::vec((0x1F1usize..0x270, any::<u8>()), 1..6),
        ) {
            let mut image = bzimage(4096);
            for (at, value) in flips {
                image[at] = value;
            }
            if let Ok(linked) = link(&image, MEMORY, "", Some(&[0; 100])) {
                prop_assert!(linked.segments.iter().all(|segment| segment.end() <= MEMORY));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(link(&bytes, MEMORY, "", None).is_err());
        }
    }
}
