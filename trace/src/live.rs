//! Looks at a live region without memory of one's own: for a console of the hypervisor, while other pCPUs go on
//! recording.
//!
//! All of it is wait-free: a bounded number of atomic loads, no store, nothing that a producer notices. What is being
//! recorded at the moment of a look may be in some of the counters and not yet in others; once a producer rests, its
//! figures are exact.

use crate::histogram::{Cells, HistogramId, bucket_range};
use crate::layout::Region;
use crate::ring::{Ring, RingHead, SLOT};
use crate::sync::{AtomicU64, Ordering};

impl<'a> Region<'a> {
    /// A histogram of a pCPU, to be read while it is recorded. `None` if the region has no such pCPU or no histograms.
    pub fn histogram(&self, pcpu: u16, id: HistogramId) -> Option<HistogramView<'a>> {
        let bank = self.histograms(pcpu)?;
        Some(HistogramView { cells: bank.cells(id), part: id.part().map(|part| bank.cells(part)) })
    }

    /// How full the ring of a pCPU is, and what it lost. `None` if the region has no such ring.
    pub fn ring_level(&self, pcpu: u16) -> Option<RingLevel> {
        Some(self.ring(pcpu)?.level())
    }
}

/// A histogram that its pCPU may be writing.
#[derive(Clone, Copy)]
pub struct HistogramView<'a> {
    cells: &'a Cells,
    /// More of its values.
    part: Option<&'a Cells>,
}

impl<'a> HistogramView<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Cells> + use<'a> {
        core::iter::once(self.cells).chain(self.part)
    }

    fn total(&self, counter: fn(&Cells) -> &AtomicU64) -> u64 {
        self.all().fold(0, |total, cells| total.wrapping_add(load(counter(cells))))
    }

    fn highest(&self, counter: fn(&Cells) -> &AtomicU64) -> u64 {
        self.all().map(|cells| load(counter(cells))).max().unwrap_or(0)
    }

    /// Recorded values.
    pub fn count(&self) -> u64 {
        self.total(|cells| &cells.count)
    }

    /// Their sum, modulo 2^64.
    pub fn sum(&self) -> u64 {
        self.total(|cells| &cells.sum)
    }

    /// The lowest value; `None` if there is none yet.
    pub fn min(&self) -> Option<u64> {
        // The counter starts at what it would be if `u64::MAX` were the lowest: then, and only then, the highest is
        // `u64::MAX` too.
        let max = self.highest(|cells| &cells.max);
        match self.highest(|cells| &cells.min_inverted) {
            0 => (max == u64::MAX).then_some(max),
            inverted => Some(!inverted),
        }
    }

    /// The highest value; `None` if there is none yet.
    pub fn max(&self) -> Option<u64> {
        // The counter starts at what it would be if 0 were the highest: then, and only then, the lowest is 0 too.
        let min = !self.highest(|cells| &cells.min_inverted);
        match self.highest(|cells| &cells.max) {
            0 => (min == 0).then_some(0),
            max => Some(max),
        }
    }

    /// The buckets that are not empty, in order: lowest value, highest value, number of values (modulo 2^32). At most
    /// [`BUCKETS`](crate::histogram::BUCKETS).
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<'a> {
        let part = self.part;
        self.cells.buckets.iter().enumerate().filter_map(move |(bucket, n)| {
            let more = part.and_then(|part| part.buckets.get(bucket)).map_or(0, |n| n.load(Ordering::Relaxed));
            let n = n.load(Ordering::Relaxed).wrapping_add(more);
            let (low, high) = bucket_range(bucket);
            (n != 0).then_some((low, high, n))
        })
    }

    /// The value that `permille` of 1000 recorded values do not exceed, by nearest rank: the highest value of the
    /// bucket that holds it, which is at most a sixteenth too high, and never above [`Self::max`]. 500 is the median, 990 the
    /// 99th percentile; more than 1000 is 1000. `None` if there is no value yet.
    pub fn quantile(&self, permille: u32) -> Option<u64> {
        // Ranks are those of the buckets' own total, which the count may be ahead of or behind.
        let total = self.buckets().fold(0u64, |total, (_, _, n)| total.saturating_add(n.into()));
        let permille = u64::from(permille.min(1000));
        // The product alone could overflow.
        let rank = (total / 1000 * permille + (total % 1000 * permille).div_ceil(1000)).max(1);
        let (mut seen, mut found) = (0u64, None);
        for (_, high, n) in self.buckets() {
            seen = seen.saturating_add(n.into());
            found = Some(high);
            if seen >= rank {
                break;
            }
        }
        Some(found?.min(self.max()?))
    }
}

impl core::fmt::Debug for HistogramView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HistogramView")
            .field("count", &self.count())
            .field("min", &self.min())
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

/// How full a ring is, and what became of what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLevel {
    /// Slots of the ring, 32 bytes each.
    pub slots: u32,
    /// Slots that hold something: as many as `slots` from the first lap's end on. Of a full ring the oldest
    /// [`FRAME_SLOTS_MAX`](crate::ring::FRAME_SLOTS_MAX) are not shown by readers.
    pub used: u32,
    /// Frames ever written: events and logs. Never too few; for each log that is being written during the look, perhaps 10
    /// too many.
    pub written_frames: u64,
    /// Slots ever written; a log takes up to 11.
    pub written_slots: u64,
    /// Slots overwritten by later ones. How many frames lay in them is known only after decoding what is left.
    pub overwritten_slots: u64,
    /// Log frames dropped because they were too long.
    pub dropped_long: u64,
    /// Log frames dropped because they began inside another one.
    pub dropped_nested: u64,
    /// Frames that the early ring lost before its rest was moved here.
    pub lost_early: u64,
}

impl RingLevel {
    /// Frames that never came into the ring, for whatever reason.
    pub const fn dropped(&self) -> u64 {
        self.dropped_long.saturating_add(self.dropped_nested).saturating_add(self.lost_early)
    }
}

/// How often a look at two counters that belong together is repeated if one of them changed meanwhile.
const TRIES: usize = 4;

impl Ring<'_> {
    /// How full the ring is, and what it lost.
    pub fn level(&self) -> RingLevel {
        let head = self.head();
        // Acquire: what a log that is committed here had counted before is seen below.
        let mut commit = head.commit.load(Ordering::Acquire);
        let mut continuations = 0;
        for _ in 0..TRIES {
            // Acquire: keeps the next load behind this one, so that the slots are never fewer than what is counted of them.
            continuations = head.continuations.load(Ordering::Acquire);
            let again = head.commit.load(Ordering::Acquire);
            if again == commit {
                break;
            }
            commit = again;
        }
        let written_slots = commit / SLOT;
        let counter = |get: fn(&RingHead) -> &AtomicU64| load(get(head));
        RingLevel {
            slots: self.slots(),
            used: u32::try_from(written_slots).unwrap_or(u32::MAX).min(self.slots()),
            written_frames: written_slots.saturating_sub(continuations),
            written_slots,
            overwritten_slots: written_slots.saturating_sub(self.slots().into()),
            dropped_long: counter(|head| &head.dropped_long),
            dropped_nested: counter(|head| &head.dropped_nested),
            lost_early: counter(|head| &head.lost_early),
        }
    }
}

/// A counter of another pCPU. Relaxed: no counter orders another.
fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
