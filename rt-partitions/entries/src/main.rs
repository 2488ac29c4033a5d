//! The entries payload: checks the state in which its first vCPU starts, register by register, by each format of images,
//! and what the format's loader tells.
//!
//! Its ELF64 file boots by PVH and by its ELF entry point; the host tool makes an ELF32 file for multiboot of it, and flat
//! images. The command line says what is to be found: `memory=MIB modules=N end`.

#![no_std]
#![no_main]

mod claims;
mod content;
mod down;
mod entry;
mod format;
mod loaders;
mod registers;
mod slots;
mod state;

use partita_rt::{Error, Machine, println};

use claims::Claims;
use state::State;

partita_rt::payload!("entries", check);

/// The first claim's number, by format.
const CLAIMS_EACH: u32 = 100;

fn check(machine: &Machine) -> Result<(), Error> {
    let state = State::stored();
    let number = state.get(slots::FORMAT);
    println!("entries: {}", format::name(number));
    let mut claims = Claims::from(number as u32 * CLAIMS_EACH, machine.place.is_partition());
    registers::check(&mut claims, &state);
    match number {
        format::PVH | format::PROTECTED => loaders::start_info(&mut claims, state.get(slots::RBX)),
        format::PLAIN | format::LONG => loaders::start_info(&mut claims, state.get(slots::RDI)),
        format::MULTIBOOT => loaders::multiboot(&mut claims, state.get(slots::RBX)),
        format::LINUX => loaders::boot_params(&mut claims, state.get(slots::RSI)),
        _ => loaders::nothing(&mut claims),
    }
    Ok(())
}
