//! The hypervisor's own core: it makes the configured SMP calls, takes note of partitions' ends, and ends the run.

use core::sync::atomic::Ordering;

use partita_abi::report::{END_MARKER, END_SUCCESS, HypervisorExit};
use partita_core::arch::Arch;
use partita_core::partition::{PartitionState, Tally, Verdict};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::Deadline;
use partita_core::system::{Expectation, OnReboot};
use partita_trace::layout::{HEADER_LEN, RegionHeader, Window};
use partita_trace::names::StopCause;
use x86_64::instructions::interrupts;

use crate::arch::{X86, inbox};
use crate::calls::serve;
use crate::cpu::idt::take_timer;
use crate::cpu::{end_run, rdtsc};
use crate::partition::{Partition, take_news};
use crate::rounds::Rounds;
use crate::set_up::Hypervisor;
use crate::{apic, println};

impl Hypervisor {
    /// Keeps house until the run is over.
    pub fn keep_house(mut self) -> ! {
        let housekeeping = self.system.config.housekeeping.clone();
        let targets = self.targets();
        let inbox = inbox(X86::pcpu());
        let (mut rounds, mut awaits_restart) = (Rounds::default(), false);
        self.listen();
        let limit = u64::from(housekeeping.smp_call_rounds);
        if housekeeping.smp_call_hz > 0 {
            let ticks = self.machine.clocks.lapic_hz / u64::from(housekeeping.smp_call_hz);
            apic::timer_periodic(u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
        }
        loop {
            // Interrupts are off here, so that nothing that comes between a look and the HLT is slept through.
            if let Some(inbox) = inbox.filter(|inbox| inbox.has_pending()) {
                serve(&inbox, rdtsc());
            }
            if take_timer().is_some() && housekeeping.smp_call_hz > 0 && (limit == 0 || rounds.made < limit) {
                rounds.call(&targets, &housekeeping, |pcpu| {
                    println!("partita: SMP call: {pcpu} did not answer within its deadline");
                });
            }
            let is_over = self.shell.quits || (limit > 0 && rounds.made >= limit);
            // Most often there is nothing.
            if take_news() | awaits_restart | is_over {
                awaits_restart = self.look(is_over, &rounds);
            }
            // Last: what comes in while something is printed is kept, and its interrupt is over.
            self.take_input();
            if self.shell.quits {
                continue;
            }
            interrupts::enable_and_hlt();
            interrupts::disable();
        }
    }

    /// Looks after the partitions, and ends the run if it is over. `true` if one of them is to be started again later.
    fn look(&mut self, is_over: bool, rounds: &Rounds) -> bool {
        self.accept_windows();
        self.tell_explanations();
        let due = self.restart_rebooted();
        if let Some(due) = due {
            self.wake_at(due);
        }
        let tally = Tally::of(self.partitions.iter().map(|partition| as_it_counts(partition)));
        if is_over || tally.verdict() != Verdict::Running {
            apic::timer_stop();
            self.end(&tally, rounds);
        }
        due.is_some()
    }

    /// Has the timer interrupt at a time, unless it does so periodically anyway.
    fn wake_at(&self, tsc: u64) {
        if self.system.config.housekeeping.smp_call_hz == 0 {
            let ticks = u128::from(tsc.saturating_sub(X86::now())) * u128::from(self.machine.clocks.lapic_hz);
            let count = ticks / u128::from(self.machine.clocks.tsc_hz.max(1));
            apic::timer_one_shot(u32::try_from(count).unwrap_or(u32::MAX).max(1));
        }
    }

    /// The pCPUs that are called: those of partitions.
    fn targets(&self) -> PcpuSet {
        let mut targets = PcpuSet::EMPTY;
        for pcpu in self.partitions.iter().flat_map(|p| p.pcpus.iter()) {
            // Their numbers were checked against the machine's.
            let _ = targets.insert(*pcpu);
        }
        targets
    }

    fn end(&mut self, tally: &Tally, rounds: &Rounds) -> ! {
        for index in 0..self.partitions.len() {
            if let Some(&partition) = self.partitions.get(index) {
                // Once more: a guest can have spoiled its header since, and then its frames are not to be had.
                if let Some((gpa, len)) = partition.trace_window.get() {
                    self.check_window(partition, gpa, len);
                }
                let (accesses, ipis) = partition.refusals.counts();
                println!(
                    "partita: partition {} \"{}\": {}; refused: {accesses} accesses, {ipis} IPIs",
                    partition.number,
                    partition.config.name,
                    Shown(partition)
                );
            }
        }
        if rounds.made > 0 {
            println!("partita: {} rounds of SMP calls, {} calls, {} late", rounds.made, rounds.calls, rounds.late);
        }
        let failed = tally.has_failure() || rounds.late > 0;
        let (word, exit) =
            if failed { ("failure", HypervisorExit::PartitionFailed) } else { (END_SUCCESS, HypervisorExit::Success) };
        self.write_windows();
        println!("{END_MARKER}{word}");
        end_run(exit)
    }

    /// Starts the partitions again whose guests have rebooted, if they are to be and their time has come; gives the earliest
    /// time of the others.
    fn restart_rebooted(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        for index in 0..self.partitions.len() {
            let (Some(&partition), Some(pace)) = (self.partitions.get(index), self.reboots.get_mut(index)) else {
                break;
            };
            let wants_restart = partition.config.on_reboot == OnReboot::Restart;
            if !wants_restart || stop_cause(partition.life.state()) != Some(StopCause::Reboot) {
                continue;
            }
            let due = pace.due(X86::now(), X86::ticks_per_ms());
            if !Deadline::at(due).has_passed(X86::now()) {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            let name = &partition.config.name;
            match self.start(partition) {
                Ok(()) => {
                    let starts = partition.starts.load(Ordering::Relaxed);
                    println!("partita: partition {index} \"{name}\" rebooted: start number {starts}");
                }
                Err(error) => {
                    println!("partita: partition {index} \"{name}\" rebooted, but is not started: {error}");
                    let cause = StopCause::Other as u16;
                    // It is stopped already, for a reason that would not count as a failure; or half started.
                    if !partition.life.restate(cause, 0) {
                        partition.stop(StopCause::Other, 0);
                    }
                }
            }
        }
        next
    }

    /// Tells once why a partition was stopped, where there is more to say than its line at the end does.
    fn tell_explanations(&self) {
        for partition in &self.partitions {
            let PartitionState::Stopped { cause, detail } = partition.life.state() else { continue };
            if let Some(text) = partition.explanation.take(cause, detail) {
                println!(
                    "partita: partition {} \"{}\" {}: {text}",
                    partition.number,
                    partition.config.name,
                    Shown(partition)
                );
            }
        }
    }

    /// Notes the trace windows that guests have announced since the last look.
    fn accept_windows(&mut self) {
        for index in 0..self.partitions.len() {
            let Some(&partition) = self.partitions.get(index) else { break };
            let Some((gpa, len)) = partition.trace_window.take() else { continue };
            let Some(window) = self.check_window(partition, gpa, len) else { continue };
            // In place of the one that the guest before a restart had.
            if self.region.add_window(window).is_err() {
                println!("partita: no room for the trace window of partition {}", partition.number);
            }
        }
    }

    /// Checks the trace window that a guest announced, on a copy of its header. Says what is wrong with it.
    fn check_window(&mut self, partition: &Partition, gpa: u64, len: u64) -> Option<Window> {
        if !partition.owns(gpa, len) {
            println!("partita: the trace window of partition {} lies outside its memory", partition.number);
            return None;
        }
        let hpa = partition.memory_hpa + gpa;
        let mut page = [0; HEADER_LEN];
        let copy = |memory: *mut u8| {
            for (offset, to) in page.iter_mut().enumerate() {
                // SAFETY: the window is mapped for a page; volatile, because the guest may still write to it.
                *to = unsafe { core::ptr::read_volatile(memory.add(offset)) };
            }
        };
        // SAFETY: the range was checked to lie in this partition's memory; the copy keeps no reference.
        if let Err(error) = unsafe { self.space.look_at(hpa, HEADER_LEN as u64, &mut self.pool, copy) } {
            println!("partita: the trace window of partition {}: {error}", partition.number);
            return None;
        }
        match RegionHeader::parse(&page) {
            Ok(header) if header.region_len() as u64 <= len => {
                Some(Window { partition: partition.number, gpa, hpa, len: header.region_len() as u64 })
            }
            Ok(_) => {
                println!("partita: the trace window of partition {} is longer than announced", partition.number);
                None
            }
            Err(error) => {
                println!("partita: the trace window of partition {}: {error}", partition.number);
                None
            }
        }
    }
}

/// Why the hypervisor stopped a partition, if it did.
pub fn stop_cause(state: PartitionState) -> Option<StopCause> {
    match state {
        PartitionState::Stopped { cause, .. } => u8::try_from(cause).ok().and_then(StopCause::from_raw),
        _ => None,
    }
}

/// What is expected of a partition, and its state as it counts for the run. One that was stopped from the console may be
/// started again, and is no failure; a power-off is a success; of one without an image nothing is expected.
fn as_it_counts(partition: &Partition) -> (Expectation, PartitionState) {
    // Once: the guest can leave at any time.
    let state = partition.life.state();
    let expect = partition.config.expect;
    let restarts = partition.config.on_reboot == OnReboot::Restart;
    match stop_cause(state) {
        Some(StopCause::NoImage) => (Expectation::Anything, state),
        Some(StopCause::Housekeeping) => (expect, PartitionState::Loading),
        Some(StopCause::Reboot) if restarts => (expect, PartitionState::Loading),
        Some(StopCause::PowerOff | StopCause::Reboot) => (expect, PartitionState::Ended(0)),
        _ => (expect, state),
    }
}

/// How a partition stands or ended, for people.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a Partition);

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.life.state() {
            PartitionState::Loading => f.write_str("not started"),
            PartitionState::Running => f.write_str("still running"),
            PartitionState::Ended(0) => f.write_str("finished, success"),
            PartitionState::Ended(status) => write!(f, "finished, failure (status {status:#x})"),
            PartitionState::Stopped { cause, .. } if cause == StopCause::Housekeeping as u16 => {
                f.write_str("stopped from the console")
            }
            PartitionState::Stopped { cause, .. } if cause == StopCause::PowerOff as u16 => f.write_str("powered off"),
            PartitionState::Stopped { cause, .. } if cause == StopCause::Reboot as u16 => f.write_str("rebooted"),
            PartitionState::Stopped { cause, .. } if cause == StopCause::NoImage as u16 => {
                f.write_str("not started: it has no image")
            }
            PartitionState::Stopped { cause, detail } => {
                let name = u8::try_from(cause).ok().and_then(StopCause::from_raw).map_or("unknown", StopCause::name);
                write!(f, "stopped: {name} (detail {detail:#x})")
            }
        }
    }
}
