//! A real-time guest that must not notice what becomes of another: both CPUs add up their memory again and again, with
//! interrupts of their own, and never leave the guest, until someone outside sets CPU 0's TSC_AUX.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, cpu, println, rdtsc, trace};
use partita_trace::Event;
use partita_x86_bare::write_msr;

use crate::catch::open;
use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};
use crate::peer::{CPUS, Pair};

/// 512 KiB beside its image and stack: filling more would take too long before the quiet part. A round is about one part, so
/// that it is short, and the next one about the next part.
const PARTS: usize = 4;
/// 128 KiB.
const WORDS: usize = 16_384;
/// Words between two looks for interrupts.
const STEP: usize = 256;
const TIMER_VECTOR: u8 = FIRST_VECTOR;
const SELF_VECTOR: u8 = FIRST_VECTOR + 1;
const INTERVAL_US: u64 = 200;
const SELF_IPI: u32 = 0x83F;
pub(crate) const TSC_AUX: u32 = 0xC000_0103;
/// What to set TSC_AUX to.
pub(crate) const ENOUGH: u32 = 7;
/// Marks of the begin and the end of the quiet part; they have the CPU's rounds.
pub(crate) const BEGIN_MARK: u32 = 300;
pub(crate) const END_MARK: u32 = 301;
/// A mark of how late the latest tick of each CPU's timer was, in ticks of the time-stamp counter.
const LATENESS_MARK: u32 = 302;
/// What is printed behind the first mark.
const BEGUN: &str = "quiet: begun";
/// Ticks that a timer may have had more than the time has room for, as the time is read a little beside its start and end.
const TICKS_SLACK: u64 = 2;
/// The clocks' frequencies are measured, the timer's against the other's: to a thousandth at least.
const CLOCKS_PART: u64 = 1000;

static MEMORY: [[AtomicU64; WORDS]; PARTS] = [const { [const { AtomicU64::new(0) }; WORDS] }; PARTS];
/// By part.
static EXPECTED: [AtomicU64; PARTS] = [const { AtomicU64::new(0) }; PARTS];
static IS_ENOUGH: AtomicBool = AtomicBool::new(false);
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// What a CPU found.
struct Found {
    rounds: AtomicU64,
    changed: AtomicU64,
    /// For how long its timer ran, and how late its latest tick was, in ticks of the time-stamp counter.
    elapsed: AtomicU64,
    lateness: AtomicU64,
}

static FOUND: [Found; CPUS] = [const {
    Found {
        rounds: AtomicU64::new(0),
        changed: AtomicU64::new(0),
        elapsed: AtomicU64::new(0),
        lateness: AtomicU64::new(0),
    }
}; CPUS];

/// A CPU's timer, whose ticks are looked at wherever interrupts are let in.
struct Timer {
    apic_id: u32,
    interval: u64,
    started: u64,
    ticks: u64,
    last: u64,
    /// The longest time between two ticks, or looks at them.
    longest: u64,
}

impl Timer {
    /// Starts it.
    fn start() -> Self {
        let started = rdtsc();
        // SAFETY: the vector is counted.
        unsafe { apic::timer_periodic(TIMER_VECTOR, TIMER_TICKS.load(Ordering::Relaxed) as u32) };
        let interval = INTERVAL.load(Ordering::Relaxed);
        Self { apic_id: apic::id(), interval, started, ticks: 0, last: started, longest: 0 }
    }

    /// Lets interrupts in.
    fn open(&mut self) {
        open();
        let ticks = counters::count(TIMER_VECTOR, self.apic_id);
        if ticks != self.ticks {
            let now = rdtsc();
            self.longest = self.longest.max(now.wrapping_sub(self.last));
            (self.ticks, self.last) = (ticks, now);
        }
    }

    fn stop(&mut self) {
        apic::timer_stop();
        let now = rdtsc();
        self.longest = self.longest.max(now.wrapping_sub(self.last));
        let Some(found) = FOUND.get(cpu::index()) else { return };
        found.elapsed.store(now.wrapping_sub(self.started), Ordering::Relaxed);
        found.lateness.store(self.longest.saturating_sub(self.interval), Ordering::Relaxed);
    }
}

