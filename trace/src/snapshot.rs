//! A copy of a ring, taken from a live one or cut out of a dump, and its decoding into frames.
//!
//! The decoder trusts nothing: each slot must carry its own position, each log frame must be complete. What does
//! not fit is damage: it is counted, located, and skipped up to the next slot that starts a frame.

use core::ops::Range;

use crate::event::Event;
use crate::ring::{
    FRAME_SLOTS_MAX, KIND_LOG, KIND_LOG_MORE, RING_HEAD_LEN, RawSlot, Ring, SLOT, SLOT_LEN, head_words, oldest_safe,
};
use crate::sync::{Ordering, fence};

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An event.
    Event(Event),
    /// A defmt frame in raw encoding, to be decoded with the writer's own table.
    Log(Vec<u8>),
    /// A record that this version does not know.
    Unknown {
        /// Its kind.
        kind: u8,
        /// Its argument.
        arg: u32,
        /// Its first payload word.
        a: u64,
        /// Its second payload word.
        b: u64,
    },
}

/// A frame of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of the ring: the pCPU, or a guest's vCPU.
    pub ring: u16,
    /// Number of its first slot since the ring began.
    pub seq: u64,
    /// Its time in ticks of the TSC.
    pub tsc: u64,
    /// What it carries.
    pub body: Body,
}

/// A piece of a ring that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDamage {
    /// Number of the ring.
    pub ring: u16,
    /// The slots, numbered since the ring began.
    pub slots: Range<u64>,
    /// Where the first of them lies, in bytes from the ring's head.
    pub offset: u64,
}

/// What became of a ring's frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that are there.
    pub frames: u64,
    /// Frames before the first one that is there: overwritten by later ones, or before the start of the snapshot.
    pub overwritten: u64,
    /// Frames that were there but are damaged.
    pub damaged: u64,
    /// Log frames dropped because they were too long.
    pub dropped_long: u64,
    /// Log frames dropped because they began inside another one.
    pub dropped_nested: u64,
    /// Frames lost in the early ring.
    pub lost_early: u64,
    /// `overwritten` and `damaged` are exact. Not so if the ring's head is damaged (then only what is seen counts),
    /// or if slots are damaged before the first log frame (then only their sum is exact).
    pub exact: bool,
}

/// A copy of a ring.
#[derive(Clone, Debug)]
pub struct RingSnapshot {
    /// Number of the ring.
    pub ring: u16,
    /// Slots of the ring.
    pub slots: u32,
    /// Position of the first slot of `entries`.
    start: u64,
    /// The slots from `start` on, `None` where they are known to be damaged.
    entries: Vec<Option<RawSlot>>,
    /// Continuation slots by the ring's head: the last log frame of `entries` may be newer. `None` if damaged.
    continuations: Option<u64>,
    dropped_long: u64,
    dropped_nested: u64,
    lost_early: u64,
}

impl Ring<'_> {
    /// Copies the frames from slot number `from` on, or as far back as they are safe to read. The producer does
    /// not notice.
    pub fn snapshot(&self, from: u64) -> RingSnapshot {
        let head = self.head();
        let mut continuations = head.continuations.load(Ordering::Acquire);
        let mut commit;
        let mut tries = 0;
        loop {
            // Acquire: pairs with the producer's commit, so that all slots below are seen in full.
            commit = head.commit.load(Ordering::Acquire);
            let again = head.continuations.load(Ordering::Acquire);
            tries += 1;
            // A log frame that is committed but not yet counted is the newest, and tells the count itself.
            if again == continuations || tries == 4 {
                break;
            }
            continuations = again;
        }
        let mut start = oldest_safe(commit, self.slots()).max(from.saturating_mul(SLOT)).min(commit);
        let mut entries: Vec<_> =
            (start / SLOT..commit / SLOT).map(|slot| Some(self.load(slot.wrapping_mul(SLOT)))).collect();
        // Acquire: if one of the loads above saw a slot of a later lap, then the load below sees that lap's
        // position. See the protocol in `ring`.
        fence(Ordering::Acquire);
        let safe = oldest_safe(head.commit.load(Ordering::Relaxed), self.slots()).min(commit);
        if safe > start {
            entries.drain(..((safe - start) / SLOT) as usize);
            start = safe;
        }
        RingSnapshot {
            ring: head.number(),
            slots: self.slots(),
            start,
            entries,
            continuations: Some(continuations),
            dropped_long: head.dropped_long.load(Ordering::Relaxed),
            dropped_nested: head.dropped_nested.load(Ordering::Relaxed),
            lost_early: head.lost_early.load(Ordering::Relaxed),
        }
    }
}

