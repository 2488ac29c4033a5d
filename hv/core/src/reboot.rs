//! When a partition whose guest reboots is started again: at once, but not if it does so again and again, as that would
//! keep the housekeeping core from all else.

/// A life as short as this, in milliseconds, is one of a row.
const SHORT_LIFE_MS: u64 = 1000;
/// How long the first of a row waits, in milliseconds; each of the next waits twice as long...
const FIRST_WAIT_MS: u64 = 10;
/// ...up to so many milliseconds.
const LONGEST_WAIT_MS: u64 = 1000;

/// When one partition is started again. All times are ticks of the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebootPace {
    started: u64,
    wait_ms: u64,
    due: Option<u64>,
}

impl RebootPace {
    /// That of a partition that was not started yet.
    pub const fn new() -> Self {
        Self { started: 0, wait_ms: 0, due: None }
    }

    /// Its guest was started at `now`.
    pub const fn started(&mut self, now: u64) {
        self.started = now;
        self.due = None;
    }

    /// Its guest has rebooted: when it is to be started again, the same for as long as it is not. `now` is when that is
    /// asked for.
    pub fn due(&mut self, now: u64, ticks_per_ms: u64) -> u64 {
        let (started, wait_ms) = (self.started, &mut self.wait_ms);
        *self.due.get_or_insert_with(|| {
            let lived = now.saturating_sub(started);
            let is_short = lived < ticks_per_ms.saturating_mul(SHORT_LIFE_MS);
            *wait_ms = if is_short { (*wait_ms * 2).clamp(FIRST_WAIT_MS, LONGEST_WAIT_MS) } else { 0 };
            now.saturating_add(ticks_per_ms.saturating_mul(*wait_ms))
        })
    }
}

impl Default for RebootPace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// The waits, in milliseconds, of a guest that reboots after lives of so many milliseconds.
    fn waits(lives: &[u64]) -> Vec<u64> {
        let mut pace = RebootPace::new();
        let mut now = 0;
        let one = |life: &u64| {
            pace.started(now);
            now += life * MS;
            let due = pace.due(now, MS);
            let wait = (due - now) / MS;
            assert_eq!(pace.due(now + 5 * MS, MS), due, "asked again, it stays");
            now = due;
            wait
        };
        lives.iter().map(one).collect()
    }

    #[test]
    fn a_guest_that_lived_is_started_again_at_once() {
        assert_eq!(waits(&[1000, 5000, 100_000]), [0, 0, 0]);
    }

    #[test]
    fn one_that_reboots_in_a_row_waits_longer_and_longer() {
        assert_eq!(waits(&[1; 10]), [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        assert_eq!(waits(&[1, 1, 1000, 1]), [10, 20, 0, 10]);
    }

    #[test]
    fn no_time_overflows() {
        let mut pace = RebootPace::new();
        pace.started(u64::MAX);
        assert_eq!(pace.due(0, u64::MAX), u64::MAX);
    }
}
