//! A real-time guest beside another: its two CPUs send each other an interrupt in every round, take those of their timers, and
//! add their memory up; for some time, so that others do the same meanwhile.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, cpu, rdtsc, trace, wait_until};
use partita_trace::Event;

use crate::OPTIONS;
use crate::catch::open;
use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};
use crate::peer::{CPUS, Pair};

/// 16 KiB for each CPU.
const WORDS: usize = 2048;
const TIMER_VECTOR: u8 = FIRST_VECTOR;
const PEER_VECTOR: u8 = FIRST_VECTOR + 1;
const INTERVAL_US: u64 = 200;
/// How long it takes, unless the option `ms=N` says so.
const MS_DEFAULT: u64 = 60;
/// Marks of the begin and the end; they have the rounds.
const BEGIN_MARK: u32 = 310;
const END_MARK: u32 = 311;

static MEMORY: [[AtomicU64; WORDS]; CPUS] = [const { [const { AtomicU64::new(0) }; WORDS] }; CPUS];
static EXPECTED: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static CHANGED: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static IDS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static TIMER_TICKS: AtomicU64 = AtomicU64::new(0);
/// When CPU 0 ends, in ticks of the TSC.
static UNTIL: AtomicU64 = AtomicU64::new(0);
/// The last round; set before CPU 0 sends its interrupt in that round.
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);

fn get(values: &[AtomicU64; CPUS], index: usize) -> u64 {
    values.get(index).map_or(0, |value| value.load(Ordering::Acquire))
}

fn checksum(index: usize) -> u64 {
    let words = MEMORY.get(index).into_iter().flatten();
    words.fold(0, |sum: u64, word| sum.rotate_left(5) ^ word.load(Ordering::Relaxed))
}

fn send(peer: u32) {
    // SAFETY: the peer counts the vector.
    unsafe { apic::send_fixed(peer, PEER_VECTOR) };
}

/// One CPU's part. In every round each CPU sends one interrupt, and waits for the other's.
fn take_part() {
    let index = cpu::index();
    let (own, peer) = (get(&IDS, index) as u32, get(&IDS, 1 - index.min(1)) as u32);
    let expected = get(&EXPECTED, index);
    // SAFETY: the vector is counted.
    unsafe { apic::timer_periodic(TIMER_VECTOR, TIMER_TICKS.load(Ordering::Relaxed) as u32) };
    for round in 1.. {
        if checksum(index) != expected
            && let Some(changed) = CHANGED.get(index)
        {
            changed.fetch_add(1, Ordering::Relaxed);
        }
        if index == 0 && rdtsc() > UNTIL.load(Ordering::Relaxed) {
            LAST.store(round, Ordering::Release);
        }
        // By turns, so that no two of a vector wait for the same CPU, where they would become one.
        if index == 0 {
            send(peer);
        }
        let arrived = wait_until(1 - index.min(1), || {
            open();
            counters::count(PEER_VECTOR, own) >= round
        });
        if index != 0 {
            send(peer);
        }
        if arrived.is_err() || LAST.load(Ordering::Acquire) == round {
            break;
        }
    }
    apic::timer_stop();
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let options = machine.options(OPTIONS)?;
    let milliseconds = options.number("ms", MS_DEFAULT, 1..=100_000)?;
    let mut word = options.number("seed", 1, 0..=255)?;
    for (index, expected) in EXPECTED.iter().enumerate() {
        for place in MEMORY.get(index).into_iter().flatten() {
            word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            place.store(word, Ordering::Relaxed);
        }
        expected.store(checksum(index), Ordering::Release);
    }
    let mut claims = Claims::from(4400);
    TIMER_TICKS.store(machine.clocks.lapic_ticks(INTERVAL_US).into(), Ordering::Relaxed);
    let pair = Pair::start(machine)?;
    for (place, id) in IDS.iter().zip([pair.own, pair.peer]) {
        place.store(id.into(), Ordering::Release);
    }
    let begin = rdtsc();
    UNTIL.store(begin + machine.clocks.tsc_hz / 1000 * milliseconds, Ordering::Release);
    trace::record(begin, Event::Mark { id: BEGIN_MARK, first: 0, second: 0 });
    pair.begin(take_part);
    take_part();
    let end = rdtsc();
    pair.call(|| ())?;
    let rounds = LAST.load(Ordering::Acquire);
    trace::record(end, Event::Mark { id: END_MARK, first: rounds, second: 0 });
    pair.settle();

    claims.about("there were rounds", rounds > 1 && rounds != u64::MAX, rounds, 1);
    let ticks_max = (end - begin) / machine.clocks.tsc_ticks(machine.clocks.lapic_ticks(INTERVAL_US)).max(1) + 2;
    for (index, id) in [pair.own, pair.peer].into_iter().enumerate() {
        claims.equal("its peer's interrupts came, each once", counters::count(PEER_VECTOR, id), rounds);
        let ticks = counters::count(TIMER_VECTOR, id);
        // A clock that was measured on a busy host is not known well; and an interrupt may merge with one that waits.
        let exact = machine.clocks.tsc_hz == machine.clocks.lapic_hz;
        claims.about(
            "  its timer's came, and not too many",
            ticks > 0 && (ticks <= ticks_max || !exact),
            ticks,
            ticks_max,
        );
        claims.equal("  the sum of its memory never changed", get(&CHANGED, index), 0);
    }
    let own = [pair.own, pair.peer];
    let known: u64 = own.iter().map(|id| counters::count(PEER_VECTOR, *id) + counters::count(TIMER_VECTOR, *id)).sum();
    claims.equal("no other interrupt came", counters::total(), known);
    claims.equal("no NMI came", counters::all_nmis(), 0);
    Ok(())
}
