//! Samples, and exit counts, out of the trace of a boot.
//!
//! - `events`: the events of a trace region.
//! - `payload`: what the payload measured.
//! - `calls`: what the hypervisor measured of its SMP calls.
//! - `gaps`: what a guest that polls saw of them.
//! - `quiet`: what it saw when there were none.
//! - `starts`: how long the starts of a partition took.
//! - `counted`: what the payload counted, instead of keeping each sample.
//! - `beside`: whether a neighbour disturbed.

mod beside;
mod calls;
mod counted;
mod events;
mod gaps;
mod payload;
mod quiet;
mod starts;

use crate::systems::TARGET_VCPU;
use events::Events;
use partita_host::run_info::ClockName;
use partita_host::trace::{Owner, Trace, TraceRegion};
use partita_rows::row::Source;
use partita_rows::{Group, Row};
use partita_trace::histogram::HistogramId;
use std::collections::BTreeMap;

/// All samples of a row that keeps them, in the order they were taken: `wanted` of them, where the row has not a number of its
/// own. `in_partition` tells whether the payload ran under Partita.
///
/// # Errors
/// Samples are missing, there twice, or not to be trusted: a sentence about what is wrong.
pub fn of_row(trace: &Trace, row: Row, in_partition: bool, wanted: u32) -> Result<Vec<u64>, String> {
    let region = payload_of(trace, in_partition)?;
    let payload = Events::of(region);
    if !in_partition {
        return payload::of_row(&payload, row, wanted);
    }
    let (hypervisor, pcpus) = (Events::of(hypervisor_of(trace)?), pcpus_of(region)?);
    let target = target_of(&pcpus)?;
    match row.group() {
        Group::Gap if is_exact(trace) => gaps::of_row(&payload, &hypervisor, target, row, wanted),
        Group::Gap => gaps::of_host_row(&payload, &hypervisor, target, row, wanted),
        Group::Quiet => quiet::of_row(&payload, &hypervisor, target, row, is_exact(trace)),
        Group::Restart => starts::of_row(&hypervisor, target, row, wanted),
        Group::Broadcast => calls::of_row(&hypervisor, &pcpus, row, wanted),
        Group::Kick => calls::of_row(&hypervisor, &[target], row, wanted),
        group => {
            if group.is_beside() {
                beside::check(&payload, &hypervisor, target, group)?;
            }
            payload::of_row(&payload, row, wanted)
        }
    }
}

/// Each value of a row, in ascending order, and how often it is there. `wanted` and `in_partition` as in [`of_row`], but a row
/// that is counted has as many samples as it has.
///
/// # Errors
/// As [`of_row`]; a derived row has no samples.
pub fn distribution(trace: &Trace, row: Row, in_partition: bool, wanted: u32) -> Result<Vec<(u64, u64)>, String> {
    let values = match row.source() {
        Source::Derived => return Err(format!("{} is derived from other rows: it has no samples", row.name())),
        Source::Counted => counted::of_row(&Events::of(payload_of(trace, in_partition)?), row)?,
        _ => of_row(trace, row, in_partition, wanted)?.into_iter().map(|value| (value, 1)).collect(),
    };
    let mut counts = BTreeMap::new();
    for (value, count) in values {
        *counts.entry(value).or_insert(0) += count;
    }
    Ok(counts.into_iter().collect())
}

/// Whether time passed by instructions, so that nothing but the machine itself took any. A trace that does not tell is of hardware.
pub(crate) fn is_exact(trace: &Trace) -> bool {
    trace.run.as_ref().is_some_and(|run| run.clock == ClockName::Icount)
}

/// How often each pCPU left its guest, by reason, from the histograms that the hypervisor always keeps.
pub fn exit_counts(trace: &Trace) -> BTreeMap<(u16, &'static str), u64> {
    let hypervisor = trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    hypervisor
        .flat_map(|region| &region.dump.histograms)
        .filter_map(|entry| match entry.histogram.id {
            HistogramId::Exit(reason) => Some(((entry.pcpu, reason.name()), entry.histogram.count)),
            _ => None,
        })
        .collect()
}

/// The payload's part of a trace that is whole.
fn payload_of(trace: &Trace, in_partition: bool) -> Result<&TraceRegion, String> {
    if let Some(damage) = trace.damage.first() {
        return Err(format!("its trace is damaged: {damage}"));
    }
    let is_payload = |owner: &Owner| match owner {
        Owner::Hypervisor => false,
        Owner::Bare => !in_partition,
        Owner::Partition { number, .. } => in_partition && *number == 0,
    };
    find(trace, is_payload).ok_or_else(|| "its trace has none of the payload".to_owned())
}

fn hypervisor_of(trace: &Trace) -> Result<&TraceRegion, String> {
    find(trace, |owner| *owner == Owner::Hypervisor).ok_or_else(|| "its trace has none of the hypervisor".to_owned())
}

fn find(trace: &Trace, is_wanted: impl Fn(&Owner) -> bool) -> Option<&TraceRegion> {
    trace.regions.iter().find(|region| is_wanted(&region.owner))
}

/// The pCPUs of the payload's vCPUs, in their order.
fn pcpus_of(payload: &TraceRegion) -> Result<Vec<u16>, String> {
    let pcpus: Vec<u16> = (0..).map_while(|vcpu| payload.owner.pcpu(vcpu)).collect();
    if pcpus.is_empty() { Err("its system file does not tell the payload's pCPUs".to_owned()) } else { Ok(pcpus) }
}

/// The pCPU that the rows of one target are about.
fn target_of(pcpus: &[u16]) -> Result<u16, String> {
    let target = pcpus.get(usize::from(TARGET_VCPU)).copied();
    target.ok_or_else(|| format!("its system file tells no pCPU of the payload's vCPU {TARGET_VCPU}"))
}
