//! A guest that uses the devices which its partition owns: I/O ports, device memory, the emulator's test devices, and the
//! serial port as somebody types at it. The option `use=NAME` selects what; `value=N` is what `use=exit` writes, or where
//! `use=edu` finds its device.

#![no_std]
#![no_main]

mod checked;
mod memory;
mod ports;
mod talk;

use partita_rt::{Error, Machine};

partita_rt::payload!("devices", run);

type Use = fn(&Machine, u64) -> Result<(), Error>;

const KEYS: &[&str] = &["use", "value"];
const NAMES: &[&str; 7] = &["ports", "edu", "edu_end", "debugcon", "exit", "talk", "talk_slowly"];
/// In the order of [`NAMES`].
const USES: &[Use; 7] =
    &[ports::range, memory::edu, memory::edu_end, ports::debugcon, ports::exit, talk::talk, talk::talk_slowly];
/// Largest value: the memory that a guest finds mapped is addressed by 32 bits.
const VALUE_MAX: u64 = u32::MAX as u64;

fn run(machine: &Machine) -> Result<(), Error> {
    let options = machine.options(KEYS)?;
    let chosen = options.choice("use", 0, NAMES)?;
    let value = options.number("value", 0, 0..=VALUE_MAX)?;
    USES.get(chosen).map_or(Ok(()), |use_| use_(machine, value))
}
