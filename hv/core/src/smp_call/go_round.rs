//! The caller's side of a round: a call to several targets that are kicked together, posted and awaited as a whole.

use super::call::{SmpCalls, run_here};
use super::mailbox::{LOOSE_ROUND, LOOSE_SLOTS, Mailbox, NESTED, PcpuState};
use super::reply::{CallOutcome, Deadline, Reply};
use super::round::{ROUND_PCPUS_MAX, Round, bit};
use super::slot::Function;
use crate::arch::{Arch, Kicks, PcpuId};

/// What the targets of a round are asked.
pub(super) struct Call<'a, A: Arch> {
    /// The caller's.
    pub(super) mailbox: &'a Mailbox,
    pub(super) round: &'a Round,
    /// The targets, a bit for each; this pCPU is none of them.
    pub(super) asked: u64,
    pub(super) kicks: A::Kicks,
    /// The same, and this pCPU if it is to run the function as well.
    pub(super) all: u64,
    pub(super) function: Function,
    pub(super) argument: u64,
    /// When the caller began.
    pub(super) posted: u64,
    pub(super) deadline: Deadline,
}

/// How a round ended for those that did not simply run it, a bit for each.
#[derive(Default)]
struct Missing {
    /// Withdrawn, as the target served no longer.
    unreachable: u64,
    /// Withdrawn, as the deadline came.
    late: u64,
    /// Given up while it ran.
    running: u64,
}

/// The numbers of the bits that are set.
#[derive(Clone, Copy)]
struct Numbers(u64);

impl Iterator for Numbers {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let number = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(number)
    }
}

impl<A: Arch> SmpCalls<'_, A> {
    /// The kicks to `asked`, if these can be asked in one round: it is free, and all can be kicked together. Whether all are online is
    /// seen in the wait: what one that is not has not begun is withdrawn at once.
    #[inline(always)]
    pub(super) fn kicks_of_round(&self, me: PcpuId, mailbox: &Mailbox, round: &Round, asked: u64) -> Option<A::Kicks> {
        if mailbox.loose() != 0 && (mailbox.loose() & NESTED != 0 || !self.is_all_over(me, mailbox, round)) {
            return None;
        }
        let mut kicks = A::Kicks::default();
        for number in Numbers(asked) {
            kicks.gather(PcpuId(number as u16));
        }
        kicks.can_be_sent().then_some(kicks)
    }

    /// Whether all is over that this caller has asked and does not wait for. If so, it need not look again.
    #[cold]
    fn is_all_over(&self, me: PcpuId, mailbox: &Mailbox, round: &Round) -> bool {
        let slots = (0..self.pcpus()).filter_map(|number| self.target(me, PcpuId(number as u16)));
        let is_over = round.left() == 0 && { slots }.all(|target| target.slot.phase().is_over());
        if is_over {
            mailbox.set_loose(0);
        }
        is_over
    }

    /// Makes the call of [`SmpCalls::smp_call_function`] in one round.
    #[inline(always)]
    pub(super) fn go_round(
        &self,
        me: PcpuId,
        call: Call<'_, A>,
        on_reply: &mut dyn FnMut(PcpuId, &Reply),
    ) -> CallOutcome {
        let Call { mailbox, round, asked, all, kicks, function, argument, posted, deadline } = call;
        // Until its answers are collected, no nested call may use the round.
        mailbox.set_loose(LOOSE_ROUND | NESTED);
        round.post(me, asked, function, argument, posted);
        for mailbox in Numbers(asked).filter_map(|number| self.mailboxes.get(number)) {
            mailbox.mark_round(me.index());
        }
        round.stamp_kick(A::now());
        kicks.send();
        let own = (all != asked).then(|| run_here::<A>(function, argument));
        let missing = self.await_round(me, round, deadline);
        let seen = A::now();
        let mut outcome = CallOutcome { ended: seen, ..CallOutcome::default() };

        for number in Numbers(all) {
            let pcpu = PcpuId(number as u16);
            let reply = match own {
                Some(own) if pcpu == me => Reply::Answered(own),
                _ => self.reply_of_round(pcpu, round, &missing, seen),
            };
            outcome.note(pcpu, &reply);
            on_reply(pcpu, &reply);
        }
        let left = if missing.running == 0 { 0 } else { LOOSE_ROUND };
        mailbox.set_loose(mailbox.loose() & LOOSE_SLOTS | left);
        outcome
    }

    /// Waits until nobody is left of a round that can still end it, or the deadline has come.
    #[inline(always)]
    fn await_round(&self, me: PcpuId, round: &Round, deadline: Deadline) -> Missing {
        let mut missing = Missing::default();
        loop {
            let left = round.left();
            // Who is known to run it for ever is among them.
            if left == missing.running {
                break;
            }
            // As the wait is for all of them, one at a time is enough to look after.
            let number = (left ^ missing.running).trailing_zeros() as usize;
            if !self.mailboxes.get(number).is_some_and(Mailbox::is_online) {
                self.look_after(round, number, &mut missing);
            }
            if self.wait_a_turn(me, deadline) {
                missing.late = round.withdraw(left);
                missing.running |= round.left();
                break;
            }
        }
        if missing.running != 0 {
            missing.running = round.give_up(missing.running);
        }
        missing
    }

    /// A target that serves no longer: what it has not begun is withdrawn, and what it runs it does not finish if it has stopped.
    #[cold]
    fn look_after(&self, round: &Round, number: usize, missing: &mut Missing) {
        let state = self.state(PcpuId(number as u16));
        let withdrawn = round.withdraw(bit(number));
        missing.unreachable |= withdrawn;
        if withdrawn == 0 && state == PcpuState::Stopped {
            missing.running |= round.left() & bit(number);
        }
    }

    fn reply_of_round(&self, pcpu: PcpuId, round: &Round, missing: &Missing, seen: u64) -> Reply {
        let is_in = |those: u64| those & bit(pcpu.index()) != 0;
        let reply = if is_in(missing.unreachable) || is_in(missing.late) && self.state(pcpu) != PcpuState::Online {
            return Reply::Unreachable;
        } else if is_in(missing.late) {
            Reply::Late
        } else if is_in(missing.running) {
            Reply::LateRunning
        } else if let Some(answer) = round.answer(pcpu.index(), seen) {
            A::smp_call_answered(pcpu, A::Kicks::NOTE, &answer.stamps);
            return Reply::Answered(answer);
        } else {
            return Reply::Unreachable;
        };
        if let Some(mailbox) = self.mailbox(pcpu) {
            mailbox.count_late();
        }
        reply
    }
}

const _: () = assert!(ROUND_PCPUS_MAX <= u32::BITS as usize);
