//! Frequencies of the time-stamp counter and of the local APIC timer, measured against the ACPI PM timer.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::pm_timer::{Dead, measure_tsc_hz, snap};
use x86_64::instructions::interrupts;

use crate::apic;
use crate::cpu::idt::take_timer;
use crate::cpu::rdtsc;

/// How long the trials of the local APIC timer take, in its ticks.
const LAPIC_WINDOWS: [u32; 2] = [1_000_000, 9_000_000];
/// Trials of each window: interrupts can only be late, so that the shortest is nearest.
const LAPIC_TRIALS: u32 = 3;
/// Most rounds of such trials.
const LAPIC_ROUNDS: u32 = 6;
/// Two results agree if they differ by one part in so many.
const AGREEMENT: u64 = 2000;

/// What the clocks of this machine run at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Time-stamp counter, in Hz.
    pub tsc_hz: u64,
    /// Local APIC timer at divide-by-1, in Hz.
    pub lapic_hz: u64,
}

static TICKS_PER_MS: AtomicU64 = AtomicU64::new(1);

/// Time-stamp ticks in a millisecond, once measured.
#[inline]
pub fn ticks_per_ms() -> u64 {
    TICKS_PER_MS.load(Ordering::Relaxed)
}

/// Why the clocks are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// The PM timer does not count.
    PmTimer(Dead),
    /// The local APIC timer does not interrupt.
    LapicTimerDead,
}

impl core::fmt::Display for ClockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PmTimer(error) => error.fmt(f),
            Self::LapicTimerDead => {
                write!(
                    f,
                    "the local APIC timer of the boot CPU does not interrupt within a second; its clock is not known"
                )
            }
        }
    }
}

/// The fewest time-stamp ticks that a one-shot of so many local APIC timer ticks took to interrupt.
fn shortest_one_shot(window: u32, tsc_hz: u64) -> Result<u64, ClockError> {
    let mut shortest = u64::MAX;
    for _ in 0..LAPIC_TRIALS {
        let start = rdtsc();
        apic::timer_one_shot(window);
        interrupts::enable();
        // Spinning, not halted: waking up would be counted too. Without PAUSE, on which an emulator goes round its CPUs.
        let fired = loop {
            let late = rdtsc().wrapping_sub(start) > tsc_hz;
            if let Some(stamp) = take_timer() {
                break Some(stamp);
            } else if late {
                break None;
            }
        };
        interrupts::disable();
        shortest = shortest.min(fired.ok_or(ClockError::LapicTimerDead)?.wrapping_sub(start));
    }
    Ok(shortest)
}

/// By the timer's interrupt, not by its count register: reading that is not possible everywhere (docs/platforms.md). The
/// interrupt's own latency is in both windows, and drops out of their difference. Repeated until two results agree; one
/// that never did is not rounded, so that it looks no better than it is.
fn measure_lapic(tsc_hz: u64) -> Result<u64, ClockError> {
    let mut last = 0;
    for _ in 0..LAPIC_ROUNDS {
        let [short, long] = LAPIC_WINDOWS.map(|window| shortest_one_shot(window, tsc_hz));
        let (counts, ticks) = (LAPIC_WINDOWS[1] - LAPIC_WINDOWS[0], long?.saturating_sub(short?).max(1));
        let hz = (u128::from(counts) * u128::from(tsc_hz) / u128::from(ticks)) as u64;
        if hz.abs_diff(last) * AGREEMENT <= hz {
            return Ok(snap(hz));
        }
        last = hz;
    }
    Ok(last)
}

/// Measures the clocks, on the boot pCPU, whose local APIC is the hypervisor's. `pm_timer_port` is from ACPI.
///
/// # Errors
/// A timer that does not count.
pub fn measure(pm_timer_port: u16) -> Result<Clocks, ClockError> {
    let tsc_hz = measure_tsc_hz(pm_timer_port).map_err(ClockError::PmTimer)?;
    TICKS_PER_MS.store((tsc_hz / 1000).max(1), Ordering::Relaxed);

    let lapic_hz = measure_lapic(tsc_hz)?;
    apic::timer_stop();
    Ok(Clocks { tsc_hz, lapic_hz })
}
