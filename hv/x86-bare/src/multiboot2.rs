//! Entry by multiboot2: the loader finds this ELF64 by its header, and jumps to the file's own entry point in 32-bit
//! protected mode, without paging, with EBX = physical address of the boot information (Multiboot2 Specification 2.0,
//! section 3.3). GRUB does so on UEFI machines, too, where it has left the boot services before.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use partita_multiboot2::{BootInformation, HEAD_LEN, MAGIC, RSDP_LEN_MAX, information_len};

use crate::boot_info::{BootInfo, BootInfoError, CMDLINE_MAX, MemoryRange, Module};
use crate::entry::{self, MAPPED_END};

// The header (section 3.1) asks for nothing but the memory map. EAX and EBX go to `start`.
global_asm!(
    r#"
    .section .multiboot2, "a", @progbits
    .align 8
multiboot2_header:
    .long {header_magic}
    .long 0                 // architecture: protected mode of i386
    .long multiboot2_header_end - multiboot2_header
    .long -({header_magic} + (multiboot2_header_end - multiboot2_header))
    .short 1                // information request
    .short 0
    .long 12
    .long 6                 // memory map
    .align 8
    .short 0                // end of the tags
    .short 0
    .long 8
multiboot2_header_end:
    .previous

    .section .text.boot, "ax", @progbits
    .code32
    .global multiboot2_entry
multiboot2_entry:
    cli
    cld
    mov esi, ebx            // boot information
    mov ebx, eax            // magic
    mov ebp, offset {start}
    jmp boot_entry
    .code64
    .previous
    "#,
    header_magic = const 0xE852_50D6_u32,
    start = sym start,
);

/// First Rust code after this entry.
unsafe extern "C" fn start(information: u32, magic: u32) -> ! {
    // SAFETY: the assembly above passes what the loader gave it, and the low 4 GiB are mapped one to one; this is the boot
    // CPU, once.
    unsafe { entry::enter(read_information(information, magic)) }
}

/// What is kept of the loader's memory, which is anywhere in RAM that is free.
struct Kept<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: written once, before there is anything else.
unsafe impl<const N: usize> Sync for Kept<N> {}

static CMDLINE: Kept<CMDLINE_MAX> = Kept(UnsafeCell::new([0; CMDLINE_MAX]));
static RSDP: Kept<RSDP_LEN_MAX> = Kept(UnsafeCell::new([0; RSDP_LEN_MAX]));

impl<const N: usize> Kept<N> {
    /// Copies `bytes` here; `None`, if they are too many.
    ///
    /// # Safety
    /// Once.
    unsafe fn keep(&'static self, bytes: &[u8]) -> Option<&'static [u8]> {
        // SAFETY: by the contract above nobody else has a reference.
        let place = unsafe { &mut *self.0.get() }.get_mut(..bytes.len())?;
        place.copy_from_slice(bytes);
        Some(place)
    }
}

/// Reads the loader's boot information into a [`BootInfo`], and keeps what that refers to.
///
/// # Safety
/// Once; the arguments must be what the multiboot2 loader passed in EBX and EAX, and the low 4 GiB be mapped one to one.
unsafe fn read_information(information: u32, magic: u32) -> Result<BootInfo, BootInfoError> {
    if magic != MAGIC {
        return Err(BootInfoError::NotMultiboot2 { magic });
    }
    let start = information as usize as *const u8;
    // SAFETY: by the contract above the loader's boot information begins there.
    let head = unsafe { start.cast::<[u8; HEAD_LEN]>().read() };
    let len = information_len(head)?;
    if u64::from(information) + len as u64 > MAPPED_END {
        return Err(BootInfoError::OutOfReach { table: "boot information", address: information.into() });
    }
    // SAFETY: so many bytes, the loader says, are there; they are mapped, and nobody writes to them while they are read.
    let bytes = unsafe { core::slice::from_raw_parts(start, len) };
    let read = BootInformation::read(bytes)?;
    let mut boot = BootInfo {
        memory: heapless::Vec::new(),
        reserved: heapless::Vec::new(),
        module: read.module.map(|module| Module { start: module.start.into(), len: module.len.into() }),
        rsdp: 0,
        cmdline: "",
    };
    for range in read.memory.ranges() {
        let list = if range.is_available { &mut boot.memory } else { &mut boot.reserved };
        let range = MemoryRange { start: range.start, len: range.len };
        list.push(range).map_err(|_| BootInfoError::TooManyMemoryRanges)?;
    }
    // SAFETY: once, by the contract above.
    let cmdline = unsafe { CMDLINE.keep(read.cmdline.as_bytes()) };
    let too_long = BootInfoError::CmdlineTooLong { len: read.cmdline.len() };
    // The copy of a text is a text.
    boot.cmdline = core::str::from_utf8(cmdline.ok_or(too_long)?).unwrap_or_default();
    // SAFETY: as above.
    if let Some(rsdp) = read.rsdp.and_then(|copy| unsafe { RSDP.keep(copy) }) {
        boot.rsdp = rsdp.as_ptr() as u64;
    }
    Ok(boot)
}
