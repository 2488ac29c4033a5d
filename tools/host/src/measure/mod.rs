//! The report on a real-time Linux that measured itself with cyclictest, alone and beside a busy neighbour: of what it
//! printed on its console, and of what the hypervisor recorded meanwhile. See docs/linux.md.

mod cyclictest;
mod marks;
mod text;

pub use cyclictest::{Figures, FiguresError, WorstWakeUp};

use crate::run_info::ClockName;
use crate::system_file::SystemFile;
use crate::trace::{Trace, nanoseconds};
use anyhow::Context;
use marks::{
    AFTER_CLOCK, ALONE_BEGINS, ALONE_ENDS, BEFORE_CLOCK, BESIDE_BEGINS, BESIDE_ENDS, Exit, Exits, Mark, WORK_BEGINS,
    WORK_ENDS,
};
use partita_trace::names::ExitReason;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Exits that a real-time guest must not have while it measures.
pub const NEVER: [ExitReason; 4] =
    [ExitReason::Interrupt, ExitReason::Halt, ExitReason::NestedPageFault, ExitReason::Exception];
/// How far around the worst wake-up the report looks, in milliseconds.
const AROUND_MS: u64 = 1;

/// How the guest's monotonic clock relates to the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRelation {
    /// Nanoseconds of the time-stamp counter when the monotonic clock was 0.
    pub offset_ns: i128,
    /// By how much that may be wrong, either way, in nanoseconds.
    pub error_ns: u64,
}

/// The latest wake-up of a measurement, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worst {
    /// The wake-up.
    pub wake_up: WorstWakeUp,
    /// When it came, in ticks of the time-stamp counter.
    pub tsc: u64,
    /// The pCPU whose vCPU woke up.
    pub pcpu: u16,
    /// Exits of all the guest's pCPUs while it was late, in the order of time: its own delay it, and another's may delay
    /// what wakes it up, such as an IPI.
    pub exits_while_late: Vec<LateExit>,
}

/// An exit while a wake-up was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateExit {
    /// The pCPU that left the guest.
    pub pcpu: u16,
    /// Why.
    pub reason: ExitReason,
    /// When, in ticks of the time-stamp counter.
    pub tsc: u64,
    /// For how long, in nanoseconds.
    pub ns: u64,
}

impl Worst {
    /// How many nanoseconds the exits took that can have delayed it: on several pCPUs at the same time, they count each.
    pub fn exits_ns(&self) -> u64 {
        self.exits_while_late.iter().map(|exit| exit.ns).sum()
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// What people call it.
    pub name: &'static str,
    /// What cyclictest says.
    pub figures: Figures,
    /// From its first mark to its last, in ticks of the time-stamp counter.
    pub span: (u64, u64),
    /// The exits of the guest's pCPUs in between, by reason.
    pub exits: BTreeMap<ExitReason, u64>,
    /// The latest wake-up, if one is known.
    pub worst: Option<Worst>,
}

/// The report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The partition that measured.
    pub partition: String,
    /// Its neighbour.
    pub beside: Option<String>,
    /// How time passed.
    pub clock: Option<ClockName>,
    /// How the clocks relate.
    pub relation: ClockRelation,
    /// Without the neighbour's work, and then, if there is a neighbour, with it.
    pub measurements: Vec<Measurement>,
    /// What was recorded around the latest wake-up of all, as text.
    pub around: String,
    /// Where logs and trace are.
    pub dir: PathBuf,
}

/// Makes the report on the run of `system` whose output directory `dir` is; `None` if it asks for none.
///
/// # Errors
/// The guests did not leave what it takes, or not in the right order; the trace cannot be read.
pub fn cyclictest_report(system: &SystemFile, dir: &Path) -> anyhow::Result<Option<Report>> {
    let Some(wanted) = system.report else { return Ok(None) };
    let partition = |number: usize| {
        system.config.partitions.get(number).with_context(|| format!("the system has no partition {number}"))
    };
    let (measured, beside) = (partition(wanted.partition)?, wanted.beside.map(partition).transpose()?);
    let log = dir.join(format!("{}.log", measured.name));
    let console = std::fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let console = String::from_utf8_lossy(&console).into_owned();
    let trace = Trace::load(dir)?;
    let exits = Exits::of(&trace, &measured.pcpus);
    let relation = relate(&trace, &exits, &console)?;

    let mut plan = vec![("alone", ALONE_BEGINS, ALONE_ENDS)];
    if beside.is_some() {
        plan.push(("beside", BESIDE_BEGINS, BESIDE_ENDS));
    }
    let mut measurements = Vec::new();
    for (name, begin, end) in plan {
        let figures = Figures::parse(&console, name)?;
        let span = (find(&exits, begin)?, find(&exits, end)?);
        measurements.push(measure(&trace, &exits, name, figures, span, relation, &measured.pcpus)?);
    }
    if let (Some(beside), [alone, busy]) = (beside, measurements.as_slice()) {
        let neighbour = Exits::of(&trace, &beside.pcpus);
        let work = (find(&neighbour, WORK_BEGINS)?, find(&neighbour, WORK_ENDS).unwrap_or(u64::MAX));
        check_order(alone.span, busy.span, work)?;
    }
    let around = match latest(&measurements) {
        Some(worst) => text::around(&trace, worst.tsc, AROUND_MS)?,
        None => String::new(),
    };
    Ok(Some(Report {
        partition: measured.name.to_string(),
        beside: beside.map(|beside| beside.name.to_string()),
        clock: trace.run.as_ref().map(|run| run.clock),
        relation,
        measurements,
        around,
        dir: dir.to_path_buf(),
    }))
}

