//! The state `flood`: a vCPU sends itself interrupts and NMIs, one after the other. Each has to come exactly once, whatever
//! kicks the vCPU meanwhile.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::{apic, relax, write_msr};

use crate::fail;

/// The vector of the interrupts.
pub(crate) const VECTOR: usize = 0x50;
const SELF_IPI: u32 = 0x83F;
/// Looks after which one is lost: it comes from this vCPU itself, so that it is here after a few.
const LOOKS_MAX: u32 = 1_000_000;

static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .section .text.flood, "ax", @progbits
    .align 16
flood_interrupt:
    push rax
    push rcx
    push rdx
    inc qword ptr [rip + {interrupts}]
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq

    .align 16
flood_nmi:
    inc qword ptr [rip + {nmis}]
    iretq
    .previous
    "#,
    interrupts = sym INTERRUPTS,
    nmis = sym NMIS,
);

unsafe extern "C" {
    static flood_interrupt: u8;
    static flood_nmi: u8;
}

/// The handlers of [`VECTOR`] and of NMIs.
pub(crate) fn handlers() -> [u64; 2] {
    [&raw const flood_interrupt as u64, &raw const flood_nmi as u64]
}

/// Floods this vCPU, the only one that does, for ever. Its table of gates has the [`handlers`].
pub(crate) fn flood() -> ! {
    apic::enable();
    for sent in 1.. {
        // SAFETY: the vector has its handler.
        unsafe { write_msr(SELF_IPI, VECTOR as u64) };
        await_one("interrupt", &INTERRUPTS, sent);
        // SAFETY: NMIs have their handler.
        unsafe { apic::send_nmi(apic::id()) };
        await_one("NMI", &NMIS, sent);
        let came = [&INTERRUPTS, &NMIS].map(|count| count.load(Ordering::Relaxed));
        if came != [sent; 2] {
            fail(format_args!("{sent} of each were sent, {came:?} came"));
        }
    }
    fail(format_args!("the count is at its end"))
}

fn await_one(kind: &str, count: &AtomicU64, sent: u64) {
    for _ in 0..LOOKS_MAX {
        if count.load(Ordering::Relaxed) >= sent {
            return;
        }
        // SAFETY: what may come has handlers that save what they use.
        unsafe { asm!("sti", "nop", "cli", options(nostack)) };
        relax();
    }
    fail(format_args!("{kind} {sent} was lost"))
}
