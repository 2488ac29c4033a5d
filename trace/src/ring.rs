//! The ring of one producer: overwrites its oldest slots, never waits, and costs its producer one plain store
//! more than the record itself.
//!
//! # Protocol
//! The ring's *position* counts bytes of slots ever written; it never wraps. The head holds the committed
//! position. A producer at position p
//!
//! 1. issues a release fence (free on x86),
//! 2. writes the slots of one frame, at most [`FRAME_SLOTS_MAX`],
//! 3. stores the new position, with release.
//!
//! A reader loads the position c (acquire), copies slots below c, issues an acquire fence and loads the position
//! again, c'. It drops every slot below c' + [`FRAME_SLOTS_MAX`] - capacity.
//!
//! - *Committed means written*: 3 is a release, the load of c an acquire, so all slots below c are seen in full.
//! - *Never torn*: suppose the reader saw a store of a later lap into one of its slots. The store belongs to a
//!   frame that started at some position p with p ≤ store < p + `FRAME_SLOTS_MAX`. The producer's commit of p
//!   comes before fence 1, the store after it; the reader's load of the store comes before its fence, the load
//!   of c' after it. So c' ≥ p, and the slot, one lap below the store, lies below c' + `FRAME_SLOTS_MAX` -
//!   capacity: dropped.
//! - *Whole or not at all*: c only ever lies between frames.
//!
//! A counter of reserved slots would let a reader keep `FRAME_SLOTS_MAX` slots more, and cost each record
//! another store.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::event::Event;
use crate::layout::CRC32;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of a ring's head.
pub const RING_HEAD_LEN: usize = 128;
/// Bytes of a slot.
pub const SLOT_LEN: usize = 32;
/// Fewest slots of a ring.
pub const SLOTS_MIN: u32 = 64;
/// Most slots of a ring.
pub const SLOTS_MAX: u32 = 1 << 20;
/// Most slots of one frame; so many of the oldest slots of a full ring are not shown, because the producer may be
/// overwriting them.
#[cfg(not(loom))]
pub const FRAME_SLOTS_MAX: usize = 11;
/// loom explores rings of a few slots.
#[cfg(loom)]
pub const FRAME_SLOTS_MAX: usize = 2;

/// Bytes of a log frame in its first slot.
pub const LOG_HEAD_BYTES: usize = 8;
/// Bytes of a log frame in each further slot.
pub const LOG_MORE_BYTES: usize = 24;
/// Longest log frame in bytes.
pub const LOG_LEN_MAX: usize = LOG_HEAD_BYTES + (FRAME_SLOTS_MAX - 1) * LOG_MORE_BYTES;
/// Words of the longest log frame.
pub(crate) const LOG_WORDS: usize = LOG_LEN_MAX / 8;

/// Kind of the first slot of a log frame.
pub const KIND_LOG: u8 = 1;
/// Kind of a further slot of a log frame.
pub const KIND_LOG_MORE: u8 = 2;

const RING_MAGIC: u64 = u64::from_le_bytes(*b"PTRING\0\x01");
pub(crate) const SLOT: u64 = SLOT_LEN as u64;

/// The head of a ring, in shared memory. The slots follow it.
#[repr(C, align(64))]
#[cfg_attr(loom, derive(Default))]
pub struct RingHead {
    magic: AtomicU64,
    /// Bits 0 to 15 the number of the ring, bits 32 to 63 its slots.
    identity: AtomicU64,
    /// CRC-32 of the two words before.
    crc: AtomicU64,
    reserved: [AtomicU64; 5],
    /// The committed position in bytes; written by every record.
    pub(crate) commit: AtomicU64,
    /// Continuation slots committed so far; the rest of the counters are written by log frames only.
    pub(crate) continuations: AtomicU64,
    /// Log frames dropped because they were longer than [`LOG_LEN_MAX`].
    pub(crate) dropped_long: AtomicU64,
    /// Log frames dropped because they began inside another one.
    pub(crate) dropped_nested: AtomicU64,
    /// Frames that an early ring lost before its rest was moved here.
    pub(crate) lost_early: AtomicU64,
    reserved_counters: [AtomicU64; 3],
}

/// A slot, in shared memory.
#[repr(C)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct Slot {
    /// Bits 0 to 7 the kind, bits 8 to 31 the argument.
    pub(crate) kind_arg: AtomicU32,
    /// The low 32 bits of the slot's position.
    pub(crate) seq: AtomicU32,
    /// The time. In continuation slots: payload.
    pub(crate) tsc: AtomicU64,
    pub(crate) a: AtomicU64,
    pub(crate) b: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RingHead>() == RING_HEAD_LEN && size_of::<Slot>() == SLOT_LEN);

