//! Looks at a region that is being written, against the copies that the host's reader makes.

use crate::common::{Memory, SPEC};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::layout::{Region, RegionSpec};
use partita_trace::live::{HistogramView, RingLevel};
use partita_trace::names::ExitReason;
use partita_trace::ring::LOG_LEN_MAX;

const ID: HistogramId = HistogramId::KickNmi;

fn record(region: &Region<'_>, values: &[u64]) {
    let mut bank = region.histograms(1).unwrap();
    values.iter().for_each(|&value| bank.record(ID, value));
}

/// The figures of a view that recorded just these values.
fn check(view: HistogramView<'_>, values: &[u64]) {
    assert_eq!(view.count(), values.len() as u64);
    assert_eq!(view.sum(), values.iter().fold(0, |sum: u64, v| sum.wrapping_add(*v)));
    assert_eq!((view.min(), view.max()), (values.iter().min().copied(), values.iter().max().copied()));
    for (low, high, n) in view.buckets() {
        assert_eq!(n as usize, values.iter().filter(|v| (low..=high).contains(*v)).count());
    }
    assert_eq!(view.buckets().map(|(_, _, n)| u64::from(n)).sum::<u64>(), values.len() as u64);
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    for permille in [0, 1, 500, 990, 999, 1000, 1001, u32::MAX] {
        let rank = (sorted.len() * permille.min(1000) as usize).div_ceil(1000).max(1);
        let exact = sorted.get(rank - 1).copied();
        let shown = view.quantile(permille);
        assert_eq!(shown.is_some(), exact.is_some());
        let (Some(exact), Some(shown)) = (exact, shown) else { continue };
        assert!((exact..=exact.saturating_add(exact / 16)).contains(&shown), "{permille}: {shown} for {exact}");
        assert!(Some(shown) <= view.max(), "{permille}: {shown} is above all values");
    }
}

fn with_values(values: &[u64]) {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    record(&region, values);
    check(region.histogram(1, ID).unwrap(), values);
    check(region.histogram(1, HistogramId::KickVector).unwrap(), &[]);
    check(region.histogram(0, ID).unwrap(), &[]);
}

#[test]
fn known_values() {
    with_values(&[]);
    with_values(&[0]);
    with_values(&[u64::MAX]);
    with_values(&[0, u64::MAX]);
    with_values(&[7; 100]);
    with_values(&[33, 34, 1000, 1001, 5000]);
}

#[test]
fn a_view_sees_what_is_recorded_later() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let view = region.histogram(1, ID).unwrap();
    check(view, &[]);
    record(&region, &[9, 4]);
    check(view, &[9, 4]);
    assert_eq!(format!("{view:?}"), "HistogramView { count: 2, min: Some(4), max: Some(9), .. }");
}

#[test]
fn what_is_not_there_has_no_view() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    assert!(region.histogram(SPEC.pcpus, ID).is_none() && region.ring_level(SPEC.pcpus).is_none());
    let without = RegionSpec { histograms: false, ..SPEC };
    let region = memory.region(&without);
    assert!(region.histogram(0, ID).is_none() && region.ring_level(0).is_some());
}

/// On another thread, as a console is on another pCPU: figures never go back, and never contradict each other.
#[test]
fn figures_hold_while_they_are_written() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let rounds = if cfg!(miri) { 20 } else { 5_000 };
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let mut bank = region.histograms(0).unwrap();
            let mut writer = region.ring(0).unwrap().writer();
            for i in 0..rounds {
                bank.record(ID, 100 + i % 50);
                writer.record(i, Event::Exit { reason: ExitReason::Kick, detail16: 0, ticks: i, detail: 0 });
                writer.log(i, &[0; LOG_LEN_MAX]);
            }
        });
        let view = region.histogram(0, ID).unwrap();
        let (mut last_count, mut last_slots) = (0, 0);
        while !producer.is_finished() {
            let count = view.count();
            let level = region.ring_level(0).unwrap();
            assert!(count >= last_count && level.written_slots >= last_slots);
            (last_count, last_slots) = (count, level.written_slots);
            assert!(level.used <= level.slots && level.written_frames <= level.written_slots);
            assert_eq!(level.overwritten_slots, level.written_slots.saturating_sub(level.slots.into()));
            let shown = view.quantile(500);
            assert!(shown.is_none_or(|ticks| (100..150).contains(&ticks)), "{shown:?}");
            assert!(view.min().is_none_or(|min| min >= 100) && view.max().is_none_or(|max| max < 150));
        }
    });
    assert_eq!(region.histogram(0, ID).unwrap().count(), rounds);
    assert_eq!(region.ring_level(0).unwrap().written_frames, 2 * rounds);
}

#[test]
fn a_ring_tells_how_full_it_is_and_what_it_lost() {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let ring = region.ring(1).unwrap();
    let mut writer = ring.writer();
    let empty = RingLevel {
        slots: SPEC.ring_slots,
        used: 0,
        written_frames: 0,
        written_slots: 0,
        overwritten_slots: 0,
        dropped_long: 0,
        dropped_nested: 0,
        lost_early: 0,
    };
    assert_eq!(region.ring_level(1), Some(empty));
    writer.record(1, Event::Mark { id: 1, first: 0, second: 0 });
    writer.log(2, &[0; LOG_LEN_MAX]);
    writer.log(3, &[0; LOG_LEN_MAX + 1]);
    let level = RingLevel { used: 12, written_slots: 12, written_frames: 2, dropped_long: 1, ..empty };
    assert_eq!((region.ring_level(1), level.dropped()), (Some(level), 1));
    for i in 0..100 {
        writer.record(i, Event::Mark { id: 2, first: i, second: 0 });
        let level = region.ring_level(1).unwrap();
        let (counts, _) = ring.snapshot(0).summary();
        assert_eq!(level.written_frames, counts.frames + counts.overwritten);
        assert_eq!(u64::from(level.used), (13 + i).min(SPEC.ring_slots.into()));
        assert_eq!(level.overwritten_slots, (13 + i).saturating_sub(SPEC.ring_slots.into()));
    }
    assert_eq!(region.ring_level(0), Some(empty));
}

#[cfg(not(miri))]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_view_agrees_with_its_values(values in prop::collection::vec((0u32..64, any::<u64>()).prop_map(|(s, v)| v >> s), 0..200)) {
            with_values(&values);
        }
    }
}
