//! Latencies: from the events in the rings, and from the histograms that the hypervisor always keeps.

use super::load::{Owner, Trace, TraceRegion};
use super::smp_legs::{self, LegFrames};
use crate::run_info::ClockName;
use hdrhistogram::Histogram;
use partita_rows::{Row, Summary};
use partita_trace::event::Event;
use partita_trace::histogram::{HistogramId, HistogramSnapshot};
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;
use serde::Serialize;
use std::collections::BTreeMap;

/// Significant digits of the buckets of ring sources: values below 2048 have a bucket each, and none is wider than a
/// thousandth of its lowest value.
const DIGITS: u8 = 3;

/// `hist.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistFile {
    /// How time passed.
    pub clock: ClockName,
    /// The histograms: by kind, name, pCPU and origin; the legs of SMP calls by target, kick and their order.
    pub sources: Vec<LatencySource>,
    /// How many of the SMP calls that were served the legs are from.
    pub smp_leg_frames: LegFrames,
}

/// Where a histogram comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The events that are in a ring: each value exact, the oldest ones perhaps overwritten.
    Ring,
    /// The histograms in fixed memory: every value since the start.
    AlwaysOn,
}

impl Origin {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::AlwaysOn => "always_on",
        }
    }
}

/// The latencies of one thing on one pCPU, in ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LatencySource {
    /// `exit`, `ipi`, `kick`, `smp_call` or `smp_leg`.
    pub kind: &'static str,
    /// Its name in its kind; of an `smp_leg` that of the leg.
    pub name: &'static str,
    /// Of an `smp_leg`, how the target had to be kicked: the name of a [`KickKind`](partita_trace::names::KickKind).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kick: Option<&'static str>,
    /// The pCPU that recorded it; of an `smp_leg` the target. A `kick` is recorded by the caller of the SMP call that it
    /// brought, or by the target if nobody waited for that call.
    pub pcpu: u16,
    /// Where it comes from.
    pub source: Origin,
    /// Number of values.
    pub count: u64,
    /// The lowest, exact.
    pub min: u64,
    /// The median by nearest rank: exact from a ring, else the highest value of its bucket, at most `max`.
    pub p50: u64,
    /// The 99th percentile, like `p50`.
    pub p99: u64,
    /// The highest, exact.
    pub max: u64,
    /// The buckets that are not empty, in order.
    pub buckets: Vec<Bucket>,
}

/// A bucket of a histogram, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The lowest value that is counted here.
    pub low: u64,
    /// The highest value that is counted here.
    pub high: u64,
    /// Number of values.
    pub count: u64,
}

/// All latencies of a trace, with what a reader should know about them.
pub fn histograms(trace: &Trace) -> (HistFile, Vec<String>) {
    let mut notes = Vec::new();
    let clock = trace.run.as_ref().map_or_else(
        || {
            notes.push("run.json does not tell how time passed: the clock is taken to be \"tsc\"".to_owned());
            ClockName::Tsc
        },
        |run| run.clock,
    );
    let mut samples: BTreeMap<(&'static str, &'static str, u16), Vec<u64>> = BTreeMap::new();
    let mut sources = Vec::new();
    for region in &trace.regions {
        collect_ring_samples(region, &mut samples, &mut notes);
        if region.owner == Owner::Hypervisor {
            for entry in &region.dump.histograms {
                let snapshot = &entry.histogram;
                if !snapshot.is_consistent() {
                    let id = snapshot.id;
                    notes.push(format!(
                        "the counters of the always-on histogram {} {} of pCPU {} contradict each other: it was being \
                         written at the end, or a bucket counted beyond 2^32",
                        id.kind(),
                        id.name(),
                        entry.pcpu
                    ));
                }
                sources.push(from_snapshot(entry.pcpu, snapshot));
            }
        }
    }
    sources.extend(
        samples.into_iter().filter_map(|((kind, name, pcpu), mut values)| from_samples(kind, name, pcpu, &mut values)),
    );
    sources.sort_by_key(|source| (source.kind, source.name, source.pcpu, source.source));
    let of_hypervisor = trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let (legs, smp_leg_frames) = smp_legs::collect(of_hypervisor);
    sources.extend(legs);
    (HistFile { clock, sources, smp_leg_frames }, notes)
}

fn collect_ring_samples(
    region: &TraceRegion,
    samples: &mut BTreeMap<(&'static str, &'static str, u16), Vec<u64>>,
    notes: &mut Vec<String>,
) {
    for ring in &region.dump.rings {
        let mut left_out = 0;
        let mut unknown: BTreeMap<u8, u64> = BTreeMap::new();
        for frame in ring.frames() {
            let event = match frame.body {
                Body::Event(event) => event,
                Body::Unknown { kind, .. } => {
                    *unknown.entry(kind).or_default() += 1;
                    continue;
                }
                Body::Log(_) => continue,
            };
            for (kind, name, ticks) in latencies(&event, &region.owner) {
                match region.owner.pcpu(frame.ring) {
                    Some(pcpu) => samples.entry((kind, name, pcpu)).or_default().push(ticks),
                    None => left_out += 1,
                }
            }
        }
        if left_out > 0 {
            let ring = region.owner.ring_name(ring.ring);
            notes.push(format!("{left_out} samples of {ring} are left out: system.toml does not tell its pCPU"));
        }
        if !unknown.is_empty() {
            let kinds: Vec<_> = unknown.iter().map(|(kind, count)| format!("{count} of kind {kind}")).collect();
            let ring = region.owner.ring_name(ring.ring);
            notes.push(format!("frames of {ring} that this version cannot read are left out: {}", kinds.join(", ")));
        }
    }
}

