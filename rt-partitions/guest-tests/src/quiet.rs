//! A real-time guest that must not notice what becomes of another: both CPUs add up their memory again and again, with
//! interrupts of their own, and never leave the guest, until someone outside sets CPU 0's TSC_AUX.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, cpu, rdtsc, trace};
use partita_trace::Event;
use partita_x86_bare::write_msr;

use crate::catch::open;
use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};
use crate::peer::{CPUS, Pair};

/// 100 KiB.
const WORDS: usize = 12_800;
/// Words between two looks for interrupts.
const STEP: usize = 256;
const TIMER_VECTOR: u8 = FIRST_VECTOR;
const SELF_VECTOR: u8 = FIRST_VECTOR + 1;
const INTERVAL_US: u64 = 200;
const SELF_IPI: u32 = 0x83F;
const TSC_AUX: u32 = 0xC000_0103;
/// What to set TSC_AUX to.
const ENOUGH: u32 = 7;
/// Marks of the begin and the end of the quiet part; they have the CPU's rounds.
const BEGIN_MARK: u32 = 300;
const END_MARK: u32 = 301;

static MEMORY: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static EXPECTED: AtomicU64 = AtomicU64::new(0);
static IS_ENOUGH: AtomicBool = AtomicBool::new(false);
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// What a CPU found.
struct Found {
    rounds: AtomicU64,
    changed: AtomicU64,
}

static FOUND: [Found; CPUS] = [const { Found { rounds: AtomicU64::new(0), changed: AtomicU64::new(0) } }; CPUS];

fn checksum() -> u64 {
    MEMORY.chunks(STEP).fold(0, |sum, words| {
        open();
        words.iter().fold(sum, |sum: u64, word| sum.rotate_left(5) ^ word.load(Ordering::Relaxed))
    })
}

/// Reads TSC_AUX without an exit.
fn tsc_aux() -> u32 {
    let aux: u32;
    // SAFETY: reads the counter and the register.
    unsafe { asm!("rdtscp", out("eax") _, out("edx") _, out("ecx") aux, options(nomem, nostack, preserves_flags)) };
    aux
}

fn add_up(is_enough: impl Fn() -> bool) {
    let Some(found) = FOUND.get(cpu::index()) else { return };
    let expected = EXPECTED.load(Ordering::Acquire);
    while !is_enough() {
        if checksum() != expected {
            found.changed.fetch_add(1, Ordering::Relaxed);
        }
        found.rounds.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the vector is counted; a self-IPI by this register costs no exit.
        unsafe { write_msr(SELF_IPI, SELF_VECTOR.into()) };
        open();
    }
}

fn mark(id: u32) {
    let [first, second] = FOUND.each_ref().map(|found| found.rounds.load(Ordering::Relaxed));
    trace::record(rdtsc(), Event::Mark { id, first, second });
}

fn peer() {
    start_timer();
    add_up(|| IS_ENOUGH.load(Ordering::Acquire));
    apic::timer_stop();
    IS_DONE.store(true, Ordering::Release);
}

static TIMER_TICKS: AtomicU64 = AtomicU64::new(0);

fn start_timer() {
    // SAFETY: the vector is counted.
    unsafe { apic::timer_periodic(TIMER_VECTOR, TIMER_TICKS.load(Ordering::Relaxed) as u32) };
}

/// The claims, for the time up to the wish for an end.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(1200);
    // SAFETY: no other code uses it.
    unsafe { write_msr(TSC_AUX, 0) };
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    for place in &MEMORY {
        word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        place.store(word, Ordering::Relaxed);
    }
    EXPECTED.store(checksum(), Ordering::Release);
    TIMER_TICKS.store(machine.clocks.lapic_ticks(INTERVAL_US).into(), Ordering::Relaxed);
    let pair = Pair::start(machine)?;
    start_timer();
    pair.begin(peer);
    pair.settle();

    mark(BEGIN_MARK);
    add_up(|| tsc_aux() == ENOUGH);
    mark(END_MARK);

    IS_ENOUGH.store(true, Ordering::Release);
    apic::timer_stop();
    pair.wait(|| IS_DONE.load(Ordering::Acquire))?;
    pair.settle();
    for (found, apic_id) in FOUND.iter().zip([pair.own, pair.peer]) {
        let rounds = found.rounds.load(Ordering::Relaxed);
        claims.about("it added its memory up", rounds > 0, rounds, 1);
        claims.equal("  the sum never changed", found.changed.load(Ordering::Relaxed), 0);
        claims.equal("  each interrupt to itself came once", counters::count(SELF_VECTOR, apic_id), rounds);
        let timers = counters::count(TIMER_VECTOR, apic_id);
        claims.about("  its timer came", timers > 0, timers, 1);
    }
    claims.equal("no NMI came", counters::all_nmis(), 0);
    Ok(())
}
