//! The samples of a row in four figures.

/// Least, median, 99th percentile and most, each one of the samples (nearest rank).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The least.
    pub min: u64,
    /// The median: at least half of the samples are no larger.
    pub p50: u64,
    /// At least 99 of 100 samples are no larger.
    pub p99: u64,
    /// The most.
    pub max: u64,
}

impl Summary {
    /// Sorts the samples and sums them up. `None` if there are none.
    pub fn of(samples: &mut [u64]) -> Option<Self> {
        samples.sort_unstable();
        let (&min, &max) = (samples.first()?, samples.last()?);
        let rank = |percent: usize| samples.get((samples.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { min, p50: rank(50)?, p99: rank(99)?, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_are_nearest_ranks() {
        let of = |range: core::ops::RangeInclusive<u64>| Summary::of(&mut range.rev().collect::<Vec<_>>());
        assert_eq!(of(1..=100), Some(Summary { min: 1, p50: 50, p99: 99, max: 100 }));
        assert_eq!(of(1..=2000), Some(Summary { min: 1, p50: 1000, p99: 1980, max: 2000 }));
        assert_eq!(of(5..=5), Some(Summary { min: 5, p50: 5, p99: 5, max: 5 }));
        assert_eq!(Summary::of(&mut []), None);
    }

    proptest! {
        #[test]
        fn enough_samples_are_no_larger(mut samples in prop::collection::vec(0..50u64, 1..300)) {
            let summary = Summary::of(&mut samples).unwrap();
            let share = |limit| samples.iter().filter(|s| **s <= limit).count() * 100;
            prop_assert!(share(summary.p50) >= 50 * samples.len() && share(summary.p99) >= 99 * samples.len());
            prop_assert!(summary.p99 == summary.min || share(summary.p99 - 1) < 99 * samples.len());
        }
    }
}
