//! The entries payload.

#![no_std]
#![no_main]

use partita_rt::{Error, Machine};

partita_rt::payload!("entries", check);

fn check(_machine: &Machine) -> Result<(), Error> {
    Ok(())
}
