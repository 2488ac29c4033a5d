//! The local APIC's timer from HLT, and the guest that must not notice what becomes of another.

use partita_rt::{Error, Machine, apic, interrupts, rdtsc};
use partita_x86_bare::write_msr;

use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};

const ROUNDS: u64 = 100;
const SURVIVOR_ROUNDS: u64 = 200;
const INTERVAL_US: u64 = 200;
const TIMER_INITIAL: u32 = 0x838;
const VECTOR: u8 = FIRST_VECTOR;

/// Sleeps so many one-shots; gives the shortest and the longest, in ticks of the TSC.
fn sleep(machine: &Machine, rounds: u64) -> (u64, u64) {
    let count = machine.clocks.lapic_ticks(INTERVAL_US);
    // Sets vector, mode and divider; a count of 0 keeps it stopped.
    // SAFETY: the vector has a handler.
    unsafe { apic::timer_one_shot(VECTOR, 0) };
    let (mut shortest, mut longest) = (u64::MAX, 0);
    for _ in 0..rounds {
        let (before, start) = (counters::total(), rdtsc());
        // SAFETY: as above.
        unsafe { write_msr(TIMER_INITIAL, count.into()) };
        while counters::total() == before {
            interrupts::wait();
        }
        let ticks = rdtsc().wrapping_sub(start);
        (shortest, longest) = (shortest.min(ticks), longest.max(ticks));
    }
    (shortest, longest)
}

/// One-shots from HLT: each comes, once, and none early.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    claim_sleep(&mut Claims::from(800), machine, ROUNDS);
    Ok(())
}

fn claim_sleep(claims: &mut Claims, machine: &Machine, rounds: u64) {
    let own = apic::id();
    let interval = machine.clocks.tsc_ticks(machine.clocks.lapic_ticks(INTERVAL_US));
    let (shortest, longest) = sleep(machine, rounds);
    claims.equal("each one-shot interrupts HLT once", counters::count(VECTOR, own), rounds);
    claims.equal("nothing else came", counters::total() + counters::all_nmis(), rounds);
    // A clock that was measured on a busy host is not known well.
    let exact = machine.clocks.tsc_hz == machine.clocks.lapic_hz;
    claims.about("no one-shot is early", shortest >= interval || !exact, shortest, interval);
    claims.about("a one-shot ends", longest >= shortest, longest, shortest);
}

/// Goes on sleeping while another partition meets its end, and then tells whether anything was different.
pub(crate) fn survivor(machine: &Machine) -> Result<(), Error> {
    claim_sleep(&mut Claims::from(900), machine, SURVIVOR_ROUNDS);
    Ok(())
}

/// Sleeps for some milliseconds, until others have started.
pub(crate) fn pass_time(machine: &Machine) {
    sleep(machine, 3000 / INTERVAL_US);
}
