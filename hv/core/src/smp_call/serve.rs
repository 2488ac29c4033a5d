//! The target's side of an SMP call.

use core::marker::PhantomData;

use super::mailbox::Mailbox;
use super::reply::Served;
use super::slot::Slot;
use crate::arch::{Arch, PcpuId};

/// What a pCPU holds of its own mailbox, so that its exit path has nothing to look up.
#[derive(Debug)]
pub struct Inbox<'a, A> {
    pub(super) mailbox: &'a Mailbox,
    /// One for each caller.
    pub(super) slots: &'a [Slot],
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
    #[inline]
    pub fn handle_smp_call(&self, entered: u64) -> u32 {
        let mut count = 0;
        self.mailbox.take_pending().for_each(self.slots, |caller, slot| {
            let Some(call) = slot.claim() else { return };
            let run = A::now();
            let result = call.run();
            let done = A::now();
            let stamps = slot.finish(&call, result, entered, run, done);
            A::smp_call_served(&Served { caller: PcpuId(caller as u16), result, stamps });
            count += 1;
        });
        count
    }
}
