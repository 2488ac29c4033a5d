//! The local APIC, as the hypervisor uses it: see `partita_x86_bare::apic`.

pub use partita_x86_bare::apic::{enable, hand_over, has_pending_vectors, id, timer_stop, write_icr};

use partita_x86_bare::apic;

use crate::cpu::idt::{KICK_VECTOR, TIMER_VECTOR};

/// Sends an NMI to one pCPU.
#[inline(always)]
pub fn send_nmi(apic_id: u32) {
    // SAFETY: every pCPU of the hypervisor has an NMI handler that harms nothing, or intercepts NMIs.
    unsafe { apic::send_nmi(apic_id) };
}

/// Sends the kick vector to one pCPU.
#[inline(always)]
pub fn send_kick_vector(apic_id: u32) {
    // SAFETY: a pCPU that is kicked by vector has its handler in place.
    unsafe { apic::send_fixed(apic_id, KICK_VECTOR) };
}

/// Starts a one-shot of `count` timer ticks that interrupts with [`TIMER_VECTOR`].
pub fn timer_one_shot(count: u32) {
    // SAFETY: the vector has its handler.
    unsafe { apic::timer_one_shot(TIMER_VECTOR, count) };
}

/// Starts a periodic timer of `count` ticks that interrupts with [`TIMER_VECTOR`].
pub fn timer_periodic(count: u32) {
    // SAFETY: the vector has its handler.
    unsafe { apic::timer_periodic(TIMER_VECTOR, count) };
}
