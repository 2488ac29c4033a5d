//! One target of a call, as its caller sees it.

use super::mailbox::{Mailbox, PcpuState};
use super::reply::Reply;
use super::slot::{Ended, Function, Phase, Slot};
use crate::arch::{Arch, PcpuId};

/// One target, as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) pcpu: PcpuId,
    pub(super) mailbox: &'a Mailbox,
    pub(super) slot: &'a Slot,
}

/// What its targets are asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) function: Function,
    pub(super) argument: u64,
    pub(super) awaited: bool,
    /// When the caller began, in ticks of [`Arch::now`].
    pub(super) posted: u64,
}

/// How the wait for a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It goes on.
    No,
    /// It is over.
    Over,
    /// It is over because the target serves no longer, whatever it does until the wait for others is over.
    Unreachable,
}

impl Target<'_> {
    #[inline]
    fn is_online(&self) -> bool {
        self.mailbox.is_online()
    }

    /// Posts and kicks; `Err` says why not.
    #[inline(always)]
    pub(super) fn ask<A: Arch>(&self, me: PcpuId, ask: &Ask) -> Result<(), Reply> {
        if !self.is_online() {
            return Err(Reply::Unreachable);
        }
        let Ask { function, argument, awaited, posted } = *ask;
        if !self.slot.post(me, function, argument, awaited, posted) {
            return Err(Reply::Busy);
        }
        self.mailbox.mark_pending(me.index());
        self.slot.note_kick(A::kick_note(self.pcpu));
        self.slot.stamp_kick(A::now());
        A::arch_smp_call_kick_pcpu(self.pcpu);
        Ok(())
    }

    /// How the wait stands. Withdraws a call that its target will not begin in time: because the deadline has come
    /// (`expired`), or because the target serves no longer.
    #[inline]
    pub(super) fn settle(&self, expired: bool) -> Settled {
        match self.slot.phase() {
            phase if phase.is_over() => Settled::Over,
            Phase::Posted if !expired && !self.is_online() && self.slot.withdraw() => Settled::Unreachable,
            // If the withdrawal fails, the target has just begun, even one that came back just now.
            Phase::Posted if expired => {
                self.slot.withdraw();
                Settled::Over
            }
            // One that has stopped for a fault will not finish it.
            Phase::Running if expired || self.mailbox.state() == PcpuState::Stopped => Settled::Over,
            _ => Settled::No,
        }
    }

    /// Ends the wait for a call that has settled, and says how.
    #[inline]
    pub(super) fn collect<A: Arch>(&self, expired: bool) -> Reply {
        let seen = A::now();
        let kick_note = self.slot.kick_note();
        let reply = match self.slot.end_wait() {
            Ended::Answered(mut answer) => {
                answer.seen = seen;
                A::smp_call_answered(self.pcpu, kick_note, &answer.stamps);
                return Reply::Answered(answer);
            }
            Ended::Withdrawn if !expired || !self.is_online() => return Reply::Unreachable,
            Ended::Withdrawn => Reply::Late,
            Ended::Running => Reply::LateRunning,
        };
        self.mailbox.count_late();
        reply
    }
}
