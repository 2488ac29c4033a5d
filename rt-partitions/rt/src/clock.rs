//! The clocks of the machine: told by the hypervisor, or measured on the bare machine.

use core::arch::x86_64::__cpuid;

use partita_x86_bare::{apic, pm_timer, rdtsc};

use crate::interrupts;

/// What the clocks run at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Time-stamp counter, in Hz.
    pub tsc_hz: u64,
    /// Local APIC timer at divide-by-1, in Hz.
    pub lapic_hz: u64,
}

/// How long one trial of the local APIC timer takes, in its ticks.
const LAPIC_WINDOW: u32 = 20_000_000;
/// Trials of the local APIC timer: interrupts can only be late, so that the shortest is nearest.
const LAPIC_TRIALS: u32 = 5;

/// Leaf 1, ECX bit 31: there is a hypervisor.
const FEATURE_HYPERVISOR: u32 = 1 << 31;
/// EAX = the highest leaf of a hypervisor.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// EAX = frequency of the time-stamp counter, EBX = of the local APIC timer, both in kHz, as VMware has it and users of KVM.
const LEAF_FREQUENCIES: u32 = 0x4000_0010;

impl Clocks {
    /// What another hypervisor than Partita tells, if it does.
    pub(crate) fn told() -> Option<Self> {
        if __cpuid(1).ecx & FEATURE_HYPERVISOR == 0 || __cpuid(LEAF_HYPERVISOR).eax < LEAF_FREQUENCIES {
            return None;
        }
        let told = __cpuid(LEAF_FREQUENCIES);
        let clocks = Self { tsc_hz: u64::from(told.eax) * 1000, lapic_hz: u64::from(told.ebx) * 1000 };
        (clocks.tsc_hz > 0 && clocks.lapic_hz > 0).then_some(clocks)
    }

    /// Measures them by the PM timer at `port`.
    pub(crate) fn measure(port: u16) -> Result<Self, pm_timer::Dead> {
        let tsc_hz = pm_timer::measure_tsc_hz(port)?;
        let mut shortest = u64::MAX;
        for _ in 0..LAPIC_TRIALS {
            let start = rdtsc();
            // SAFETY: the runtime has a handler for this vector.
            unsafe { apic::timer_one_shot(interrupts::ALARM_VECTOR, LAPIC_WINDOW) };
            shortest = shortest.min(interrupts::wait_for_alarm().wrapping_sub(start));
        }
        apic::timer_stop();
        let lapic_hz = u128::from(LAPIC_WINDOW) * u128::from(tsc_hz) / u128::from(shortest.max(1));
        Ok(Self { tsc_hz, lapic_hz: pm_timer::snap(lapic_hz as u64) })
    }

    /// Ticks of the local APIC timer in so many microseconds.
    pub const fn lapic_ticks(&self, microseconds: u64) -> u32 {
        let ticks = self.lapic_hz as u128 * microseconds as u128 / 1_000_000;
        if ticks > u32::MAX as u128 { u32::MAX } else { ticks as u32 }
    }

    /// Ticks of the time-stamp counter while the local APIC timer counts `ticks`.
    pub const fn tsc_ticks(&self, ticks: u32) -> u64 {
        let lapic_hz = if self.lapic_hz == 0 { 1 } else { self.lapic_hz };
        (ticks as u128 * self.tsc_hz as u128 / lapic_hz as u128) as u64
    }
}
