//! CPU 1: the other end of what CPU 0 measures.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, cpu, interrupts, relax, wait_until};

use crate::handlers::STAMP_VECTOR;

/// A word that both CPUs use, alone in its cache line.
#[repr(align(64))]
pub(crate) struct Shared(pub(crate) AtomicU64);

/// What CPU 1 is to do: see [`Role`]; [`IDLE`] when it is done.
static ROLE: Shared = Shared(AtomicU64::new(IDLE));
/// How often CPU 1 is to take part.
static ROUNDS: Shared = Shared(AtomicU64::new(0));
/// The round that CPU 1 waits for an interrupt in, from 1 on.
static READY: Shared = Shared(AtomicU64::new(0));
/// When CPU 1's handler ran in this round.
static STAMP: Shared = Shared(AtomicU64::new(0));
/// The last round that CPU 1 has its stamp of.
pub(crate) static DONE: Shared = Shared(AtomicU64::new(0));

const IDLE: u64 = 0;
/// PAUSEs between CPU 1's word that it is about to wait and the interrupt: it waits by then.
const SETTLING: u32 = 64;

/// What CPU 1 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Spins, interrupts on, and stamps.
    StampSpinning,
    /// Halts, and stamps; wakes CPU 0 then.
    StampHalted,
    /// Halts, and answers.
    AnswerHalted,
}

impl Role {
    const fn encode(self) -> u64 {
        match self {
            Self::StampSpinning => 1,
            Self::StampHalted => 2,
            Self::AnswerHalted => 3,
        }
    }

    fn decode(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::StampSpinning),
            2 => Some(Self::StampHalted),
            3 => Some(Self::AnswerHalted),
            _ => None,
        }
    }
}

/// ICR value of a fixed interrupt.
pub(crate) const fn fixed(apic_id: u32, vector: u8) -> u64 {
    (apic_id as u64) << 32 | 1 << 14 | vector as u64
}

/// CPU 1 as CPU 0 sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// x2APIC ID of CPU 1.
    pub(crate) apic_id: u32,
}

/// x2APIC ID of CPU 0, for CPU 1.
static BOOT_APIC_ID: AtomicU64 = AtomicU64::new(0);

impl Peer {
    /// Starts CPU 1, which halts then.
    pub(crate) fn start(machine: &Machine) -> Result<Self, Error> {
        let [own, other, ..] = machine.apic_ids[..] else {
            return Err(Error::TooFewCpus { found: machine.apic_ids.len(), needed: 2 });
        };
        BOOT_APIC_ID.store(own.into(), Ordering::Release);
        cpu::start(machine, 1, serve)?;
        Ok(Self { apic_id: other })
    }

    /// Lets CPU 1 play a role for so many rounds.
    pub(crate) fn begin(&self, role: Role, rounds: usize) {
        for word in [&READY, &DONE] {
            word.0.store(0, Ordering::Relaxed);
        }
        ROUNDS.0.store(rounds as u64, Ordering::Relaxed);
        ROLE.0.store(role.encode(), Ordering::Release);
        // SAFETY: CPU 1 has a handler for this vector.
        unsafe { apic::send_fixed(self.apic_id, interrupts::WAKE_VECTOR) };
    }

    /// Waits until CPU 1 waits for the interrupt of this round.
    pub(crate) fn ready(&self, round: usize) -> Result<(), Error> {
        wait_until(1, || READY.0.load(Ordering::Acquire) == round as u64 + 1)?;
        for _ in 0..SETTLING {
            relax();
        }
        Ok(())
    }

    /// When CPU 1's handler ran, once the round is done.
    pub(crate) fn stamp(&self) -> u64 {
        STAMP.0.load(Ordering::Acquire)
    }

    /// Waits until CPU 1 halts again, out of everybody's way.
    pub(crate) fn end(&self) -> Result<(), Error> {
        wait_until(1, || ROLE.0.load(Ordering::Acquire) == IDLE)?;
        for _ in 0..SETTLING {
            relax();
        }
        Ok(())
    }
}

/// What CPU 1 runs.
fn serve() -> ! {
    loop {
        match Role::decode(ROLE.0.load(Ordering::Acquire)) {
            None => interrupts::wait(),
            Some(role) => {
                play(role);
                ROLE.0.store(IDLE, Ordering::Release);
            }
        }
    }
}

fn play(role: Role) {
    let boot_cpu = BOOT_APIC_ID.load(Ordering::Acquire) as u32;
    for round in 1..=ROUNDS.0.load(Ordering::Relaxed) {
        READY.0.store(round, Ordering::Release);
        let stamp = match role {
            Role::StampSpinning => wait_spinning(),
            Role::StampHalted => wait_halted(0),
            Role::AnswerHalted => wait_halted(fixed(boot_cpu, STAMP_VECTOR)),
        };
        STAMP.0.store(stamp, Ordering::Release);
        DONE.0.store(round, Ordering::Release);
        if role == Role::StampHalted {
            // SAFETY: CPU 0 has a handler for this vector.
            unsafe { apic::send_fixed(boot_cpu, interrupts::WAKE_VECTOR) };
        }
    }
}

/// Spins, interrupts on, until a handler has set R10, and returns that.
fn wait_spinning() -> u64 {
    let stamp;
    // SAFETY: gives up all registers that the handlers change.
    unsafe {
        asm!(
            "xor r10d, r10d",
            "sti",
            "2: pause",
            "test r10, r10",
            "jz 2b",
            "cli",
            out("rax") _, out("rcx") _, out("rdx") _, out("r10") stamp, out("r11") _,
        );
    }
    stamp
}

/// Halts until a handler has set R10, and returns that. `answer` is the ICR value of the one that answers.
fn wait_halted(answer: u64) -> u64 {
    let stamp;
    // SAFETY: gives up all registers that the handlers change.
    unsafe {
        asm!(
            "xor r10d, r10d",
            "2: sti",
            "hlt",
            "cli",
            "test r10, r10",
            "jz 2b",
            in("r8") answer & 0xFFFF_FFFF, in("r9") answer >> 32,
            out("rax") _, out("rcx") _, out("rdx") _, out("r10") stamp, out("r11") _,
        );
    }
    stamp
}
