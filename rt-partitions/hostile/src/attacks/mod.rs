//! The attacks, one file each, with the lists of what they try and what they share.

mod apic_mode;
mod calm;
mod exits;
mod gives;
mod hypercalls;
mod icr;
mod instruction_rows;
mod instructions;
mod lvt;
mod mode_rows;
mod modes;
mod msrs;
mod pages;
mod ports;
mod random_code;
mod real;
mod real_nmis;
mod reboots;
mod reset_storm;
mod ring;
mod shutdowns;
mod storm;
mod task_switch;
mod user;

use crate::Orders;
use crate::tally::Tally;

/// An attack. It returns if it is over, or its partition is stopped in the middle of it.
pub(crate) type Attack = fn(&Orders, &mut Tally);

const COUNT: usize = 18;
/// The names of the attacks.
pub(crate) const NAMES: &[&str; COUNT] = &[
    "pages",
    "execute",
    "msrs",
    "ports",
    "icr",
    "lvt",
    "apic-mode",
    "instructions",
    "shutdowns",
    "random-code",
    "hypercalls",
    "ring",
    "storm",
    "reset-storm",
    "reboots",
    "calm",
    "user",
    "real",
];
/// In the order of [`NAMES`].
pub(crate) const ATTACKS: &[Attack; COUNT] = &[
    pages::touch,
    pages::execute,
    msrs::attack,
    ports::attack,
    icr::attack,
    lvt::attack,
    apic_mode::attack,
    instructions::attack,
    shutdowns::attack,
    random_code::attack,
    hypercalls::attack,
    ring::attack,
    storm::attack,
    reset_storm::attack,
    reboots::attack,
    calm::attack,
    user::attack,
    real::attack,
];
/// Kinds of the attacks that have some.
pub(crate) const KINDS: &[&str] = &["all", "header", "rings"];
