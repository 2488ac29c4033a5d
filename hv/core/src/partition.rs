//! The life of a partition, and what the partitions' ends mean for the run.

use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, const_unless_loom};
use crate::system::Expectation;

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Its memory is being filled.
    Loading,
    /// Its vCPUs run.
    Running,
    /// It ended itself.
    Ended(
        /// Its status; 0 for success.
        u64,
    ),
    /// The hypervisor stopped it.
    Stopped {
        /// Why, by the numbers of the trace.
        cause: u16,
        /// What the cause needs to be understood, such as an address.
        detail: u64,
    },
}

impl PartitionState {
    /// Whether it runs no longer.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Stopped { .. })
    }
}

/// The state of one partition, shared by its pCPUs and the housekeeping core.
///
/// ```text
/// Loading --begin--> Running --finish--> Ended
///    |                  |
///    +------stop--------+------stop----> Stopped
/// ```
/// Of several that end it, the first wins; the others see that they lost. `reload` leads back to `Loading`, `restate` changes
/// the cause of a stop.
/// A life of zero bytes is loading.
#[derive(Debug)]
pub struct PartitionLife {
    phase: AtomicU8,
    cause: AtomicU32,
    /// Status or detail.
    word: AtomicU64,
}

const LOADING: u8 = 0;
const RUNNING: u8 = 1;
/// Someone won, and writes cause and word.
const ENDING: u8 = 2;
const ENDED: u8 = 3;
const STOPPED: u8 = 4;

impl PartitionLife {
    const_unless_loom! {
        /// A partition that is being loaded.
        pub fn new() -> Self {
            Self { phase: AtomicU8::new(LOADING), cause: AtomicU32::new(0), word: AtomicU64::new(0) }
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        // Release: who sees it running sees it loaded. Acquire: who reloads it has seen all that its end left.
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// It is loaded and its vCPUs may run. `false` if it is not loading.
    pub fn begin(&self) -> bool {
        self.change(LOADING, RUNNING)
    }

    /// It ends itself with a status. `false` if it is not running, as when another of its vCPUs was first. The winner calls `note`
    /// before anyone can see the end, so that what it notes of it is there for whoever does.
    pub fn finish(&self, status: u64, note: impl FnOnce()) -> bool {
        self.change(RUNNING, ENDING) && self.publish(ENDED, 0, status, note)
    }

    /// The hypervisor stops it. `false` if it is over already. `note` is as for [`Self::finish`].
    pub fn stop(&self, cause: u16, detail: u64, note: impl FnOnce()) -> bool {
        // One of the two orders finds it, unless it is over: it never goes back from running to loading.
        let won = self.change(LOADING, ENDING) || self.change(RUNNING, ENDING);
        won && self.publish(STOPPED, cause, detail, note)
    }

    /// It was stopped, and the reason is another one now. `false` if it was not stopped.
    pub fn restate(&self, cause: u16, detail: u64) -> bool {
        self.change(STOPPED, ENDING) && self.publish(STOPPED, cause, detail, || ())
    }

    fn publish(&self, phase: u8, cause: u16, word: u64, note: impl FnOnce()) -> bool {
        note();
        self.cause.store(u32::from(cause), Ordering::Relaxed);
        self.word.store(word, Ordering::Relaxed);
        // Release: who sees the end sees its cause. Only the winner leaves `ENDING`.
        self.phase.store(phase, Ordering::Release);
        true
    }

    /// It is over and will be loaded again. `false` if it is not over.
    pub fn reload(&self) -> bool {
        self.change(ENDED, LOADING) || self.change(STOPPED, LOADING)
    }

    /// Whether its vCPUs are to go on: one load, for the path into a guest.
    #[inline(always)]
    pub fn is_running(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == RUNNING
    }

    /// The state now. An end whose cause is not written yet shows as running.
    pub fn state(&self) -> PartitionState {
        // Acquire: pairs with `publish`.
        match self.phase.load(Ordering::Acquire) {
            LOADING => PartitionState::Loading,
            ENDED => PartitionState::Ended(self.word.load(Ordering::Relaxed)),
            STOPPED => PartitionState::Stopped {
                cause: self.cause.load(Ordering::Relaxed) as u16,
                detail: self.word.load(Ordering::Relaxed),
            },
            _ => PartitionState::Running,
        }
    }
}

impl Default for PartitionLife {
    fn default() -> Self {
        Self::new()
    }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Running,
    /// It is over, and everything that was expected came true.
    Success,
    /// It is over, and something did not.
    Failed,
}

/// How many partitions are where, by what is expected of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Expected to finish, and not over yet.
    pub unfinished: usize,
    /// Expected to finish, and did with status 0.
    pub finished: usize,
    /// Expected to finish, but stopped or with another status.
    pub failed: usize,
    /// Expected to run, and not over.
    pub running: usize,
    /// Expected to run, but over.
    pub ended_early: usize,
    /// Nothing is expected of them, and they are not over.
    pub free: usize,
    /// Nothing is expected of them, and they are over.
    pub free_over: usize,
}

impl Tally {
    /// Counts the partitions.
    pub fn of(partitions: impl IntoIterator<Item = (Expectation, PartitionState)>) -> Self {
        let mut tally = Self::default();
        for (expectation, state) in partitions {
            let count = match (expectation, state) {
                (Expectation::Finish, PartitionState::Ended(0)) => &mut tally.finished,
                (Expectation::Finish, state) if state.is_over() => &mut tally.failed,
                (Expectation::Finish, _) => &mut tally.unfinished,
                (Expectation::Run, state) if state.is_over() => &mut tally.ended_early,
                (Expectation::Run, _) => &mut tally.running,
                (Expectation::Anything, state) if state.is_over() => &mut tally.free_over,
                (Expectation::Anything, _) => &mut tally.free,
            };
            *count += 1;
        }
        tally
    }

