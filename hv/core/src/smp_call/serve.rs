//! The target's side of an SMP call.

use core::marker::PhantomData;

use super::mailbox::{Callers, Mailbox};
use super::reply::Served;
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

    /// Runs what was asked of this pCPU, at most one call of each caller, and returns how many ran.
    ///
    /// `entered` is the time at which this pCPU left its guest, or now.
    pub fn handle_smp_call(&self, entered: u64) -> u32 {
        self.serve_all(self.mailbox.take_pending(), entered)
    }

    /// [`Self::handle_smp_call`], for the one place where its instructions count: the exit that a kick causes.
    #[inline(always)]
    pub fn handle_smp_call_inline(&self, entered: u64) {
        let callers = self.mailbox.take_pending();
        match callers.only_one(self.few_slots) {
            Some(slot) => {
                self.serve(slot, entered);
            }
            None => {
                self.serve_all(callers, entered);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn serve_all(&self, callers: Callers, entered: u64) -> u32 {
        let mut count = 0;
        callers.for_each(self.slots, |_, slot| count += u32::from(self.serve(slot, entered)));
        count
    }

    /// Runs what a caller asked, if it did.
    #[inline(always)]
    fn serve(&self, slot: &Slot, entered: u64) -> bool {
        let Some(call) = slot.claim() else { return false };
        let run = A::now();
        let result = call.run();
        let done = A::now();
        let (stamps, is_awaited) = slot.finish(&call, result, entered, run, done);
        A::smp_call_served(&Served { caller: self.caller_of(slot), is_awaited, result, stamps });
        true
    }

    /// Whose slot it is: by its place, which costs nothing where nobody asks.
    #[inline(always)]
    fn caller_of(&self, slot: &Slot) -> PcpuId {
        let offset = (&raw const *slot).addr().wrapping_sub(self.slots.as_ptr().addr());
        PcpuId((offset / size_of::<Slot>()) as u16)
    }
}
