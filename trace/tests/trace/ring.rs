//! The ring: what is written comes out, once, in order, and what does not is counted.

use crate::common::{Memory, SPEC};
use partita_trace::early::StaticRing;
use partita_trace::event::Event;
use partita_trace::layout::RegionSpec;
use partita_trace::reader::RegionDump;
use partita_trace::ring::{FRAME_SLOTS_MAX, LOG_LEN_MAX, Ring, SLOTS_MIN};
use partita_trace::snapshot::{Body, Frame, RingSnapshot};

const RINGS: RegionSpec = RegionSpec { histograms: false, ..SPEC };
const SLOTS: usize = SLOTS_MIN as usize;

fn mark(id: u32) -> Event {
    Event::Mark { id, first: u64::from(id) * 3, second: !u64::from(id) }
}

fn log_bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn bodies(snapshot: &RingSnapshot) -> Vec<(u64, Body)> {
    snapshot.frames().map(|f| (f.tsc, f.body)).collect()
}

#[test]
fn an_empty_ring_has_no_frames() {
    let early = StaticRing::<SLOTS>::new();
    let snapshot = early.ring().snapshot(0);
    assert_eq!(snapshot.frames().count(), 0);
    let (counts, damage) = snapshot.summary();
    assert_eq!((counts.frames, counts.overwritten, counts.damaged, counts.exact), (0, 0, 0, true));
    assert!(damage.is_empty());
}

#[test]
fn events_and_logs_come_out_in_order_with_their_times() {
    let early = StaticRing::<SLOTS>::new();
    let mut writer = early.ring().writer();
    writer.record(10, mark(1));
    for (i, len) in [0, 1, 7, 8, 9, 32, 33, LOG_LEN_MAX].into_iter().enumerate() {
        writer.log(20 + i as u64, &log_bytes(len, i as u8));
    }
    writer.record(30, mark(2));
    let mut expected = vec![(10, Body::Event(mark(1)))];
    for (i, len) in [0, 1, 7, 8, 9, 32, 33, LOG_LEN_MAX].into_iter().enumerate() {
        expected.push((20 + i as u64, Body::Log(log_bytes(len, i as u8))));
    }
    expected.push((30, Body::Event(mark(2))));
    assert_eq!(bodies(&early.ring().snapshot(0)), expected);
}

#[test]
fn a_full_ring_keeps_the_newest_and_counts_the_rest() {
    let early = StaticRing::<SLOTS>::new();
    let mut writer = early.ring().writer();
    for id in 0..if cfg!(miri) { 130 } else { 1000 } {
        writer.record(u64::from(id), mark(id));
        let snapshot = early.ring().snapshot(0);
        let (counts, damage) = snapshot.summary();
        let kept = (u64::from(id) + 1).min((SLOTS - FRAME_SLOTS_MAX) as u64);
        assert_eq!((counts.frames, counts.overwritten, counts.damaged), (kept, u64::from(id) + 1 - kept, 0));
        assert!(counts.exact && damage.is_empty());
        assert_eq!(snapshot.frames().last().map(|f| f.body), Some(Body::Event(mark(id))));
    }
}

#[test]
fn a_log_that_is_partly_overwritten_is_lost_whole() {
    for marks in (0..2 * SLOTS as u32).step_by(if cfg!(miri) { 17 } else { 1 }) {
        let early = StaticRing::<SLOTS>::new();
        let mut writer = early.ring().writer();
        writer.log(0, &log_bytes(LOG_LEN_MAX, 1));
        (0..marks).for_each(|id| writer.record(1, mark(id)));
        let snapshot = early.ring().snapshot(0);
        let frames: Vec<_> = snapshot.frames().collect();
        let (counts, damage) = snapshot.summary();
        assert!(damage.is_empty() && counts.exact);
        assert_eq!(counts.frames + counts.overwritten, u64::from(marks) + 1);
        let logs: Vec<_> = frames.iter().filter(|f| matches!(f.body, Body::Log(_))).collect();
        let all_there = marks as usize + FRAME_SLOTS_MAX <= SLOTS - FRAME_SLOTS_MAX;
        assert_eq!(logs.len(), usize::from(all_there));
        assert!(logs.iter().all(|f| f.body == Body::Log(log_bytes(LOG_LEN_MAX, 1))));
    }
}

#[test]
fn long_and_nested_logs_are_dropped_and_counted() {
    let early = StaticRing::<SLOTS>::new();
    let mut writer = early.ring().writer();
    writer.log(1, &log_bytes(LOG_LEN_MAX + 1, 0));
    writer.log_begin();
    writer.log_extend(b"out");
    writer.log(2, b"inner");
    writer.log_extend(b"er");
    writer.log_end(3);
    writer.log(4, b"next");
    let snapshot = early.ring().snapshot(0);
    assert_eq!(bodies(&snapshot), [(3, Body::Log(b"outer".to_vec())), (4, Body::Log(b"next".to_vec()))]);
    let counts = snapshot.summary().0;
    assert_eq!((counts.frames, counts.dropped_long, counts.dropped_nested), (2, 1, 1));
}

