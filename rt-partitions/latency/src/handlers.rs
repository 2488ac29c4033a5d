//! The interrupt handlers of the rows.
//!
//! They save nothing: the assembly that they interrupt gives up RAX, RCX, RDX, R10 and R11. Its R10 becomes the time of
//! the handler's first instruction, which is never 0.

use core::arch::global_asm;

use partita_rt::interrupts;

/// Stamps: R10 becomes the time.
pub(crate) const STAMP_VECTOR: u8 = 0x40;
/// Answers: writes the ICR with R9:R8, then stamps.
pub(crate) const ANSWER_VECTOR: u8 = 0x41;
/// The non-maskable interrupt.
const NMI_VECTOR: u8 = 2;

global_asm!(
    r#"
    .section .text.handlers, "ax", @progbits
    .align 64
latency_stamp:
    rdtsc
    mov r10d, eax
    mov r11d, edx
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    shl r11, 32
    or r10, r11
    iretq

    .align 64
latency_answer:
    mov eax, r8d
    mov edx, r9d
    mov ecx, 0x830          // x2APIC ICR
    wrmsr
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B
    wrmsr
    mov r10d, 1
    iretq

    .align 64
latency_nmi:
    rdtsc
    mov r10d, eax
    mov r11d, edx
    shl r11, 32
    or r10, r11
    iretq
    .previous
    "#
);

unsafe extern "C" {
    static latency_stamp: u8;
    static latency_answer: u8;
    static latency_nmi: u8;
}

/// Installs them. Before the other CPU is started.
pub(crate) fn install() {
    // SAFETY: they end their interrupt where it is one; these vectors come only to assembly that gives up what they
    // change: NMIs are sent in one row only, to CPU 1 in such assembly. No CPU takes them yet.
    unsafe {
        interrupts::set_handler(STAMP_VECTOR, &raw const latency_stamp);
        interrupts::set_handler(ANSWER_VECTOR, &raw const latency_answer);
        interrupts::set_handler(NMI_VECTOR, &raw const latency_nmi);
    }
}
