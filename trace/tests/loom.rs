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