#[test]
fn a_later_snapshot_goes_on_where_the_earlier_ended() {
    let early = StaticRing::<SLOTS>::new();
    let ring: Ring<'_> = early.ring();
    let mut writer = ring.writer();
    let (mut from, mut seen) = (0, Vec::new());
    for round in 0..20 {
        for id in 0..round {
            writer.record(0, mark(id));
        }
        writer.log(0, &log_bytes(round as usize, 0));
        let snapshot = ring.snapshot(from);
        from = snapshot.end();
        seen.push(snapshot.frames().count() as u32);
    }
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_new_writer_goes_on_where_the_old_one_ended() {
    let early = StaticRing::<SLOTS>::new();
    for i in 0..100 {
        let mut writer = early.ring().writer();
        writer.record(i, mark(1));
        writer.log(i, &log_bytes(20, 0));
    }
    let (counts, damage) = early.ring().snapshot(0).summary();
    assert!(counts.exact && damage.is_empty());
    assert_eq!(counts.frames + counts.overwritten, 200);
}

#[test]
fn the_early_rings_frames_move_with_their_times() {
    for rounds in [1, 5, 40] {
        let early = StaticRing::<SLOTS>::new();
        let mut early_writer = early.ring().writer();
        for i in 0..rounds {
            early_writer.record(i, mark(i as u32));
            early_writer.log(i, &log_bytes(30, i as u8));
        }
        let memory = Memory::new(RINGS.len());
        let region = memory.region(&RINGS);
        let mut writer = region.ring(0).unwrap().writer();
        writer.log(0, &log_bytes(9, 0));
        writer.adopt(early.ring());
        writer.record(1000, mark(77));
        let snapshot = region.ring(0).unwrap().snapshot(0);
        let (counts, damage) = snapshot.summary();
        assert!(counts.exact && damage.is_empty());
        let frames: Vec<Frame> = snapshot.frames().collect();
        assert_eq!(frames.last().unwrap().body, Body::Event(mark(77)));
        let newest = rounds - 1;
        assert_eq!(frames[frames.len() - 2].body, Body::Log(log_bytes(30, newest as u8)));
        assert_eq!(frames[frames.len() - 2].tsc, newest);
        assert_eq!(counts.frames + counts.overwritten + counts.lost_early, 2 * rounds + 2);
        assert_eq!(counts.lost_early > 0, rounds == 40);
    }
}

#[test]
fn a_live_ring_and_its_dump_show_the_same() {
    let memory = Memory::new(RINGS.len());
    let region = memory.region(&RINGS);
    let mut writer = region.ring(1).unwrap().writer();
    for i in 0..200 {
        writer.record(i, mark(i as u32));
        writer.log(i, &log_bytes((i % 50) as usize, i as u8));
    }
    let live = RegionDump::live(&region);
    let dump = RegionDump::parse(&memory.bytes(), &[], None).unwrap();
    assert!(dump.damage.is_empty());
    for (live, dump) in live.rings.iter().zip(&dump.rings) {
        assert_eq!(live.frames().collect::<Vec<_>>(), dump.frames().collect::<Vec<_>>());
        assert_eq!(live.summary(), dump.summary());
    }
}

/// Readers beside a producer that never waits: whatever they show was written so. loom checks the orderings; this
/// checks the whole on the machine at hand.
#[test]
fn a_reader_beside_the_producer_sees_only_whole_frames() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let early = StaticRing::<SLOTS>::new();
    let ring = early.ring();
    let done = AtomicBool::new(false);
    let frames = if cfg!(miri) { 300 } else { 200_000 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = ring.writer();
            for i in 0..frames {
                if i % 3 == 0 {
                    writer.log(i, &log_bytes((i % 60) as usize, i as u8));
                } else {
                    writer.record(i, mark(i as u32));
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut finished = false;
        while !finished {
            finished = done.load(Ordering::Acquire);
            let snapshot = ring.snapshot(0);
            let (counts, damage) = snapshot.summary();
            assert!(damage.is_empty(), "{damage:?}");
            let mut expected = counts.overwritten;
            for frame in snapshot.frames() {
                let i = frame.tsc;
                assert!(!counts.exact || i == expected);
                expected = i + 1;
                match frame.body {
                    Body::Log(bytes) => assert_eq!(bytes, log_bytes((i % 60) as usize, i as u8)),
                    body => assert_eq!(body, Body::Event(mark(i as u32))),
                }
            }
        }
    });
    let counts = ring.snapshot(0).summary().0;
    assert_eq!(counts.frames + counts.overwritten, frames);
}

#[cfg(not(miri))]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The newest frames that fit come out as they went in, and each frame is shown or counted.
        #[test]
        fn frames_are_shown_or_counted(lens in prop::collection::vec(prop::option::of(0..LOG_LEN_MAX + 20), 0..150)) {
            let early = StaticRing::<SLOTS>::new();
            let mut writer = early.ring().writer();
            let (mut written, mut long) = (Vec::new(), 0);
            for (i, len) in lens.iter().enumerate() {
                let tsc = i as u64;
                match *len {
                    None => {
                        writer.record(tsc, mark(i as u32));
                        written.push((tsc, Body::Event(mark(i as u32))));
                    }
                    Some(len) => {
                        writer.log(tsc, &log_bytes(len, i as u8));
                        if len <= LOG_LEN_MAX {
                            written.push((tsc, Body::Log(log_bytes(len, i as u8))));
                        } else {
                            long += 1;
                        }
                    }
                }
            }
            let snapshot = early.ring().snapshot(0);
            let (counts, damage) = snapshot.summary();
            let shown = bodies(&snapshot);
            prop_assert!(damage.is_empty());
            prop_assert!(counts.exact);
            prop_assert_eq!(counts.dropped_long, long);
            prop_assert_eq!(counts.overwritten as usize, written.len() - shown.len());
            prop_assert_eq!(&shown[..], &written[written.len() - shown.len()..]);
        }
    }
}
