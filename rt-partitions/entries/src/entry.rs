//! The entry points: each stores the complete state before it touches anything, and looks through the segments.
//!
//! Nothing is called and no stack is used before all general-purpose registers are stored. Then all go the way of
//! [`crate::down`].

use core::arch::global_asm;

use crate::{format, slots};

/// Where a flat image in real mode is loaded, as a boot sector is.
const LOW: usize = 0x7C00;
/// Offsets in the image, for real mode, which does not know its linked addresses.
pub(crate) const MARKER_AT: usize = 0x10;
const PROBE_AT: usize = 0x14;
const LOW_GDTR_AT: usize = 0x28;
const GDT_AT: usize = 0x30;
const TABLE_AT: usize = 0x50;
const INFO_AT: usize = 0x60;
const LINUX_AT: usize = 0x200;
const STATE_AT: usize = 0x400;
const STACK_TOP: usize = 0xE00;
const _: () = assert!(STATE_AT + slots::SLOTS * 8 <= 0x600);

global_asm!(
    r#"
    .section .note.entries, "a", @note
    .align 4
    .long 4                 // name size
    .long 4                 // descriptor size
    .long 18                // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_format_entry
    .previous

    .section .entries, "awx", @progbits
    .global image_base, entry_state, entry_info, entry_stack_top, entry_gdtr, multiboot_entry, plain_entry, real_entry, protected_entry, long_entry
image_base:
    .long 0x1BADB002        // multiboot header: page-aligned modules and a memory map are asked for
    .long 3
    .long -(0x1BADB002 + 3)
    .org {marker_at}
entry_marker:
    .long {marker}
    .org {probe_at}
entry_probe:
    .long 0
entry_gdtr:                 // of the image in its place
    .word 23
    .quad entry_gdt
    .org {low_gdtr_at}
    .word 23                // of the image below 1 MiB
    .long {low} + {gdt_at}
    .org {gdt_at}
entry_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    // 0x08: 32-bit code
    .quad 0x00CF93000000FFFF    // 0x10: data
    .org {table_at}
entry_table:                // for SGDT and SIDT
    .skip 16
    .org {info_at}
entry_info:
    .skip 56
    .org {linux_at}
linux_entry:
    jmp linux_format_entry
    .org {state_at}
entry_state:
    .skip 8 * {slots}
    .org {stack_top}
entry_stack_top:

// ---- 32 bits
    .code32
    .macro put32 slot, register
    mov dword ptr [entry_state + (\slot) * 8], \register
    .endm
    .macro segment32 number, segment
    mov eax, \segment
    movzx eax, ax
    put32 {cs} + \number, eax
    mov eax, dword ptr \segment:[entry_marker]
    put32 {read} + \number, eax
    .endm
    .macro write32 number, segment
    mov dword ptr \segment:[entry_probe], \number
    mov eax, dword ptr cs:[entry_probe]
    put32 {written} + \number, eax
    .endm
    .macro msr32 slot, number
    mov ecx, \number
    rdmsr
    put32 \slot, eax
    mov dword ptr [entry_state + (\slot) * 8 + 4], edx
    .endm
    .macro capture32 format
    put32 {rax}, eax
    put32 {rax} + 1, ecx
    put32 {rax} + 2, ebx
    put32 {rax} + 3, edx
    put32 {rax} + 4, esi
    put32 {rax} + 5, edi
    put32 {rax} + 6, ebp
    put32 {rax} + 7, esp
    mov dword ptr [entry_state], \format
    mov esp, offset entry_stack_top
    pushfd
    pop eax
    put32 {rflags}, eax
    mov eax, cr0
    put32 {cr0}, eax
    mov eax, cr2
    put32 {cr2}, eax
    mov eax, cr3
    put32 {cr3}, eax
    mov eax, cr4
    put32 {cr4}, eax
    mov eax, dr6
    put32 {dr6}, eax
    mov eax, dr7
    put32 {dr7}, eax
    msr32 {efer}, 0xC0000080
    msr32 {fs_base}, 0xC0000100
    msr32 {gs_base}, 0xC0000101
    str eax
    movzx eax, ax
    put32 {tr}, eax
    sldt eax
    movzx eax, ax
    put32 {ldtr}, eax
    sgdt [entry_table]
    movzx eax, word ptr [entry_table]
    put32 {gdt_limit}, eax
    mov eax, dword ptr [entry_table + 2]
    put32 {gdt_base}, eax
    sidt [entry_table]
    movzx eax, word ptr [entry_table]
    put32 {idt_limit}, eax
    mov eax, dword ptr [entry_table + 2]
    put32 {idt_base}, eax
    segment32 0, cs
    segment32 1, ss
    segment32 2, ds
    segment32 3, es
    segment32 4, fs
    segment32 5, gs
    write32 1, ss
    write32 2, ds
    write32 3, es
    write32 4, fs
    write32 5, gs
    jmp entry_down
    .endm

pvh_format_entry:
    capture32 {pvh}
multiboot_entry:
    capture32 {multiboot}
protected_entry:
    capture32 {protected}

// ---- 64 bits
    .code64
    .macro put64 slot, register
    mov qword ptr [rip + entry_state + (\slot) * 8], \register
    .endm
    .macro segment64 number, segment
    xor eax, eax
    mov eax, \segment
    put64 {cs} + \number, rax
    mov eax, dword ptr \segment:[entry_marker]
    put64 {read} + \number, rax
    .endm
    .macro write64 number, segment
    mov dword ptr \segment:[entry_probe], \number
    mov eax, dword ptr [rip + entry_probe]
    put64 {written} + \number, rax
    .endm
    .macro msr64 slot, number
    mov ecx, \number
    rdmsr
    shl rdx, 32
    or rax, rdx
    put64 \slot, rax
    .endm
    .macro access64 segment, access, limit
    xor eax, eax
    mov eax, \segment
    mov ecx, eax
    xor eax, eax
    lar eax, ecx
    put64 \access, rax
    xor eax, eax
    lsl eax, ecx
    put64 \limit, rax
    .endm
    .macro capture64 format
    put64 {rax}, rax
    put64 {rax} + 1, rcx
    put64 {rax} + 2, rbx
    put64 {rax} + 3, rdx
    put64 {rax} + 4, rsi
    put64 {rax} + 5, rdi
    put64 {rax} + 6, rbp
    put64 {rax} + 7, rsp
    put64 {rax} + 8, r8
    put64 {rax} + 9, r9
    put64 {rax} + 10, r10
    put64 {rax} + 11, r11
    put64 {rax} + 12, r12
    put64 {rax} + 13, r13
    put64 {rax} + 14, r14
    put64 {rax} + 15, r15
    mov dword ptr [rip + entry_state], \format
    lea rsp, [rip + entry_stack_top]
    pushfq
    pop rax
    put64 {rflags}, rax
    mov rax, cr0
    put64 {cr0}, rax
    mov rax, cr2
    put64 {cr2}, rax
    mov rax, cr3
    put64 {cr3}, rax
    mov rax, cr4
    put64 {cr4}, rax
    mov rax, dr6
    put64 {dr6}, rax
    mov rax, dr7
    put64 {dr7}, rax
    msr64 {efer}, 0xC0000080
    msr64 {fs_base}, 0xC0000100
    msr64 {gs_base}, 0xC0000101
    xor eax, eax
    str eax
    put64 {tr}, rax
    xor eax, eax
    sldt eax
    put64 {ldtr}, rax
    sgdt [rip + entry_table]
    movzx eax, word ptr [rip + entry_table]
    put64 {gdt_limit}, rax
    mov rax, qword ptr [rip + entry_table + 2]
    put64 {gdt_base}, rax
    sidt [rip + entry_table]
    movzx eax, word ptr [rip + entry_table]
    put64 {idt_limit}, rax
    mov rax, qword ptr [rip + entry_table + 2]
    put64 {idt_base}, rax
    segment64 0, cs
    segment64 1, ss
    segment64 2, ds
    segment64 3, es
    segment64 4, fs
    segment64 5, gs
    write64 1, ss
    write64 2, ds
    write64 3, es
    write64 4, fs
    write64 5, gs
    access64 cs, {cs_access}, {cs_limit}
    access64 ss, {ss_access}, {ss_limit}
    jmp entry_leave_long
    .endm

plain_entry:
    capture64 {plain}
long_entry:
    capture64 {long}
linux_format_entry:
    capture64 {linux}

// ---- 16 bits
    .code16
    .macro put16 slot, register
    mov dword ptr cs:[{low} + {state_at} + (\slot) * 8], \register
    .endm
    .macro segment16 number, segment
    xor eax, eax
    mov ax, \segment
    put16 {cs} + \number, eax
    mov eax, dword ptr \segment:[{low} + {marker_at}]
    put16 {read} + \number, eax
    .endm
    .macro write16 number, segment
    mov dword ptr \segment:[{low} + {probe_at}], \number
    mov eax, dword ptr cs:[{low} + {probe_at}]
    put16 {written} + \number, eax
    .endm
    .macro msr16 slot, number
    mov ecx, \number
    rdmsr
    put16 \slot, eax
    mov dword ptr cs:[{low} + {state_at} + (\slot) * 8 + 4], edx
    .endm

real_entry:
    put16 {rax}, eax
    put16 {rax} + 1, ecx
    put16 {rax} + 2, ebx
    put16 {rax} + 3, edx
    put16 {rax} + 4, esi
    put16 {rax} + 5, edi
    put16 {rax} + 6, ebp
    put16 {rax} + 7, esp
    mov dword ptr cs:[{low} + {state_at}], {real}
    mov sp, {low} + {stack_top}
    pushfd
    pop eax
    put16 {rflags}, eax
    segment16 0, cs
    segment16 1, ss
    segment16 2, ds
    segment16 3, es
    segment16 4, fs
    segment16 5, gs
    write16 1, ss
    write16 2, ds
    write16 3, es
    write16 4, fs
    write16 5, gs
    mov eax, cr0
    put16 {cr0}, eax
    mov eax, cr2
    put16 {cr2}, eax
    mov eax, cr3
    put16 {cr3}, eax
    mov eax, cr4
    put16 {cr4}, eax
    mov eax, dr6
    put16 {dr6}, eax
    mov eax, dr7
    put16 {dr7}, eax
    msr16 {efer}, 0xC0000080
    msr16 {fs_base}, 0xC0000100
    msr16 {gs_base}, 0xC0000101
    sgdt [{low} + {table_at}]
    xor eax, eax
    mov ax, word ptr [{low} + {table_at}]
    put16 {gdt_limit}, eax
    mov eax, dword ptr [{low} + {table_at} + 2]
    put16 {gdt_base}, eax
    sidt [{low} + {table_at}]
    xor eax, eax
    mov ax, word ptr [{low} + {table_at}]
    put16 {idt_limit}, eax
    mov eax, dword ptr [{low} + {table_at} + 2]
    put16 {idt_base}, eax
    lgdt [{low} + {low_gdtr_at}]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xEA        // far jump, 32-bit offset
    .long real_leaves - image_base + {low}
    .word 0x08

    .code32
real_leaves:                // copies the image to where it is linked to, and goes on there
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esi, {low}
    mov edi, offset image_base
    mov ecx, offset __file_end
    sub ecx, edi
    shr ecx, 2
    cld
    rep movsd
    mov eax, offset entry_down
    jmp eax
    .code64
    .previous
    "#,
    low = const LOW,
    marker = const slots::MARKER,
    marker_at = const MARKER_AT,
    probe_at = const PROBE_AT,
    low_gdtr_at = const LOW_GDTR_AT,
    gdt_at = const GDT_AT,
    table_at = const TABLE_AT,
    info_at = const INFO_AT,
    linux_at = const LINUX_AT,
    state_at = const STATE_AT,
    stack_top = const STACK_TOP,
    slots = const slots::SLOTS,
    rax = const slots::RAX,
    rflags = const slots::RFLAGS,
    cr0 = const slots::CR0,
    cr2 = const slots::CR2,
    cr3 = const slots::CR3,
    cr4 = const slots::CR4,
    efer = const slots::EFER,
    cs = const slots::CS,
    tr = const slots::TR,
    ldtr = const slots::LDTR,
    gdt_limit = const slots::GDT_LIMIT,
    gdt_base = const slots::GDT_BASE,
    idt_limit = const slots::IDT_LIMIT,
    idt_base = const slots::IDT_BASE,
    dr6 = const slots::DR6,
    dr7 = const slots::DR7,
    fs_base = const slots::FS_BASE,
    gs_base = const slots::GS_BASE,
    read = const slots::READ,
    written = const slots::WRITTEN,
    cs_access = const slots::CS_ACCESS,
    cs_limit = const slots::CS_LIMIT,
    ss_access = const slots::SS_ACCESS,
    ss_limit = const slots::SS_LIMIT,
    pvh = const format::PVH,
    multiboot = const format::MULTIBOOT,
    protected = const format::PROTECTED,
    plain = const format::PLAIN,
    long = const format::LONG,
    linux = const format::LINUX,
    real = const format::REAL,
);
