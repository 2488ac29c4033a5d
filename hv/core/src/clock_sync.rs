//! How far the counters of two pCPUs are apart, as far as exchanges between them can tell.
//!
//! A pCPU reads its counter, has another read its own, and reads its own again. The other's reading was taken somewhere
//! between the two, so that it is wrong by no more than the exchange took:
//!
//! ```text
//!   ours:    sent ------------------------- received
//!   theirs:            seen                                seen - received <= offset <= seen - sent
//! ```
//! Each exchange narrows the bounds, the quickest in each direction most. Nothing is assumed of the delays, not even that
//! there and back take the same time. What is assumed is that both counters run at one rate, and that they differ by less
//! than 2^63, which is 58 years at 5 GHz.

/// One exchange with another pCPU, in ticks of the counters. Only differences count, so that counters may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Our counter before we asked.
    pub sent: u64,
    /// Their counter when they answered.
    pub seen: u64,
    /// Our counter when we had their answer.
    pub received: u64,
}

impl Exchange {
    /// The least and the largest offset (theirs minus ours) with which this can have happened. `None` if it cannot have
    /// happened, because it ended before it began, or if its offset has no sign, being some 2^63.
    const fn offset(self) -> Option<(i64, i64)> {
        let least = self.seen.wrapping_sub(self.received).cast_signed();
        let largest = self.seen.wrapping_sub(self.sent).cast_signed();
        let took = self.received.wrapping_sub(self.sent).cast_signed();
        // With `took` in range, the largest is below the least only if the interval goes across 2^63.
        if took < 0 || largest < least { None } else { Some((least, largest)) }
    }
}

/// What exchanges say about the counters of this and another pCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockVerdict {
    /// The counters may be equal: no exchange says otherwise.
    Synchronised {
        /// They differ by this many ticks at most, either way.
        within: u64,
    },
    /// The other's counter is ahead of ours.
    Ahead {
        /// By so many ticks or more; at least 1.
        at_least: u64,
    },
    /// The other's counter is behind ours.
    Behind {
        /// By so many ticks or more; at least 1.
        at_least: u64,
    },
    /// There was no exchange that says anything.
    Unmeasured,
}

/// Bounds on how far another pCPU's counter is ahead of or behind ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockBounds {
    /// The least and the largest offset, theirs minus ours. The least is above the largest if the exchanges contradict
    /// each other, because the offset was not the same in all of them.
    offset: Option<(i64, i64)>,
}

impl ClockBounds {
    /// No bounds: nothing was measured.
    pub const fn new() -> Self {
        Self { offset: None }
    }

    /// Narrows the bounds by one exchange. One that cannot have happened (received before it was sent) changes nothing.
    pub fn add(&mut self, exchange: Exchange) {
        let Some((least, largest)) = exchange.offset() else { return };
        self.offset = Some(match self.offset {
            None => (least, largest),
            Some(known) => (known.0.max(least), known.1.min(largest)),
        });
    }

    /// What all exchanges together say. If they contradict each other, at least one of them proves that the counters
    /// differ, and the largest difference proven is told.
    pub const fn verdict(&self) -> ClockVerdict {
        let Some((least, largest)) = self.offset else { return ClockVerdict::Unmeasured };
        let (ahead, behind) = (positive(least), negative(largest));
        if ahead > behind {
            ClockVerdict::Ahead { at_least: ahead }
        } else if behind > 0 {
            ClockVerdict::Behind { at_least: behind }
        } else {
            let (ahead, behind) = (positive(largest), negative(least));
            ClockVerdict::Synchronised { within: if ahead > behind { ahead } else { behind } }
        }
    }

    /// The other's counter is ahead of ours by so many ticks at most: 0 if it can only be behind. `None` if nothing was
    /// measured.
    pub const fn ahead_at_most(&self) -> Option<u64> {
        match self.offset {
            Some((_, largest)) => Some(positive(largest)),
            None => None,
        }
    }

    /// The other's counter is behind ours by so many ticks at most: 0 if it can only be ahead. `None` if nothing was
    /// measured.
    pub const fn behind_at_most(&self) -> Option<u64> {
        match self.offset {
            Some((least, _)) => Some(negative(least)),
            None => None,
        }
    }
}

/// How far `offset` is above 0.
const fn positive(offset: i64) -> u64 {
    if offset > 0 { offset.unsigned_abs() } else { 0 }
}

