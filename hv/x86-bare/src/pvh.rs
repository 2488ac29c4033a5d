//! Entry by PVH: the loader finds this ELF64 by its Xen note and jumps to `pvh_entry` in 32-bit protected mode,
//! without paging, with EBX = physical address of the start info (Xen, docs/misc/pvh.pandoc).

use core::arch::global_asm;
use core::ffi::CStr;

use crate::boot_info::{BootInfo, BootInfoError, MemoryRange, Module};

/// Bytes of the block that the binary provides as `boot_block`: its stack and what it keeps above.
pub const BOOT_BLOCK_LEN: usize = 64 * 1024;
/// Where in the block the first stack begins, downwards.
pub const BOOT_STACK_TOP: usize = BOOT_BLOCK_LEN - 4096 - 256;

// The first page tables map the low 4 GiB one to one with 2 MiB pages, everything allowed. `boot_gdt_pointer` stays in
// use for as long as the program runs.
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
    mov esp, offset boot_block + {stack_top}
    mov esi, ebx            // start info, kept for the 64-bit side

    mov eax, offset boot_pdpt
    or eax, 3
    mov dword ptr [boot_pml4], eax
    mov eax, offset boot_pd
    or eax, 3
    mov edi, offset boot_pdpt
    mov ecx, 4
2:  mov dword ptr [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, 0x83           // present, writable, 2 MiB
    mov edi, offset boot_pd
    mov ecx, 2048
3:  mov dword ptr [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 3b

    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, 0x20           // CR4.PAE
    mov cr4, eax
    mov ecx, 0xC0000080     // EFER
    xor edx, edx
    mov eax, 0x900          // LME, NXE
    wrmsr
    mov eax, 0x80010011     // CR0.PG, WP, ET, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    push 0x08
    mov eax, offset boot_long_mode
    push eax
    retf

    .code64
boot_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset boot_block + {stack_top}
    xor ebp, ebp
    mov edi, esi
    call {start}
    ud2
    .previous

    .section .rodata.boot, "a", @progbits
    .align 8
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF    // 0x08: 64-bit code
    .quad 0x00CF93000000FFFF    // 0x10: data
boot_gdt_end:
    .global boot_gdt_pointer
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
    .previous

    .section .bss.boot, "aw", @nobits
    .align 4096
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4 * 4096
    .previous
    "#,
    start = sym start,
    stack_top = const BOOT_STACK_TOP,
);

unsafe extern "Rust" {
    /// The program, in the binary: on the first stack, with the first page tables, interrupts off.
    fn bare_main(boot: Result<BootInfo, BootInfoError>) -> !;
}

/// First Rust code: reads what the loader left, and tells the story from there on.
unsafe extern "C" fn start(start_info: u32) -> ! {
    // SAFETY: the assembly above passes what the loader gave it, and the low 4 GiB are mapped one to one.
    let boot = unsafe { read_start_info(start_info) };
    // SAFETY: the binary defines this function with exactly this signature.
    unsafe { bare_main(boot) }
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
/// End of what the first page tables map.
const MAPPED_END: u64 = 4 << 30;

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
