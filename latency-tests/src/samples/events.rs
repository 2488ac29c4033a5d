//! The events of a trace region.

use partita_host::trace::TraceRegion;
use partita_trace::event::Event;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// An event: ring, time, event.
pub(super) type Entry = (u16, u64, Event);

/// The events of a region.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) all: Vec<Entry>,
    /// Frames that are no longer there.
    pub(super) overwritten: u64,
    /// The same by ring.
    pub(super) lost: Vec<(u16, u64)>,
}

impl Events {
    pub(super) fn of(region: &TraceRegion) -> Self {
        let frames = region.dump.rings.iter().flat_map(|ring| ring.frames());
        let all = frames.filter_map(|frame| match frame.body {
            Body::Event(event) => Some((frame.ring, frame.tsc, event)),
            _ => None,
        });
        let lost: Vec<(u16, u64)> =
            (0..).zip(&region.dump.rings).map(|(number, ring)| (number, ring.summary().0.overwritten)).collect();
        let overwritten = lost.iter().map(|(_, frames)| frames).sum();
        Self { all: all.collect(), overwritten, lost }
    }

    /// Those of one pCPU.
    pub(super) fn of_ring(&self, ring: u16) -> impl Iterator<Item = &Entry> {
        self.all.iter().filter(move |event| event.0 == ring)
    }

    /// Frames of one pCPU that are no longer there.
    pub(super) fn overwritten_in(&self, ring: u16) -> u64 {
        self.lost.iter().filter(|lost| lost.0 == ring).map(|lost| lost.1).sum()
    }

    /// The first exit of this pCPU's guest from `since` until `until` that was no kick.
    pub(super) fn unrest(&self, pcpu: u16, since: u64, until: u64) -> Option<&Entry> {
        let is_unrest = |event: &Event| matches!(event, Event::Exit { reason, .. } if *reason != ExitReason::Kick);
        self.of_ring(pcpu).find(|(_, tsc, event)| (since..=until).contains(tsc) && is_unrest(event))
    }

    /// Says that samples of `what` are missing, and why.
    pub(super) fn missing(&self, what: &str, found: usize, wanted: u32) -> String {
        let why = match self.overwritten {
            0 => "no frame was overwritten: they were never taken".to_owned(),
            lost => format!("{lost} frames were overwritten: a larger ring (trace.ring) or fewer samples would help"),
        };
        format!("{found} of {wanted} samples of {what} are there; {why}")
    }
}

#[cfg(test)]
pub(super) fn events(all: Vec<Entry>) -> Events {
    Events { all, ..Events::default() }
}
