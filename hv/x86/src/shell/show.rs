//! The commands that show something: `partitions`, `vcpus`, `exits`, `trace`, `smp`.

use core::fmt::Display;
use core::sync::atomic::Ordering;

use partita_console::bars::write_bars;
use partita_console::table::{Column, Table};
use partita_console::units::{Count, Size};
use partita_core::arch::{Arch, PcpuId};
use partita_core::smp_call::{Deadline, PcpuState, Reply};
use partita_trace::histogram::HistogramId;
use partita_trace::live::HistogramView;
use partita_trace::names::ExitReason;

use crate::arch::{X86, calls};
use crate::calls::call_one;
use crate::console::Echo;
use crate::cpu::percpu::{self, KickMode, Progress};
use crate::housekeeping::Shown;
use crate::println;
use crate::set_up::Hypervisor;

/// How long a pCPU may take to answer `smp`.
const ANSWER_DEADLINE_MS: u32 = 1000;

const PARTITIONS: Table<7> = Table::new([
    Column::right("NO", 2),
    Column::left("NAME", 16),
    Column::left("STATE", 32),
    Column::right("VCPUS", 5),
    Column::right("MEMORY", 9),
    Column::right("STARTS", 8),
    Column::right("REFUSED", 9),
]);

const VCPUS: Table<7> = Table::new([
    Column::left("VCPU", 18),
    Column::right("PCPU", 4),
    Column::right("APIC ID", 7),
    Column::left("STATE", 20),
    Column::right("EXITS", 15),
    Column::right("KICKS", 13),
    Column::left("KICKED BY", 9),
]);

const EXITS: Table<8> = Table::new([
    Column::right("PCPU", 4),
    Column::left("EXIT", 17),
    Column::right("COUNT", 11),
    Column::right("MIN", 9),
    Column::right("MEAN", 10),
    Column::right("P50", 10),
    Column::right("P99", 11),
    Column::right("MAX", 14),
]);

const TRACE: Table<6> = Table::new([
    Column::right("PCPU", 4),
    Column::right("RING", 9),
    Column::right("USED", 6),
    Column::right("FRAMES", 18),
    Column::right("OVERWRITTEN", 18),
    Column::right("DROPPED", 9),
]);

const SMP: Table<7> = Table::new([
    Column::right("PCPU", 4),
    Column::right("APIC ID", 7),
    Column::left("STATE", 9),
    Column::left("DOES", 24),
    Column::left("KICKED BY", 9),
    Column::right("LATE", 12),
    Column::left("ANSWERS IN", 16),
]);

/// Writes a table to the console, which cannot fail.
macro_rules! head {
    ($table:ident) => {{
        let _ = $table.head(&mut Echo);
    }};
}

macro_rules! row {
    ($table:ident: $($cell:expr),+ $(,)?) => {{
        let _ = $table.row(&mut Echo, [$(format_args!("{}", $cell)),+]);
    }};
}

impl Hypervisor {
    pub(super) fn show_partitions(&self) {
        head!(PARTITIONS);
        for partition in &self.partitions {
            let (accesses, ipis) = partition.refusals.counts();
            row!(PARTITIONS:
                partition.number,
                partition.config.name,
                Shown(partition),
                partition.pcpus.len(),
                Size(partition.config.memory_bytes),
                Count(partition.starts.load(Ordering::Relaxed).into()),
                Count(accesses + ipis),
            );
        }
    }

    pub(super) fn show_vcpus(&self) {
        head!(VCPUS);
        for partition in &self.partitions {
            for (number, &pcpu) in partition.pcpus.iter().enumerate() {
                let public = percpu::public(pcpu);
                let exits: u64 = ExitReason::ALL.iter().map(|reason| self.exits(pcpu, *reason)).sum();
                row!(VCPUS:
                    format_args!("{}.{number}", partition.config.name),
                    pcpu.0,
                    public.apic_id(),
                    does(pcpu),
                    Count(exits),
                    Count(self.exits(pcpu, ExitReason::Kick)),
                    kicked_by(pcpu),
                );
            }
        }
    }

    /// Exits of a pCPU for a reason, since boot.
    pub(super) fn exits(&self, pcpu: PcpuId, reason: ExitReason) -> u64 {
        self.region.histogram(pcpu.0, HistogramId::Exit(reason)).map_or(0, |histogram| histogram.count())
    }

