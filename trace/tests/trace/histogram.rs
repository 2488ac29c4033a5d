//! Histograms, against a reference that keeps every value.

use crate::common::{Memory, SPEC};
use partita_trace::histogram::{BUCKETS, HistogramId, HistogramSnapshot, bucket_of, bucket_range};
use partita_trace::names::ExitReason;
use partita_trace::reader::RegionDump;

fn record_all(values: &[u64]) -> HistogramSnapshot {
    let memory = Memory::new(SPEC.len());
    let region = memory.region(&SPEC);
    let mut bank = region.histograms(1).unwrap();
    let id = HistogramId::Exit(ExitReason::Cpuid);
    for &value in values {
        bank.record(id, value);
    }
    let live = bank.snapshot(id);
    // A whole region takes minutes there.
    if cfg!(miri) {
        return live;
    }
    let dump = RegionDump::parse(&memory.bytes(), &[], None).unwrap();
    match dump.histograms.as_slice() {
        [] => assert!(values.is_empty()),
        [one] => assert_eq!((one.pcpu, &one.histogram), (1, &live)),
        more => panic!("{} histograms of one", more.len()),
    }
    live
}

fn check(values: &[u64]) {
    let histogram = record_all(values);
    assert_eq!(histogram.count, values.len() as u64);
    assert_eq!(histogram.sum, values.iter().fold(0, |sum: u64, v| sum.wrapping_add(*v)));
    assert_eq!(histogram.min, values.iter().copied().min().unwrap_or(u64::MAX));
    assert_eq!(histogram.max, values.iter().copied().max().unwrap_or(0));
    assert!(histogram.is_consistent());
    for (low, high, count) in histogram.buckets() {
        assert_eq!(count as usize, values.iter().filter(|v| (low..=high).contains(*v)).count());
        assert!(high - low <= low / 16, "bucket {low}..={high} is too wide");
    }
    let total: u64 = histogram.buckets().map(|(_, _, n)| u64::from(n)).sum();
    assert_eq!(total, values.len() as u64);
}

#[test]
fn buckets_cover_every_value_once() {
    let mut next = 0u64;
    for bucket in 0..BUCKETS {
        let (low, high) = bucket_range(bucket);
        assert_eq!(low, next);
        assert!(high >= low);
        assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
        next = high.wrapping_add(1);
    }
    assert_eq!(next, 0, "the last bucket ends at u64::MAX");
    assert!((0..32).all(|v| bucket_range(bucket_of(v)) == (v, v)));
}

#[test]
fn known_values() {
    check(&[]);
    check(&[0]);
    check(&[105; 100]);
    check(&[0, 1, 31, 32, 33, 63, 64, 1 << 40, u64::MAX]);
}

#[cfg(not(miri))]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_value_is_in_its_bucket(values in prop::collection::vec((0u32..64, any::<u64>()).prop_map(|(s, v)| v >> s), 0..200)) {
            check(&values);
        }
    }
}
