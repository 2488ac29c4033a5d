//! The interrupt descriptor table. Interrupts stay in service, and a non-maskable one keeps its vCPU.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::exceptions::{EXCEPTIONS, stub};

use crate::flood;
use crate::state::IN_NMI;

const NMI_VECTOR: usize = 2;
const VECTORS: usize = 256;
/// The code segment of the boot code's descriptor table.
const CODE_SELECTOR: u64 = 0x08;
/// Present, privilege level 0, 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0x8E00;

global_asm!(
    r#"
    .section .text.gates, "ax", @progbits
    .align 16
pulse_interrupt:            // without end of interrupt
    iretq

    .align 16
pulse_nmi:
    mov r15d, {state}
2:  pause
    jmp 2b
    .previous
    "#,
    state = const IN_NMI,
);

unsafe extern "C" {
    static pulse_interrupt: u8;
    static pulse_nmi: u8;
}

/// A gate's words, one gate after the other (APM vol. 2 section 4.8.4).
static TABLE: [[AtomicU64; 2]; VECTORS] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; VECTORS];

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Fills the table, before any vCPU loads it. With the handlers of a flood or without.
pub(crate) fn fill(floods: bool) {
    let [flood_interrupt, flood_nmi] = flood::handlers();
    for (vector, [low, high]) in TABLE.iter().enumerate() {
        let handler = match u8::try_from(vector) {
            _ if floods && vector == flood::VECTOR => flood_interrupt,
            _ if floods && vector == NMI_VECTOR => flood_nmi,
            _ if vector == NMI_VECTOR => &raw const pulse_nmi as u64,
            Ok(exception) if exception < EXCEPTIONS => stub(exception),
            _ => &raw const pulse_interrupt as u64,
        };
        let words = handler & 0xFFFF | CODE_SELECTOR << 16 | INTERRUPT_GATE << 32 | (handler >> 16 & 0xFFFF) << 48;
        low.store(words, Ordering::Relaxed);
        high.store(handler >> 32, Ordering::Relaxed);
    }
}

/// Loads the table on this vCPU.
pub(crate) fn load() {
    load_pointer(size_of_val(&TABLE) as u16 - 1);
}

/// Loads a table without gates: the next exception is the vCPU's end.
pub(crate) fn unload() {
    load_pointer(0);
}

fn load_pointer(limit: u16) {
    let pointer = Pointer { limit, base: (&raw const TABLE) as u64 };
    // SAFETY: the table is a static whose gates lead to code that may take them, or it is left out on purpose.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}
