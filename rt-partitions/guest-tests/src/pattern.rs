//! A guest with known registers, which it never leaves: for whoever looks at them from outside.

use core::arch::asm;

use partita_rt::{Error, Machine};

/// Fills the registers, and then only counts, in RAX, interrupts off: the others stay as they are. RSP is the stack's.
pub(crate) fn test(_: &Machine) -> Result<(), Error> {
    // SAFETY: it does not come back, and nothing else runs on this CPU; it takes no interrupts.
    unsafe {
        asm!(
            "mov rbx, 0x1b1b1b1b0000000b",
            "mov rcx, 0x1c1c1c1c0000000c",
            "mov rdx, 0x1d1d1d1d0000000d",
            "mov rsi, 0x1e1e1e1e0000000e",
            "mov rdi, 0x1f1f1f1f0000000f",
            "mov rbp, 0x2020202000000010",
            "mov r8,  0x0808080800000008",
            "mov r9,  0x0909090900000009",
            "mov r10, 0x1010101000000010",
            "mov r11, 0x1111111100000011",
            "mov r12, 0x1212121200000012",
            "mov r13, 0x1313131300000013",
            "mov r14, 0x1414141400000014",
            "mov r15, 0x1515151500000015",
            "xor eax, eax",
            "2: inc rax",
            "pause",
            "jmp 2b",
            options(noreturn)
        )
    }
}
