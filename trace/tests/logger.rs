//! The global logger, driven as defmt's macros drive it.
//!
//! `cargo test -p partita-trace --features logger --test logger`

use std::cell::Cell;
use std::ptr::null_mut;

use partita_trace::early::StaticRing;
use partita_trace::logger::dropped_without_writer;
use partita_trace::ring::{LOG_LEN_MAX, Writer};
use partita_trace::snapshot::Body;

thread_local! {
    static WRITER: Cell<*mut Writer<'static>> = const { Cell::new(null_mut()) };
    static NOW: Cell<u64> = const { Cell::new(0) };
}

#[unsafe(no_mangle)]
fn partita_trace_writer() -> *mut Writer<'static> {
    WRITER.get()
}

#[unsafe(no_mangle)]
fn partita_trace_now() -> u64 {
    NOW.set(NOW.get() + 1);
    NOW.get()
}

unsafe extern "Rust" {
    fn _defmt_acquire();
    fn _defmt_write(bytes: &[u8]);
    fn _defmt_release();
}

/// What a log macro does, with `inside` between two halves of its frame.
fn log(bytes: &[u8], inside: impl FnOnce()) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    // SAFETY: acquire, writes, release, in this order.
    unsafe {
        _defmt_acquire();
        _defmt_write(first);
        inside();
        _defmt_write(second);
        _defmt_release();
    }
}

#[test]
fn frames_go_to_the_writer_whole_and_others_are_counted() {
    log(b"nobody listens", || ());
    assert_eq!(dropped_without_writer(), 1);

    static RING: StaticRing<64> = StaticRing::new();
    let mut writer = RING.ring().writer();
    WRITER.set(&raw mut writer);
    log(b"first", || ());
    log(b"outer", || log(b"inner", || ()));
    log(&[7; LOG_LEN_MAX], || ());
    log(&[8; LOG_LEN_MAX + 1], || ());
    log(b"last", || ());

    let snapshot = RING.ring().snapshot(0);
    let frames: Vec<_> = snapshot.frames().map(|f| f.body).collect();
    let expected: Vec<_> = [&b"first"[..], b"outer", &[7; LOG_LEN_MAX], b"last"].map(|b| Body::Log(b.to_vec())).into();
    assert_eq!(frames, expected);
    assert!(snapshot.frames().map(|f| f.tsc).is_sorted_by(|a, b| a < b));
    let counts = snapshot.summary().0;
    assert_eq!((counts.dropped_long, counts.dropped_nested), (1, 1));
    assert_eq!(dropped_without_writer(), 1);
}
