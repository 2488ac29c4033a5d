//! `storm` and `hold`: what shows that the SMP calls hold, while the partitions run.

use core::sync::atomic::Ordering;

use partita_console::command::PartitionName;
use partita_console::table::{Column, Table};
use partita_console::units::Count;
use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::Deadline;
use partita_trace::names::ExitReason;

use crate::arch::{X86, calls};
use crate::console::Echo;
use crate::cpu::percpu::Order;
use crate::orders::{order, wait_until};
use crate::partition::Partition;
use crate::println;
use crate::set_up::Hypervisor;
use crate::soak::{CALL_DEADLINE_MS, part_of, take_part};

/// How long a storm may stand still.
const STILL_MS: u32 = 3 * CALL_DEADLINE_MS;

/// A partition that is restarted beside a storm lives until its guest has caused so many exits by itself...
const LIFE_EXITS: u64 = 64;
/// ...or until so many milliseconds have passed.
const LIFE_MS: u32 = 100;
/// Restarts beside a storm, at least: so that there is a whole life between two of them.
const RESTARTS_MIN: u32 = 2;

const TABLE: Table<6> = Table::new([
    Column::left("PCPU", 8),
    Column::right("CALLS MADE", 14),
    Column::right("ANSWERED", 14),
    Column::right("LATE", 10),
    Column::right("NOT ASKED", 10),
    Column::right("SERVED", 14),
]);

impl Hypervisor {
    /// Has all pCPUs that serve calls call all others, and shows whether each call was answered once.
    pub(super) fn storm(&mut self, rounds: u32) {
        let Some(calls) = calls() else { return };
        let all = calls.online();
        if is_on(&all) {
            return;
        }
        begin(rounds, &all, &all);
        take_part();
        let mut before = left(&all);
        while before > 0 {
            if !wait_until(Deadline::after_ms::<X86>(STILL_MS), || left(&all) != before) {
                println!("the storm stands still: {before} rounds are left");
                break;
            }
            before = left(&all);
        }
        show(&all);
    }

    /// As [`Self::storm`], but a partition is restarted again and again meanwhile; its pCPUs, and this one, are called but
    /// do not call.
    pub(super) fn storm_beside_restarts(&mut self, rounds: u32, name: PartitionName<'_>) {
        let (Some(calls), Some(partition)) = (calls(), self.named(name)) else { return };
        let all = calls.online();
        if is_on(&all) {
            return;
        }
        let mut callers = all;
        callers.remove(X86::pcpu());
        for &pcpu in &partition.pcpus {
            callers.remove(pcpu);
        }
        if callers.is_empty() {
            println!("no pCPU is left to call: partition {} is the only one that runs", partition.config.name);
            return;
        }
        begin(rounds, &callers, &all);
        let mut restarts = 0_u32;
        let still_ms = |before| wait_until(Deadline::after_ms::<X86>(STILL_MS), || left(&callers) != before);
        while left(&callers) > 0 || restarts < RESTARTS_MIN {
            let exits_before = self.exits_by_itself(partition);
            if let Err(error) = self.restart(partition) {
                println!("partition {} is not restarted after {restarts} restarts: {error}", partition.config.name);
                return;
            }
            restarts += 1;
            // So that calls find its guest running, too, however slowly its pCPU gets there.
            wait_until(Deadline::after_ms::<X86>(LIFE_MS), || {
                self.exits_by_itself(partition).wrapping_sub(exits_before) >= LIFE_EXITS
            });
            let before = left(&callers);
            if before > 0 && !still_ms(before) {
                println!("the storm stands still: {before} rounds are left");
                break;
            }
        }
        show(&all);
        println!("partition {} was restarted {restarts} times meanwhile", partition.config.name);
    }

    /// Exits of a partition's vCPUs that were not kicks.
    fn exits_by_itself(&self, partition: &Partition) -> u64 {
        let own = ExitReason::ALL.iter().filter(|reason| **reason != ExitReason::Kick);
        partition.pcpus.iter().flat_map(|&pcpu| own.clone().map(move |reason| self.exits(pcpu, *reason))).sum()
    }
}

/// Begins a storm: `callers` are to call, this pCPU by itself.
fn begin(rounds: u32, callers: &PcpuSet, all: &PcpuSet) {
    for pcpu in all {
        part_of(pcpu).begin(if callers.contains(pcpu) { rounds } else { 0 });
    }
    let me = X86::pcpu();
    for pcpu in callers.iter().filter(|pcpu| *pcpu != me) {
        if !order(pcpu, Order::Storm) {
            println!("{pcpu} does not take part: it did not answer");
            part_of(pcpu).left.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether an earlier storm, which stood still, is not over; says so.
fn is_on(all: &PcpuSet) -> bool {
    let left = left(all);
    if left > 0 {
        println!("an earlier storm is still on, with {left} rounds left; `smp` shows who does not answer");
    }
    left > 0
}

/// Rounds that are left, of all.
fn left(callers: &PcpuSet) -> u64 {
    callers.iter().map(|pcpu| u64::from(part_of(pcpu).left.load(Ordering::Relaxed))).sum()
}

fn show(all: &PcpuSet) {
    let mut echo = Echo;
    let mut total = [0; 5];
    // The serial port cannot fail.
    let _ = TABLE.head(&mut echo);
    for pcpu in all {
        let counts = part_of(pcpu).counts();
        total = core::array::from_fn(|n| total[n] + counts[n]);
        row(format_args!("{}", pcpu.0), counts);
    }
    row(format_args!("all"), total);
    let [made, answered, late, other, served] = total;
    let verdict =
        if made > 0 && made == answered && served == made { "each was answered, and ran once" } else { "NOT EXACT" };
    println!("storm: {made} calls, {answered} answered, {late} late, {other} not asked, {served} served: {verdict}");
}

fn row(pcpu: core::fmt::Arguments<'_>, counts: [u64; 5]) {
    let [made, answered, late, other, served] = counts.map(Count);
    let _ = TABLE.row(
        &mut Echo,
        [
            pcpu,
            format_args!("{made}"),
            format_args!("{answered}"),
            format_args!("{late}"),
            format_args!("{other}"),
            format_args!("{served}"),
        ],
    );
}

/// Keeps a pCPU from everything for some time: no guest, no interrupt, no call.
pub(super) fn hold(pcpu: PcpuId, milliseconds: u32) {
    if pcpu == X86::pcpu() {
        println!("{pcpu} is this console's own; hold another");
        return;
    }
    let count = calls().map_or(0, |calls| calls.pcpus());
    if pcpu.index() >= count {
        println!("no {pcpu}; the machine has {count} pCPUs, from 0 on");
        return;
    }
    part_of(pcpu).hold_ms.store(milliseconds, Ordering::Relaxed);
    if order(pcpu, Order::Hold) {
        println!("{pcpu} is held for {milliseconds} ms");
    } else {
        println!("{pcpu} is not held: it did not answer; `smp` shows its state");
    }
}