/// The worst wake-up of the last measurement that knows one.
fn latest(measurements: &[Measurement]) -> Option<&Worst> {
    measurements.iter().rev().find_map(|measurement| measurement.worst.as_ref())
}

fn find(exits: &Exits, mark: Mark) -> anyhow::Result<u64> {
    let Mark { byte, name } = mark;
    exits.mark(mark).with_context(|| {
        format!("the trace has no mark {byte:#x} ({name}); make `ring` in the system file's [trace] larger, or look at the logs")
    })
}

/// The first measurement must not have seen the neighbour's work, the second nothing else.
fn check_order(alone: (u64, u64), busy: (u64, u64), work: (u64, u64)) -> anyhow::Result<()> {
    anyhow::ensure!(
        alone.1 <= work.0,
        "the neighbour began its work before the measurement alone was over; raise its `work=` on its command line"
    );
    anyhow::ensure!(
        work.0 <= busy.0 && busy.1 <= work.1,
        "the neighbour did not work all the time of the measurement beside it; change `again=`, `work=` and `seconds=` on \
         the command lines"
    );
    Ok(())
}

/// Ticks of the time-stamp counter as nanoseconds.
fn ns(trace: &Trace, ticks: u64) -> anyhow::Result<i128> {
    let ns = trace.tsc_hz.and_then(|hz| nanoseconds(ticks, hz)).and_then(|ns| i128::try_from(ns).ok());
    ns.context("the trace does not tell the frequency of its clock")
}

/// The monotonic clock was read between two marks: `report: monotonic clock: now at 8169166770 nsecs`.
fn relate(trace: &Trace, exits: &Exits, console: &str) -> anyhow::Result<ClockRelation> {
    let read = console.lines().filter_map(|line| line.split("monotonic clock: now at ").nth(1)).next_back();
    let read = read.and_then(|text| text.split_whitespace().next()?.parse::<i128>().ok());
    let read = read.context("the guest did not print its monotonic clock; look at its log")?;
    let (before, after) = (ns(trace, find(exits, BEFORE_CLOCK)?)?, ns(trace, find(exits, AFTER_CLOCK)?)?);
    anyhow::ensure!(before <= after, "the marks around the reading of the monotonic clock are in the wrong order");
    let error_ns = u64::try_from((after - before + 1) / 2)?;
    Ok(ClockRelation { offset_ns: (before + after) / 2 - read, error_ns })
}

fn measure(
    trace: &Trace,
    exits: &Exits,
    name: &'static str,
    figures: Figures,
    span: (u64, u64),
    relation: ClockRelation,
    pcpus: &[u16],
) -> anyhow::Result<Measurement> {
    anyhow::ensure!(
        exits.complete_from <= span.0,
        "the trace has lost exits of the measurement {name:?}; make `ring` in the system file's [trace] larger"
    );
    let inside = |exit: &Exit| exit.tsc > span.0 && exit.tsc < span.1;
    let mut by_reason: BTreeMap<ExitReason, u64> = NEVER.into_iter().map(|reason| (reason, 0)).collect();
    for (_, exit) in exits.iter().filter(|(_, exit)| inside(exit)) {
        *by_reason.entry(exit.reason).or_default() += 1;
    }
    let worst = figures.worst.map(|wake_up| worst_of(trace, exits, wake_up, relation, pcpus)).transpose()?;
    Ok(Measurement { name, figures, span, exits: by_reason, worst })
}

fn worst_of(
    trace: &Trace,
    exits: &Exits,
    wake_up: WorstWakeUp,
    relation: ClockRelation,
    pcpus: &[u16],
) -> anyhow::Result<Worst> {
    let hz = i128::from(trace.tsc_hz.context("the trace does not tell the frequency of its clock")?);
    let at_ns = i128::from(wake_up.monotonic_us) * 1000 + relation.offset_ns;
    let tsc =
        u64::try_from(at_ns * hz / 1_000_000_000).context("the worst wake-up lies before the trace's clock began")?;
    let pcpu = *pcpus.get(wake_up.thread).context("cyclictest had more threads than the partition has vCPUs")?;
    // Whole microseconds are cut off, so that it may have come one later.
    let error = i128::from(relation.error_ns) + 1000;
    let (from, to) = (at_ns - i128::from(wake_up.late_us) * 1000 - error, at_ns + error);
    let mut exits_while_late = Vec::new();
    for (pcpu, exit) in exits.iter() {
        let begin = ns(trace, exit.tsc)?;
        let length = ns(trace, exit.ticks)?;
        if begin <= to && begin + length >= from {
            exits_while_late.push(LateExit { pcpu, reason: exit.reason, tsc: exit.tsc, ns: u64::try_from(length)? });
        }
    }
    exits_while_late.sort_by_key(|exit| exit.tsc);
    Ok(Worst { wake_up, tsc, pcpu, exits_while_late })
}

impl Measurement {
    /// How many exits there were that a real-time guest must not have: [`NEVER`].
    pub fn forbidden_exits(&self) -> u64 {
        NEVER.iter().filter_map(|reason| self.exits.get(reason)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_lies_around_the_second_measurement_only() {
        assert!(check_order((10, 20), (40, 50), (30, 60)).is_ok());
        assert!(check_order((10, 20), (40, 50), (15, 60)).unwrap_err().to_string().contains("alone"));
        for work in [(45, 60), (30, 45)] {
            assert!(check_order((10, 20), (40, 50), work).unwrap_err().to_string().contains("beside"));
        }
    }
}