/// A copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawSlot {
    pub(crate) kind_arg: u32,
    pub(crate) seq: u32,
    /// TSC, a and b; in a continuation slot all payload.
    pub(crate) words: [u64; 3],
}

impl RawSlot {
    pub(crate) const fn kind(&self) -> u8 {
        self.kind_arg as u8
    }

    pub(crate) const fn arg(&self) -> u32 {
        self.kind_arg >> 8
    }

    /// In the first slot of a log frame: its length in bytes and its continuation slots. `None` if they
    /// contradict each other.
    pub(crate) fn log_extent(&self) -> Option<(usize, usize)> {
        let (len, more) = (self.arg() as usize & 0xFFFF, self.arg() as usize >> 16);
        (len <= LOG_LEN_MAX && more == continuations_of(len)).then_some((len, more))
    }
}

/// Continuation slots of a log frame of `len` bytes.
const fn continuations_of(len: usize) -> usize {
    len.saturating_sub(LOG_HEAD_BYTES).div_ceil(LOG_MORE_BYTES)
}

/// The lowest position that a reader may keep when it sees the committed position `commit`, in a ring of `slots`
/// slots: what lies below may be in the middle of being overwritten.
#[cfg(any(test, feature = "std", loom))]
pub(crate) const fn oldest_safe(commit: u64, slots: u32) -> u64 {
    commit.saturating_add(FRAME_SLOTS_MAX as u64 * SLOT).saturating_sub(slots as u64 * SLOT)
}

/// The constant words of a ring's head: magic, identity, CRC.
pub(crate) fn head_words(ring: u16, slots: u32) -> [u64; 3] {
    let identity = u64::from(ring) | u64::from(slots) << 32;
    let mut digest = CRC32.digest();
    digest.update(&RING_MAGIC.to_le_bytes());
    digest.update(&identity.to_le_bytes());
    [RING_MAGIC, identity, u64::from(digest.finalize())]
}

impl RingHead {
    /// Fills the constant words of a head that is all zeros.
    pub(crate) fn init(&self, ring: u16, slots: u32) {
        let [magic, identity, crc] = head_words(ring, slots);
        self.identity.store(identity, Ordering::Relaxed);
        self.crc.store(crc, Ordering::Relaxed);
        self.magic.store(magic, Ordering::Relaxed);
    }

    /// The number of the ring.
    #[cfg(any(test, feature = "std", loom))]
    pub(crate) fn number(&self) -> u16 {
        self.identity.load(Ordering::Relaxed) as u16
    }
}

/// A ring in shared memory: one producer, any number of readers.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    head: NonNull<RingHead>,
    slots: u32,
    memory: PhantomData<&'a RingHead>,
}

// SAFETY: the memory behind it is only ever accessed through atomics.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

impl<'a> Ring<'a> {
    /// A ring whose slots follow its head.
    ///
    /// # Safety
    /// `head` points to a `RingHead` and `slots` slots, which live for `'a` and are accessed only through atomics;
    /// `slots` is a power of two.
    pub(crate) const unsafe fn new(head: NonNull<RingHead>, slots: u32) -> Self {
        Self { head, slots, memory: PhantomData }
    }

    /// The ring's one producer. There must be no other at the same time: records of two would overwrite each
    /// other (the memory stays sound). It goes on where an earlier one ended.
    pub fn writer(&self) -> Writer<'a> {
        let continuations = own(&self.head().continuations);
        let place = Place { head: self.head, mask: u64::from(self.slots) * SLOT - 1, memory: PhantomData };
        Writer { place, continuations, stage: Stage::new() }
    }

    /// The words of a slot as they are now, which may be torn between two records.
    pub(crate) fn load(&self, position: u64) -> RawSlot {
        // SAFETY: head and mask are this ring's.
        let slot = unsafe { slot_at(self.head, u64::from(self.slots) * SLOT - 1, position) };
        // Relaxed: the reader's fences order these loads, and it drops what may be torn.
        RawSlot {
            kind_arg: slot.kind_arg.load(Ordering::Relaxed),
            seq: slot.seq.load(Ordering::Relaxed),
            words: [slot.tsc.load(Ordering::Relaxed), slot.a.load(Ordering::Relaxed), slot.b.load(Ordering::Relaxed)],
        }
    }

    /// Slots of the ring.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn head(&self) -> &'a RingHead {
        // SAFETY: the head lives for 'a (contract of `new`).
        unsafe { self.head.as_ref() }
    }
}

