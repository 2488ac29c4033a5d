//! The local APIC, as the hypervisor uses it: see `partita_x86_bare::apic`.

pub use partita_x86_bare::apic::{enable, hand_over, id, timer_stop, write_icr};

use partita_x86_bare::apic::{has_pending_vectors, hold_back_exception_vectors};
use partita_x86_bare::{apic, relax};
use x86_64::instructions::interrupts;

use crate::cpu::idt::{self, KICK_VECTOR, TIMER_VECTOR};

/// Sends an NMI to one pCPU.
#[inline(always)]
pub fn send_nmi(apic_id: u32) {
    // SAFETY: every pCPU of the hypervisor has an NMI handler that harms nothing, or intercepts NMIs.
    unsafe { apic::send_nmi(apic_id) };
}

/// Sends an NMI to the pCPUs that a logical destination names.
#[inline(always)]
pub fn send_nmi_logical(destination: u32) {
    // SAFETY: as above: no other CPU takes part.
    unsafe { apic::send_nmi_logical(destination) };
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

/// Most looks for interrupts that are pending: one for each vector.
const LOOKS_MAX: usize = 256;

/// Puts the local APIC of this pCPU, which is its guest's, into the state that an INIT leaves (SDM vol. 3, "Local APIC
/// State After It Has Received an INIT"), and forgets what is pending. Interrupts are off on entry and return, but nothing
/// else holds them back: what is pending can only be got rid of by taking it.
pub fn reset() {
    hand_over();
    enable();
    idt::while_draining(|| {
        for _ in 0..LOOKS_MAX {
            if !has_pending_vectors() {
                break;
            }
            interrupts::enable();
            relax();
            interrupts::disable();
        }
    });
    hand_over();
}

/// As [`reset`], and takes the local APIC back from the guest: interrupts reach the hypervisor, but none of those that a
/// sibling of the guest may still send with a vector of the CPU's exceptions.
pub fn take_back() {
    reset();
    enable();
    hold_back_exception_vectors();
}