    pub(super) fn show_exits(&self, only: Option<PcpuId>) {
        println!(
            "durations in ticks of {} kHz, from the first stamp after the exit to the last before the entry",
            X86::ticks_per_ms()
        );
        head!(EXITS);
        let of = |pcpu: u16| {
            move |reason: &ExitReason| {
                let histogram = self.region.histogram(pcpu, HistogramId::Exit(*reason))?;
                (histogram.count() > 0).then_some((*reason, histogram))
            }
        };
        let pcpus = 0..self.machine.pcpus() as u16;
        for pcpu in pcpus.filter(|pcpu| only.is_none_or(|only| only.0 == *pcpu)) {
            for (reason, histogram) in ExitReason::ALL.iter().filter_map(of(pcpu)) {
                exits_row(pcpu, reason, &histogram);
            }
        }
        let Some(only) = only else { return };
        for (reason, histogram) in ExitReason::ALL.iter().filter_map(of(only.0)) {
            println!("{} on {only}, ticks:", reason.name());
            let most = histogram.buckets().map(|(.., count)| count).max().unwrap_or(0);
            let _ = write_bars(&mut Echo, histogram.buckets(), most.into());
        }
    }

    pub(super) fn show_trace(&self) {
        head!(TRACE);
        for pcpu in 0..self.machine.pcpus() as u16 {
            let Some(level) = self.region.ring_level(pcpu) else { continue };
            let percent = u64::from(level.used) * 100 / u64::from(level.slots).max(1);
            row!(TRACE:
                pcpu,
                Size(u64::from(level.slots) * partita_trace::ring::SLOT_LEN as u64),
                format_args!("{percent} %"),
                Count(level.written_frames),
                Count(level.overwritten_slots),
                Count(level.dropped_long),
            );
        }
        println!("overwritten: slots of 32 bytes, an event each; dropped: log lines that were too long");
    }

    /// The state of each pCPU; has those that serve calls answer one.
    pub(super) fn show_smp(&self) {
        let Some(calls) = calls() else { return };
        head!(SMP);
        for number in 0..self.machine.pcpus() as u16 {
            let pcpu = PcpuId(number);
            let state = calls.state(pcpu);
            let began = X86::now();
            let reply = call_one(calls, pcpu, |_| 0, 0, Deadline::after_ms::<X86>(ANSWER_DEADLINE_MS));
            let ticks = X86::now().wrapping_sub(began);
            let answers: &dyn Display = match reply {
                Ok(Reply::Answered(_)) => &format_args!("{} ticks", Count(ticks)),
                Ok(Reply::Unreachable) => &"is not asked",
                Ok(Reply::Busy) => &"is busy",
                Ok(Reply::Late | Reply::LateRunning) => &"DOES NOT ANSWER",
                Err(_) => &"cannot be asked",
            };
            row!(SMP:
                number,
                percpu::public(pcpu).apic_id(),
                state,
                if state == PcpuState::Online { does(pcpu) } else { "sleeps for good" },
                kicked_by(pcpu),
                Count(calls.mailbox(pcpu).map_or(0, |mailbox| mailbox.late())),
                answers,
            );
        }
    }
}

fn exits_row(pcpu: u16, reason: ExitReason, histogram: &HistogramView<'_>) {
    let quantile = |permille| Count(histogram.quantile(permille).unwrap_or(0));
    row!(EXITS:
        pcpu,
        reason.name(),
        Count(histogram.count()),
        Count(histogram.min().unwrap_or(0)),
        Count(histogram.sum() / histogram.count().max(1)),
        quantile(500),
        quantile(990),
        Count(histogram.max().unwrap_or(0)),
    );
}

/// What a pCPU does at this moment.
fn does(pcpu: PcpuId) -> &'static str {
    let public = percpu::public(pcpu);
    match public.progress() {
        _ if pcpu == X86::pcpu() => "keeps house",
        Progress::RunsVcpu if public.waits_for_sipi.load(Ordering::Relaxed) => "waits for SIPI",
        Progress::RunsVcpu => "runs its guest",
        Progress::VcpuDown => "down",
        Progress::Loads => "loads its partition",
        Progress::Online => "waits for a vCPU",
        Progress::Offline | Progress::Unfit => "is not up",
    }
}

fn kicked_by(pcpu: PcpuId) -> &'static str {
    match percpu::public(pcpu).kick_mode() {
        KickMode::Nmi => "NMI",
        KickMode::Vector => "vector",
    }
}
