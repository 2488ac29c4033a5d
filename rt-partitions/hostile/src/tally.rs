//! What an attack tried and what came of it, for its last line.

use core::fmt::{self, Arguments};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::console::print;

/// Wrong answers that are printed; the others are only counted.
const SHOWN_MAX: u64 = 10;

/// Counts of one attack.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Things tried.
    pub(crate) tries: u64,
    /// Exceptions that came of them.
    pub(crate) faults: u64,
    /// Accesses that the hypervisor has to count as refused.
    pub(crate) accesses: u64,
    /// Writes of the ICR that it has to count as refused.
    pub(crate) ipis: u64,
    wrong: u64,
}

impl Tally {
    /// Notes an answer that is not what it should be.
    pub(crate) fn wrong(&mut self, what: Arguments<'_>) {
        self.wrong += 1;
        if self.wrong <= SHOWN_MAX {
            print(format_args!("hostile: WRONG: {what}\n"));
        }
    }

    /// Notes a wrong answer unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, what: Arguments<'_>) {
        if !holds {
            self.wrong(what);
        }
    }

    /// Whether nothing was wrong.
    pub(crate) const fn is_clean(&self) -> bool {
        self.wrong == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tries, faults, accesses, ipis, wrong } = self;
        write!(f, "{tries} tries, {faults} faults, refused {accesses} accesses, {ipis} IPIs, {wrong} wrong")
    }
}

/// Counts of another CPU: added once, when it is done.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Tries, faults, accesses, IPIs, wrong answers.
    counts: [AtomicU64; 5],
    is_done: AtomicU64,
}

impl Shared {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; 5], is_done: AtomicU64::new(0) }
    }

    /// Publishes what this CPU counted.
    pub(crate) fn publish(&self, tally: &Tally) {
        let Tally { tries, faults, accesses, ipis, wrong } = *tally;
        for (place, count) in self.counts.iter().zip([tries, faults, accesses, ipis, wrong]) {
            place.store(count, Ordering::Relaxed);
        }
        self.is_done.store(1, Ordering::Release);
    }

    /// Whether it did.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire) != 0
    }

    /// Adds it to the counts of this CPU.
    pub(crate) fn add_to(&self, tally: &mut Tally) {
        let [tries, faults, accesses, ipis, wrong] = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        tally.tries += tries;
        tally.faults += faults;
        tally.accesses += accesses;
        tally.ipis += ipis;
        tally.wrong += wrong;
    }
}
