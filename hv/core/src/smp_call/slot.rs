//! One slot: what one caller asks of one target, and the answer.
//!
//! ```text
//!                  post                claim               finish
//!   Idle, Done  ----------> Posted  ----------> Running  ----------> Done
//!   (caller)                  |  (target)                 (target)
//!                             +----------> Idle
//!                               withdraw (caller)
//! ```
//! Only the caller leaves `Idle` and `Done`, so a slot has one producer. Only the target leaves `Running`. Both may
//! leave `Posted`, by compare-and-swap: exactly one of them wins, so a call is run or withdrawn, never both.

use super::reply::{Answer, Stamps};
use crate::arch::PcpuId;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, const_unless_loom};

/// A function that one pCPU asks another to run. It gets the caller's argument, and its value is the result.
///
/// Both are values, not references: nothing dangles when a caller gives up. The function runs with interrupts off
/// on someone else's core, so it is short and takes no lock.
pub type Function = fn(u64) -> u64;

/// Where a slot is in its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Nothing was asked, or what was asked was withdrawn.
    Idle = 0,
    /// Asked for and not begun.
    Posted = 1,
    /// The target runs it.
    Running = 2,
    /// It ran; the result is there.
    Done = 3,
}

impl Phase {
    /// Whether nobody is at work, and nobody is asked to be.
    #[inline(always)]
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Idle | Self::Done)
    }
}

/// A phase, whether nobody waits for the call, and the call's number (modulo 2^29), as one word.
///
/// The number makes each post a word of its own, so that a compare-and-swap meant for one call cannot hit the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u32);

impl Word {
    const PHASE_BITS: u32 = 2;
    const PHASE_MASK: u32 = (1 << Self::PHASE_BITS) - 1;
    /// Nobody waits for the call, from its post on or since its caller gave up: set by the caller only.
    const UNAWAITED: u32 = 1 << Self::PHASE_BITS;
    /// The lowest bit of the number.
    const NUMBER_ONE: u32 = Self::UNAWAITED << 1;

    const fn phase(self) -> Phase {
        match self.0 & Self::PHASE_MASK {
            0 => Phase::Idle,
            1 => Phase::Posted,
            2 => Phase::Running,
            _ => Phase::Done,
        }
    }

    /// The same call in another phase.
    const fn with(self, phase: Phase) -> Self {
        Self(self.0 & !Self::PHASE_MASK | phase as u32)
    }

    /// What makes a running call a finished one.
    const TO_DONE: u32 = Phase::Done as u32 - Phase::Running as u32;

    /// A posted call, claimed.
    const fn claimed(self) -> Self {
        Self(self.0 + (Phase::Running as u32 - Phase::Posted as u32))
    }

    /// The next call, posted.
    const fn next_posted(self, awaited: bool) -> Self {
        let number = self.0.wrapping_add(Self::NUMBER_ONE) & !Self::UNAWAITED;
        Self(if awaited { number } else { number | Self::UNAWAITED }).with(Phase::Posted)
    }

    /// The same call, for which nobody waits any longer.
    const fn given_up(self) -> Self {
        Self(self.0 | Self::UNAWAITED)
    }
}

/// What one caller asks of one target, and the answer: one cache line.
///
/// A slot of zero bytes is idle, so that zeroed memory is an array of idle slots.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    word: AtomicU32,
    /// The caller's own: 1 from a post that it waits for until it has taken note of how that ended.
    awaited: AtomicU8,
    /// The caller's own: what it noted of the kick.
    kick_note: AtomicU8,
    /// Whose slot it is, for a target that no longer knows by what it has at hand. Not before the first post.
    caller: AtomicU16,
    function: AtomicPtr<()>,
    /// The argument until the function runs, its result afterwards.
    value: AtomicU64,
    posted: AtomicU64,
    kicked: AtomicU64,
    entered: AtomicU64,
    run: AtomicU64,
    done: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64);

/// A call that the target has claimed and must finish.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) function: Function,
    pub(super) argument: u64,
}

impl Claimed {
    /// Runs the function.
    #[inline(always)]
    pub(super) fn run(&self) -> u64 {
        (self.function)(self.argument)
    }
}

/// What became of a call that its caller waits for no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was answered.
    Answered(Answer),
    /// It was withdrawn before the target claimed it, and will never run.
    Withdrawn,
    /// The target runs it, and its result will be dropped.
    Running,
}