/// The slot at a position.
///
/// # Safety
/// `head` is that of a ring whose slots take `mask + 1` bytes.
#[inline(always)]
unsafe fn slot_at<'a>(head: NonNull<RingHead>, mask: u64, position: u64) -> &'a Slot {
    // SAFETY: the slots start right after the head.
    let first = unsafe { head.add(1).cast::<Slot>() };
    // SAFETY: positions are multiples of the slot's length, and the mask keeps them in the ring.
    #[cfg(not(loom))]
    let slot = unsafe { first.byte_add((position & mask) as usize) };
    // SAFETY: as above, for loom's slots, which have another size.
    #[cfg(loom)]
    let slot = unsafe { first.add(((position & mask) / SLOT) as usize) };
    // SAFETY: the slot lies in the ring.
    unsafe { slot.as_ref() }
}

/// The producer of a ring. Wait-free: no loop but over the slots of a log frame, no read-modify-write.
///
/// It is for one context. An interrupt handler must not record while the code that it interrupts may be
/// recording.
pub struct Writer<'a> {
    place: Place<'a>,
    /// Continuation slots committed so far.
    continuations: u64,
    stage: Stage,
}

/// Where a producer writes. Small, and copied for each record: no store through it can change it.
#[derive(Clone, Copy)]
struct Place<'a> {
    head: NonNull<RingHead>,
    /// Bytes of the slots, minus 1.
    mask: u64,
    memory: PhantomData<&'a RingHead>,
}

// SAFETY: the memory behind it is only ever accessed through atomics.
unsafe impl Send for Writer<'_> {}

impl<'a> Place<'a> {
    /// Starts a frame: returns its position.
    #[inline(always)]
    fn begin(self) -> u64 {
        let position = own(&self.head().commit);
        // Orders the commit of the previous frame before the stores of this one, for a reader that sees one of
        // these: see the protocol above. A compiler barrier on x86.
        fence(Ordering::Release);
        position
    }

    /// Writes a slot.
    #[inline(always)]
    fn fill(self, position: u64, kind_arg: u32, words: [u64; 3]) {
        // SAFETY: head and mask are a ring's.
        let slot = unsafe { slot_at(self.head, self.mask, position) };
        // Relaxed: the fence before and the commit after order them; readers check every slot they keep.
        slot.kind_arg.store(kind_arg, Ordering::Relaxed);
        slot.seq.store(position as u32, Ordering::Relaxed);
        let [tsc, a, b] = words;
        slot.tsc.store(tsc, Ordering::Relaxed);
        slot.a.store(a, Ordering::Relaxed);
        slot.b.store(b, Ordering::Relaxed);
    }

    /// Makes everything below `position` visible.
    #[inline(always)]
    fn commit(self, position: u64) {
        // Release: whoever sees the position sees the slots below it. A plain store on x86.
        self.head().commit.store(position, Ordering::Release);
    }

    #[inline(always)]
    fn head(self) -> &'a RingHead {
        // SAFETY: the head lives as long as the place's lifetime says.
        unsafe { self.head.as_ref() }
    }
}

/// A log frame under construction.
struct Stage {
    words: [u64; LOG_WORDS],
    len: usize,
    /// How many frames are open, the inner ones to be dropped.
    depth: u32,
}

impl Stage {
    const fn new() -> Self {
        Self { words: [0; LOG_WORDS], len: 0, depth: 0 }
    }
}

