//! The row of periods: wake-ups by an absolute schedule, one every 200 us, each waited for in HLT. Each is programmed as a
//! one-shot up to its time, so that no lateness adds up, and an emulator whose periodic timers have a period of one tick more than
//! they are told (QEMU's have) does not drift away from the schedule.

use core::arch::asm;
use core::cell::UnsafeCell;

use partita_rows::Row;
use partita_rows::distribution::Part;
use partita_rt::{Machine, apic, claim, println, rdtsc, trace};
use partita_trace::Event;
use partita_x86_bare::write_msr;

use crate::handlers::STAMP_VECTOR;

/// The MSR of the timer's initial count in x2APIC mode.
const INITIAL_COUNT: u32 = 0x838;
const PERIOD_US: u64 = 200;
/// A CPU spins for so long before it halts: see `timer.rs`.
const SPIN_US: u64 = 40;
/// A ratio of 1.
const RATIO_UNIT: u64 = 1 << 24;
/// Values below this have a counter each.
const VALUES: usize = 4096;
/// So many values above have a place of their own, in which each is kept.
const LARGE_MAX: usize = 512;

/// How often each value was seen.
struct Seen {
    counts: [u64; VALUES],
    large: [u64; LARGE_MAX],
    large_count: usize,
    max: u64,
    total: u64,
}

impl Seen {
    fn add(&mut self, value: u64) {
        self.total += 1;
        self.max = self.max.max(value);
        if let Some(count) = usize::try_from(value).ok().and_then(|value| self.counts.get_mut(value)) {
            *count += 1;
        } else if let Some(place) = self.large.get_mut(self.large_count) {
            *place = value;
            self.large_count += 1;
        }
    }

    /// Each value that was seen, and how often; a large one each time that it was.
    fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        let small = self.counts.iter().enumerate().map(|(value, count)| (value as u64, *count));
        let large = self.large.iter().take(self.large_count).map(|value| (*value, 1));
        small.filter(|(_, count)| *count > 0).chain(large)
    }
}

struct Place(UnsafeCell<Seen>);

// SAFETY: `measure` alone refers to it, once.
unsafe impl Sync for Place {}

static SEEN: Place =
    Place(UnsafeCell::new(Seen { counts: [0; VALUES], large: [0; LARGE_MAX], large_count: 0, max: 0, total: 0 }));

/// Measures the row: so many periods.
pub(crate) fn measure(machine: &Machine, periods: u64) {
    let row = Row::TimerPeriodic200us;
    let clocks = &machine.clocks;
    let ticks = |us: u64| (u128::from(clocks.tsc_hz) * u128::from(us) / 1_000_000) as u64;
    let (period, spin) = (ticks(PERIOD_US), ticks(SPIN_US));
    // There is no time for a division between the look at the time and the write of the count.
    let ratio = (clocks.lapic_hz * RATIO_UNIT).div_ceil(clocks.tsc_hz.max(1));
    // SAFETY: the group is measured once.
    let seen = unsafe { &mut *SEEN.0.get() };
    defmt::info!("row {=str}", row.name());
    // SAFETY: the vector has a handler, and the timer only runs while assembly waits that gives up what that changes.
    unsafe { apic::timer_one_shot(STAMP_VECTOR, 0) };
    let (mut missed, mut early) = (0, 0);
    let mut next = rdtsc().wrapping_add(2 * period);
    for _ in 0..periods {
        let spin_until = next.wrapping_sub(period).wrapping_add(spin);
        let left = next.wrapping_sub(rdtsc()) as i64;
        // Rounded up: to be early is no merit.
        let count = (left as u64).wrapping_mul(ratio).wrapping_add(RATIO_UNIT - 1) / RATIO_UNIT;
        let woken = wait(if left > 0 { count } else { 1 }, spin_until);
        missed += u64::from(left <= 0);
        let late = woken.wrapping_sub(next) as i64;
        early += u64::from(late < 0);
        seen.add(late.max(0) as u64);
        next = next.wrapping_add(period);
    }
    apic::timer_stop();
    let now = rdtsc();
    let mut told = 0;
    for (value, count) in seen.all() {
        trace::record(now, Event::Mark { id: Part::Value.mark(row), first: value, second: count });
        told += count;
    }
    trace::record(now, Event::Mark { id: Part::Whole.mark(row), first: seen.total, second: seen.max });
    claim(row.id(), told == periods, row.name(), told, periods);
    println!("payload: {}: {} periods, at most {} ticks late, {missed} missed", row.name(), seen.total, seen.max);
    if early > 0 {
        println!("payload: {}: {early} came early: the clocks are not known that exactly; they count as 0", row.name());
    }
}

/// Programs the timer, spins until `spin_until`, halts until the handler runs, and returns when it did.
fn wait(count: u64, spin_until: u64) -> u64 {
    // SAFETY: the timer has its vector, which is taken below only.
    unsafe { write_msr(INITIAL_COUNT, count) };
    while (spin_until.wrapping_sub(rdtsc()) as i64) > 0 {
        // SAFETY: changes nothing but its counter. The loop makes up for the PAUSE, which is slow in an emulator.
        unsafe { asm!("pause", "2: dec {0:e}", "jnz 2b", inout(reg) 256 => _, options(nomem, nostack)) };
    }
    let stamp;
    // SAFETY: gives up all registers that the handler changes.
    unsafe {
        asm!(
            "xor r10d, r10d",
            "2: sti",
            "hlt",
            "cli",
            "test r10, r10",
            "jz 2b",
            out("rax") _, out("rcx") _, out("rdx") _, out("r10") stamp, out("r11") _,
        );
    }
    stamp
}