impl Slot {
    const_unless_loom! {
        /// An idle slot.
        pub fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                awaited: AtomicU8::new(0),
                kick_note: AtomicU8::new(0),
                caller: AtomicU16::new(0),
                function: AtomicPtr::new(core::ptr::null_mut()),
                value: AtomicU64::new(0),
                posted: AtomicU64::new(0),
                kicked: AtomicU64::new(0),
                entered: AtomicU64::new(0),
                run: AtomicU64::new(0),
                done: AtomicU64::new(0),
            }
        }
    }

    /// The phase at this moment; any pCPU may look.
    #[inline]
    pub fn phase(&self) -> Phase {
        Word(self.word.load(Ordering::Relaxed)).phase()
    }

    /// Caller `me`: asks for a call, unless an earlier one is not over. `posted` is the time at which it began to.
    #[inline]
    pub(super) fn post(&self, me: PcpuId, function: Function, argument: u64, awaited: bool, posted: u64) -> bool {
        // Acquire: a target that finished the last call read its argument before this overwrites it.
        let last = Word(self.word.load(Ordering::Acquire));
        // A call that is over but still awaited is one that this one is nested in.
        if !last.phase().is_over() || self.awaited.load(Ordering::Relaxed) != 0 {
            return false;
        }
        self.function.store(function as *mut (), Ordering::Relaxed);
        self.value.store(argument, Ordering::Relaxed);
        self.awaited.store(u8::from(awaited), Ordering::Relaxed);
        self.caller.store(me.0, Ordering::Relaxed);
        self.posted.store(posted, Ordering::Relaxed);
        self.kicked.store(0, Ordering::Relaxed);
        // Release: whoever claims this post sees the function and the argument stored above.
        self.word.store(last.next_posted(awaited).0, Ordering::Release);
        true
    }

    /// Caller: notes what the architecture wants to remember of the kick that follows.
    #[inline]
    pub(super) fn note_kick(&self, note: u8) {
        self.kick_note.store(note, Ordering::Relaxed);
    }

    /// Caller: notes the time of the kick, which follows at once.
    #[inline]
    pub(super) fn stamp_kick(&self, now: u64) {
        // Relaxed: the kick itself makes it visible to the target, and the caller reads it again itself.
        self.kicked.store(now, Ordering::Relaxed);
    }

    /// Caller: what it noted of the last kick.
    #[inline]
    pub(super) fn kick_note(&self) -> u8 {
        self.kick_note.load(Ordering::Relaxed)
    }

    /// Caller: takes a post back. `false` if the target has claimed it: it runs, or has run.
    #[inline]
    pub(super) fn withdraw(&self) -> bool {
        // Relaxed: the last one to post was this caller.
        let word = Word(self.word.load(Ordering::Relaxed));
        // One compare-and-swap decides between this and the target's claim. Relaxed: a withdrawn call has neither
        // been read nor written by the target, and after a failure `end_wait` looks again.
        let swap = |idle: Word| self.word.compare_exchange(word.0, idle.0, Ordering::Relaxed, Ordering::Relaxed);
        word.phase() == Phase::Posted && swap(word.with(Phase::Idle)).is_ok()
    }

    /// Caller: ends the wait for a call that is withdrawn, answered or given up while it runs; a new one can be posted
    /// as soon as the target lets go of the slot.
    #[inline]
    pub(super) fn end_wait(&self) -> Ended {
        // Acquire, here and below: pairs with `finish`, so that the result and the stamps are those of this call.
        let word = Word(self.word.load(Ordering::Acquire));
        // One exchange decides whether the target learns that nobody waits, or this caller that it has finished.
        let give_up =
            || self.word.compare_exchange(word.0, word.given_up().0, Ordering::Relaxed, Ordering::Acquire).is_ok();
        let ended = match word.phase() {
            Phase::Idle | Phase::Posted => Ended::Withdrawn,
            Phase::Running if give_up() => Ended::Running,
            Phase::Running | Phase::Done => {
                Ended::Answered(Answer { result: self.value.load(Ordering::Relaxed), stamps: self.stamps(), seen: 0 })
            }
        };
        self.awaited.store(0, Ordering::Relaxed);
        ended
    }

    /// Target: claims a posted call, which nobody can withdraw from then on. `None` if there is none.
    #[expect(unsafe_code, reason = "an atomic holds no function pointer, so that one is made of a data pointer")]
    #[inline(always)]
    pub(super) fn claim(&self) -> Option<Claimed> {
        let posted = Word(self.word.load(Ordering::Relaxed)).with(Phase::Posted);
        // Acquire: pairs with the post's release, so that the function and the argument are those of this post.
        // A failure means that nothing is posted, or withdrawn; if the caller posts again, it also sets the pending bit again.
        self.word.compare_exchange(posted.0, posted.claimed().0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let function = self.function.load(Ordering::Relaxed);
        // SAFETY: the slot was posted, so that `post` has made the pointer from a `Function` before, which the acquire
        // above has made visible; the null of a new slot is never claimed.
        let function = unsafe { core::mem::transmute::<*mut (), Function>(function) };
        Some(Claimed { function, argument: self.value.load(Ordering::Relaxed) })
    }

    /// Target: notes when it left its guest, and when it runs what it has claimed, which follows at once. Both lie in the slot at
    /// once, so that the target keeps nothing of them meanwhile.
    #[inline(always)]
    pub(super) fn stamp_run(&self, entered: u64, run: u64) {
        // Relaxed: `finish` makes them visible.
        self.entered.store(entered, Ordering::Relaxed);
        self.run.store(run, Ordering::Relaxed);
    }

    /// Target: publishes the result of a claimed call. `false` if its caller does not wait for it: then it is not published yet, but by
    /// [`Self::finish_unawaited`].
    #[inline(always)]
    pub(super) fn finish(&self, result: u64, done: u64) -> bool {
        self.value.store(result, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
        let awaited = self.word.load(Ordering::Relaxed) & !Word::UNAWAITED;
        // Release: a caller that sees `Done` sees the result and the stamps, and all that the function wrote. One exchange decides,
        // though only the target leaves `Running`: the caller may give up meanwhile.
        self.word.compare_exchange(awaited, awaited + Word::TO_DONE, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Target: lets go of a call that nobody waits for, nor will. Returns the caller, and the stamps, which that does not look at.
    pub(super) fn finish_unawaited(&self) -> (PcpuId, Stamps) {
        // Read before the word is released: after it, the caller may post again.
        let told = (PcpuId(self.caller.load(Ordering::Relaxed)), self.stamps());
        self.word.fetch_add(Word::TO_DONE, Ordering::Release);
        told
    }

    #[inline(always)]
    fn stamps(&self) -> Stamps {
        Stamps {
            posted: self.posted.load(Ordering::Relaxed),
            kicked: self.kicked.load(Ordering::Relaxed),
            entered: self.entered.load(Ordering::Relaxed),
            run: self.run.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}