    /// Whether something that was expected did not come true.
    pub const fn has_failure(&self) -> bool {
        self.failed > 0 || self.ended_early > 0
    }

    /// How the run stands. It is over when no partition is left that is expected to finish; a failure does not end it
    /// before, so that the other partitions do not notice. If none was expected to finish, it goes on for as long
    /// as any partition does.
    pub const fn verdict(&self) -> Verdict {
        let some_finish = self.finished > 0 || self.failed > 0;
        let none_runs = self.running == 0 && self.free == 0 && (self.ended_early > 0 || self.free_over > 0);
        let is_over = self.unfinished == 0 && (some_finish || none_runs);
        match (is_over, self.has_failure()) {
            (false, _) => Verdict::Running,
            (true, true) => Verdict::Failed,
            (true, false) => Verdict::Success,
        }
    }
}

/// How a run stands; see [`Tally`].
pub fn verdict(partitions: impl IntoIterator<Item = (Expectation, PartitionState)>) -> Verdict {
    Tally::of(partitions).verdict()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Barrier;

    const DONE: PartitionState = PartitionState::Ended(0);
    const BAD: PartitionState = PartitionState::Ended(17);
    const STOPPED: PartitionState = PartitionState::Stopped { cause: 3, detail: 0xFEE0_0000 };
    use Expectation::{Anything, Finish, Run};
    use PartitionState::{Loading, Running};

    #[test]
    fn a_partition_lives_from_loading_to_its_end_and_again() {
        let life = PartitionLife::new();
        assert_eq!(life.state(), Loading);
        assert!(!life.finish(0, || ()) && !life.reload() && !life.is_running());
        assert!(life.begin() && !life.begin());
        assert_eq!(life.state(), Running);
        assert!(life.is_running() && !life.reload());
        assert!(life.finish(17, || ()));
        assert!(!life.is_running() && !life.begin());
        assert_eq!(life.state(), BAD);
        assert!(life.reload());
        assert_eq!(life.state(), Loading);
        assert!(!life.restate(4, 5), "one that is not stopped");
        assert!(life.stop(3, 0xFEE0_0000, || ()), "a partition that cannot be loaded can be stopped");
        assert_eq!(life.state(), STOPPED);
        assert!(life.restate(4, 5));
        assert_eq!(life.state(), PartitionState::Stopped { cause: 4, detail: 5 });
    }

    #[test]
    fn the_first_end_stays() {
        let life = PartitionLife::new();
        assert!(life.begin() && life.stop(3, 0xFEE0_0000, || ()));
        assert!(!life.finish(0, || ()) && !life.stop(4, 5, || ()));
        assert_eq!(life.state(), STOPPED);
    }

    #[test]
    fn the_winner_notes_before_its_end_shows_and_a_loser_does_not() {
        let (life, notes) = (PartitionLife::new(), Cell::new(0));
        let note = || {
            assert!(!life.state().is_over(), "nobody sees the end yet");
            notes.set(notes.get() + 1);
        };
        assert!(!life.finish(1, note) && notes.get() == 0, "one that is loading");
        assert!(life.begin() && life.finish(17, note) && notes.get() == 1);
        assert!(!life.finish(0, note) && !life.stop(4, 5, note) && notes.get() == 1, "one that has ended");
        assert!(life.reload() && life.stop(3, 0xFEE0_0000, note) && notes.get() == 2);
        assert!(!life.finish(0, note) && !life.stop(4, 5, note) && notes.get() == 2, "one that was stopped");
    }

    #[test]
    fn of_many_that_end_it_at_once_one_wins_and_its_cause_is_seen() {
        for _ in 0..200 {
            let (life, start) = (PartitionLife::new(), Barrier::new(4));
            assert!(life.begin());
            let wins: Vec<u16> = std::thread::scope(|scope| {
                let enders: Vec<_> = (1..=4u16)
                    .map(|n| {
                        let (life, start) = (&life, &start);
                        scope.spawn(move || {
                            start.wait();
                            life.stop(n, u64::from(n) << 32, || ()).then_some(n)
                        })
                    })
                    .collect();
                enders.into_iter().filter_map(|ender| ender.join().unwrap()).collect()
            });
            let [winner] = wins[..] else { panic!("{} winners", wins.len()) };
            assert_eq!(life.state(), PartitionState::Stopped { cause: winner, detail: u64::from(winner) << 32 });
        }
    }

    #[test]
    fn a_run_ends_when_all_that_should_finish_have() {
        for (expected, partitions) in [
            (Verdict::Running, &[][..]),
            (Verdict::Running, &[(Finish, Loading)]),
            (Verdict::Running, &[(Finish, Running), (Run, Running)]),
            (Verdict::Running, &[(Finish, Running), (Finish, DONE)]),
            (Verdict::Success, &[(Finish, DONE), (Finish, DONE)]),
            (Verdict::Success, &[(Finish, DONE), (Run, Running)]),
            (Verdict::Failed, &[(Finish, BAD), (Run, Running)]),
            (Verdict::Failed, &[(Finish, STOPPED), (Finish, DONE)]),
            // A failure does not end the run for the others.
            (Verdict::Running, &[(Finish, STOPPED), (Finish, Running)]),
            (Verdict::Running, &[(Run, DONE), (Finish, Running)]),
            // What should run may not end, even with success.
            (Verdict::Failed, &[(Run, DONE), (Finish, DONE)]),
            // What may do anything is neither waited for nor a failure.
            (Verdict::Success, &[(Anything, Running), (Finish, DONE)]),
            (Verdict::Success, &[(Anything, STOPPED), (Finish, DONE)]),
            (Verdict::Running, &[(Anything, STOPPED), (Finish, Running)]),
            (Verdict::Running, &[(Anything, STOPPED), (Anything, Running)]),
            (Verdict::Running, &[(Anything, STOPPED), (Run, Running)]),
            (Verdict::Running, &[(Anything, Running), (Run, STOPPED)]),
            (Verdict::Success, &[(Anything, STOPPED), (Anything, DONE)]),
            (Verdict::Failed, &[(Anything, STOPPED), (Run, DONE)]),
            // Nobody is expected to finish.
            (Verdict::Running, &[(Run, Running), (Run, Running)]),
            (Verdict::Running, &[(Run, Running), (Run, STOPPED)]),
            (Verdict::Failed, &[(Run, DONE), (Run, STOPPED)]),
        ] {
            assert_eq!(verdict(partitions.iter().copied()), expected, "{partitions:?}");
        }
    }
}
