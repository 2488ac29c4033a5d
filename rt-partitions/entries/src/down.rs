//! From every entry point to the runtime, which is entered as by PVH: out of long mode, with a start info that knows where
//! the RSDP is and where the command line, and nothing else that the runtime would refuse.

use core::arch::global_asm;

use crate::{format, slots};

global_asm!(
    r#"
    .section .text.boot, "ax", @progbits
    .global entry_leave_long, entry_down
    .code64
entry_leave_long:
    lgdt [rip + entry_gdtr]
    lea rsp, [rip + entry_stack_top]
    push 0x08
    lea rax, [rip + entry_leave_paging]
    push rax
    retfq

    .code32
entry_leave_paging:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov ecx, 0xC0000080     // EFER
    xor eax, eax
    xor edx, edx
    wrmsr
entry_down:
    cld
    mov esp, offset entry_stack_top
    mov ebx, offset entry_info
    mov eax, dword ptr [entry_state]
    mov edx, dword ptr [entry_state + {rbx} * 8]
    cmp eax, {multiboot}
    je 4f
    cmp eax, {real}
    je 6f
    cmp eax, {pvh}
    je 2f
    cmp eax, {protected}
    je 2f
    mov edx, dword ptr [entry_state + {rsi} * 8]
    cmp eax, {linux}
    je 5f
    mov edx, dword ptr [entry_state + {rdi} * 8]
2:  mov esi, edx            // a start info: all of it but the modules
    mov edi, ebx
    mov ecx, 14
    rep movsd
    mov dword ptr [ebx + 12], 0
    jmp pvh_entry
4:  mov eax, dword ptr [edx + 16]       // the multiboot information's command line
    jmp 7f
5:  mov eax, dword ptr [edx + 0x228]    // the boot parameters' command line
    jmp 7f
6:  xor eax, eax
7:  mov dword ptr [ebx + 24], eax
    mov dword ptr [ebx], 0x336EC578     // the start info's magic, version 1
    mov dword ptr [ebx + 4], 1
    mov esi, 0xE0000
8:  cmp dword ptr [esi], 0x20445352     // "RSD "
    jne 9f
    cmp dword ptr [esi + 4], 0x20525450 // "PTR "
    je 3f
9:  add esi, 16
    cmp esi, 0x100000
    jb 8b
    xor esi, esi
3:  mov dword ptr [ebx + 32], esi
    jmp pvh_entry
    .code64
    .previous
    "#,
    rbx = const slots::RBX,
    rsi = const slots::RSI,
    rdi = const slots::RDI,
    multiboot = const format::MULTIBOOT,
    real = const format::REAL,
    pvh = const format::PVH,
    protected = const format::PROTECTED,
    linux = const format::LINUX,
);