/// What a frame says about latencies: of an exit for the ICR that sent IPIs, also how long those took.
fn latencies(event: &Event, owner: &Owner) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
    let forwarded = match *event {
        Event::Exit { reason: ExitReason::IcrWrite, detail16: 1.., ticks, .. } if *owner == Owner::Hypervisor => {
            Some((HistogramId::IcrForward.kind(), HistogramId::IcrForward.name(), ticks))
        }
        _ => None,
    };
    latency(event, owner).into_iter().chain(forwarded)
}

/// Kind, name and ticks of an event, if it is about a latency that is shown. Of exits and kicks only the hypervisor's
/// word counts, and samples are what guests measure.
fn latency(event: &Event, owner: &Owner) -> Option<(&'static str, &'static str, u64)> {
    let of = |id: HistogramId, ticks| (id.kind(), id.name(), ticks);
    if let Event::Sample { row, ticks, .. } = *event {
        let name = Row::from_id(row)?.name();
        return name.starts_with("ipi.").then_some((HistogramId::IcrForward.kind(), name, ticks));
    }
    if *owner != Owner::Hypervisor {
        return None;
    }
    match *event {
        Event::Exit { reason, ticks, .. } => Some(of(HistogramId::Exit(reason), ticks)),
        Event::IcrForward { ticks, .. } => Some(of(HistogramId::IcrForward, ticks)),
        Event::SmpCallServed { kind, kick_to_exit, .. } => {
            Some((HistogramId::KickNmi.kind(), kind.name(), kick_to_exit.into()))
        }
        // A call that came too late has no round trip.
        Event::SmpCall { late: 0, ticks, .. } => Some(of(HistogramId::SmpCall, ticks)),
        _ => None,
    }
}

/// The histogram of these values; `None` if there are none.
pub(super) fn from_samples(
    kind: &'static str,
    name: &'static str,
    pcpu: u16,
    values: &mut [u64],
) -> Option<LatencySource> {
    let Summary { min, p50, p99, max } = Summary::of(values)?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, max.max(2), DIGITS).ok()?;
    for value in values.iter() {
        histogram.saturating_record(*value);
    }
    let buckets = histogram.iter_recorded().map(|step| {
        let low = histogram.lowest_equivalent(step.value_iterated_to());
        // Not `highest_equivalent`, which is one too low in the very last bucket.
        let high = low.saturating_add(histogram.equivalent_range(low) - 1);
        Bucket { low, high, count: step.count_since_last_iteration() }
    });
    let buckets = buckets.collect();
    let count = values.len() as u64;
    Some(LatencySource { kind, name, kick: None, pcpu, source: Origin::Ring, count, min, p50, p99, max, buckets })
}

fn from_snapshot(pcpu: u16, snapshot: &HistogramSnapshot) -> LatencySource {
    let buckets: Vec<Bucket> =
        snapshot.buckets().map(|(low, high, count)| Bucket { low, high, count: count.into() }).collect();
    let (min, max) = (snapshot.min.min(snapshot.max), snapshot.max);
    let percentile = |percent| rank(&buckets, percent).unwrap_or(max).clamp(min, max);
    LatencySource {
        kind: snapshot.id.kind(),
        name: snapshot.id.name(),
        kick: None,
        pcpu,
        source: Origin::AlwaysOn,
        count: snapshot.count,
        min,
        p50: percentile(50),
        p99: percentile(99),
        max,
        buckets,
    }
}

/// The highest value of the bucket that a percentile falls into.
fn rank(buckets: &[Bucket], percent: u128) -> Option<u64> {
    let total: u128 = buckets.iter().map(|bucket| u128::from(bucket.count)).sum();
    let wanted = (total * percent).div_ceil(100).max(1);
    let mut seen = 0;
    buckets.iter().find_map(|bucket| {
        seen += u128::from(bucket.count);
        (seen >= wanted).then_some(bucket.high)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_of_a_ring_are_exact() {
        let mut values: Vec<u64> = (1..=200).map(|i| i * 10_007).rev().collect();
        let source = from_samples("exit", "cpuid", 2, &mut values).unwrap();
        let figures = (source.count, source.min, source.p50, source.p99, source.max);
        assert_eq!(figures, (200, 10_007, 1_000_700, 1_981_386, 2_001_400));
        assert_eq!(from_samples("exit", "cpuid", 2, &mut []), None);
    }

    #[test]
    fn a_percentile_is_in_the_bucket_of_its_rank() {
        let buckets = [(0, 0, 50), (32, 33, 49), (64, 67, 1)];
        let buckets: Vec<_> = buckets.map(|(low, high, count)| Bucket { low, high, count }).into();
        assert_eq!([50, 51, 99, 100].map(|percent| rank(&buckets, percent)), [Some(0), Some(33), Some(33), Some(67)]);
        assert_eq!(rank(&[], 50), None);
    }

    proptest! {
        #[test]
        fn buckets_hold_every_value(mut values in prop::collection::vec(
            prop_oneof![0..100u64, 0..1_000_000u64, any::<u64>(), Just(u64::MAX)], 1..100)) {
            let source = from_samples("ipi", "ipi.self", 0, &mut values).unwrap();
            prop_assert_eq!(source.buckets.iter().map(|b| b.count).sum::<u64>(), source.count);
            prop_assert!(source.buckets.is_sorted_by(|a, b| a.high < b.low));
            for bucket in &source.buckets {
                let inside = values.iter().filter(|v| (bucket.low..=bucket.high).contains(v)).count() as u64;
                prop_assert_eq!(inside, bucket.count);
            }
        }
    }
}
