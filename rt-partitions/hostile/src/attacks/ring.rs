//! Announces its trace window, and writes garbage over it while the hypervisor and the host look: over the header, or over
//! all but the header, with the rings' indices; at once, or, with an even seed, when it was accepted. Before that, windows
//! with bad addresses and lengths.

use partita_abi::hypercall::{INVALID, SUCCESS, TRACE_WINDOW};
use partita_trace::layout::{HEADER_LEN, REGION_ALIGN, Region, RegionSpec, WriterKind};
use partita_trace::ring::SLOTS_MIN;

use super::hypercalls::hypercall;
use crate::Orders;
use crate::console::fail;
use crate::tally::Tally;

const BASE: u64 = REGION_ALIGN as u64;
const PAGE: u64 = 4096;
/// Passes over the region, if nothing was said.
const PASSES_DEFAULT: u64 = 50;
/// Words of garbage in one pass.
const WORDS: u64 = 512;
const HEADER_WORDS: u64 = HEADER_LEN as u64 / 8;
/// In which the hypervisor looks at what was announced.
const ACCEPT_MS: u64 = 60;
const HEADER: usize = 1;
const RINGS: usize = 2;

fn bad_windows(orders: &Orders, tally: &mut Tally) {
    let memory = orders.memory;
    for (gpa, len) in [
        (BASE + PAGE, 1 << 20),
        (BASE + 1, 1 << 20),
        (BASE, 0),
        (BASE, 64),
        (BASE, PAGE + 1),
        (BASE, memory),
        (BASE, u64::MAX),
        (BASE, u64::MAX - PAGE + 1),
        (memory, PAGE),
        (memory - BASE, BASE + PAGE),
        (0xFEE0_0000, PAGE),
        (1 << 40, 1 << 20),
        (u64::MAX << 21, 1 << 21),
        (u64::MAX << 21, u64::MAX << 12),
        (u64::MAX, u64::MAX),
    ] {
        let found = hypercall(TRACE_WINDOW.into(), gpa, len);
        tally.tries += 1;
        tally.accesses += 1;
        tally.check(found == Ok(INVALID), format_args!("a window at {gpa:#x} of {len:#x} bytes gave {found:x?}"));
    }
}

/// A true region first, which the hypervisor accepts, or has no time to; then garbage.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    bad_windows(orders, tally);
    let spec = RegionSpec {
        writer: WriterKind::Guest,
        pcpus: 2,
        ring_slots: SLOTS_MIN,
        histograms: false,
        tsc_hz: 1_000_000_000,
        build_id: [0; 20],
    };
    let room = orders.memory.saturating_sub(BASE) as usize;
    if spec.len() > room {
        fail(format_args!("the attack needs {} bytes behind {BASE:#x}; give the partition more memory", spec.len()));
    }
    let start = BASE as *mut u8;
    // SAFETY: memory behind the image that nothing uses, mapped one to one.
    if let Err(error) = unsafe { Region::init(start, room, &spec) } {
        fail(format_args!("{error}"));
    }
    let found = hypercall(TRACE_WINDOW.into(), BASE, spec.len() as u64);
    tally.check(found == Ok(SUCCESS), format_args!("the window gave {found:x?}"));
    if orders.seed.is_multiple_of(2) {
        // The hypervisor accepts the region before it is spoilt.
        orders.pass(ACCEPT_MS);
    }
    let words = spec.len() as u64 / 8;
    let (first, end) = match orders.kind {
        HEADER => (0, HEADER_WORDS),
        RINGS => (HEADER_WORDS, words),
        _ => (0, words),
    };
    let mut random = orders.random();
    for _ in 0..orders.steps_or(PASSES_DEFAULT) {
        for _ in 0..WORDS {
            let value = match random.below(5) {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << random.below(64),
                3 => random.any(),
                _ => random.next(),
            };
            // SAFETY: as above.
            unsafe { start.cast::<u64>().add((first + random.below(end - first)) as usize).write_volatile(value) };
            tally.tries += 1;
        }
    }
}
