//! Guest tests: small guests that claim, one by one, what a partition may rely on. The option `test=NAME` selects one.
//!
//! They are for partitions of Partita; most need two vCPUs. Those of `ends.rs` must not come back.

#![no_std]
#![no_main]

mod boundaries;
mod bursts;
mod catch;
mod claims;
mod counters;
mod cpu;
mod debug;
mod departs;
mod edges;
mod ends;
mod exceptions;
mod features;
mod icr;
mod init;
mod instructions;
mod io;
mod leave;
mod modes;
mod msr;
mod nmi;
mod paging;
mod pattern;
mod peer;
mod punctual;
mod quiet;
mod smp;
mod sse;
mod step_nmi;
mod tables;
mod timer;
mod together;
mod trace_cost;
mod trap;
mod user;
mod xsave;

use partita_rt::{Error, Machine};

partita_rt::payload!("guest-tests", run);

type Test = fn(&Machine) -> Result<(), Error>;

const COUNT: usize = 37;
const NAMES: &[&str; COUNT] = &[
    "cpu",
    "smp",
    "icr",
    "nmi",
    "msr",
    "io",
    "instructions",
    "timer",
    "survivor",
    "triple_fault",
    "outside_memory",
    "apic_page",
    "leave_x2apic",
    "finish_7",
    "exit_byte",
    "power_off",
    "reboot",
    "reboot_for_ever",
    "bad_window",
    "trace_cost",
    "quiet",
    "pattern",
    "departs",
    "debug",
    "exceptions",
    "init",
    "modes",
    "xsave",
    "paging",
    "features",
    "together",
    "punctual",
    "bursts",
    "bursts_at_exits",
    "exit_storm",
    "bursts_at_starts",
    "boundaries",
];
/// In the order of [`NAMES`].
const TESTS: &[Test; COUNT] = &[
    cpu::test,
    smp::test,
    icr::test,
    nmi::test,
    msr::test,
    io::test,
    instructions::test,
    timer::test,
    timer::survivor,
    ends::triple_fault,
    ends::outside_memory,
    ends::apic_page,
    ends::leave_x2apic,
    ends::finish_7,
    ends::exit_byte,
    ends::power_off,
    ends::reboot,
    ends::reboot_for_ever,
    ends::bad_window,
    trace_cost::test,
    quiet::test,
    pattern::test,
    departs::test,
    debug::test,
    exceptions::test,
    init::test,
    modes::test,
    xsave::test,
    paging::test,
    features::test,
    together::test,
    punctual::test,
    bursts::test,
    bursts::exits,
    leave::storm,
    bursts::starts,
    boundaries::test,
];

/// The options of all tests.
const OPTIONS: &[&str] = &["test", "seed", "ms", "kind", "bursts", "limit"];

fn run(machine: &Machine) -> Result<(), Error> {
    let test = machine.options(OPTIONS)?.choice("test", 0, NAMES)?;
    tables::load(0);
    catch::install();
    counters::install();
    TESTS.get(test).map_or(Ok(()), |test| test(machine))
}
