//! The attacks, one file each.

mod apic_mode;
mod calm;
mod hypercalls;
mod icr;
mod instructions;
mod lvt;
mod msrs;
mod pages;
mod ports;
mod random_code;
mod ring;
mod shutdowns;
mod storm;
mod task_switch;

use crate::Orders;
use crate::tally::Tally;

/// An attack. It returns if it is over, or its partition is stopped in the middle of it.
pub(crate) type Attack = fn(&Orders, &mut Tally);

const COUNT: usize = 14;
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
    "calm",
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
    calm::attack,
];
/// Kinds of the attacks that have some.
pub(crate) const KINDS: &[&str] = &["all", "header", "rings"];
