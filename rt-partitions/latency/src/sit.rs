//! Groups `kick` and `broadcast` in a partition: the vCPUs sit in one state while the hypervisor kicks them.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, claim, cpu, interrupts, rdtsc, relax};

use crate::flood::{self, Flood};
use crate::settings::{Settings, State};

/// Numbers of the claims of this run; the numbers below are rows'.
const CLAIM_SAT: u32 = 100;
const CLAIM_FLOOD: u32 = 101;

/// How the other vCPUs sit.
static STATE: AtomicU64 = AtomicU64::new(0);
static PAUSE: AtomicBool = AtomicBool::new(false);

/// Lets all vCPUs sit, this one until the set time is up, and for ever without one.
pub(crate) fn sit(machine: &Machine, settings: &Settings) -> Result<(), Error> {
    let Settings { state, pause, ticks, .. } = *settings;
    if !machine.place.is_partition() {
        return Err(Error::OnlyInPartition { what: "group=broadcast" });
    }
    if state == State::Flood {
        flood::install();
    }
    seat_others(machine, state, pause)?;
    let mut seat = Seat::new(state, pause);
    defmt::info!("sits in {=str}", state.name());
    if ticks == 0 {
        seat.for_ever();
    }
    let start = rdtsc();
    let left = || ticks.saturating_sub(rdtsc().wrapping_sub(start));
    seat.enter();
    while left() > 0 {
        if state == State::Halted {
            let count = machine.clocks.lapic_hz as u128 * left() as u128 / machine.clocks.tsc_hz.max(1) as u128;
            // SAFETY: the runtime has a handler for this vector.
            unsafe { apic::timer_one_shot(interrupts::WAKE_VECTOR, u32::try_from(count).unwrap_or(u32::MAX).max(1)) };
        }
        seat.turn();
    }
    // SAFETY: interrupts are off in all Rust code.
    unsafe { asm!("cli", options(nomem, nostack)) };
    let passed = rdtsc().wrapping_sub(start);
    claim(CLAIM_SAT, passed >= ticks, "the vCPU sat until the end", passed, ticks);
    if state == State::Flood {
        let (interrupts, nmis) = seat.flood.counts();
        claim(CLAIM_FLOOD, interrupts > 0 && interrupts == nmis, "each interrupt and NMI came once", interrupts, nmis);
    }
    Ok(())
}

/// Starts all other vCPUs, which then sit until the run ends.
pub(crate) fn seat_others(machine: &Machine, state: State, pause: bool) -> Result<(), Error> {
    STATE.store(state.number(), Ordering::Relaxed);
    PAUSE.store(pause, Ordering::Release);
    (1..machine.apic_ids.len().min(cpu::CPUS_MAX)).try_for_each(|index| cpu::start(machine, index, sit_beside))
}

/// What the other vCPUs run.
fn sit_beside() -> ! {
    let pause = PAUSE.load(Ordering::Acquire);
    Seat::new(State::from_number(STATE.load(Ordering::Relaxed)), pause).for_ever()
}

/// Halts again and again, and does as little as can be in between: where one clock counts the instructions of all CPUs, that
/// is part of what an SMP call takes.
fn halt_for_ever() -> ! {
    // SAFETY: what may come has handlers that save what they use.
    unsafe { asm!("2: sti", "hlt", "jmp 2b", options(noreturn)) }
}

/// How this vCPU sits.
struct Seat {
    state: State,
    pause: bool,
    flood: Flood,
}

impl Seat {
    fn new(state: State, pause: bool) -> Self {
        Self { state, pause, flood: Flood::new(pause) }
    }

    fn enter(&self) {
        if self.state == State::SpinEnabled {
            // SAFETY: what may come has handlers that save what they use: nothing that measures is sent here.
            unsafe { asm!("sti", options(nomem, nostack)) };
        }
    }

    /// Sits until the run ends.
    fn for_ever(&mut self) -> ! {
        if self.state == State::Halted && !self.pause {
            halt_for_ever();
        }
        self.enter();
        loop {
            self.turn();
        }
    }

    /// Once round the loop.
    fn turn(&mut self) {
        match self.state {
            State::SpinEnabled | State::SpinDisabled => {}
            State::Halted => interrupts::wait(),
            State::ExitStorm => {
                // Leaf 0 is handled by the quick way through an exit, leaf 1 by the other.
                core::hint::black_box(__cpuid(rdtsc() as u32 & 1));
            }
            State::Flood => self.flood.turn(),
        }
        if self.pause {
            relax();
        }
    }
}
