//! A round: what one caller asks of several targets at once, and their answers. Slots would do, one for each target; a round is
//! posted and awaited as a whole, so that a caller's time hardly grows with the targets.
//!
//! A bit for each target goes through two words:
//! ```text
//!            post                 claim                finish
//!   neither  ----->  todo, left  ------->  left only  -------->  neither
//!   (caller)            |         (target)             (target)
//!                       +----------> neither
//!                         withdraw (caller)
//! ```
//! Who takes the bit out of `todo`, by one atomic operation, decides: the target runs the function, or the caller has withdrawn
//! it. A round is posted only when nobody is left of the one before it, and its answers are collected.

use super::reply::{Answer, Stamps};
use super::slot::{Claimed, Function};
use crate::arch::PcpuId;
use crate::sync::{AtomicPtr, AtomicU16, AtomicU64, Ordering, const_unless_loom};

/// Most pCPUs of a machine whose callers have rounds.
pub const ROUND_PCPUS_MAX: usize = 32;

/// In `left`, above the targets that have not ended: those whose caller has given up waiting, until the next post.
const GIVEN_UP_SHIFT: u32 = u32::BITS;

/// The bit of a pCPU of a machine with rounds.
#[inline(always)]
pub(super) const fn bit(target: usize) -> u64 {
    1 << place(target)
}

/// The place of its answer.
#[inline(always)]
const fn place(target: usize) -> usize {
    target % ROUND_PCPUS_MAX
}

/// The round of one caller. One of zero bytes is free.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Round {
    todo: AtomicU64,
    left: AtomicU64,
    function: AtomicPtr<()>,
    argument: AtomicU64,
    posted: AtomicU64,
    kicked: AtomicU64,
    caller: AtomicU16,
    answers: [RoundAnswer; ROUND_PCPUS_MAX],
}

/// The answer of one target: one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct RoundAnswer {
    result: AtomicU64,
    entered: AtomicU64,
    run: AtomicU64,
    done: AtomicU64,
}

impl RoundAnswer {
    const_unless_loom! {
        fn new() -> Self {
            Self {
                result: AtomicU64::new(0),
                entered: AtomicU64::new(0),
                run: AtomicU64::new(0),
                done: AtomicU64::new(0),
            }
        }
    }
}

