//! Claims: what a payload checks about itself, on its console and in its trace.

use core::sync::atomic::{AtomicU32, Ordering};

use partita_trace::Event;
use partita_x86_bare::rdtsc;

use crate::{println, trace};

static CHECKED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Notes whether `holds`: claim `id` (at most 2^23 - 1), about `left` and `right`. The payload ends with a failure if
/// any claim did not hold. Returns `holds`.
pub fn claim(id: u32, holds: bool, text: &str, left: u64, right: u64) -> bool {
    trace::record(rdtsc(), Event::Claim { passed: holds, id, left, right });
    let count = if holds { &CHECKED } else { &FAILED };
    count.fetch_add(1, Ordering::Relaxed);
    println!("{:4} {id:4} {text} ({left}, {right})", if holds { "ok" } else { "FAIL" });
    holds
}

/// How many claims held, and how many did not.
pub fn counts() -> (u32, u32) {
    (CHECKED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed))
}
