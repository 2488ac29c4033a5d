//! Entry by PVH: the loader finds this ELF64 by its Xen note and jumps to `pvh_entry` in 32-bit protected mode,
//! without paging, with EBX = physical address of the start info (Xen, docs/misc/pvh.pandoc).

use core::arch::global_asm;
use core::ffi::CStr;

use crate::boot_info::{BootInfo, BootInfoError, MemoryRange, Module};
use crate::entry::{self, MAPPED_END};

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .align 4
    .long 4                 // name size
    .long 4                 // descriptor size
    .long 18                // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry
    .previous

    .section .text.boot, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    mov esi, ebx            // start info
    mov ebp, offset {start}
    jmp boot_entry
    .code64
    .previous
    "#,
    start = sym start,
);

/// First Rust code after this entry.
unsafe extern "C" fn start(start_info: u32) -> ! {
    // SAFETY: the assembly above passes what the loader gave it, and the low 4 GiB are mapped one to one; this is the boot
    // CPU, once.
    unsafe { entry::enter(read_start_info(start_info)) }
}

/// `hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist: u64,
    cmdline: u64,
    rsdp: u64,
    memmap: u64,
    memmap_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ModlistEntry {
    paddr: u64,
    size: u64,
    cmdline: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemmapEntry {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const START_MAGIC: u32 = 0x336E_C578;
const MEMORY_KIND_RAM: u32 = 1;

/// Reads the loader's tables into a [`BootInfo`].
///
/// # Safety
/// `start_info` must be what the PVH loader passed, and all of its tables be mapped one to one.
unsafe fn read_start_info(start_info: u32) -> Result<BootInfo, BootInfoError> {
    // SAFETY: by the contract above.
    let info = unsafe { (start_info as usize as *const StartInfo).read_unaligned() };
    if info.magic != START_MAGIC || info.version < 1 {
        return Err(BootInfoError::NotPvh { magic: info.magic, version: info.version });
    }
    let within_reach = |table, address: u64| {
        if address < MAPPED_END { Ok(address as usize) } else { Err(BootInfoError::OutOfReach { table, address }) }
    };
    let mut boot = BootInfo {
        memory: heapless::Vec::new(),
        reserved: heapless::Vec::new(),
        module: None,
        rsdp: within_reach("RSDP", info.rsdp)? as u64,
        cmdline: "",
    };
    let memmap = within_reach("memory map", info.memmap)? as *const MemmapEntry;
    for index in 0..info.memmap_entries as usize {
        // SAFETY: the loader's table has `memmap_entries` entries; more than fit the lists below end the loop.
        let entry = unsafe { memmap.add(index).read_unaligned() };
        let list = if entry.kind == MEMORY_KIND_RAM { &mut boot.memory } else { &mut boot.reserved };
        let range = MemoryRange { start: entry.addr, len: entry.size };
        list.push(range).map_err(|_| BootInfoError::TooManyMemoryRanges)?;
    }
    if info.nr_modules > 1 {
        return Err(BootInfoError::ModuleCount { found: info.nr_modules });
    }
    if info.nr_modules == 1 {
        let modlist = within_reach("module list", info.modlist)?;
        // SAFETY: the loader's list has one entry.
        let module = unsafe { (modlist as *const ModlistEntry).read_unaligned() };
        boot.module = Some(Module { start: module.paddr, len: module.size });
    }
    if info.cmdline != 0 {
        let text = within_reach("command line", info.cmdline)?;
        // SAFETY: the loader's command line is a C string that nothing writes to.
        let text = unsafe { CStr::from_ptr(text as *const core::ffi::c_char) };
        boot.cmdline = text.to_str().unwrap_or("");
    }
    Ok(boot)
}