impl Round {
    /// A free round.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self::with([const { RoundAnswer::new() }; ROUND_PCPUS_MAX])
    }

    /// A free round.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self::with(core::array::from_fn(|_| RoundAnswer::new()))
    }

    const_unless_loom! {
        fn with(answers: [RoundAnswer; ROUND_PCPUS_MAX]) -> Self {
            Self {
                todo: AtomicU64::new(0),
                left: AtomicU64::new(0),
                function: AtomicPtr::new(core::ptr::null_mut()),
                argument: AtomicU64::new(0),
                posted: AtomicU64::new(0),
                kicked: AtomicU64::new(0),
                caller: AtomicU16::new(0),
                answers,
            }
        }
    }

    /// Caller: who has not ended. Once that is nobody, their answers are there.
    #[inline(always)]
    pub(super) fn left(&self) -> u64 {
        // Acquire: pairs with each `finish`, as one is a read-modify-write upon the other.
        self.left.load(Ordering::Acquire) & ((1 << GIVEN_UP_SHIFT) - 1)
    }

    /// Any pCPU: whether the target has not begun, and whether it has not ended.
    pub(super) fn stands(&self, target: usize) -> (bool, bool) {
        let is_in = |word: &AtomicU64| word.load(Ordering::Relaxed) & bit(target) != 0;
        (is_in(&self.todo), is_in(&self.left))
    }

    /// Caller `me`, when nobody is left and all answers are collected: asks `targets`. `posted` is the time at which it began to.
    #[inline(always)]
    pub(super) fn post(&self, me: PcpuId, targets: u64, function: Function, argument: u64, posted: u64) {
        self.function.store(function as *mut (), Ordering::Relaxed);
        self.argument.store(argument, Ordering::Relaxed);
        self.posted.store(posted, Ordering::Relaxed);
        self.kicked.store(0, Ordering::Relaxed);
        self.caller.store(me.0, Ordering::Relaxed);
        self.left.store(targets, Ordering::Relaxed);
        // Release: who claims this sees all that is stored above. A read-modify-write, as all other changes of this word are: a
        // target that looks without being asked writes back what it has found.
        self.todo.swap(targets, Ordering::Release);
    }

    /// Caller: notes the time of the kick, which follows at once.
    #[inline(always)]
    pub(super) fn stamp_kick(&self, now: u64) {
        // Relaxed: the kick itself makes it visible to the targets, one of which may have to trace it.
        self.kicked.store(now, Ordering::Relaxed);
    }

    /// Caller: takes back what was asked of these targets. Returns those that had not begun, and never will; the others run it,
    /// or have.
    pub(super) fn withdraw(&self, targets: u64) -> u64 {
        // Relaxed: a target that has not begun has neither read nor written anything.
        let withdrawn = self.todo.fetch_and(!targets, Ordering::Relaxed) & targets;
        self.left.fetch_and(!withdrawn, Ordering::Relaxed);
        withdrawn
    }

    /// Caller: waits no longer for these targets, which run it. Returns those that have not ended in the meantime.
    pub(super) fn give_up(&self, targets: u64) -> u64 {
        // One exchange decides whether the target learns that nobody waits, or this caller that it has finished. Acquire: as
        // in `left`.
        self.left.fetch_or(targets << GIVEN_UP_SHIFT, Ordering::Acquire) & targets
    }

    /// Caller: the answer of a target that has ended, and of which it knows by `left` or `give_up`.
    pub(super) fn answer(&self, target: usize, seen: u64) -> Option<Answer> {
        let answer = self.answers.get(target)?;
        let stamps = Stamps {
            posted: self.posted.load(Ordering::Relaxed),
            kicked: self.kicked.load(Ordering::Relaxed),
            entered: answer.entered.load(Ordering::Relaxed),
            run: answer.run.load(Ordering::Relaxed),
            done: answer.done.load(Ordering::Relaxed),
        };
        Some(Answer { result: answer.result.load(Ordering::Relaxed), stamps, seen })
    }

    /// Target: claims what was asked of it, which nobody can withdraw from then on. `None` if nothing was.
    #[expect(unsafe_code, reason = "an atomic holds no function pointer, so that one is made of a data pointer")]
    pub(super) fn claim(&self, me: usize) -> Option<Claimed> {
        // Acquire: pairs with the post's release.
        if self.todo.fetch_and(!bit(me), Ordering::Acquire) & bit(me) == 0 {
            return None;
        }
        let function = self.function.load(Ordering::Relaxed);
        // SAFETY: the bit was set, by a `post` that has made the pointer from a `Function` before, which the acquire above has
        // made visible. The next post comes when this target has finished.
        let function = unsafe { core::mem::transmute::<*mut (), Function>(function) };
        Some(Claimed { function, argument: self.argument.load(Ordering::Relaxed) })
    }

    /// Target: notes when it left its guest, and when it runs what it has claimed, which follows at once.
    #[inline(always)]
    pub(super) fn stamp_run(&self, me: usize, entered: u64, run: u64) {
        if let Some(answer) = self.answers.get(place(me)) {
            answer.entered.store(entered, Ordering::Relaxed);
            answer.run.store(run, Ordering::Relaxed);
        }
    }

    /// Target: publishes the result of what it has claimed. `None` if its caller waits for it, and learns of the stamps itself.
    #[inline(always)]
    pub(super) fn finish(&self, me: usize, result: u64, done: u64) -> Option<Sent> {
        // Read before this target is left no longer: after that, the caller may post again.
        let sent = Sent { posted: self.posted.load(Ordering::Relaxed), kicked: self.kicked.load(Ordering::Relaxed) };
        if let Some(answer) = self.answers.get(place(me)) {
            answer.result.store(result, Ordering::Relaxed);
            answer.done.store(done, Ordering::Relaxed);
        }
        // Release: a caller that sees this target ended sees its answer, and all that the function wrote. A subtraction takes
        // the bit out as well, and is one instruction.
        let left = self.left.fetch_sub(bit(me), Ordering::Release);
        (left & bit(me) << GIVEN_UP_SHIFT != 0).then_some(sent)
    }

    /// Whose round it is, from the first post on.
    pub(super) fn caller(&self) -> PcpuId {
        PcpuId(self.caller.load(Ordering::Relaxed))
    }

    /// Target: the stamps of the call that it has finished last. Its own nobody else overwrites.
    pub(super) fn stamps_of(&self, me: usize, sent: Sent) -> Option<Stamps> {
        let Sent { posted, kicked } = sent;
        let RoundAnswer { entered, run, done, .. } = self.answers.get(place(me))?;
        let [entered, run, done] = [entered, run, done].map(|stamp| stamp.load(Ordering::Relaxed));
        Some(Stamps { posted, kicked, entered, run, done })
    }
}

/// What a caller wrote into its round, to be read before a target ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    posted: u64,
    kicked: u64,
}

impl Default for Round {
    fn default() -> Self {
        Self::new()
    }
}
