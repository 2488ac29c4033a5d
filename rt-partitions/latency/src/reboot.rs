//! Group `restart`: a partition that reboots over and over. In each life it tells when its first instruction was, by an OUT
//! that the hypervisor refuses, and traces: its own memory does not outlive it.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use partita_abi::cpuid::LEAF_LIFE;
use partita_abi::guest::{RESET_NOW, RESET_PORT};
use partita_rt::interrupts::{WAKE_VECTOR, wait};
use partita_rt::{Error, Machine, apic, rdtsc};
use partita_x86_bare::entry::entered_at;

/// How long each life is, in milliseconds: after a shorter one the hypervisor lets a partition wait before it starts it again.
const LIFE_MS: u64 = 1010;
/// Longest that the timer is set for, in microseconds: its count has 32 bits.
const SLEEP_US: u64 = 100_000;

/// Reboots so many times.
pub(crate) fn measure(machine: &Machine, reboots: usize) -> Result<(), Error> {
    if !machine.place.is_partition() {
        return Err(Error::OnlyInPartition { what: "group=restart" });
    }
    // The low half: the trace has the whole time of the OUT, which is not much later.
    // SAFETY: the port has no effect, or shows the byte on a diagnostic display.
    unsafe { asm!("out 0x80, eax", in("eax") entered_at() as u32, options(nomem, nostack, preserves_flags)) };
    if __cpuid(LEAF_LIFE).eax as usize > reboots {
        return Ok(());
    }
    let life = machine.clocks.tsc_hz.saturating_mul(LIFE_MS) / 1000;
    while rdtsc().wrapping_sub(entered_at()) < life {
        // SAFETY: the runtime has a handler for this vector.
        unsafe { apic::timer_one_shot(WAKE_VECTOR, machine.clocks.lapic_ticks(SLEEP_US)) };
        wait();
    }
    loop {
        // SAFETY: ends this life.
        unsafe { asm!("out dx, al", in("dx") RESET_PORT, in("al") RESET_NOW, options(nomem, nostack)) };
    }
}
