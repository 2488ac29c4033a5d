//! Whether the pCPUs answer kicks, and whether their time-stamp counters agree, checked at boot by SMP calls.

use partita_core::arch::{Arch, PcpuId};
use partita_core::clock_sync::{ClockBounds, ClockVerdict, Exchange};
use partita_core::smp_call::{Deadline, Reply};
use partita_trace::event::Event;

use crate::arch::{X86, calls};
use crate::calls::call_one;
use crate::cpu::percpu;
use crate::error::Refusal;
use crate::set_up::Hypervisor;
use crate::{println, trace};

/// How long a pCPU may take for an answer.
const DEADLINE_MS: u32 = 1000;
/// Answers that a pCPU's counter is judged by: the quickest bounds it best.
const EXCHANGES: u32 = 16;

impl Hypervisor {
    /// Has every pCPU answer some kicks, and compares its time-stamp counter with this one's.
    ///
    /// # Errors
    /// A pCPU that does not answer is named.
    pub fn check_pcpus(&self) -> Result<(), Refusal> {
        for number in 1..self.machine.pcpus() as u16 {
            let pcpu = PcpuId(number);
            let bounds = compare_clocks(pcpu)?;
            if let (Some(ahead), Some(behind)) = (bounds.ahead_at_most(), bounds.behind_at_most()) {
                trace::record(X86::now(), Event::PcpuClock { pcpu: number, ahead, behind });
            }
            let (word, ticks) = match bounds.verdict() {
                ClockVerdict::Ahead { at_least } => ("ahead", at_least),
                ClockVerdict::Behind { at_least } => ("behind", at_least),
                ClockVerdict::Synchronised { .. } | ClockVerdict::Unmeasured => continue,
            };
            println!(
                "partita: the time-stamp counter of {pcpu} is at least {ticks} ticks {word} of pCPU 0's: latencies between \
                 them are wrong by that; see whether the firmware sets the counters"
            );
        }
        Ok(())
    }
}

/// Bounds on how far the counter of a pCPU is from this one's.
fn compare_clocks(pcpu: PcpuId) -> Result<ClockBounds, Refusal> {
    let mut bounds = ClockBounds::new();
    for _ in 0..EXCHANGES {
        let sent = X86::now();
        let Some(seen) = ask(pcpu, |_| X86::now()) else {
            return Err(Refusal::PcpuSilent { pcpu: pcpu.0, apic_id: percpu::public(pcpu).apic_id() });
        };
        bounds.add(Exchange { sent, seen, received: X86::now() });
    }
    Ok(bounds)
}

/// The result of a function on a pCPU; `None` if it does not answer.
fn ask(pcpu: PcpuId, function: fn(u64) -> u64) -> Option<u64> {
    match call_one(calls()?, pcpu, function, 0, Deadline::after_ms::<X86>(DEADLINE_MS)) {
        Ok(Reply::Answered(answer)) => Some(answer.result),
        _ => None,
    }
}
