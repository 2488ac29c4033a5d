//! The noisy neighbour: one CPU that never rests and never ends. Each round writes to memory and says PAUSE; some leave
//! the guest.
//!
//! Options: `writes=N`, cache lines written in a round (default 64); `rounds=N`, rounds to an exit, CPUID and OUT by
//! turns, or 0 for none (default 64); `pause=0|1` (default 1); `console=still|flood`, flood for a numbered line on the
//! console in each round (default still).

#![no_std]
#![no_main]

use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;

use partita_rt::{Error, Machine, place, println, relax};

partita_rt::payload!("neighbour", disturb);

const KEYS: &[&str] = &["writes", "rounds", "pause", "console"];
const CONSOLE: &[&str] = &["still", "flood"];
const WRITES_DEFAULT: u64 = 64;
const ROUNDS_DEFAULT: u64 = 64;
/// Most of either.
const EACH_MAX: u64 = 1_000_000;

/// Words of the memory that is written: more than a second-level cache holds of it.
const WORDS: usize = 128 * 1024;
/// Words of a cache line.
const LINE: usize = 8;

struct Memory(UnsafeCell<[u64; WORDS]>);

// SAFETY: only CPU 0 uses it.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; WORDS]));

fn disturb(machine: &Machine) -> Result<(), Error> {
    let options = machine.options(KEYS)?;
    let writes = options.number("writes", WRITES_DEFAULT, 0..=EACH_MAX)?;
    let rounds = options.number("rounds", ROUNDS_DEFAULT, 0..=EACH_MAX)?;
    let pause = options.flag("pause", true)?;
    let floods = options.choice("console", 0, CONSOLE)? != 0;
    let with = if pause { "with" } else { "without" };
    println!("payload: rounds of {writes} writes, {with} PAUSE; {rounds} to an exit");
    let (mut word, mut until_exit, mut cpuid_is_next) = (0, rounds, true);
    let mut lines = 0u64;
    loop {
        if floods {
            println!("flood {lines}");
            lines += 1;
        }
        for _ in 0..writes {
            word = (word + LINE) % WORDS;
            // SAFETY: the place lies in the memory, which is this CPU's alone.
            unsafe { MEMORY.0.get().cast::<u64>().add(word).write_volatile(word as u64) };
        }
        until_exit = until_exit.saturating_sub(1);
        if until_exit == 0 && rounds > 0 {
            if cpuid_is_next {
                core::hint::black_box(__cpuid(0));
            } else {
                place::write_post_port();
            }
            (until_exit, cpuid_is_next) = (rounds, !cpuid_is_next);
        }
        if pause {
            relax();
        }
    }
}
