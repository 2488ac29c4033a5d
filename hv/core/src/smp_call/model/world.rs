//! The pCPUs of the model: what each has in its hands, and what became of each call.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::Step;
use super::pair::{Pair, Stage};
use crate::arch::PcpuId;
use crate::smp_call::Stamps;
use crate::smp_call::mailbox::{Mailbox, PcpuState};
use crate::smp_call::slot::{Claimed, Phase, Slot};

/// What a caller was told of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Answered,
    Late,
    LateRunning,
    Busy,
    Unreachable,
    /// Nobody waits for it.
    Accepted,
}

impl Told {
    /// How often the call runs in the end.
    fn runs(self) -> u32 {
        match self {
            Self::Answered | Self::LateRunning | Self::Accepted => 1,
            Self::Late | Self::Busy | Self::Unreachable => 0,
        }
    }
}

/// One call; its number is its argument.
#[derive(Clone, Copy, Default)]
pub(super) struct Call {
    runs: u32,
    pub(super) withdrawn: bool,
    told: Option<Told>,
}

/// A pCPU as a target.
pub(super) struct Target {
    /// What it has published.
    pub(super) state: PcpuState,
    /// Has taken the marks for the last time before it goes away.
    took_last: bool,
    /// Callers whose marks it has taken and whose slots it has not looked into.
    to_look: VecDeque<usize>,
    /// Claimed calls, the innermost last: a function that calls on serves others meanwhile.
    claimed: Vec<(usize, Claimed)>,
}

impl Target {
    /// Serves nobody, and is done with what it had begun.
    fn is_away(&self) -> bool {
        self.state != PcpuState::Online && self.took_last && self.to_look.is_empty() && self.claimed.is_empty()
    }
}

/// The function of each call.
pub(super) fn triple(argument: u64) -> u64 {
    argument.wrapping_mul(3)
}

pub(super) struct World {
    /// One row for each target, in it one slot for each caller; likewise `pairs`.
    pub(super) slots: Vec<Vec<Slot>>,
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) pairs: Vec<Vec<Pair>>,
    pub(super) targets: Vec<Target>,
    dead: Vec<bool>,
    pub(super) calls: Vec<Call>,
    /// For each target, how many callers were told that it is late.
    pub(super) late: Vec<u64>,
}

impl World {
    /// A machine of so many pCPUs, those online that are `up`.
    pub(super) fn new(pcpus: usize, up: impl Fn(usize) -> bool) -> Self {
        let target =
            || Target { state: PcpuState::Offline, took_last: true, to_look: VecDeque::new(), claimed: Vec::new() };
        let mut world = Self {
            slots: (0..pcpus).map(|_| (0..pcpus).map(|_| Slot::new()).collect()).collect(),
            mailboxes: (0..pcpus).map(|_| Mailbox::new()).collect(),
            pairs: vec![vec![Pair::IDLE; pcpus]; pcpus],
            targets: (0..pcpus).map(|_| target()).collect(),
            dead: vec![false; pcpus],
            calls: Vec::new(),
            late: vec![0; pcpus],
        };
        (0..pcpus).filter(|pcpu| up(*pcpu)).for_each(|pcpu| world.come_back(pcpu));
        world
    }

    fn pcpus(&self) -> usize {
        self.targets.len()
    }

