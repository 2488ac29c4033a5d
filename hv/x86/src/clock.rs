//! Frequencies of the time-stamp counter and of the local APIC timer, measured against the ACPI PM timer.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;

use crate::apic;
use crate::cpu::idt::take_timer;
use crate::cpu::{rdtsc, relax};

/// Frequency of the PM timer in Hz (ACPI, "Power Management Timer").
const PM_TIMER_HZ: u64 = 3_579_545;
/// The PM timer has 24 bits, or 32.
const PM_TIMER_MASK: u32 = 0xFF_FFFF;
/// How long to measure: 20 ms of PM timer ticks.
const TSC_WINDOW: u32 = (PM_TIMER_HZ / 50) as u32;
/// How long the trials of the local APIC timer take, in its ticks.
const LAPIC_WINDOWS: [u32; 2] = [1_000_000, 9_000_000];
/// Trials of each window: interrupts can only be late, so that the shortest is nearest.
const LAPIC_TRIALS: u32 = 5;
/// Reads of the PM timer after which it counts as dead.
const PM_TIMER_READS: u32 = 50_000_000;

/// What the clocks of this machine run at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Time-stamp counter, in Hz.
    pub tsc_hz: u64,
    /// Local APIC timer at divide-by-1, in Hz.
    pub lapic_hz: u64,
}

/// Why the clocks are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// The PM timer does not count.
    PmTimerDead,
}

impl core::fmt::Display for ClockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PmTimerDead => write!(f, "the ACPI PM timer does not count; the clocks cannot be measured by it"),
        }
    }
}

static TICKS_PER_MS: AtomicU64 = AtomicU64::new(1);

/// Time-stamp ticks in a millisecond, once measured.
#[inline]
pub fn ticks_per_ms() -> u64 {
    TICKS_PER_MS.load(Ordering::Relaxed)
}

/// Waits for `ticks` of the PM timer to pass and returns the time-stamp ticks that passed with them, and the PM
/// timer ticks that really passed.
fn measure_tsc(pm_timer: &mut Port<u32>, ticks: u32) -> Result<(u64, u32), ClockError> {
    // SAFETY: reading the PM timer has no side effect.
    let mut read = || (unsafe { pm_timer.read() } & PM_TIMER_MASK, rdtsc());
    // Start on an edge, so that the first tick is a whole one.
    let edge = read().0;
    let mut start = read();
    let mut reads = 0;
    while start.0 == edge {
        start = read();
        reads += 1;
        if reads > PM_TIMER_READS {
            return Err(ClockError::PmTimerDead);
        }
    }
    for _ in 0..PM_TIMER_READS {
        let now = read();
        let passed = now.0.wrapping_sub(start.0) & PM_TIMER_MASK;
        if passed >= ticks {
            return Ok((now.1.wrapping_sub(start.1), passed));
        }
    }
    Err(ClockError::PmTimerDead)
}

/// The fewest time-stamp ticks that a one-shot of so many local APIC timer ticks took to interrupt.
fn shortest_one_shot(window: u32) -> u64 {
    let mut shortest = u64::MAX;
    for _ in 0..LAPIC_TRIALS {
        let start = rdtsc();
        apic::timer_one_shot(window);
        interrupts::enable();
        // Spinning, not halted: waking up would be counted too.
        let fired = loop {
            relax();
            if let Some(stamp) = take_timer() {
                break stamp;
            }
        };
        interrupts::disable();
        shortest = shortest.min(fired.wrapping_sub(start));
    }
    shortest
}

/// Crystals come in whole MHz: a figure within 500 ppm of one is taken for it.
fn snap(hz: u64) -> u64 {
    const MHZ: u64 = 1_000_000;
    let whole = (hz + MHZ / 2) / MHZ * MHZ;
    if whole.abs_diff(hz) * 2000 <= whole { whole } else { hz }
}

/// Measures the clocks, on the boot pCPU, whose local APIC is the hypervisor's. `pm_timer_port` is from ACPI.
///
/// # Errors
/// A PM timer that does not count.
pub fn measure(pm_timer_port: u16) -> Result<Clocks, ClockError> {
    let mut pm_timer = Port::new(pm_timer_port);
    let (tsc, pm) = measure_tsc(&mut pm_timer, TSC_WINDOW)?;
    let tsc_hz = snap((tsc as u128 * PM_TIMER_HZ as u128 / pm.max(1) as u128) as u64);
    TICKS_PER_MS.store((tsc_hz / 1000).max(1), Ordering::Relaxed);

    // By its interrupt, not by its count register: reading that is not possible everywhere (docs/platforms.md). The
    // interrupt's own latency is in both windows, and drops out of their difference.
    let [short, long] = LAPIC_WINDOWS.map(shortest_one_shot);
    let (counts, ticks) = (LAPIC_WINDOWS[1] - LAPIC_WINDOWS[0], long.saturating_sub(short).max(1));
    let lapic_hz = snap((u128::from(counts) * u128::from(tsc_hz) / u128::from(ticks)) as u64);
    apic::timer_stop();
    Ok(Clocks { tsc_hz, lapic_hz })
}
