//! The ACPI PM timer: the clock of known frequency that the others are measured by (ACPI, "Power Management Timer").

use x86_64::instructions::port::Port;

use crate::rdtsc;

/// Its frequency in Hz.
pub const HZ: u64 = 3_579_545;
/// It has 24 bits, or 32.
const MASK: u32 = 0xFF_FFFF;
/// How long to measure: 20 ms of its ticks.
const WINDOW: u32 = (HZ / 50) as u32;
/// Reads after which it counts as dead.
const READS_MAX: u32 = 50_000_000;

/// The PM timer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead;

impl core::fmt::Display for Dead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the ACPI PM timer does not count; the clocks cannot be measured by it")
    }
}

/// Measures the frequency of the time-stamp counter, in Hz. `port` is from ACPI.
///
/// # Errors
/// The timer does not count.
pub fn measure_tsc_hz(port: u16) -> Result<u64, Dead> {
    let mut timer: Port<u32> = Port::new(port);
    // SAFETY: reading the PM timer has no side effect.
    let mut read = || (unsafe { timer.read() } & MASK, rdtsc());
    // Start on an edge, so that the first tick is a whole one.
    let edge = read().0;
    let mut start = None;
    for _ in 0..READS_MAX {
        let now = read();
        match start {
            None if now.0 != edge => start = Some(now),
            None => {}
            Some((pm, tsc)) => {
                let passed = now.0.wrapping_sub(pm) & MASK;
                if passed >= WINDOW {
                    let ticks = now.1.wrapping_sub(tsc);
                    return Ok(snap((u128::from(ticks) * u128::from(HZ) / u128::from(passed)) as u64));
                }
            }
        }
    }
    Err(Dead)
}

/// Crystals come in whole MHz: a figure within 500 ppm of one is taken for it.
pub fn snap(hz: u64) -> u64 {
    const MHZ: u64 = 1_000_000;
    let whole = (hz + MHZ / 2) / MHZ * MHZ;
    if whole.abs_diff(hz) * 2000 <= whole { whole } else { hz }
}
