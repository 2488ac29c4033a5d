//! `rdmsr` and `wrmsr`, on any pCPU: what its guest has loaded there, if one runs.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use partita_core::arch::PcpuId;
use partita_core::smp_call::{Deadline, Phase, Reply};
use partita_x86_policy::operator_msr;

use super::report_reply;
use crate::arch::{X86, calls};
use crate::calls::call_one;
use crate::cpu::idt::{read_msr_checked, write_msr_checked};
use crate::cpu::percpu;
use crate::println;

/// How long a pCPU may take for an answer.
const DEADLINE_MS: u32 = 1000;

/// What the housekeeping core asks of a pCPU's registers, beside what fits into a call, and what became of it.
struct MsrAccess {
    value: AtomicU64,
    faulted: AtomicBool,
}

impl MsrAccess {
    const fn new() -> Self {
        Self { value: AtomicU64::new(0), faulted: AtomicBool::new(false) }
    }

    // Relaxed, all of them: the call and its answer order what is written before them.

    fn set_value(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn note(&self, faulted: bool) {
        self.faulted.store(faulted, Ordering::Relaxed);
    }

    fn has_faulted(&self) -> bool {
        self.faulted.load(Ordering::Relaxed)
    }
}

/// The place of a pCPU: one each, so that one that is late spoils nobody else's.
fn place_of(pcpu: PcpuId) -> &'static MsrAccess {
    static PLACES: [MsrAccess; percpu::PCPUS_MAX] = [const { MsrAccess::new() }; percpu::PCPUS_MAX];
    &PLACES[pcpu.index().min(percpu::PCPUS_MAX - 1)]
}

fn ask(pcpu: PcpuId, function: fn(u64) -> u64, argument: u64) -> Option<u64> {
    let reply = call_one(calls()?, pcpu, function, argument, Deadline::after_ms::<X86>(DEADLINE_MS));
    match reply {
        Ok(Reply::Answered(answer)) => Some(answer.result),
        other => {
            report_reply(pcpu, other);
            None
        }
    }
}

pub(super) fn read(pcpu: PcpuId, msr: u32) {
    let function = |msr| {
        let value = read_msr_checked(msr as u32);
        place_of(percpu::private().id).note(value.is_err());
        value.unwrap_or(0)
    };
    let Some(value) = ask(pcpu, function, msr.into()) else { return };
    if place_of(pcpu).has_faulted() {
        println!("rdmsr {msr:#x} on {pcpu}: #GP: the CPU has no such register, or it cannot be read");
    } else {
        println!("rdmsr {msr:#x} on {pcpu}: {value:#018x} ({value})");
    }
}

pub(super) fn write(pcpu: PcpuId, msr: u32, value: u64) {
    if let Err(why) = operator_msr::may_write(msr) {
        println!("wrmsr {msr:#x}: refused: {why}");
        return;
    }
    let count = calls().map_or(0, |calls| calls.pcpus());
    if pcpu.index() >= count {
        println!("no {pcpu}; the machine has {count} pCPUs, from 0 on");
        return;
    }
    let function = |msr| {
        let place = place_of(percpu::private().id);
        // SAFETY: the registers that the policy knows to change what memory is, or how the hypervisor runs, were refused. For
        // the rest, whoever is at the console vouches, as whoever boots the machine does.
        let written = unsafe { write_msr_checked(msr as u32, place.value()) };
        place.note(written.is_err());
        0
    };
    // An earlier call that this core has given up may still have to read its value.
    let phase = calls().and_then(|calls| calls.phase(pcpu, percpu::private().id));
    if !matches!(phase, Some(Phase::Idle | Phase::Done)) {
        report_reply(pcpu, Ok(Reply::Busy));
        return;
    }
    place_of(pcpu).set_value(value);
    let Some(_) = ask(pcpu, function, msr.into()) else { return };
    if place_of(pcpu).has_faulted() {
        println!("wrmsr {msr:#x} on {pcpu}: #GP: the CPU has no such register, or does not take {value:#x}");
    } else {
        println!("wrmsr {msr:#x} on {pcpu}: {value:#018x} written");
    }
}
