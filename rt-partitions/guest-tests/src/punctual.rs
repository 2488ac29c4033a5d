//! A real-time guest that tells how late its timer is, whatever its neighbours do: one-shots, one after the other, waited for by
//! spinning and by HLT in turn, until someone outside sets its TSC_AUX.

use partita_rt::interrupts::{ALARM_VECTOR, spin_for_alarm, wait_for_alarm};
use partita_rt::{Error, Machine, apic, rdtsc, trace};
use partita_trace::Event;
use partita_x86_bare::write_msr;

use crate::claims::Claims;
use crate::quiet::{BEGIN_MARK, END_MARK, ENOUGH, TSC_AUX, tsc_aux};

const INTERVAL_US: u64 = 50;
const TIMER_INITIAL: u32 = 0x838;
/// Marks of the least and the greatest lateness, by spinning and by HLT, in ticks of the time-stamp counter.
const SPIN_MARK: u32 = 303;
const HALT_MARK: u32 = 304;

/// How late the timer was.
#[derive(Clone, Copy)]
struct Lateness {
    count: u64,
    least: u64,
    greatest: u64,
}

impl Lateness {
    const NONE: Self = Self { count: 0, least: u64::MAX, greatest: 0 };

    /// One shot more: from the write of the timer's count, waited for by `wait`, which gives the time of the interrupt.
    fn shoot(&mut self, count: u32, interval: u64, wait: fn() -> u64) {
        let start = rdtsc();
        // SAFETY: the vector is the runtime's alarm.
        unsafe { write_msr(TIMER_INITIAL, count.into()) };
        // Earlier by what the clocks are not known is not late.
        let late = wait().saturating_sub(start.wrapping_add(interval));
        if tsc_aux() == ENOUGH {
            // The call that said so took time of this one.
            return;
        }
        self.count += 1;
        self.least = self.least.min(late);
        self.greatest = self.greatest.max(late);
    }

    fn mark(self, id: u32) {
        trace::record(rdtsc(), Event::Mark { id, first: self.least, second: self.greatest });
    }
}

/// The claims, for the time up to the wish for an end.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(1400);
    let count = machine.clocks.lapic_ticks(INTERVAL_US);
    let interval = machine.clocks.tsc_ticks(count);
    // SAFETY: no other code uses the register. A count of 0 keeps the timer stopped; the vector is the runtime's alarm.
    unsafe {
        write_msr(TSC_AUX, 0);
        apic::timer_one_shot(ALARM_VECTOR, 0);
    }
    let (mut spinning, mut halted) = (Lateness::NONE, Lateness::NONE);
    trace::record(rdtsc(), Event::Mark { id: BEGIN_MARK, first: 0, second: 0 });
    while tsc_aux() != ENOUGH {
        spinning.shoot(count, interval, spin_for_alarm);
        halted.shoot(count, interval, wait_for_alarm);
    }
    trace::record(rdtsc(), Event::Mark { id: END_MARK, first: spinning.count, second: halted.count });
    spinning.mark(SPIN_MARK);
    halted.mark(HALT_MARK);
    for (text, found) in [("late by at most, spinning", spinning), ("late by at most, halted", halted)] {
        claims.about(text, found.count > 0 && found.least <= found.greatest, found.least, found.greatest);
    }
    Ok(())
}
