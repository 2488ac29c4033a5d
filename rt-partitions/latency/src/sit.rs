//! Group `kick` in a partition: the vCPUs sit in one state while the hypervisor kicks them.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use partita_rt::{Error, Machine, apic, claim, interrupts, rdtsc, relax};

use crate::peer::{Peer, Role};
use crate::settings::{Settings, State};

/// Number of the claim that this run came to its end; the numbers below are rows'.
const CLAIM_SAT: u32 = 100;

/// Lets all vCPUs sit, this one until the set time is up, and for ever without one.
pub(crate) fn sit(machine: &Machine, settings: &Settings) -> Result<(), Error> {
    let Settings { state, pause, ticks, .. } = *settings;
    if machine.apic_ids.len() > 1 {
        Peer::start(machine)?.begin(Role::Sit(state, pause), 0);
    }
    if ticks == 0 {
        for_ever(state, pause);
    }
    let start = rdtsc();
    let left = || ticks.saturating_sub(rdtsc().wrapping_sub(start));
    if state == State::SpinEnabled {
        // SAFETY: what may come has handlers that save what they use: nothing that measures is sent here.
        unsafe { asm!("sti", options(nomem, nostack)) };
    }
    while left() > 0 {
        if state == State::Halted {
            let count = machine.clocks.lapic_hz as u128 * left() as u128 / machine.clocks.tsc_hz.max(1) as u128;
            // SAFETY: the runtime has a handler for this vector.
            unsafe { apic::timer_one_shot(interrupts::WAKE_VECTOR, u32::try_from(count).unwrap_or(u32::MAX).max(1)) };
        }
        step(state, pause);
    }
    // SAFETY: interrupts are off in all Rust code.
    unsafe { asm!("cli", options(nomem, nostack)) };
    let passed = rdtsc().wrapping_sub(start);
    claim(CLAIM_SAT, passed >= ticks, "the vCPU sat until the end", passed, ticks);
    Ok(())
}

/// Sits until the run ends.
pub(crate) fn for_ever(state: State, pause: bool) -> ! {
    if state == State::SpinEnabled {
        // SAFETY: as in `sit`.
        unsafe { asm!("sti", options(nomem, nostack)) };
    }
    loop {
        step(state, pause);
    }
}

/// Once round the loop.
fn step(state: State, pause: bool) {
    match state {
        State::SpinEnabled | State::SpinDisabled => {}
        State::Halted => interrupts::wait(),
        State::ExitStorm => {
            core::hint::black_box(__cpuid(0));
        }
    }
    if pause {
        relax();
    }
}
