//! The metronome: one CPU with a fast periodic timer, which halts between the ticks, and never ends.
//!
//! An emulator that runs one CPU after the other, and lets each run until the next timer of any of them, switches often
//! beside it: no CPU waits long for a busy one. It leaves its guest for nothing.
//!
//! Options: `us=N`, microseconds from tick to tick (default 5).

#![no_std]
#![no_main]

use partita_rt::interrupts::{WAKE_VECTOR, wait};
use partita_rt::{Error, Machine, apic, println};

partita_rt::payload!("metronome", tick);

const KEYS: &[&str] = &["us"];
const US_DEFAULT: u64 = 5;
const US_MAX: u64 = 1_000_000;

fn tick(machine: &Machine) -> Result<(), Error> {
    let us = machine.options(KEYS)?.number("us", US_DEFAULT, 1..=US_MAX)?;
    let ticks = machine.clocks.lapic_ticks(us);
    println!("payload: a tick every {us} us");
    // SAFETY: the vector's handler is the runtime's, and ends the interrupt.
    unsafe { apic::timer_periodic(WAKE_VECTOR, ticks) };
    loop {
        wait();
    }
}
