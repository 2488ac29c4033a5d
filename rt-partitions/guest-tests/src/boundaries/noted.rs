//! Interrupts that are noted one by one: where each came, and how many exceptions before it.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_rt::{apic, interrupts};

use crate::trap;

/// Comes from an IPI that is pending before the instruction.
pub(super) const PENDING: u8 = 0x60;
/// Comes from the instruction.
pub(super) const SENT: u8 = 0x61;
const NOTES: usize = 4;

/// An interrupt that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) vector: u64,
    pub(super) rip: u64,
    /// Exceptions that had come before it.
    pub(super) exceptions: u64,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static NOTED: [[AtomicU64; 3]; NOTES] = [const { [const { AtomicU64::new(0) }; 3] }; NOTES];
/// x2APIC ID of the CPU whose interrupts are noted.
static OWN: AtomicU32 = AtomicU32::new(0);

global_asm!(
    r#"
    .section .text.boundaries_noted, "ax", @progbits
    .align 16
noted_pending:
    push {pending}
    jmp 2f
    .align 16
noted_sent:
    push {sent}
2:  push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    lea rdi, [rsp + 72]
    cld
    call {noted}
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 8
    iretq
    .previous
    "#,
    pending = const PENDING,
    sent = const SENT,
    noted = sym noted,
);

unsafe extern "C" {
    static noted_pending: u8;
    static noted_sent: u8;
}

/// `frame` is the vector, and RIP behind it.
extern "C" fn noted(frame: &[u64; 2]) {
    if apic::id() == OWN.load(Ordering::Relaxed) {
        let index = COUNT.fetch_add(1, Ordering::Relaxed) as usize;
        for (place, value) in NOTED.get(index).iter().copied().flatten().zip([frame[0], frame[1], trap::count()]) {
            place.store(value, Ordering::Relaxed);
        }
    }
}

/// From now on interrupts of this CPU are noted.
pub(super) fn watch() {
    OWN.store(apic::id(), Ordering::Relaxed);
}

/// Installs the handlers.
pub(super) fn install() {
    // SAFETY: they save what they use, end their interrupt and return by IRETQ; nobody sends these vectors yet.
    unsafe {
        interrupts::set_handler(PENDING, &raw const noted_pending);
        interrupts::set_handler(SENT, &raw const noted_sent);
    }
}

/// Forgets what came.
pub(super) fn forget() {
    COUNT.store(0, Ordering::Relaxed);
}

/// How many came.
pub(super) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The one with this number, if it came.
pub(super) fn get(index: usize) -> Option<Note> {
    if index as u64 >= count() {
        return None;
    }
    let [vector, rip, exceptions] = NOTED.get(index)?.each_ref().map(|value| value.load(Ordering::Relaxed));
    Some(Note { vector, rip, exceptions })
}
