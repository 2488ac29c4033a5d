//! `regs`: the registers of a running guest.

use crate::cpu::percpu::{self, Progress};
use crate::partition::Partition;
use crate::virt::DUMPED;
use crate::{dump, println};
use core::sync::atomic::Ordering;

/// Registers in a line.
const COLUMNS: usize = 3;

pub(super) fn show(partition: &Partition, vcpu: usize) {
    let name = &partition.config.name;
    let Some(&pcpu) = partition.pcpus.get(vcpu) else {
        println!("partition {name} has no vCPU {vcpu}; it has {}, from 0 on", partition.pcpus.len());
        return;
    };
    let public = percpu::public(pcpu);
    if public.progress() != Progress::RunsVcpu {
        println!("vCPU {name}.{vcpu} does not run; start its partition");
        return;
    }
    if public.waits_for_sipi.load(Ordering::Relaxed) {
        println!("vCPU {name}.{vcpu} waits for its start-up IPI: it has no registers yet");
        return;
    }
    let Some(registers) = dump::of(pcpu) else {
        println!("{pcpu} did not give the registers of {name}.{vcpu} in time; `smp` shows its state");
        return;
    };
    println!("vCPU {name}.{vcpu} on {pcpu}:");
    let named: heapless::Vec<(&str, u64), { DUMPED.len() }> = DUMPED.into_iter().zip(registers).collect();
    for line in named.chunks(COLUMNS) {
        let mut columns = line.iter();
        let mut next = || columns.next().copied();
        let [a, b, c] = [next(), next(), next()].map(Shown);
        println!("{a}{b}{c}");
    }
}

/// A register, in a place of fixed width.
struct Shown(Option<(&'static str, u64)>);

impl core::fmt::Display for Shown {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |(name, value)| write!(f, "  {name:>9} {value:016x}"))
    }
}
