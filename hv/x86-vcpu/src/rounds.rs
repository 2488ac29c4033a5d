//! The SMP calls that the housekeeping core is configured to make, round by round.

use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{Deadline, Reply};
use partita_core::system::{Housekeeping, SmpCallMode};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;

use crate::arch::{X86, calls};
use crate::calls::{call_one, call_several};
use crate::trace;

/// What has been made of them.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Rounds made.
    pub made: u64,
    /// Calls in them: one for each target.
    pub calls: u64,
    /// Those of them that were not answered within the deadline.
    pub late: u64,
}

/// The function of the calls.
fn nothing(argument: u64) -> u64 {
    argument
}

impl Rounds {
    /// Makes a round of calls, and tells who did not answer.
    pub fn call(&mut self, targets: &PcpuSet, config: &Housekeeping, tell_late: fn(PcpuId)) {
        let Some(calls) = calls() else { return };
        match config.smp_call_mode {
            // So that each round trip is one kick's.
            SmpCallMode::Each => {
                for pcpu in targets {
                    let deadline = Deadline::after_ms::<X86>(config.smp_call_deadline_ms);
                    let posted = X86::now();
                    let reply = call_one(calls, pcpu, nothing, 0, deadline);
                    let mut late = PcpuSet::EMPTY;
                    let ended = if let Ok(Reply::Answered(answer)) = reply {
                        answer.seen
                    } else {
                        // Its number was checked against the machine's.
                        let _ = late.insert(pcpu);
                        X86::now()
                    };
                    self.note(1, posted, ended, &late, tell_late);
                }
            }
            SmpCallMode::Broadcast => {
                let deadline = Deadline::after_ms::<X86>(config.smp_call_deadline_ms);
                let posted = X86::now();
                let (ended, late) = match call_several(calls, targets, nothing, 0, deadline) {
                    Ok(outcome) => (outcome.ended, outcome.missing()),
                    Err(_) => (X86::now(), *targets),
                };
                self.note(targets.len(), posted, ended, &late, tell_late);
            }
        }
        self.made += 1;
    }

    /// Takes note of a call to so many targets, of which some did not answer.
    fn note(&mut self, targets: usize, posted: u64, ended: u64, late: &PcpuSet, tell_late: fn(PcpuId)) {
        let ticks = ended.wrapping_sub(posted);
        self.calls += targets as u64;
        self.late += late.len() as u64;
        for pcpu in late {
            tell_late(pcpu);
        }
        if late.is_empty() {
            trace::count(HistogramId::SmpCall, ticks);
        }
        let first_late = late.iter().next().map_or(u64::MAX, |pcpu| pcpu.0.into());
        let (targets, late) = (targets as u16, late.len() as u16);
        trace::record(posted, Event::SmpCall { targets, late, ticks, first_late });
    }
}