/// No ring gets this far: a million slots a second for 9,000 years.
const POSITION_MAX: u64 = 1 << 63;

/// The little-endian word at a byte offset.
fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..offset.checked_add(8)?)?;
    word.try_into().ok().map(u64::from_le_bytes)
}

impl RingSnapshot {
    /// Cuts a ring out of a dump: `bytes` from its head on, as many as there are; `damaged` the ranges of them
    /// that are known to be bad, sorted.
    pub fn from_bytes(ring: u16, slots: u32, bytes: &[u8], damaged: &[Range<usize>]) -> Self {
        let bad = |range: Range<usize>| damaged.iter().any(|d| d.start < range.end && range.start < d.end);
        let slot_at = |index: usize| {
            let offset = RING_HEAD_LEN + index * SLOT_LEN;
            if bad(offset..offset + SLOT_LEN) {
                return None;
            }
            let first = word_at(bytes, offset)?;
            Some(RawSlot {
                kind_arg: first as u32,
                seq: (first >> 32) as u32,
                words: [word_at(bytes, offset + 8)?, word_at(bytes, offset + 16)?, word_at(bytes, offset + 24)?],
            })
        };
        let head = |index: usize| if bad(0..RING_HEAD_LEN) { None } else { word_at(bytes, index * 8) };
        let constant_ok = head_words(ring, slots).iter().enumerate().all(|(i, &word)| head(i) == Some(word));
        let commit = head(8).filter(|c| constant_ok && c.is_multiple_of(SLOT) && *c <= POSITION_MAX);
        let (start, end) = match commit {
            Some(commit) => (oldest_safe(commit, slots), commit),
            None => recover(slots, slot_at),
        };
        let mask = u64::from(slots) - 1;
        let mut entries: Vec<_> = (start / SLOT..end / SLOT).map(|n| slot_at((n & mask) as usize)).collect();
        if commit.is_none() {
            cut_partial_frame(&mut entries);
        }
        Self {
            ring,
            slots,
            start,
            entries,
            continuations: commit.and(head(9)),
            dropped_long: head(10).unwrap_or(0),
            dropped_nested: head(11).unwrap_or(0),
            lost_early: head(12).unwrap_or(0),
        }
    }

    /// The ring's head is there, so that all committed frames are.
    pub(crate) fn has_head(&self) -> bool {
        self.continuations.is_some()
    }

