//! Where things lie, for a writer in assembly: the quick way through an exit records one event and counts its duration, and does
//! what [`Writer::record`](crate::ring::Writer::record) and [`HistogramBank::record`](crate::histogram::HistogramBank::record) do.
//!
//! A record: read [`COMMIT`] of the ring's head; write all of the slot that lies at the head's address plus [`SLOTS`] plus the
//! position and the mask of [`RawRing`]; then store the position plus [`SLOT_LEN`] in [`COMMIT`]. On x86 plain stores in this order
//! are those of the protocol (see [`crate::ring`]).

use core::mem::offset_of;

use crate::event::Event;
use crate::histogram::{Cells, HistogramId, SUB_BITS};
use crate::names::ExitReason;
use crate::ring::{RING_HEAD_LEN, RingHead, Slot};

pub use crate::histogram::HISTOGRAM_LEN;
pub use crate::ring::SLOT_LEN;

/// A ring, as assembly knows it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawRing {
    /// Address of its head.
    pub head: u64,
    /// Bytes of its slots, minus 1.
    pub mask: u64,
}

/// In a ring's head: the committed position, 64 bits.
pub const COMMIT: usize = offset_of!(RingHead, commit);
/// From a ring's head to its slots.
pub const SLOTS: usize = RING_HEAD_LEN;
/// In a slot: kind and argument, 32 bits.
pub const KIND_ARG: usize = offset_of!(Slot, kind_arg);
/// In a slot: the low 32 bits of its position.
pub const SEQUENCE: usize = offset_of!(Slot, seq);
/// In a slot: the time, 64 bits.
pub const TIME: usize = offset_of!(Slot, tsc);
/// In a slot: the first payload word, 64 bits; of an exit its ticks.
pub const FIRST: usize = offset_of!(Slot, a);
/// In a slot: the second payload word, 64 bits; of an exit its detail.
pub const SECOND: usize = offset_of!(Slot, b);

/// In a histogram: how many values it has, 64 bits.
pub const COUNT: usize = offset_of!(Cells, count);
/// In a histogram: their sum, 64 bits.
pub const SUM: usize = offset_of!(Cells, sum);
/// In a histogram: the highest, 64 bits.
pub const MAX: usize = offset_of!(Cells, max);
/// In a histogram: the lowest with all bits turned over, 64 bits.
pub const MIN_INVERTED: usize = offset_of!(Cells, min_inverted);
/// In a histogram: the buckets, 32 bits each. That of a value `v` is `(s << BUCKET_BITS) + (v >> s)`, where `s` is the number of the
/// highest set bit of `v | 1 << BUCKET_BITS`, less [`BUCKET_BITS`].
pub const BUCKETS: usize = offset_of!(Cells, buckets);
/// See [`BUCKETS`].
pub const BUCKET_BITS: u32 = SUB_BITS;

/// Where a histogram lies in its bank.
pub const fn histogram(id: HistogramId) -> usize {
    id.as_index() * HISTOGRAM_LEN
}

/// Kind and argument of the event of an exit.
pub const fn exit_kind_arg(reason: ExitReason, detail16: u16) -> u32 {
    let kind = Event::Exit { reason, detail16, ticks: 0, detail: 0 }.kind();
    kind as u32 | (reason.as_index() as u32) << 8 | (detail16 as u32) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::early::StaticRing;
    use crate::histogram::{BANK_LEN, HistogramBank, bucket_of};
    use core::ptr::NonNull;

    #[test]
    fn kind_and_argument_are_those_of_the_event() {
        for reason in (0..ExitReason::COUNT).filter_map(ExitReason::from_index) {
            let event = Event::Exit { reason, detail16: 0xA5C3, ticks: 7, detail: 9 };
            let encoded = event.encode();
            assert_eq!((exit_kind_arg(reason, 0xA5C3), 7, 9), (encoded.kind_arg, encoded.a, encoded.b));
        }
    }

    /// A record made by the recipe above, and one by the writer, leave the same bytes.
    #[test]
    fn a_record_by_the_recipe_is_that_of_the_writer() {
        static BY_WRITER: StaticRing<64> = StaticRing::new();
        static BY_RECIPE: StaticRing<64> = StaticRing::new();
        let event = |n: u64| Event::Exit { reason: ExitReason::IoOut, detail16: 0x80, ticks: n, detail: n * 3 };
        let mut writer = BY_WRITER.ring().writer();
        let RawRing { head, mask } = BY_RECIPE.ring().writer().raw();
        for n in 0..200_u64 {
            writer.record(1000 + n, event(n));
            let at = |offset: u64| (head + offset) as *mut u64;
            // SAFETY: the offsets are those of the head and of its slots, and nobody else uses the ring.
            unsafe {
                let position = at(COMMIT as u64).read();
                let slot = SLOTS as u64 + (position & mask);
                at(slot + KIND_ARG as u64).cast::<u32>().write(exit_kind_arg(ExitReason::IoOut, 0x80));
                at(slot + SEQUENCE as u64).cast::<u32>().write(position as u32);
                at(slot + TIME as u64).write(1000 + n);
                at(slot + FIRST as u64).write(n);
                at(slot + SECOND as u64).write(n * 3);
                at(COMMIT as u64).write(position + SLOT_LEN as u64);
            }
            assert_eq!(BY_WRITER.ring().snapshot(0).summary(), BY_RECIPE.ring().snapshot(0).summary());
        }
        let frames = |ring: &StaticRing<64>| ring.ring().snapshot(0).frames().collect::<Vec<_>>();
        assert_eq!(frames(&BY_WRITER), frames(&BY_RECIPE));
    }

    #[test]
    fn histograms_lie_where_the_bank_has_them() {
        let mut memory = vec![0_u64; BANK_LEN / 8 + 8];
        let base = memory.as_mut_ptr().align_offset(64);
        let base = NonNull::new(memory[base..].as_mut_ptr()).unwrap();
        // SAFETY: aligned, large enough, zeroed, and only used through the bank until it is dropped.
        let mut bank = unsafe { HistogramBank::new(base.cast()) };
        assert_eq!(bank.base(), base.as_ptr() as u64);
        for id in (0..HistogramId::COUNT).filter_map(HistogramId::from_index) {
            bank.record(id, 1_000_000);
            let at = |offset| (bank.base() + (histogram(id) + offset) as u64) as *const u64;
            // SAFETY: the offsets lie in the bank.
            let words = unsafe { [COUNT, SUM, MAX, MIN_INVERTED].map(|offset| at(offset).read()) };
            assert_eq!(words, [1, 1_000_000, 1_000_000, !1_000_000]);
            // SAFETY: as above.
            let bucket = unsafe { at(BUCKETS + 4 * bucket_of(1_000_000)).cast::<u32>().read() };
            assert_eq!(bucket, 1);
        }
    }
}
