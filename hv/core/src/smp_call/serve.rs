//! The target's side of an SMP call.

use core::marker::PhantomData;

use super::mailbox::{Callers, Mailbox};
use super::reply::Served;
use super::round::{Round, Sent};
use super::slot::Slot;
use crate::arch::{Arch, PcpuId};

/// What a pCPU holds of its own mailbox, so that its exit path has nothing to look up.
#[derive(Debug)]
pub struct Inbox<'a, A> {
    pub(super) mailbox: &'a Mailbox,
    /// One for each caller.
    pub(super) slots: &'a [Slot],
    /// The same, if there are no more of them than bits in the mailbox; else none.
    pub(super) few_slots: &'a [Slot],
    /// One for each caller, on a machine that has them.
    pub(super) rounds: &'a [Round],
    pub(super) arch: PhantomData<fn() -> A>,
}

impl<A> Clone for Inbox<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Inbox<'_, A> {}

impl<A: Arch> Inbox<'_, A> {
    /// Whether there may be calls to serve: one load, for the path into a guest.
    ///
    /// A target looks after it has shut out kicks and before it enters its guest; a call that comes later kicks it
    /// out again.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.mailbox.has_pending()
    }

    /// The marks of those who may have asked: 0 if there are none. For a caller that has more to look at before it
    /// enters a guest, and wants one test for all.
    #[inline(always)]
    pub fn pending_marks(&self) -> u64 {
        self.mailbox.pending_marks()
    }

    /// Address of the word of those marks, 64 bits, for a caller that looks at it in assembly.
    #[cfg(not(loom))]
    pub fn marks_address(&self) -> u64 {
        self.mailbox.marks_address()
    }

    /// Runs what was asked of this pCPU, of each caller at most one call by its slot and one round, and returns how many ran.
    ///
    /// `entered` is the time at which this pCPU left its guest, or now.
    pub fn handle_smp_call(&self, entered: u64) -> u32 {
        self.serve_all(self.mailbox.take_pending(), entered)
    }

    /// [`Self::handle_smp_call`], for the one place where its instructions count: the exit that a kick causes.
    #[inline(always)]
    pub fn handle_smp_call_inline(&self, entered: u64) {
        let callers = self.mailbox.take_pending();
        if let Some(slot) = callers.only_one(self.few_slots) {
            self.serve(slot, entered);
        } else if let Some((caller, round)) = callers.only_round(self.rounds) {
            Self::serve_only_round(caller, round, entered);
        } else {
            self.serve_all(callers, entered);
        }
    }

    #[cold]
    #[inline(never)]
    fn serve_all(&self, callers: Callers, entered: u64) -> u32 {
        let mut count = 0;
        if !self.rounds.is_empty() {
            let rounds = callers.rounds().filter_map(|caller| Some((PcpuId(caller as u16), self.rounds.get(caller)?)));
            rounds.for_each(|(caller, round)| count += u32::from(Self::serve_round(caller, round, entered)));
        }
        callers.for_each(self.slots, |_, slot| count += u32::from(self.serve(slot, entered)));
        count
    }

    /// [`Self::serve_round`], kept apart from the way of a slot, which pays for no register of it.
    #[inline(never)]
    fn serve_only_round(caller: PcpuId, round: &Round, entered: u64) {
        Self::serve_round(caller, round, entered);
    }

    /// Runs what a caller asked of several, if it did.
    #[inline(always)]
    fn serve_round(caller: PcpuId, round: &Round, entered: u64) -> bool {
        let me = A::pcpu().index();
        let Some(call) = round.claim(me) else { return false };
        round.stamp_run(me, entered, A::now());
        let result = call.run();
        // Asked again: that is less than to keep what follows from it.
        let me = A::pcpu().index();
        match round.finish(me, result, A::now()) {
            None => A::smp_call_served(&Served { caller, result, stamps: None }),
            Some(sent) => Self::trace_unawaited_round(me, round, result, sent),
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn trace_unawaited_round(me: usize, round: &Round, result: u64, sent: Sent) {
        let stamps = round.stamps_of(me, sent);
        A::smp_call_served(&Served { caller: round.caller(), result, stamps });
    }

    /// Runs what a caller asked, if it did.
    #[inline(always)]
    fn serve(&self, slot: &Slot, entered: u64) -> bool {
        let Some(call) = slot.claim() else { return false };
        slot.stamp_run(entered, A::now());
        let result = call.run();
        if slot.finish(result, A::now()) {
            A::smp_call_served(&Served { caller: self.caller_of(slot), result, stamps: None });
        } else {
            Self::finish_unawaited(slot, result);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn finish_unawaited(slot: &Slot, result: u64) {
        let (caller, stamps) = slot.finish_unawaited();
        A::smp_call_served(&Served { caller, result, stamps: Some(stamps) });
    }

    /// Whose slot it is: by its place, which costs nothing where nobody asks.
    #[inline(always)]
    fn caller_of(&self, slot: &Slot) -> PcpuId {
        let offset = (&raw const *slot).addr().wrapping_sub(self.slots.as_ptr().addr());
        PcpuId((offset / size_of::<Slot>()) as u16)
    }
}
