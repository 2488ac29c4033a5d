//! What pCPUs do to show that the SMP calls hold: storms of calls, and standing still.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_core::arch::{Arch, PcpuId};
use partita_core::smp_call::{Deadline, Reply};

use crate::arch::{X86, calls};
use crate::cpu::percpu::{Order, PCPUS_MAX};

/// Deadline of each call of a storm: what is not answered by then is lost.
pub const CALL_DEADLINE_MS: u32 = 5000;

/// What a pCPU is to do, and did in a storm.
#[derive(Debug)]
pub struct StormPart {
    /// Rounds that are left.
    pub left: AtomicU32,
    /// Milliseconds that it is to be held.
    pub hold_ms: AtomicU32,
    made: AtomicU64,
    answered: AtomicU64,
    late: AtomicU32,
    other: AtomicU32,
    served: AtomicU64,
}

impl StormPart {
    const fn new() -> Self {
        Self {
            left: AtomicU32::new(0),
            hold_ms: AtomicU32::new(0),
            made: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            late: AtomicU32::new(0),
            other: AtomicU32::new(0),
            served: AtomicU64::new(0),
        }
    }

    /// Calls made, answered, late and not made, and calls served.
    pub fn counts(&self) -> [u64; 5] {
        let [made, answered, served] =
            [&self.made, &self.answered, &self.served].map(|count| count.load(Ordering::Relaxed));
        let [late, other] = [&self.late, &self.other].map(|count| u64::from(count.load(Ordering::Relaxed)));
        [made, answered, late, other, served]
    }

    /// Begins a storm with so many rounds to make.
    pub fn begin(&self, rounds: u32) {
        for count in [&self.made, &self.answered, &self.served] {
            count.store(0, Ordering::Relaxed);
        }
        for count in [&self.late, &self.other] {
            count.store(0, Ordering::Relaxed);
        }
        self.left.store(rounds, Ordering::Relaxed);
    }
}

/// The part of a pCPU.
pub fn part_of(pcpu: PcpuId) -> &'static StormPart {
    static PARTS: [StormPart; PCPUS_MAX] = [const { StormPart::new() }; PCPUS_MAX];
    &PARTS[pcpu.index().min(PCPUS_MAX - 1)]
}

/// The function of a storm's calls: its argument, plus one, so that the caller knows its own answer.
fn serve(argument: u64) -> u64 {
    part_of(X86::pcpu()).served.fetch_add(1, Ordering::Relaxed);
    argument.wrapping_add(1)
}

/// Does what a pCPU was ordered to for one of these commands.
#[cold]
pub fn obey(order: Order) {
    match order {
        Order::Storm => take_part(),
        Order::Hold => {
            let deadline = Deadline::after_ms::<X86>(part_of(X86::pcpu()).hold_ms.load(Ordering::Relaxed));
            while !deadline.has_passed(X86::now()) {
                X86::relax();
            }
        }
        _ => {}
    }
}

/// Calls all other pCPUs again and again, on each pCPU that takes part.
pub fn take_part() {
    let me = X86::pcpu();
    let part = part_of(me);
    let Some(calls) = calls() else { return };
    // None are left if whoever ordered this has given it up.
    while let Some(round) = part.left.load(Ordering::Relaxed).checked_sub(1) {
        let mut targets = calls.online();
        targets.remove(me);
        let argument = u64::from(round);
        let on_reply = |_, reply: &Reply| {
            part.made.fetch_add(1, Ordering::Relaxed);
            let failed = match reply {
                Reply::Answered(answer) if answer.result == argument.wrapping_add(1) => {
                    part.answered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Reply::Late | Reply::LateRunning => &part.late,
                _ => &part.other,
            };
            failed.fetch_add(1, Ordering::Relaxed);
        };
        let deadline = Deadline::after_ms::<X86>(CALL_DEADLINE_MS);
        let _ = calls.smp_call_function(&targets, serve, argument, deadline, on_reply);
        part.left.store(round, Ordering::Relaxed);
    }
}