    /// The frames, oldest first.
    pub fn frames(&self) -> Frames<'_> {
        Frames { snapshot: self, next: 0, tally: Tally::default() }
    }

    /// Number of the slot after the last one: where the next snapshot goes on.
    pub fn end(&self) -> u64 {
        self.start / SLOT + self.entries.len() as u64
    }

    /// What became of the ring's frames, and where it is damaged.
    pub fn summary(&self) -> (Counts, Vec<SlotDamage>) {
        let mut frames = self.frames();
        let mut shown = 0;
        while frames.advance().is_some() {
            shown += 1;
        }
        let tally = frames.tally;
        // All frames ever written are all slots less all continuation slots. Their number is in the head, and in
        // each log frame; the head may lack the newest frame.
        let continuations = self.continuations.map(|c| c.max(tally.continuations_at_end.unwrap_or(0)));
        let written = continuations.and_then(|c| self.end().checked_sub(c));
        let before_first = match tally.first_frame {
            Some((seq, Some(before))) => seq.checked_sub(before),
            // No log frame from here to the end, so the head's number holds for the start too.
            Some((seq, None)) => continuations.and_then(|c| seq.checked_sub(c)),
            None => written,
        };
        let counts = match (written, before_first) {
            (Some(written), Some(before)) if before + shown <= written => Counts {
                overwritten: before,
                damaged: written - before - shown,
                exact: !tally.ambiguous && (tally.damage.is_empty() || tally.continuations_at_end.is_some()),
                ..Counts::default()
            },
            _ => Counts { damaged: tally.damage.len() as u64, ..Counts::default() },
        };
        let counts = Counts {
            frames: shown,
            dropped_long: self.dropped_long,
            dropped_nested: self.dropped_nested,
            lost_early: self.lost_early,
            ..counts
        };
        (counts, tally.damage)
    }

    /// The slot at an index of `entries`, if it is there and carries its own position.
    fn slot(&self, index: usize) -> Option<&RawSlot> {
        let position = self.start.wrapping_add(index as u64 * SLOT);
        self.entries.get(index)?.as_ref().filter(|slot| slot.seq == position as u32 && slot.kind() != 0)
    }
}

/// Finds the safe part of a ring whose head is lost, by the positions that its slots carry: (start, end). Their
/// upper 32 bits are unknown and taken as 0, or 1 where that keeps the part in one piece.
fn recover(slots: u32, slot_at: impl Fn(usize) -> Option<RawSlot>) -> (u64, u64) {
    let mask = u64::from(slots) - 1;
    let mut newest: Option<u32> = None;
    for index in 0..slots as usize {
        let Some(slot) = slot_at(index) else { continue };
        let seq = u64::from(slot.seq);
        if slot.kind() == 0 || seq % SLOT != 0 || (seq / SLOT) & mask != index as u64 {
            continue;
        }
        // Serial-number comparison: a ring is far shorter than half the number space.
        newest = Some(match newest {
            Some(n) if (slot.seq.wrapping_sub(n) as i32) < 0 => n,
            _ => slot.seq,
        });
    }
    let Some(newest) = newest else { return (0, 0) };
    let capacity = u64::from(slots) * SLOT;
    let reach = u64::from(newest) + SLOT;
    // Slots of the lap before may carry positions just below 2^32.
    let wrapped = reach < capacity && slot_at((mask) as usize).is_some_and(|s| u64::from(s.seq) > capacity);
    let reach = if wrapped { reach + (1 << 32) } else { reach };
    let start = oldest_safe(reach, slots);
    // The newest slots may belong to a frame that was never committed.
    (start, reach.saturating_sub(FRAME_SLOTS_MAX as u64 * SLOT).max(start))
}

/// Removes a log frame that reaches beyond the end, where a recovered part ends just anywhere.
fn cut_partial_frame(entries: &mut Vec<Option<RawSlot>>) {
    let is_more = |e: &Option<RawSlot>| e.is_some_and(|s| s.kind() == KIND_LOG_MORE);
    let Some(last) = entries.iter().rposition(|e| !is_more(e)) else { return };
    let extent = entries.get(last).copied().flatten().filter(|s| s.kind() == KIND_LOG).and_then(|s| s.log_extent());
    if extent.is_some_and(|(_, more)| last + more >= entries.len()) {
        entries.truncate(last);
    }
}

/// What the decoder notes on its way.
#[derive(Clone, Debug, Default)]
struct Tally {
    damage: Vec<SlotDamage>,
    /// The first frame's slot, and the continuation slots before it, as soon as a log frame tells.
    first_frame: Option<(u64, Option<u64>)>,
    /// There is damage between the first frame and the first log frame.
    ambiguous: bool,
    /// Continuation slots up to the last log frame's end.
    continuations_at_end: Option<u64>,
}