impl Writer<'_> {
    /// Its ring, for a writer in assembly that records in its stead.
    #[cfg(not(loom))]
    pub fn raw(&self) -> crate::raw::RawRing {
        crate::raw::RawRing { head: self.place.head.as_ptr() as u64, mask: self.place.mask }
    }

    /// Records an event: with a constant kind, eleven instructions on x86.
    #[inline(always)]
    pub fn record(&mut self, tsc: u64, event: Event) {
        let encoded = event.encode();
        self.put(encoded.kind_arg, tsc, encoded.a, encoded.b);
    }

    /// Records one slot, of an event that is encoded already.
    #[inline(always)]
    pub fn put(&mut self, kind_arg: u32, tsc: u64, a: u64, b: u64) {
        let place = self.place;
        let position = place.begin();
        place.fill(position, kind_arg, [tsc, a, b]);
        place.commit(position + SLOT);
    }

    /// Records a log frame: `bytes` as defmt encodes them ("raw"). A frame longer than [`LOG_LEN_MAX`] is dropped
    /// and counted.
    pub fn log(&mut self, tsc: u64, bytes: &[u8]) {
        self.log_begin();
        self.log_extend(bytes);
        self.log_end(tsc);
    }

    /// Opens a log frame. One opened inside another is dropped and counted.
    pub fn log_begin(&mut self) {
        if self.stage.depth == 0 {
            self.stage.len = 0;
        } else {
            count(&self.place.head().dropped_nested);
        }
        self.stage.depth = self.stage.depth.saturating_add(1);
    }

    /// Adds bytes to the open log frame.
    pub fn log_extend(&mut self, bytes: &[u8]) {
        if self.stage.depth != 1 {
            return;
        }
        for &byte in bytes {
            // Past the end only the length goes on: the frame is dropped when it closes.
            if let Some(word) = self.stage.words.get_mut(self.stage.len / 8) {
                let shift = (self.stage.len % 8) * 8;
                *word = *word & !(0xFF << shift) | u64::from(byte) << shift;
            }
            self.stage.len = self.stage.len.saturating_add(1);
        }
    }

    /// Closes the log frame and makes it visible, whole.
    pub fn log_end(&mut self, tsc: u64) {
        if self.stage.depth == 1 {
            if self.stage.len <= LOG_LEN_MAX {
                self.commit_stage(tsc);
            } else {
                count(&self.place.head().dropped_long);
            }
        }
        self.stage.depth = self.stage.depth.saturating_sub(1);
    }

    /// Moves all frames of an early ring here, with their times, and counts those that it lost. The early ring's
    /// writer must not be used any more.
    pub fn adopt(&mut self, early: Ring<'_>) {
        let end = early.head().commit.load(Ordering::Acquire);
        let mut from = end.saturating_sub(u64::from(early.slots) * SLOT);
        let mut moved = 0;
        while from < end {
            let head = early.load(from);
            from += SLOT;
            let more = match head.kind() {
                // The rest of a frame whose start is overwritten.
                KIND_LOG_MORE => continue,
                KIND_LOG => head.log_extent().map_or(0, |(_, more)| more),
                _ => 0,
            };
            let [tsc, a, b] = head.words;
            let mut position = self.place.begin();
            let a = if head.kind() == KIND_LOG { self.continuations } else { a };
            self.place.fill(position, head.kind_arg, [tsc, a, b]);
            for _ in 0..more {
                let slot = early.load(from);
                from += SLOT;
                position += SLOT;
                self.place.fill(position, slot.kind_arg, slot.words);
            }
            self.place.commit(position + SLOT);
            self.add_continuations(more as u64);
            moved += 1;
        }
        let counters = early.head();
        let written = (end / SLOT).saturating_sub(counters.continuations.load(Ordering::Relaxed));
        let dropped = |get: fn(&RingHead) -> &AtomicU64| get(counters).load(Ordering::Relaxed);
        let lost = written.saturating_sub(moved) + dropped(|h| &h.dropped_long) + dropped(|h| &h.dropped_nested);
        let total = self.place.head().lost_early.load(Ordering::Relaxed).wrapping_add(lost);
        self.place.head().lost_early.store(total, Ordering::Relaxed);
    }

    fn add_continuations(&mut self, more: u64) {
        self.continuations = self.continuations.wrapping_add(more);
        // Release, after the commit: a reader that sees this count sees the frame that it includes.
        self.place.head().continuations.store(self.continuations, Ordering::Release);
    }

    fn commit_stage(&mut self, tsc: u64) {
        let len = self.stage.len;
        let more = continuations_of(len);
        let used = len.div_ceil(8);
        if let Some(word) = self.stage.words.get_mut(len / 8) {
            // Nothing of an earlier frame is shown behind the end of this one.
            *word &= (1 << ((len % 8) * 8)) - 1;
        }
        let word = |i: usize| if i < used { self.stage.words.get(i).copied().unwrap_or(0) } else { 0 };
        let mut position = self.place.begin();
        let kind_arg = |kind: u8, arg: usize| u32::from(kind) | (arg as u32) << 8;
        self.place.fill(position, kind_arg(KIND_LOG, len | more << 16), [tsc, self.continuations, word(0)]);
        for i in 0..more {
            position += SLOT;
            let words = [word(1 + 3 * i), word(2 + 3 * i), word(3 + 3 * i)];
            self.place.fill(position, kind_arg(KIND_LOG_MORE, i + 1), words);
        }
        self.place.commit(position + SLOT);
        self.add_continuations(more as u64);
    }
}

/// Counts in a counter that only this pCPU writes.
fn count(counter: &AtomicU64) {
    counter.store(own(counter).wrapping_add(1), Ordering::Relaxed);
}

/// The value of a counter that only the calling writer stores.
#[inline(always)]
fn own(counter: &AtomicU64) -> u64 {
    // Relaxed: a thread sees its own stores.
    #[cfg(not(loom))]
    return counter.load(Ordering::Relaxed);
    // loom remembers one last access of an atomic: an ordinary load here would hide a reader's earlier load from
    // the store that follows, and loom would not explore their order.
    // SAFETY: loom checks that no other thread stores at the same time.
    #[cfg(loom)]
    return unsafe { counter.unsync_load() };
}
