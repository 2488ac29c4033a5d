//! The hostile payload: a guest that attacks its hypervisor and its neighbours, beside whom a real-time guest must not notice
//! anything (docs/hostile-guests.md).
//!
//! Options: `attack=`[`NAMES`]; `seed=N` (default 1), `steps=N` (how long, in what the attack counts), `wait=1` (until
//! someone outside sets vCPU 0's TSC_AUX to 7, before the first life begins), and for some attacks `from=N count=N` (pages, by number) and `kind=`[`KINDS`].
//!
//! An attack that it survives ends with one line that tells what it tried and counted. What its partition is to be stopped
//! for takes a life for each try: the partition is restarted from the console, and each life takes the next one.

#![no_std]
#![no_main]

mod attacks;
mod console;
mod cpus;
mod excursion;
mod gates;
mod random;
mod tables;
mod tally;
mod vendor;

use core::arch::x86_64::{__cpuid, __rdtscp};
use core::fmt::Arguments;

use heapless::Vec;
use partita_abi::cpuid::{LEAF_LIFE, LEAF_TIMING};
use partita_abi::report::{EXIT_FAILURE, EXIT_SUCCESS};
use partita_rows::{OptionError, Options};
use partita_x86_bare::boot_info::{BootInfo, BootInfoError};
use partita_x86_bare::{BootBlock, apic, end_run, rdtsc, relax, write_msr};

use attacks::{ATTACKS, KINDS, NAMES};
use console::{fail, print};
use random::Random;
use tables::CPUS;
use tally::Tally;

const KEYS: &[&str] = &["attack", "seed", "steps", "wait", "from", "count", "kind"];

const TSC_AUX: u32 = 0xC000_0103;
/// What it is set to when the attack may begin.
const BEGIN: u32 = 7;

#[unsafe(no_mangle)]
static boot_block: BootBlock = BootBlock::new();

/// What an attack is told.
#[derive(Debug)]
pub(crate) struct Orders {
    name: &'static str,
    seed: u64,
    /// 0: as long as the attack takes by itself.
    steps: u64,
    /// Whether the first life begins when it is told to.
    waits: bool,
    /// Number of the first page of a range, and how many there are.
    from: u64,
    count: u64,
    /// By its place in [`KINDS`].
    kind: usize,
    /// Number of this life, from 1.
    life: u64,
    /// Bytes of this partition's memory, which begins at 0.
    memory: u64,
    /// x2APIC IDs of the vCPUs.
    ids: Vec<u32, CPUS>,
}

impl Orders {
    /// Pseudo-random numbers of this attack, the same in each life.
    pub(crate) const fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// How long, if nothing was said.
    pub(crate) const fn steps_or(&self, default: u64) -> u64 {
        if self.steps == 0 { default } else { self.steps }
    }

    /// Waits.
    pub(crate) fn pass(&self, milliseconds: u64) {
        let ticks = milliseconds.saturating_mul(__cpuid(LEAF_TIMING).ebx.into());
        let start = rdtsc();
        while rdtsc().wrapping_sub(start) < ticks {
            relax();
        }
    }

    /// Says when the attack begins.
    fn begin(&self) {
        print(format_args!("hostile: {}: seed {}: begins at {}\n", self.name, self.seed, rdtsc()));
    }

    /// Says what this life is about to do.
    pub(crate) fn say(&self, what: Arguments<'_>) {
        print(format_args!("hostile: {}: life {}: {what}\n", self.name, self.life));
    }

    /// Says how many tries there were of each kind, in the line before the last.
    pub(crate) fn count(&self, what: Arguments<'_>) {
        print(format_args!("hostile: {}: of these: {what}\n", self.name));
    }

    /// Ends the partition, and tells what was counted.
    pub(crate) fn finish(&self, tally: &Tally) -> ! {
        print(format_args!("hostile: {}: seed {}: {tally}\n", self.name, self.seed));
        end_run(if tally.is_clean() { EXIT_SUCCESS } else { EXIT_FAILURE })
    }
}

/// The entry code comes here.
#[unsafe(no_mangle)]
fn bare_main(boot: Result<BootInfo, BootInfoError>) -> ! {
    console::init();
    vendor::detect();
    gates::fill();
    tables::load(0);
    apic::enable();
    let boot = boot.unwrap_or_else(|error| fail(format_args!("{error}")));
    let (attack, orders) = read(&boot).unwrap_or_else(|error| fail(format_args!("{error}")));
    let Some(attack) = ATTACKS.get(attack) else { fail(format_args!("there is no such attack")) };
    if orders.life == 1 {
        if orders.waits {
            await_word();
        }
        orders.begin();
    }
    let mut tally = Tally::default();
    attack(&orders, &mut tally);
    orders.finish(&tally)
}

/// Waits until someone outside sets TSC_AUX, which is read without an exit.
fn await_word() {
    // SAFETY: no other code uses it yet.
    unsafe { write_msr(TSC_AUX, 0) };
    let is_told = || {
        let mut aux = 0;
        // SAFETY: reads the counter and the register.
        unsafe { __rdtscp(&raw mut aux) };
        aux == BEGIN
    };
    while !is_told() {
        relax();
    }
}

fn read(boot: &BootInfo) -> Result<(usize, Orders), OptionError<'static>> {
    let options = Options::new(boot.cmdline, KEYS)?;
    let attack = options.choice("attack", 0, NAMES)?;
    let number = |key, default| options.number(key, default, 0..=u64::MAX);
    let orders = Orders {
        name: NAMES.get(attack).copied().unwrap_or(""),
        seed: number("seed", 1)?,
        steps: number("steps", 0)?,
        waits: number("wait", 0)? != 0,
        from: number("from", 0)?,
        count: number("count", 0)?,
        kind: options.choice("kind", 0, KINDS)?,
        life: u64::from(__cpuid(LEAF_LIFE).eax).max(1),
        memory: boot.memory.iter().map(|range| range.start + range.len).max().unwrap_or(0),
        ids: cpus::ids(boot),
    };
    Ok((attack, orders))
}