/// The frames of a snapshot, oldest first.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    snapshot: &'a RingSnapshot,
    next: usize,
    tally: Tally,
}

impl<'a> Frames<'a> {
    /// The next good frame: the index of its first slot, that slot, and its continuation slots.
    fn advance(&mut self) -> Option<(usize, &'a RawSlot, usize)> {
        while self.next < self.snapshot.entries.len() {
            let index = self.next;
            match self.frame_at(index) {
                Ok((slot, more)) => {
                    self.next = index + 1 + more;
                    self.note_frame(index, slot, more);
                    return Some((index, slot, more));
                }
                Err(skip) => {
                    self.next = index + 1;
                    if !skip {
                        self.note_damage(index);
                    }
                }
            }
        }
        None
    }

    /// The frame that starts at this index. `Err(true)` if the slot is only the rest of an overwritten frame.
    fn frame_at(&self, index: usize) -> Result<(&'a RawSlot, usize), bool> {
        let slot = self.snapshot.slot(index).ok_or(false)?;
        match slot.kind() {
            KIND_LOG => {
                let (_, more) = slot.log_extent().ok_or(false)?;
                let whole = (1..=more).all(|i| {
                    self.snapshot.slot(index + i).is_some_and(|s| s.kind() == KIND_LOG_MORE && s.arg() as usize == i)
                });
                if whole { Ok((slot, more)) } else { Err(false) }
            }
            KIND_LOG_MORE => Err(self.tally.first_frame.is_none() && self.tally.damage.is_empty()),
            _ => Ok((slot, 0)),
        }
    }

    fn note_frame(&mut self, index: usize, slot: &RawSlot, more: usize) {
        let seq = self.snapshot.start / SLOT + index as u64;
        let [_, before, _] = slot.words;
        let is_log = slot.kind() == KIND_LOG;
        match &mut self.tally.first_frame {
            None => self.tally.first_frame = Some((seq, is_log.then_some(before))),
            // No log frame came between: the number held at the first frame too.
            Some((_, told @ None)) if is_log => {
                *told = Some(before);
                self.tally.ambiguous = !self.tally.damage.is_empty();
            }
            _ => {}
        }
        if is_log {
            self.tally.continuations_at_end = Some(before.saturating_add(more as u64));
        }
    }

    fn note_damage(&mut self, index: usize) {
        let number = self.snapshot.start / SLOT + index as u64;
        match self.tally.damage.last_mut() {
            Some(last) if last.slots.end == number => last.slots.end += 1,
            _ => {
                let in_ring = number & (u64::from(self.snapshot.slots) - 1);
                self.tally.damage.push(SlotDamage {
                    ring: self.snapshot.ring,
                    slots: number..number + 1,
                    offset: RING_HEAD_LEN as u64 + in_ring * SLOT,
                });
            }
        }
    }

    /// The bytes of a log frame.
    fn log_bytes(&self, index: usize, slot: &RawSlot, more: usize) -> Vec<u8> {
        let [_, _, first] = slot.words;
        let mut bytes = first.to_le_bytes().to_vec();
        for slot in (index + 1..=index + more).filter_map(|i| self.snapshot.slot(i)) {
            bytes.extend(slot.words.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes.truncate(slot.log_extent().map_or(0, |(len, _)| len));
        bytes
    }
}

impl Iterator for Frames<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let (index, slot, more) = self.advance()?;
        let [tsc, a, b] = slot.words;
        let (kind, arg) = (slot.kind(), slot.arg());
        let body = match kind {
            KIND_LOG => Body::Log(self.log_bytes(index, slot, more)),
            _ => Event::decode(kind, arg, a, b).map_or(Body::Unknown { kind, arg, a, b }, Body::Event),
        };
        Some(Frame { ring: self.snapshot.ring, seq: self.snapshot.start / SLOT + index as u64, tsc, body })
    }
}
