//! The legs of SMP calls: from the frames of served calls, which hold all five stamps.

use super::hist::{LatencySource, from_samples};
use super::load::TraceRegion;
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::KickKind;
use partita_trace::reader::RegionDamage;
use partita_trace::snapshot::Body;
use serde::Serialize;
use std::collections::BTreeMap;

/// The kind of their histograms.
pub(super) const KIND: &str = "smp_leg";
/// The names of the legs, in their order.
pub(super) const LEGS: [&str; 4] = ["post_kick", "kick_exit", "exit_run", "run_ack"];

/// The frames behind the legs: how many are counted, and how many cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LegFrames {
    /// Frames of served calls that are in a ring: those that are counted.
    pub counted: u64,
    /// Calls that were served since the start, by the always-on histograms of all pCPUs. `None` if some are not there.
    pub served: Option<u64>,
    /// Legs that lasted longer than their frames can tell: they count as 2^32 - 1 ticks.
    pub saturated: u64,
    /// The rings that have such frames, or may have had some.
    pub rings: Vec<LegRing>,
}

impl LegFrames {
    /// No pCPU has served a call, as far as is known.
    pub const fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }
}

/// A ring with frames of served calls: that of a caller, or of a target that nobody waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LegRing {
    /// The pCPU that writes it.
    pub pcpu: u16,
    /// Its frames of served calls that are counted.
    pub counted: u64,
    /// Its frames, of all kinds, that later ones overwrote.
    pub overwritten: u64,
    /// Its frames, of all kinds, that are damaged.
    pub damaged: u64,
    /// `overwritten` and `damaged` are exact; else at least so many.
    pub exact: bool,
}

/// The legs of the calls that were served, from the hypervisor's regions: by target, kick and the order of the legs.
pub(super) fn collect<'a>(regions: impl Iterator<Item = &'a TraceRegion>) -> (Vec<LatencySource>, LegFrames) {
    let mut samples: BTreeMap<(u16, KickKind), [Vec<u64>; 4]> = BTreeMap::new();
    let mut frames = LegFrames { counted: 0, served: Some(0), saturated: 0, rings: Vec::new() };
    for region in regions {
        for ring in &region.dump.rings {
            let mut counted = 0;
            for frame in ring.frames() {
                let Body::Event(event) = frame.body else { continue };
                let Some((target, kick, legs)) = legs(&event, ring.ring) else { continue };
                counted += 1;
                frames.saturated += legs.iter().filter(|ticks| **ticks == u32::MAX).count() as u64;
                let values = samples.entry((target, kick)).or_default();
                values.iter_mut().zip(legs).for_each(|(values, ticks)| values.push(ticks.into()));
            }
            let (counts, _) = ring.summary();
            let lost = counts.overwritten > 0 || counts.damaged > 0 || !counts.exact;
            let served = served(region, ring.ring);
            // Who never wrote such a frame is not named; who may have, and has none left to show, is.
            if counted > 0 || served.map_or(lost, |served| served > 0) {
                let (overwritten, damaged, exact) = (counts.overwritten, counts.damaged, counts.exact);
                frames.rings.push(LegRing { pcpu: ring.ring, counted, overwritten, damaged, exact });
            }
            frames.counted += counted;
            frames.served = frames.served.zip(served).map(|(all, served)| all.saturating_add(served));
        }
    }
    let mut sources = Vec::new();
    for ((target, kick), mut values) in samples {
        for (leg, values) in LEGS.into_iter().zip(&mut values) {
            let source = from_samples(KIND, leg, target, values);
            sources.extend(source.map(|source| LatencySource { kick: Some(kick.name()), ..source }));
        }
    }
    (sources, frames)
}

/// The target of a served call that is in this pCPU's ring, how it had to be kicked, and its legs in their order.
fn legs(event: &Event, ring: u16) -> Option<(u16, KickKind, [u32; 4])> {
    let (_, target) = event.caller_and_target(ring)?;
    match *event {
        Event::SmpCallServed { kind, post_to_kick, kick_to_exit, exit_to_run, run_to_ack, .. } => {
            Some((target, kind, [post_to_kick, kick_to_exit, exit_to_run, run_to_ack]))
        }
        _ => None,
    }
}

/// The served calls that a pCPU wrote frames of since the start: each counts in its always-on histogram of the kind of kick.
fn served(region: &TraceRegion, pcpu: u16) -> Option<u64> {
    let is_kick = |id| matches!(id, HistogramId::KickNmi | HistogramId::KickVector);
    let damaged =
        region.dump.damage.iter().any(
            |damage| matches!(damage, RegionDamage::Histogram { pcpu: of, id, .. } if *of == pcpu && is_kick(*id)),
        );
    let kicks = region.dump.histograms.iter().filter(|entry| entry.pcpu == pcpu && is_kick(entry.histogram.id));
    (region.dump.header.spec.histograms && !damaged)
        .then(|| kicks.fold(0u64, |sum, entry| sum.saturating_add(entry.histogram.count)))
}

/// What a reader should know about the frames behind the legs: how many of the calls they are, and what each ring lost.
pub fn leg_frames_lines(frames: &LegFrames) -> Vec<String> {
    let served = frames.served.map_or_else(|| "an unknown number of".to_owned(), |served| served.to_string());
    let mut lines = vec![format!("{} of {served} served calls are counted", frames.counted)];
    if frames.saturated > 0 {
        let longest = u32::MAX;
        lines.push(format!("{} of their legs took {longest} ticks or more, and count as that", frames.saturated));
    }
    lines.extend(frames.rings.iter().map(|of| {
        let lost = if of.exact {
            format!("{} frames of its ring are overwritten, {} damaged", of.overwritten, of.damaged)
        } else {
            let lost = of.overwritten.saturating_add(of.damaged);
            format!("at least {lost} frames of its ring are overwritten or damaged")
        };
        format!("pCPU {} wrote {} of them; {lost}", of.pcpu, of.counted)
    }));
    lines
}