fn checksum(part: &[AtomicU64], mut open: impl FnMut()) -> u64 {
    part.chunks(STEP).fold(0, |sum, words| {
        open();
        words.iter().fold(sum, |sum: u64, word| sum.rotate_left(5) ^ word.load(Ordering::Relaxed))
    })
}

/// Reads TSC_AUX without an exit.
pub(crate) fn tsc_aux() -> u32 {
    let aux: u32;
    // SAFETY: reads the counter and the register.
    unsafe { asm!("rdtscp", out("eax") _, out("edx") _, out("ecx") aux, options(nomem, nostack, preserves_flags)) };
    aux
}

fn add_up(timer: &mut Timer, is_enough: impl Fn() -> bool) {
    let Some(found) = FOUND.get(cpu::index()) else { return };
    for (part, expected) in MEMORY.iter().zip(&EXPECTED).cycle() {
        if is_enough() {
            return;
        }
        if checksum(part, || timer.open()) != expected.load(Ordering::Acquire) {
            found.changed.fetch_add(1, Ordering::Relaxed);
        }
        found.rounds.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the vector is counted; a self-IPI by this register costs no exit.
        unsafe { write_msr(SELF_IPI, SELF_VECTOR.into()) };
        timer.open();
    }
}

fn mark(id: u32, value: impl Fn(&Found) -> &AtomicU64) {
    let [first, second] = FOUND.each_ref().map(|found| value(found).load(Ordering::Relaxed));
    trace::record(rdtsc(), Event::Mark { id, first, second });
}

fn peer() {
    let mut timer = Timer::start();
    add_up(&mut timer, || IS_ENOUGH.load(Ordering::Acquire));
    timer.stop();
    IS_DONE.store(true, Ordering::Release);
}

/// Of the timer, and of the time-stamp counter.
static TIMER_TICKS: AtomicU64 = AtomicU64::new(0);
static INTERVAL: AtomicU64 = AtomicU64::new(0);

/// The claims, for the time up to the wish for an end.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(1200);
    // SAFETY: no other code uses it.
    unsafe { write_msr(TSC_AUX, 0) };
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    for place in MEMORY.as_flattened() {
        word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        place.store(word, Ordering::Relaxed);
    }
    for (part, expected) in MEMORY.iter().zip(&EXPECTED) {
        expected.store(checksum(part, || ()), Ordering::Release);
    }
    TIMER_TICKS.store(machine.clocks.lapic_ticks(INTERVAL_US).into(), Ordering::Relaxed);
    let interval = machine.clocks.tsc_hz * INTERVAL_US / 1_000_000;
    INTERVAL.store(interval, Ordering::Relaxed);
    let pair = Pair::start(machine)?;
    pair.begin(peer);
    // With a round behind it, CPU 1 has taken whatever was on its way from its start.
    let [_, peer] = &FOUND;
    pair.wait(|| peer.rounds.load(Ordering::Relaxed) > 0)?;
    pair.settle();

    mark(BEGIN_MARK, |found| &found.rounds);
    // Who attacks waits for this, and the timer for the serial port.
    println!("{BEGUN}");
    let mut timer = Timer::start();
    add_up(&mut timer, || tsc_aux() == ENOUGH);
    mark(END_MARK, |found| &found.rounds);

    timer.stop();
    IS_ENOUGH.store(true, Ordering::Release);
    pair.wait(|| IS_DONE.load(Ordering::Acquire))?;
    pair.settle();
    for (found, apic_id) in FOUND.iter().zip([pair.own, pair.peer]) {
        let rounds = found.rounds.load(Ordering::Relaxed);
        claims.about("it added all its memory up", rounds >= PARTS as u64, rounds, PARTS as u64);
        claims.equal("  the sum never changed", found.changed.load(Ordering::Relaxed), 0);
        claims.equal("  each interrupt to itself came once", counters::count(SELF_VECTOR, apic_id), rounds);
        let timers = counters::count(TIMER_VECTOR, apic_id);
        // Threads of a busy host lose ticks, and nobody makes more of them.
        let room = found.elapsed.load(Ordering::Relaxed) / interval.max(1);
        let most = room + room / CLOCKS_PART + TICKS_SLACK;
        claims.about("  its timer came, and no more often than its time", (1..=most).contains(&timers), timers, most);
    }
    mark(LATENESS_MARK, |found| &found.lateness);
    claims.equal("no NMI came", counters::all_nmis(), 0);
    Ok(())
}
