//! The registers of a running guest, for the housekeeping core: noted by the guest's pCPU on order, while it is out of its
//! guest anyway.
//!
//! There is one place for them, which belongs to one pCPU at a time: the one they were ordered from. If that is late, the
//! order is withdrawn, unless it has begun to write, which is over soon.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_core::arch::PcpuId;
use partita_core::smp_call::Deadline;

use crate::arch::X86;
use crate::cpu::percpu::Order;
use crate::orders::{order, wait_until};
use crate::virt::{DUMPED, Dumped};

/// How long a pCPU may take.
const DEADLINE_MS: u32 = 1000;

static WORDS: [AtomicU64; DUMPED.len()] = [const { AtomicU64::new(0) }; DUMPED.len()];
/// Whose the words are: a phase, and the pCPU in the upper bits.
static STATE: AtomicU32 = AtomicU32::new(IDLE);

const IDLE: u32 = 0;
const WANTED: u32 = 1;
const BEING_WRITTEN: u32 = 2;
const WRITTEN: u32 = 3;
const PHASE: u32 = 3;

const fn state(phase: u32, pcpu: PcpuId) -> u32 {
    phase | (pcpu.0 as u32) << 2
}

/// Notes the registers, on the pCPU that was ordered to, if the order still stands.
pub fn note(me: PcpuId, registers: &Dumped) {
    let (wanted, mine) = (state(WANTED, me), state(BEING_WRITTEN, me));
    if STATE.compare_exchange(wanted, mine, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    for (word, value) in WORDS.iter().zip(registers) {
        word.store(*value, Ordering::Relaxed);
    }
    // Release: who sees them written sees them all.
    STATE.store(state(WRITTEN, me), Ordering::Release);
}

/// The registers of the guest on a pCPU that runs one; `None` if it does not give them in time.
pub fn of(pcpu: PcpuId) -> Option<Dumped> {
    let (wanted, written) = (state(WANTED, pcpu), state(WRITTEN, pcpu));
    let want = |from| STATE.compare_exchange(from, wanted, Ordering::Relaxed, Ordering::Relaxed);
    // Words that came too late for whoever wanted them belong to nobody.
    let is_free = |state| state & PHASE == WRITTEN && want(state).is_ok();
    if want(IDLE).is_err_and(|state| !is_free(state)) {
        return None;
    }
    let is_written = || STATE.load(Ordering::Acquire) == written;
    let deadline = Deadline::after_ms::<X86>(DEADLINE_MS);
    let is_there = order(pcpu, Order::Dump) && wait_until(deadline, is_written);
    let registers = is_there.then(|| WORDS.each_ref().map(|word| word.load(Ordering::Relaxed)));
    // What is being written at this moment is left to the next order.
    let _ = STATE.compare_exchange(wanted, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    let _ = STATE.compare_exchange(written, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    registers
}
