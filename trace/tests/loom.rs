//! The ring's protocol in every interleaving, and every stale value, that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p partita-trace --release --test loom`
#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::thread;
use partita_trace::early::StaticRing;
use partita_trace::event::Event;
use partita_trace::ring::LOG_LEN_MAX;
use partita_trace::snapshot::{Body, RingSnapshot};

fn mark(i: u64) -> Event {
    Event::Mark { id: i as u32, first: i * 3, second: !i }
}

/// Every frame is exactly what was written, in order, without a gap; each one is shown or counted.
fn check(snapshot: &RingSnapshot, log_every: u64) -> (u64, u64) {
    let (counts, damage) = snapshot.summary();
    assert!(damage.is_empty(), "torn: {damage:?}");
    let mut next = None;
    for frame in snapshot.frames() {
        let i = frame.tsc;
        assert!(next.is_none_or(|n| n == i), "gap before {i}");
        next = Some(i + 1);
        match frame.body {
            Body::Log(bytes) => {
                assert_eq!(i % log_every, log_every - 1);
                assert_eq!(bytes, [i as u8; LOG_LEN_MAX]);
            }
            body => assert_eq!(body, Body::Event(mark(i))),
        }
    }
    if counts.exact {
        let first = next.map(|n| n - counts.frames);
        assert!(first.is_none_or(|f| f == counts.overwritten), "{} counted before {first:?}", counts.overwritten);
    }
    (counts.frames, counts.overwritten)
}

/// Writes `before` frames, then `during` more beside a reader, with at most `bound` preemptions.
fn model<const SLOTS: usize>(before: u64, during: u64, log_every: u64, bound: usize) {
    let ends = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&ends);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(move || {
        let ring: &'static StaticRing<SLOTS> = Box::leak(Box::new(StaticRing::new()));
        let write = move |from: u64, to: u64| {
            let mut writer = ring.ring().writer();
            for i in from..to {
                if i % log_every == log_every - 1 {
                    writer.log(i, &[i as u8; LOG_LEN_MAX]);
                } else {
                    writer.record(i, mark(i));
                }
            }
        };
        write(0, before);
        let producer = thread::spawn(move || write(before, before + during));
        let snapshot = ring.ring().snapshot(0);
        check(&snapshot, log_every);
        seen.lock().unwrap().insert(snapshot.end());
        producer.join().unwrap();
        let (shown, overwritten) = check(&ring.ring().snapshot(0), log_every);
        assert_eq!(shown + overwritten, before + during);
        // SAFETY: leaked above; the producer has ended, nothing else refers to it.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(ring).cast_mut()) });
    });
    // A model that explores nothing holds too: the reader must have met the ring before and after each frame.
    assert_eq!(ends.lock().unwrap().len() as u64, during + 1, "{ends:?}");
}

#[test]
fn a_reader_of_a_filling_ring_sees_whole_events() {
    model::<4>(0, 2, u64::MAX, 3);
}

#[test]
fn a_reader_that_is_lapped_sees_no_torn_event() {
    model::<4>(3, 3, u64::MAX, 3);
}

#[test]
fn a_log_is_seen_whole_or_not_at_all() {
    model::<4>(0, 2, 2, 3);
    model::<4>(0, 1, 1, 3);
}

#[test]
fn a_reader_that_is_lapped_sees_no_torn_log() {
    model::<4>(2, 2, 2, 2);
    model::<4>(1, 2, 1, 2);
}

/// What a console sees of a ring while its pCPU writes it.
#[test]
fn a_level_is_true_while_the_ring_is_written() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let levels = Arc::clone(&seen);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let ring: &'static StaticRing<4> = Box::leak(Box::new(StaticRing::new()));
        let mut writer = ring.ring().writer();
        (0..2).for_each(|i| writer.record(i, mark(i)));
        let producer = thread::spawn(move || {
            let mut writer = ring.ring().writer();
            writer.log(2, &[2; LOG_LEN_MAX]);
            writer.record(3, mark(3));
        });
        let level = ring.ring().level();
        assert!([2, 4, 5].contains(&level.written_slots), "{level:?}");
        // A log that is committed and not yet counted is one too many here, as it has one continuation slot.
        let frames = match level.written_slots {
            2 => 2..=2,
            4 => 3..=4,
            _ => 4..=4,
        };
        assert!(frames.contains(&level.written_frames), "{level:?}");
        assert_eq!(u64::from(level.used), level.written_slots.min(4));
        assert_eq!(level.overwritten_slots, level.written_slots.saturating_sub(4));
        levels.lock().unwrap().insert(level.written_slots);
        producer.join().unwrap();
        let level = ring.ring().level();
        assert_eq!((level.written_slots, level.written_frames, level.used), (5, 4, 4));
        // SAFETY: leaked above; the producer has ended, nothing else refers to it.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(ring).cast_mut()) });
    });
    assert_eq!(seen.lock().unwrap().len(), 3);
}
