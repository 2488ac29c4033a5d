//! Out of long mode, into protected, real or virtual-8086 mode, and back.
//!
//! The words that go there and come back are in low memory, as is the code that real mode executes, and its interrupt table.
//! Each of that table's entries leads to the same handler by another segment, which tells the vector.

use core::arch::{asm, global_asm};

use super::{After, CODE_AT, Mode, Registers, STACK_TOP, read, write};
use crate::gates::{self, BACK, FOR_USERS, INTERRUPT_GATE};
use crate::tables::{CODE_16, CODE_32, DATA_16, KERNEL_CODE, LEGACY_STACK_TOP};

const VECTORS: u64 = 256;
const STUB_LEN: u64 = 16;
/// Real mode's interrupt table, and that of protected mode.
const REAL_TABLE_AT: u64 = 0x1000;
const TABLE_AT: u64 = 0x2000;
/// Real mode's code.
const REAL_AT: u64 = 0x4000;

/// The words, by their addresses.
const EAX: u64 = 0x3000;
const ECX: u64 = 0x3004;
const EDX: u64 = 0x3008;
const ESI: u64 = 0x300C;
const EDI: u64 = 0x3010;
const EFLAGS: u64 = 0x3014;
/// Which mode: 2 real, 3 virtual-8086, else protected.
const MODE: u64 = 0x3018;
/// The vector; of real mode the code segment of its handler.
const VECTOR: u64 = 0x301C;
/// ESP after the exception, and the word there.
const ESP: u64 = 0x3020;
const TOP: u64 = 0x3024;
const RSP: u64 = 0x3028;
const CR3: u64 = 0x3030;
const CR4: u64 = 0x3038;
/// What LGDT and LIDT load.
const GDT_POINTER: u64 = 0x3040;
const TABLE_POINTER: u64 = 0x3050;
const REAL_TABLE_POINTER: u64 = 0x3060;

global_asm!(
    r#"
    .altmacro
    .macro legacy_stub vector
    .align 16
    mov dword ptr ss:[{vector_at}], \vector
    jmp legacy_caught
    .endm

    .section .text.legacy, "ax", @progbits
    .global legacy_visit
legacy_visit:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rax, cr3
    mov qword ptr [{cr3}], rax
    mov rax, cr4
    mov qword ptr [{cr4}], rax
    mov qword ptr [{rsp}], rsp
    lea rax, [rip + 2f]
    push {code_32}
    push rax
    retfq

    .code32
2:  mov eax, cr0
    and eax, 0x7FFFFFFF         // no paging, and with it no long mode
    mov cr0, eax
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, {stack}
    lidt [{table_pointer}]
    cmp dword ptr [{mode}], 2
    jb 4f
    ja 3f
    .byte 0xEA                  // far jump
    .long {real_at}
    .word {code_16}

3:  push 0                      // GS, FS, DS, ES, SS
    push 0
    push 0
    push 0
    push 0
    push {stack}
    push dword ptr [{eflags}]
    push 0                      // CS
    push {code}
    call 5f
    iretd

4:  push dword ptr [{eflags}]
    popfd
    call 5f
    mov ebp, {code}
    jmp ebp

5:  mov eax, dword ptr [{eax}]
    mov ecx, dword ptr [{ecx}]
    mov edx, dword ptr [{edx}]
    mov esi, dword ptr [{esi}]
    mov edi, dword ptr [{edi}]
    ret

    .align 16
    .global legacy_stubs
legacy_stubs:
    .set legacy_vector, 0
    .rept {vectors}
    legacy_stub %legacy_vector
    .set legacy_vector, legacy_vector + 1
    .endr

    .align 16
legacy_caught:
    mov dword ptr ss:[{eax}], eax
    mov dword ptr ss:[{edx}], edx
    mov dword ptr ss:[{esp}], esp
    mov eax, dword ptr [esp]
    mov dword ptr ss:[{top}], eax
legacy_return:
    cld
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, {stack}
    lgdt [{gdt_pointer}]
    mov eax, dword ptr [{cr4}]
    mov cr4, eax
    mov eax, dword ptr [{cr3}]
    mov cr3, eax
    mov ecx, 0xC0000080         // EFER
    xor edx, edx
    mov eax, 0x900              // LME, NXE
    wrmsr
    mov eax, 0x80010011         // CR0.PG, WP, ET, PE
    mov cr0, eax
    push 0x08
    mov eax, offset legacy_long
    push eax
    retf

    .code64
legacy_long:
    mov rsp, qword ptr [{rsp}]
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    push 2
    popfq
    ret

    .code16
    .align 64
    .global legacy_real
legacy_real:
    mov ax, {data_16}
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov eax, cr0
    and al, 0xFE
    mov cr0, eax
    .byte 0xEA
    .word {real_at} + 64
    .word 0
    .align 64
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, {stack}
    lidt [{real_table_pointer}]
    mov eax, dword ptr [{eax}]
    mov ecx, dword ptr [{ecx}]
    mov edx, dword ptr [{edx}]
    mov esi, dword ptr [{esi}]
    mov edi, dword ptr [{edi}]
    .byte 0xEA
    .word {code}
    .word 0

    .align 16
    .global legacy_real_caught
legacy_real_caught:
    mov dword ptr ss:[{eax}], eax
    mov dword ptr ss:[{edx}], edx
    mov dword ptr ss:[{esp}], esp
    xor ax, ax
    mov ds, ax
    mov ax, cs
    mov word ptr [{vector_at}], ax
    .byte 0x66                  // lgdtd: all 32 bits of the base
    lgdt [{gdt_pointer}]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA            // far jump, 32-bit offset
    .long legacy_return
    .word {code_32}
    .global legacy_real_end
legacy_real_end:
    .code64
    .previous
    "#,
    vectors = const VECTORS,
    vector_at = const VECTOR,
    code_32 = const CODE_32,
    code_16 = const CODE_16,
    data_16 = const DATA_16,
    stack = const STACK_TOP,
    code = const CODE_AT,
    real_at = const REAL_AT,
    table_pointer = const TABLE_POINTER,
    real_table_pointer = const REAL_TABLE_POINTER,
    gdt_pointer = const GDT_POINTER,
    mode = const MODE,
    eax = const EAX,
    ecx = const ECX,
    edx = const EDX,
    esi = const ESI,
    edi = const EDI,
    eflags = const EFLAGS,
    esp = const ESP,
    top = const TOP,
    rsp = const RSP,
    cr3 = const CR3,
    cr4 = const CR4,
);

