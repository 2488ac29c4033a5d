//! Samples, and exit counts, out of the trace of a boot.

use crate::systems::TARGET_VCPU;
use partita_host::trace::{Owner, Trace, TraceRegion};
use partita_rows::Row;
use partita_rows::row::Source;
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, KickKind};
use partita_trace::snapshot::Body;
use std::collections::BTreeMap;

/// All samples of a row, in the order they were taken: `wanted` of them. `in_partition` tells whether the payload ran
/// under Partita.
///
/// # Errors
/// Samples are missing, there twice, or not to be trusted: a sentence about what is wrong.
pub fn of_row(trace: &Trace, row: Row, in_partition: bool, wanted: u32) -> Result<Vec<u64>, String> {
    if let Some(damage) = trace.damage.first() {
        return Err(format!("its trace is damaged: {damage}"));
    }
    let is_payload = |owner: &Owner| match owner {
        Owner::Hypervisor => false,
        Owner::Bare => !in_partition,
        Owner::Partition { .. } => in_partition,
    };
    let payload = find(trace, is_payload).ok_or("its trace has none of the payload")?;
    if !in_partition || row.source() == Source::Payload {
        return of_payload(&Events::of(payload), row, wanted);
    }
    let hypervisor = find(trace, |owner| *owner == Owner::Hypervisor).ok_or("its trace has none of the hypervisor")?;
    let target = payload.owner.pcpu(TARGET_VCPU).ok_or("its system file does not tell the payload's pCPUs")?;
    of_hypervisor(&Events::of(hypervisor), target, row, wanted)
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

fn find(trace: &Trace, is_wanted: impl Fn(&Owner) -> bool) -> Option<&TraceRegion> {
    trace.regions.iter().find(|region| is_wanted(&region.owner))
}

/// The events of a region: ring, time, event.
#[derive(Debug, Default)]
struct Events {
    all: Vec<(u16, u64, Event)>,
    /// Frames that are no longer there.
    overwritten: u64,
}

impl Events {
    fn of(region: &TraceRegion) -> Self {
        let frames = region.dump.rings.iter().flat_map(|ring| ring.frames());
        let all = frames.filter_map(|frame| match frame.body {
            Body::Event(event) => Some((frame.ring, frame.tsc, event)),
            _ => None,
        });
        let overwritten = region.dump.rings.iter().map(|ring| ring.summary().0.overwritten).sum();
        Self { all: all.collect(), overwritten }
    }

    fn missing(&self, row: Row, found: usize, wanted: u32) -> String {
        let why = match self.overwritten {
            0 => "no frame was overwritten: they were never taken".to_owned(),
            lost => format!("{lost} frames were overwritten: a larger ring (trace.ring) or fewer samples would help"),
        };
        format!("{found} of {wanted} samples of {} are there; {why}", row.name())
    }
}

/// What the payload measured.
fn of_payload(events: &Events, row: Row, wanted: u32) -> Result<Vec<u64>, String> {
    let mut samples: Vec<Option<u64>> = vec![None; wanted as usize];
    for (.., event) in &events.all {
        let Event::Sample { row: id, ticks, index } = *event else { continue };
        if id != row.id() {
            continue;
        }
        match usize::try_from(index).ok().and_then(|index| samples.get_mut(index)) {
            Some(place @ None) => *place = Some(ticks),
            Some(Some(_)) => return Err(format!("sample {index} of {} is there twice", row.name())),
            None => return Err(format!("there is a sample {index} of {}, but only {wanted} are wanted", row.name())),
        }
    }
    let found: Vec<u64> = samples.into_iter().flatten().collect();
    if found.len() == wanted as usize { Ok(found) } else { Err(events.missing(row, found.len(), wanted)) }
}

/// What the hypervisor measured: the last ones, after the payload has come up. `target` is the pCPU that the row is
/// about.
fn of_hypervisor(events: &Events, target: u16, row: Row, wanted: u32) -> Result<Vec<u64>, String> {
    let all = if row == Row::KickNmiToExit { kicks_of(events, target) } else { calls_to(events, target) };
    let from = all.len().checked_sub(wanted as usize).ok_or_else(|| events.missing(row, all.len(), wanted))?;
    let samples = all.get(from..).unwrap_or_default();
    let since = samples.first().map_or(0, |sample| sample.0);
    let is_unrest = |event: &Event| matches!(event, Event::Exit { reason, .. } if *reason != ExitReason::Kick);
    if let Some((_, tsc, event)) = of_ring(events, target).find(|(_, tsc, event)| *tsc >= since && is_unrest(event)) {
        return Err(format!(
            "its vCPU was not at rest while {} was measured: at {tsc} it had an exit that was no kick, {event:?}",
            row.name()
        ));
    }
    Ok(samples.iter().map(|sample| sample.1).collect())
}

fn of_ring(events: &Events, ring: u16) -> impl Iterator<Item = &(u16, u64, Event)> {
    events.all.iter().filter(move |event| event.0 == ring)
}

/// The kicks that the target took: when, and how long after their stamp.
fn kicks_of(events: &Events, target: u16) -> Vec<(u64, u64)> {
    let kicks = of_ring(events, target).filter_map(|(_, tsc, event)| match *event {
        Event::Kick { kind: KickKind::Nmi, ticks, .. } => Some((*tsc, ticks)),
        _ => None,
    });
    kicks.collect()
}

/// The SMP calls that the target served and answered in time: when each was made, and its round trip.
fn calls_to(events: &Events, target: u16) -> Vec<(u64, u64)> {
    // A call does not say whom it went to; the target says when the calls that it served were posted.
    let served = of_ring(events, target).filter_map(|(_, _, event)| match *event {
        Event::SmpCallServed { posted, .. } => Some(posted),
        _ => None,
    });
    let mut posts: Vec<u64> = served.collect();
    posts.sort_unstable();
    let was_served = |from: u64, ticks: u64| {
        let next = posts.partition_point(|posted| *posted < from);
        posts.get(next).is_some_and(|posted| *posted <= from.saturating_add(ticks))
    };
    let calls = events.all.iter().filter_map(|(_, tsc, event)| match *event {
        Event::SmpCall { targets: 1, late: 0, ticks, .. } if was_served(*tsc, ticks) => Some((*tsc, ticks)),
        _ => None,
    });
    calls.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(row: Row, index: u64) -> (u16, u64, Event) {
        (0, 1000, Event::Sample { row: row.id(), ticks: 100 + index, index })
    }

    fn events(all: Vec<(u16, u64, Event)>) -> Events {
        Events { all, overwritten: 0 }
    }

    #[test]
    fn samples_of_the_payload_are_taken_by_their_index() {
        let row = Row::ExitCpuid;
        let all = vec![sample(row, 1), sample(Row::ExitIo, 0), sample(row, 0), sample(row, 2)];
        assert_eq!(of_payload(&events(all.clone()), row, 3), Ok(vec![100, 101, 102]));
        let twice = [all.clone(), vec![sample(row, 1)]].concat();
        assert_eq!(of_payload(&events(twice), row, 3).unwrap_err(), "sample 1 of exit.cpuid is there twice");
        assert!(of_payload(&events(all), row, 2).unwrap_err().contains("only 2 are wanted"));
    }

    #[test]
    fn missing_samples_are_counted_and_explained() {
        let row = Row::ExitCpuid;
        let lost = Events { all: vec![sample(row, 1)], overwritten: 7 };
        let expected = "1 of 2 samples of exit.cpuid are there; 7 frames were overwritten: ";
        assert!(of_payload(&lost, row, 2).unwrap_err().starts_with(expected));
        for row in [Row::KickNmiToExit, Row::SmpCallRoundtrip] {
            let error = of_hypervisor(&events(Vec::new()), 1, row, 2).unwrap_err();
            assert!(error.contains("0 of 2") && error.contains("never taken"), "{error}");
        }
    }

    /// A round: pCPU 0 calls pCPU 1, then pCPU 2.
    fn round(start: u64, ticks: u64) -> Vec<(u16, u64, Event)> {
        [(1, start, ticks), (2, start + 10_000, ticks + 500)]
            .into_iter()
            .flat_map(|(pcpu, start, ticks)| {
                let kick = Event::Kick { kind: KickKind::Nmi, sender: 0, sent: start + 60, ticks: ticks / 10 };
                let exit = Event::Exit { reason: ExitReason::Kick, detail16: 0, ticks: 50, detail: 0 };
                let served = Event::SmpCallServed { caller: 0, posted: start + 50, ticks: 5 };
                let call = Event::SmpCall { targets: 1, late: 0, ticks, first_late: u64::MAX };
                [(pcpu, start + 90, kick), (pcpu, start + 120, served), (pcpu, start + 90, exit), (0, start, call)]
            })
            .collect()
    }

    #[test]
    fn only_the_targets_last_kicks_and_calls_count() {
        let all = [round(0, 9000), round(100_000, 400), round(200_000, 410)].concat();
        let of = |target, row| of_hypervisor(&events(all.clone()), target, row, 2);
        assert_eq!(of(1, Row::SmpCallRoundtrip), Ok(vec![400, 410]));
        assert_eq!(of(1, Row::KickNmiToExit), Ok(vec![40, 41]));
        assert_eq!(of(2, Row::SmpCallRoundtrip), Ok(vec![900, 910]));
        assert!(of(3, Row::KickNmiToExit).unwrap_err().contains("0 of 2"));
    }

    #[test]
    fn a_late_call_is_no_sample() {
        let mut all = [round(0, 400), round(100_000, 400)].concat();
        for (.., event) in &mut all {
            if let Event::SmpCall { late, .. } = event {
                *late = 1;
            }
        }
        assert!(of_hypervisor(&events(all), 1, Row::SmpCallRoundtrip, 1).is_err());
    }

    #[test]
    fn a_target_that_is_busy_spoils_the_samples() {
        let busy = |tsc| (1, tsc, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 80, detail: 0 });
        let rounds = || [round(0, 400), round(100_000, 400)].concat();
        let of = |extra| of_hypervisor(&events([rounds(), vec![extra]].concat()), 1, Row::KickNmiToExit, 1);
        assert_eq!(of(busy(50_000)), Ok(vec![40]));
        assert!(of(busy(150_000)).unwrap_err().contains("not at rest"));
    }
}
