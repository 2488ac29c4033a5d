//! The frames of all rings as one stream, in the order of time.
//!
//! A ring is not quite in that order: an exit is recorded after what happened while it was handled, with the time at
//! which it began. So each ring is read a little ahead.

use super::load::Trace;
use partita_trace::reader::RegionDamage;
use partita_trace::snapshot::{Frame, Frames, SlotDamage};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// How many frames of a ring are looked at to find the earliest.
const LOOK_AHEAD: usize = 256;

/// A piece of the merged stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame.
    Frame {
        /// Index of its region in [`Trace::regions`].
        region: usize,
        /// The frame.
        frame: Frame,
    },
    /// A place where frames are missing because slots are damaged.
    Gap {
        /// Index of its region in [`Trace::regions`].
        region: usize,
        /// The place.
        damage: SlotDamage,
    },
}

/// An item in the order of time; of those at the same time, in the order of its ring.
struct Timed {
    key: (u64, u64),
    item: Item,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// One ring.
struct RingStream<'a> {
    region: usize,
    frames: Frames<'a>,
    gaps: VecDeque<SlotDamage>,
    ahead: BinaryHeap<Reverse<Timed>>,
    /// Number of the next item of this ring, and the time of the last frame.
    next: u64,
    tsc: u64,
}

impl RingStream<'_> {
    fn push(&mut self, item: Item) {
        self.ahead.push(Reverse(Timed { key: (self.tsc, self.next), item }));
        self.next += 1;
    }

    fn pop(&mut self) -> Option<Timed> {
        while self.ahead.len() < LOOK_AHEAD {
            let frame = self.frames.next();
            let until = frame.as_ref().map_or(u64::MAX, |frame| frame.seq);
            let before = self.next;
            while let Some(damage) = self.gaps.pop_front_if(|gap| gap.slots.start <= until) {
                self.push(Item::Gap { region: self.region, damage });
            }
            if let Some(frame) = frame {
                self.tsc = frame.tsc;
                self.push(Item::Frame { region: self.region, frame });
            } else if self.next == before {
                break;
            }
        }
        self.ahead.pop().map(|Reverse(timed)| timed)
    }
}

/// The merged stream of a trace.
pub struct Merged<'a> {
    rings: Vec<RingStream<'a>>,
    /// The earliest item of each ring that has one, with the ring's index.
    heads: BinaryHeap<Reverse<(Timed, usize)>>,
}

/// Merges all frames of a trace by time.
pub fn merged(trace: &Trace) -> Merged<'_> {
    let mut rings = Vec::new();
    for (index, region) in trace.regions.iter().enumerate() {
        for ring in &region.dump.rings {
            let gaps = region.dump.damage.iter().filter_map(|damage| match damage {
                RegionDamage::Slots(slots) if slots.ring == ring.ring => Some(slots.clone()),
                _ => None,
            });
            rings.push(RingStream {
                region: index,
                frames: ring.frames(),
                gaps: gaps.collect(),
                ahead: BinaryHeap::new(),
                next: 0,
                tsc: 0,
            });
        }
    }
    let heads = rings.iter_mut().enumerate().filter_map(|(i, ring)| Some(Reverse((ring.pop()?, i)))).collect();
    Merged { rings, heads }
}

impl Iterator for Merged<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let Reverse((timed, index)) = self.heads.pop()?;
        if let Some(next) = self.rings.get_mut(index).and_then(RingStream::pop) {
            self.heads.push(Reverse((next, index)));
        }
        Some(timed.item)
    }
}
