//! The worst of each kind of exit, over one or several runs.

use super::load::{Owner, Trace};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;
use std::collections::BTreeMap;

/// The exit of one kind that took longest, of those that the hypervisor has counted since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstExit {
    /// The kind.
    pub reason: ExitReason,
    /// How many of this kind there were, in all runs.
    pub count: u64,
    /// How long the longest took, in ticks.
    pub ticks: u64,
    /// The run it was in, by its place.
    pub run: usize,
    /// The pCPU it was on.
    pub pcpu: u16,
    /// Its record; `None` if it was overwritten.
    pub record: Option<ExitRecord>,
}

/// What the trace says of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// When it began, in ticks.
    pub tsc: u64,
    /// What the reason is about, as in [`Event::Exit`].
    pub detail: u64,
    /// The same.
    pub detail16: u16,
}

/// The worst exits of these runs, by kind, on the pCPUs that `is_wanted` wants; kinds without an exit are left out.
pub fn worst_exits<'a>(runs: impl IntoIterator<Item = &'a Trace>, is_wanted: impl Fn(u16) -> bool) -> Vec<WorstExit> {
    let mut worst: BTreeMap<ExitReason, WorstExit> = BTreeMap::new();
    for (run, trace) in runs.into_iter().enumerate() {
        for region in trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor) {
            for entry in &region.dump.histograms {
                let HistogramId::Exit(reason) = entry.histogram.id else { continue };
                let (count, ticks, pcpu) = (entry.histogram.count, entry.histogram.max, entry.pcpu);
                if count == 0 || !is_wanted(pcpu) {
                    continue;
                }
                let found = WorstExit { reason, count: 0, ticks, run, pcpu, record: None };
                let slot = worst.entry(reason).or_insert_with(|| found.clone());
                let count = slot.count.saturating_add(count);
                if ticks > slot.ticks {
                    *slot = found;
                }
                slot.count = count;
            }
        }
        for exit in worst.values_mut().filter(|exit| exit.run == run) {
            exit.record = record_of(trace, exit);
        }
    }
    worst.into_values().collect()
}

/// The first record of an exit of this kind, pCPU and duration.
fn record_of(trace: &Trace, wanted: &WorstExit) -> Option<ExitRecord> {
    let hypervisor = trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let rings = hypervisor.flat_map(|region| &region.dump.rings).filter(|ring| ring.ring == wanted.pcpu);
    rings.flat_map(|ring| ring.frames()).find_map(|frame| match frame.body {
        Body::Event(Event::Exit { reason, ticks, detail, detail16 })
            if (reason, ticks) == (wanted.reason, wanted.ticks) =>
        {
            Some(ExitRecord { tsc: frame.tsc, detail, detail16 })
        }
        _ => None,
    })
}

/// One line for each kind; `names` are those of the runs.
pub fn worst_table(worst: &[WorstExit], names: &[String]) -> Table {
    const OVERWRITTEN: &str = "overwritten";
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    let several = names.len() > 1;
    let run = several.then_some("run");
    table.set_header(["exit", "count", "max ticks", "pCPU", "at tick", "detail"].into_iter().chain(run));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (1..=4).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for exit in worst {
        let (at, detail) = match exit.record {
            None => (OVERWRITTEN.to_owned(), String::new()),
            Some(ExitRecord { tsc, detail, detail16 }) => (tsc.to_string(), format!("{detail:#x}, {detail16:#x}")),
        };
        let run = several.then(|| names.get(exit.run).cloned().unwrap_or_default());
        let cells = [
            exit.reason.name().to_owned(),
            exit.count.to_string(),
            exit.ticks.to_string(),
            exit.pcpu.to_string(),
            at,
            detail,
        ];
        table.add_row(cells.into_iter().chain(run));
    }
    table
}
