//! One caller towards one target: `call` in steps.

use proptest::prelude::*;

use super::world::{Told, World, triple};
use crate::arch::PcpuId;
use crate::smp_call::mailbox::PcpuState;
use crate::smp_call::slot::{Ended, Phase};

/// What a caller does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// Nothing: it calls nobody.
    Free,
    /// Has seen the target online, and posts.
    Post { awaited: bool },
    /// Has posted, and marks the mailbox.
    Mark { awaited: bool },
    /// Waits, and looks where its call is.
    Look,
    /// Found it posted, and looks whether the target still serves.
    Check,
    /// Has given it up, and withdraws it.
    Withdraw,
    /// Has nothing to wait for, and ends the wait.
    EndWait,
    /// Has ended the wait, and tells how.
    Tell(Ended),
}

/// A caller's program towards one target, and the slot between them as it should be.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) stage: Stage,
    /// The deadline has come.
    due: bool,
    /// The caller has seen that it has.
    expired: bool,
    /// The target was seen not to serve.
    gone: bool,
    pub(super) phase: Phase,
    /// The caller waits for the call that was posted last.
    pub(super) awaited: bool,
    /// Number of the call that was asked for last.
    asked: usize,
    /// Number of the call that was posted last: its argument, and the time of its post.
    pub(super) posted: usize,
}

impl Pair {
    pub(super) const IDLE: Self = Self {
        stage: Stage::Free,
        due: false,
        expired: false,
        gone: false,
        phase: Phase::Idle,
        awaited: false,
        asked: 0,
        posted: 0,
    };

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Look | Stage::Check | Stage::Withdraw | Stage::EndWait)
    }
}

impl World {
    /// Begins a call: looks whether the target serves.
    pub(super) fn ask(&mut self, caller: usize, target: usize, awaited: bool) -> Result<(), TestCaseError> {
        if self.pairs[target][caller].stage != Stage::Free {
            return Ok(());
        }
        let number = self.begin_call();
        self.pairs[target][caller].asked = number;
        let state = self.mailboxes[target].state();
        prop_assert_eq!(state, self.targets[target].state);
        if state == PcpuState::Online {
            self.pairs[target][caller].stage = Stage::Post { awaited };
            Ok(())
        } else {
            self.tell(number, Told::Unreachable)
        }
    }

    /// Lets the deadline come.
    pub(super) fn expire(&mut self, caller: usize, target: usize) {
        let pair = &mut self.pairs[target][caller];
        pair.due |= pair.is_waiting();
    }

    /// Calls from within a call that is waited for.
    pub(super) fn nest(&mut self, caller: usize, target: usize) -> Result<(), TestCaseError> {
        if self.pairs[target][caller].is_waiting() {
            prop_assert!(
                !self.slots[target][caller].post(PcpuId(caller as u16), triple, u64::MAX, true, u64::MAX),
                "an answer is overwritten"
            );
        }
        Ok(())
    }

    /// Takes the next step of a call.
    pub(super) fn advance(&mut self, caller: usize, target: usize) -> Result<(), TestCaseError> {
        let mut pair = self.pairs[target][caller];
        let (slot, mailbox) = (&self.slots[target][caller], &self.mailboxes[target]);
        // The clock is looked at once in each turn of the wait.
        pair.expired |= pair.due && pair.stage == Stage::Look;
        let mut told = None;
        pair.stage = match pair.stage {
            Stage::Free => Stage::Free,
            Stage::Post { awaited } => {
                let is_free = matches!(pair.phase, Phase::Idle | Phase::Done);
                prop_assert_eq!(
                    slot.post(PcpuId(caller as u16), triple, pair.asked as u64, awaited, pair.asked as u64),
                    is_free
                );
                if is_free {
                    pair = Pair { phase: Phase::Posted, awaited, posted: pair.asked, ..pair };
                    Stage::Mark { awaited }
                } else {
                    told = Some(Told::Busy);
                    Stage::Free
                }
            }
            Stage::Mark { awaited } => {
                mailbox.mark_pending(caller);
                prop_assert!(mailbox.has_pending());
                pair = Pair { due: false, expired: false, gone: false, ..pair };
                told = (!awaited).then_some(Told::Accepted);
                if awaited { Stage::Look } else { Stage::Free }
            }
            Stage::Look => match slot.phase() {
                Phase::Idle => return Err(TestCaseError::fail("withdrawn by somebody else")),
                Phase::Done => Stage::EndWait,
                Phase::Running if pair.expired => Stage::EndWait,
                Phase::Running => Stage::Look,
                Phase::Posted if pair.expired => Stage::Withdraw,
                Phase::Posted => Stage::Check,
            },
            Stage::Check => {
                pair.gone = mailbox.state() != PcpuState::Online;
                if pair.gone { Stage::Withdraw } else { Stage::Look }
            }
            Stage::Withdraw => {
                let withdrawn = slot.withdraw();
                prop_assert_eq!(withdrawn, pair.phase == Phase::Posted);
                if withdrawn {
                    pair.phase = Phase::Idle;
                    self.calls[pair.posted].withdrawn = true;
                }
                if withdrawn || pair.expired { Stage::EndWait } else { Stage::Look }
            }
            Stage::EndWait => {
                let ended = slot.end_wait();
                pair.awaited = false;
                match (ended, pair.phase) {
                    (Ended::Answered(answer), Phase::Done) => {
                        prop_assert_eq!(answer.result, triple(pair.posted as u64));
                        prop_assert_eq!(answer.stamps.posted, pair.posted as u64);
                    }
                    (Ended::Running, Phase::Running) => prop_assert!(pair.expired),
                    (Ended::Withdrawn, Phase::Idle) => prop_assert!(pair.expired || pair.gone),
                    (ended, phase) => prop_assert!(false, "{ended:?} in {phase:?}"),
                }
                Stage::Tell(ended)
            }
            Stage::Tell(ended) => {
                let gone = !pair.expired || mailbox.state() != PcpuState::Online;
                let reply = match ended {
                    Ended::Answered(_) => Told::Answered,
                    Ended::Withdrawn if gone => Told::Unreachable,
                    Ended::Withdrawn => Told::Late,
                    Ended::Running => Told::LateRunning,
                };
                if matches!(reply, Told::Late | Told::LateRunning) {
                    mailbox.count_late();
                    self.late[target] += 1;
                }
                told = Some(reply);
                Stage::Free
            }
        };
        self.pairs[target][caller] = pair;
        told.map_or(Ok(()), |told| self.tell(pair.asked, told))
    }
}