/// How far `offset` is below 0.
const fn negative(offset: i64) -> u64 {
    if offset < 0 { offset.unsigned_abs() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(exchanges: &[(u64, u64, u64)]) -> ClockBounds {
        let mut bounds = ClockBounds::new();
        exchanges.iter().for_each(|&(sent, seen, received)| bounds.add(Exchange { sent, seen, received }));
        bounds
    }

    fn both(bounds: ClockBounds) -> Option<(u64, u64)> {
        bounds.ahead_at_most().zip(bounds.behind_at_most())
    }

    #[test]
    fn nothing_is_said_before_an_exchange() {
        assert_eq!(ClockBounds::new().verdict(), ClockVerdict::Unmeasured);
        assert_eq!(both(ClockBounds::new()), None);
    }

    #[test]
    fn the_quickest_exchange_in_each_direction_counts() {
        // There in 30 and back in 5, then there in 4 and back in 60: not within 35 or 64, but within 5.
        let bounds = bounds(&[(1000, 1030, 1035), (2000, 2004, 2064)]);
        assert_eq!(both(bounds), Some((4, 5)));
        assert_eq!(bounds.verdict(), ClockVerdict::Synchronised { within: 5 });
    }

    #[test]
    fn an_offset_larger_than_the_delay_is_proven() {
        let ahead = bounds(&[(1000, 1500, 1100)]);
        assert_eq!(ahead.verdict(), ClockVerdict::Ahead { at_least: 400 });
        assert_eq!(both(ahead), Some((500, 0)));
        let behind = bounds(&[(1000, 500, 1100)]);
        assert_eq!(behind.verdict(), ClockVerdict::Behind { at_least: 500 });
        assert_eq!(both(behind), Some((0, 600)));
        assert_eq!(bounds(&[(10, 21, 20)]).verdict(), ClockVerdict::Ahead { at_least: 1 });
        assert_eq!(bounds(&[(10, 20, 20)]).verdict(), ClockVerdict::Synchronised { within: 10 });
        assert_eq!(bounds(&[(10, 10, 20)]).verdict(), ClockVerdict::Synchronised { within: 10 });
        assert_eq!(bounds(&[(10, 9, 20)]).verdict(), ClockVerdict::Behind { at_least: 1 });
    }

    #[test]
    fn a_counter_may_wrap_in_the_middle() {
        assert_eq!(bounds(&[(u64::MAX - 9, 2, 10)]).verdict(), ClockVerdict::Synchronised { within: 12 });
        assert_eq!(bounds(&[(u64::MAX - 9, u64::MAX - 4, 10)]).verdict(), ClockVerdict::Synchronised { within: 15 });
    }

    #[test]
    fn an_exchange_that_cannot_have_happened_changes_nothing() {
        let backwards = (100, 50, 99);
        assert_eq!(bounds(&[backwards]).verdict(), ClockVerdict::Unmeasured);
        assert_eq!(bounds(&[(0, 5, 10), backwards]), bounds(&[(0, 5, 10)]));
        // Some 2^63 apart: ahead as well as behind.
        assert_eq!(bounds(&[(0, 1 << 63, 10)]).verdict(), ClockVerdict::Unmeasured);
    }

    #[test]
    fn counters_that_drift_are_never_called_synchronised() {
        // At least 400 ahead, and a little later 50 behind.
        let drifting = [(1000, 1500, 1100), (9000, 8950, 9000)];
        assert_eq!(bounds(&drifting).verdict(), ClockVerdict::Ahead { at_least: 400 });
        assert_eq!(bounds(&[drifting[1], drifting[0]]).verdict(), ClockVerdict::Ahead { at_least: 400 });
        assert_eq!(bounds(&[(0, 3, 1), (10, 4, 10)]).verdict(), ClockVerdict::Behind { at_least: 6 });
    }

    /// Delays there and back, and our counter at the start.
    fn exchange() -> impl Strategy<Value = (u64, u64, u64)> {
        (0..1u64 << 40, 0..1u64 << 40, any::<u64>())
    }

    fn offset() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), -100i64..100, -(1i64 << 50)..1 << 50, any::<i64>()]
    }

    proptest! {
        #[test]
        fn the_true_offset_lies_in_the_bounds(
            offset in offset(),
            exchanges in proptest::collection::vec(exchange(), 1..20),
        ) {
            let mut bounds = ClockBounds::new();
            for (there, back, sent) in exchanges {
                let seen = sent.wrapping_add(there).wrapping_add_signed(offset);
                bounds.add(Exchange { sent, seen, received: sent.wrapping_add(there + back) });
                // Bounds are only missing where the offset has no sign.
                prop_assert!(both(bounds).is_some() || offset.unsigned_abs() > i64::MAX as u64 - (1 << 40));
                if let Some((ahead, behind)) = both(bounds) {
                    prop_assert!(-i128::from(behind) <= offset.into() && i128::from(offset) <= ahead.into());
                }
                match bounds.verdict() {
                    ClockVerdict::Synchronised { within } => prop_assert!(offset.unsigned_abs() <= within),
                    ClockVerdict::Ahead { at_least } => {
                        prop_assert!(at_least > 0 && i128::from(offset) >= at_least.into());
                    }
                    ClockVerdict::Behind { at_least } => {
                        prop_assert!(at_least > 0 && -i128::from(offset) >= at_least.into());
                    }
                    ClockVerdict::Unmeasured => {}
                }
            }
        }

        #[test]
        fn an_offset_beyond_the_delays_is_found(
            offset in 1i64..1 << 50,
            there in 0u64..1 << 40,
            back in 0u64..1 << 40,
            sent in any::<u64>(),
        ) {
            let verdict = |offset: i64| {
                let seen = sent.wrapping_add(there).wrapping_add_signed(offset);
                bounds(&[(sent, seen, sent.wrapping_add(there + back))]).verdict()
            };
            let found_ahead = matches!(verdict(offset), ClockVerdict::Ahead { .. });
            let found_behind = matches!(verdict(-offset), ClockVerdict::Behind { .. });
            prop_assert_eq!(found_ahead, offset.unsigned_abs() > back);
            prop_assert_eq!(found_behind, offset.unsigned_abs() > there);
        }

        #[test]
        fn any_values_narrow_the_bounds_and_break_nothing(
            exchanges in proptest::collection::vec(any::<(u64, u64, u64)>(), 0..10),
            more in any::<(u64, u64, u64)>(),
        ) {
            let before = bounds(&exchanges);
            let mut after = before;
            after.add(Exchange { sent: more.0, seen: more.1, received: more.2 });
            if let (Some(before), Some(after)) = (both(before), both(after)) {
                prop_assert!(after.0 <= before.0 && after.1 <= before.1);
            }
            let proves = |bounds: ClockBounds| matches!(bounds.verdict(), ClockVerdict::Ahead { .. } | ClockVerdict::Behind { .. });
            prop_assert!(!proves(before) || proves(after), "what is proven stays proven");
        }
    }
}