    /// Takes one step, and checks that each slot is where it should be.
    pub(super) fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.apply(step)?;
        self.check_slots()
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let actor = match step {
            Step::Ask { caller, .. } | Step::Advance { caller, .. } | Step::Nest { caller, .. } => caller,
            Step::Take { target } | Step::Look { target } | Step::Finish { target } => target,
            Step::Retire { target, .. } | Step::ComeBack { target } => target,
            Step::Expire { caller, .. } => caller,
            Step::Die { pcpu } | Step::Wake { pcpu } => pcpu,
        };
        match step {
            Step::Die { .. } => self.dead[actor] = true,
            Step::Wake { .. } => self.dead[actor] = false,
            _ if self.dead[actor] => {}
            Step::Ask { caller, target, awaited } => self.ask(caller, target, awaited)?,
            Step::Advance { caller, target } => self.advance(caller, target)?,
            Step::Expire { caller, target } => self.expire(caller, target),
            Step::Nest { caller, target } => self.nest(caller, target)?,
            Step::Take { target } => self.take_marks(target)?,
            Step::Look { target } => self.look(target)?,
            Step::Finish { target } => self.finish(target)?,
            Step::Retire { target, state } => self.retire(target, state),
            Step::ComeBack { target } => self.come_back(target),
        }
        Ok(())
    }

    fn take_marks(&mut self, target: usize) -> Result<(), TestCaseError> {
        let it = &mut self.targets[target];
        if it.state != PcpuState::Online && it.took_last {
            return Ok(());
        }
        self.mailboxes[target].take_pending().for_each(&self.slots[target], |caller, _| it.to_look.push_back(caller));
        it.took_last = true;
        prop_assert!(!self.mailboxes[target].has_pending());
        Ok(())
    }

    fn look(&mut self, target: usize) -> Result<(), TestCaseError> {
        let Some(caller) = self.targets[target].to_look.pop_front() else { return Ok(()) };
        let pair = &mut self.pairs[target][caller];
        let claimed = self.slots[target][caller].claim();
        prop_assert_eq!(claimed.is_some(), pair.phase == Phase::Posted);
        if let Some(claimed) = claimed {
            pair.phase = Phase::Running;
            self.targets[target].claimed.push((caller, claimed));
        }
        Ok(())
    }

    fn finish(&mut self, target: usize) -> Result<(), TestCaseError> {
        let Some((caller, claimed)) = self.targets[target].claimed.pop() else { return Ok(()) };
        let pair = &mut self.pairs[target][caller];
        let call = &mut self.calls[pair.posted];
        let result = claimed.run();
        prop_assert_eq!(result, triple(pair.posted as u64), "the argument is that of this call");
        prop_assert!(call.runs == 0 && !call.withdrawn, "call {} ran before, or was withdrawn", pair.posted);
        self.slots[target][caller].stamp_run(2, 3);
        let is_published = self.slots[target][caller].finish(result, 4);
        let told = (!is_published).then(|| self.slots[target][caller].finish_unawaited());
        let expected = Stamps { posted: pair.posted as u64, kicked: 0, entered: 2, run: 3, done: 4 };
        prop_assert_eq!(
            told,
            (!pair.awaited).then_some((PcpuId(caller as u16), expected)),
            "either the caller is told of it, or nobody waits"
        );
        call.runs += 1;
        pair.phase = Phase::Done;
        Ok(())
    }

    fn retire(&mut self, target: usize, state: PcpuState) {
        let it = &mut self.targets[target];
        if it.state == PcpuState::Online {
            it.state = state;
            it.took_last = false;
            self.mailboxes[target].set_state(state);
        }
    }

    fn come_back(&mut self, target: usize) {
        if self.targets[target].is_away() {
            self.targets[target].state = PcpuState::Online;
            self.mailboxes[target].set_state(PcpuState::Online);
        }
    }

    /// A call begins, of this number.
    pub(super) fn begin_call(&mut self) -> usize {
        self.calls.push(Call::default());
        self.calls.len() - 1
    }

    /// The caller learns what became of a call, once.
    pub(super) fn tell(&mut self, number: usize, told: Told) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.calls[number].told.replace(told), None);
        Ok(())
    }

    fn check_slots(&self) -> Result<(), TestCaseError> {
        for (slots, pairs) in self.slots.iter().zip(&self.pairs) {
            for (slot, pair) in slots.iter().zip(pairs) {
                prop_assert_eq!(slot.phase(), pair.phase);
            }
        }
        Ok(())
    }

    /// Everyone who can takes steps, until nobody has any left. Bounded: who waits for ever fails the checks after it.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..16 {
            for pcpu in 0..self.pcpus() {
                self.apply(Step::Take { target: pcpu })?;
                for _ in 0..self.pcpus() {
                    self.apply(Step::Look { target: pcpu })?;
                    self.apply(Step::Finish { target: pcpu })?;
                }
                for other in 0..self.pcpus() {
                    self.apply(Step::Advance { caller: pcpu, target: other })?;
                }
            }
            self.check_slots()?;
        }
        Ok(())
    }

    /// Lets each deadline come. Then nobody who lives is held up, by the dead least of all.
    pub(super) fn let_the_living_end(&mut self) -> Result<(), TestCaseError> {
        // Those who were about to wait get their deadline in the second round.
        for _ in 0..2 {
            self.settle()?;
            for caller in 0..self.pcpus() {
                (0..self.pcpus()).try_for_each(|target| self.take(Step::Expire { caller, target }))?;
            }
        }
        self.settle()?;
        for caller in (0..self.pcpus()).filter(|caller| !self.dead[*caller]) {
            for target in 0..self.pcpus() {
                prop_assert_eq!(self.pairs[target][caller].stage, Stage::Free, "{} waits for {}", caller, target);
            }
        }
        Ok(())
    }

    /// The living call each of the dead: they are told at once, or at the deadline.
    pub(super) fn probe_the_dead(&mut self) -> Result<(), TestCaseError> {
        for target in (0..self.pcpus()).filter(|target| self.dead[*target]).collect::<Vec<_>>() {
            for caller in (0..self.pcpus()).filter(|caller| !self.dead[*caller]).collect::<Vec<_>>() {
                let expected = match self.pairs[target][caller].phase {
                    _ if self.targets[target].state != PcpuState::Online => Told::Unreachable,
                    Phase::Posted | Phase::Running => Told::Busy,
                    Phase::Idle | Phase::Done => Told::Late,
                };
                let number = self.calls.len();
                self.take(Step::Ask { caller, target, awaited: true })?;
                for _ in 0..4 {
                    self.take(Step::Advance { caller, target })?;
                }
                self.take(Step::Expire { caller, target })?;
                for _ in 0..4 {
                    self.take(Step::Advance { caller, target })?;
                }
                prop_assert_eq!(self.calls[number].told, Some(expected));
            }
        }
        Ok(())
    }

    /// Everyone wakes and comes back. Then everything that was begun comes to an end, without any deadline.
    pub(super) fn revive_and_settle(&mut self) -> Result<(), TestCaseError> {
        (0..self.pcpus()).try_for_each(|pcpu| self.take(Step::Wake { pcpu }))?;
        // Who is leaving goes first.
        self.settle()?;
        (0..self.pcpus()).try_for_each(|target| self.take(Step::ComeBack { target }))?;
        self.settle()
    }

    /// Nothing is left, and each call was run as often as its caller was told.
    pub(super) fn check_history(&self) -> Result<(), TestCaseError> {
        for target in 0..self.pcpus() {
            prop_assert_eq!(self.mailboxes[target].state(), PcpuState::Online);
            prop_assert!(!self.mailboxes[target].has_pending());
            prop_assert_eq!(self.mailboxes[target].late(), self.late[target]);
            for pair in &self.pairs[target] {
                prop_assert_eq!(pair.stage, Stage::Free);
                prop_assert!(matches!(pair.phase, Phase::Idle | Phase::Done), "{:?}", pair.phase);
            }
        }
        for (number, call) in self.calls.iter().enumerate() {
            prop_assert_eq!(Some(call.runs), call.told.map(Told::runs), "call {} was told {:?}", number, call.told);
        }
        Ok(())
    }

    /// What the callers were told so far, call by call.
    pub(super) fn told(&self) -> Vec<Option<Told>> {
        self.calls.iter().map(|call| call.told).collect()
    }

    /// How often each call ran.
    pub(super) fn runs(&self) -> Vec<u32> {
        self.calls.iter().map(|call| call.runs).collect()
    }
}
