//! The common part of the entries: from 32-bit protected mode without paging to 64-bit Rust, on the first stack and the
//! first page tables.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::boot_info::{BootInfo, BootInfoError};

/// Bytes of the block that the binary provides as `boot_block`: its stack and what it keeps above.
pub const BOOT_BLOCK_LEN: usize = 64 * 1024;
/// Where in the block the first stack begins, downwards.
pub const BOOT_STACK_TOP: usize = BOOT_BLOCK_LEN - 4096 - 256;
/// End of what the first page tables map.
pub const MAPPED_END: u64 = 4 << 30;

/// The time of the entry, low half first.
static ENTERED_AT: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// When the loader jumped to this program: the time-stamp counter at its fifth instruction or so.
pub fn entered_at() -> u64 {
    let [low, high] = ENTERED_AT.each_ref().map(|half| u64::from(half.load(Ordering::Relaxed)));
    high << 32 | low
}

// An entry comes to `boot_entry` with EBP = its Rust function, which gets ESI and EBX as its arguments. The first page
// tables map the low 4 GiB one to one with 2 MiB pages, everything allowed. `boot_gdt_pointer` stays in use for as long as
// the program runs.
global_asm!(
    r#"
    .section .text.boot, "ax", @progbits
    .code32
    .global boot_entry
boot_entry:
    rdtsc
    mov dword ptr [{entered_at}], eax
    mov dword ptr [{entered_at} + 4], edx
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
    mov esp, offset boot_block + {stack_top}
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
    mov edi, esi
    mov esi, ebx
    mov eax, ebp
    xor ebp, ebp
    call rax
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
    stack_top = const BOOT_STACK_TOP,
    entered_at = sym ENTERED_AT,
);

unsafe extern "Rust" {
    /// The program, in the binary: on the first stack, with the first page tables, interrupts off.
    fn bare_main(boot: Result<BootInfo, BootInfoError>) -> !;
}

/// Tells the story from here on.
///
/// # Safety
/// Once, on the boot CPU, on the first stack and with the first page tables.
pub(crate) unsafe fn enter(boot: Result<BootInfo, BootInfoError>) -> ! {
    // SAFETY: the binary defines this function with exactly this signature; by the contract above.
    unsafe { bare_main(boot) }
}