unsafe extern "C" {
    fn legacy_visit();
    static legacy_stubs: u8;
    static legacy_real: u8;
    static legacy_real_caught: u8;
    static legacy_real_end: u8;
}

const RFLAGS_VM: u64 = 1 << 17;

fn word(at: u64) -> u32 {
    u32::from_le_bytes(read(at))
}

/// Where real mode's handler lies.
fn real_handler() -> u64 {
    REAL_AT + (&raw const legacy_real_caught as u64 - &raw const legacy_real as u64)
}

/// Fills both interrupt tables, and what real mode executes.
pub(super) fn prepare() {
    let (first, end) = (&raw const legacy_real, &raw const legacy_real_end as usize);
    for (place, at) in (first as usize..end).zip(REAL_AT..) {
        // SAFETY: the code above, which nobody writes to.
        write(at, &[unsafe { (place as *const u8).read_volatile() }]);
    }
    for vector in 0..VECTORS {
        let (segment, offset) = ((real_handler() >> 4) - vector, vector * 16);
        write(REAL_TABLE_AT + vector * 4, &(offset | segment << 16).to_le_bytes()[..4]);
        let handler = &raw const legacy_stubs as u64 + vector * STUB_LEN;
        let users = if vector == BACK { FOR_USERS } else { 0 };
        let gate = handler & 0xFFFF | u64::from(CODE_32) << 16 | (INTERRUPT_GATE | users) << 32 | handler >> 16 << 48;
        write(TABLE_AT + vector * 8, &gate.to_le_bytes());
    }
    for (pointer, table, len) in
        [(TABLE_POINTER, TABLE_AT, VECTORS * 8), (REAL_TABLE_POINTER, REAL_TABLE_AT, VECTORS * 4)]
    {
        write(pointer, &((len - 1) | table << 16).to_le_bytes());
    }
    // SAFETY: stores ten bytes in low memory that nothing else uses.
    unsafe { asm!("sgdt [{}]", in(reg) GDT_POINTER, options(nostack, preserves_flags)) };
}

/// Executes what lies at [`CODE_AT`].
pub(super) fn visit(mode: Mode, rflags: u64, before: &Registers) -> After {
    let (number, vm, stack, frame): (u32, u64, u32, u32) = match mode {
        Mode::Real => (2, 0, STACK_TOP, 6),
        Mode::Virtual8086 => (3, RFLAGS_VM, LEGACY_STACK_TOP, 36),
        _ => (1, 0, STACK_TOP, 12),
    };
    let Registers { rax, rcx, rdx, rsi, rdi } = *before;
    for (at, value) in [(EAX, rax), (ECX, rcx), (EDX, rdx), (ESI, rsi), (EDI, rdi), (EFLAGS, rflags | vm)] {
        write(at, &(value as u32).to_le_bytes());
    }
    write(MODE, &number.to_le_bytes());
    write(VECTOR, &0u32.to_le_bytes());
    // SAFETY: comes back whatever becomes of the code. Interrupts are off, nobody sends NMIs meanwhile, and on its own way there
    // and back it causes no exception.
    unsafe { asm!("call {}", in(reg) legacy_visit as *const (), clobber_abi("C")) };
    gates::load();
    let vector = u64::from(word(VECTOR));
    let caught = if mode == Mode::Real { (real_handler() >> 4) - vector } else { vector };
    let pushed = stack.wrapping_sub(word(ESP)).wrapping_sub(frame);
    After { caught, error_code: word(TOP).into(), rax: word(EAX).into(), rdx: word(EDX).into(), pushed }
}

const _: () = assert!(KERNEL_CODE == 0x08);
