//! The metronome: one CPU with a fast periodic timer, which halts between the ticks, and never ends.
//!
//! An emulator that runs one CPU after the other, and lets each run until the next timer of any of them, switches often
//! beside it: no CPU waits long for a busy one. It leaves its guest for nothing.
//!
//! Options: `us=N`, microseconds from tick to tick (default 5); `from=N`, milliseconds since its start after which it ticks
//! (default 0).

#![no_std]
#![no_main]

use partita_rt::interrupts::{WAKE_VECTOR, wait};
use partita_rt::{Clocks, Error, Machine, apic, println, rdtsc};

partita_rt::payload!("metronome", tick);

const KEYS: &[&str] = &["us", "from"];
const US_DEFAULT: u64 = 5;
const US_MAX: u64 = 1_000_000;
/// Most milliseconds: a day.
const MS_MAX: u64 = 86_400_000;
/// Longest that a timer is set for, in microseconds: its count has 32 bits.
const SLEEP_US: u64 = 1_000_000;

fn tick(machine: &Machine) -> Result<(), Error> {
    let options = machine.options(KEYS)?;
    let us = options.number("us", US_DEFAULT, 1..=US_MAX)?;
    let from = options.number("from", 0, 0..=MS_MAX)?;
    println!("payload: a tick every {us} us, after {from} ms");
    let clocks = &machine.clocks;
    let start = rdtsc();
    while let left @ 1.. = (from * 1000).saturating_sub(microseconds(clocks, start)) {
        // SAFETY: the vector's handler is the runtime's, and ends the interrupt.
        unsafe { apic::timer_one_shot(WAKE_VECTOR, clocks.lapic_ticks(left.min(SLEEP_US))) };
        wait();
    }
    // SAFETY: the vector's handler is the runtime's, and ends the interrupt.
    unsafe { apic::timer_periodic(WAKE_VECTOR, clocks.lapic_ticks(us)) };
    loop {
        wait();
    }
}

/// Microseconds since `start`.
fn microseconds(clocks: &Clocks, start: u64) -> u64 {
    (u128::from(rdtsc().wrapping_sub(start)) * 1_000_000 / u128::from(clocks.tsc_hz.max(1))) as u64
}
