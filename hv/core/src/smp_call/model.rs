//! Property test: slots and mailboxes, step by step in any order, against a model of what each call should become.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::mailbox::Mailbox;
use super::slot::{Claimed, Ended, Phase, Slot};

const PCPUS: usize = 3;

/// One step of a caller towards a target, or of a target alone. Between any two, any other pCPU may take one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Post { caller: usize, target: usize, awaited: bool },
    Mark { caller: usize, target: usize },
    Withdraw { caller: usize, target: usize },
    EndWait { caller: usize, target: usize },
    Take { target: usize },
    Look { target: usize },
    Finish { target: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pair = || (0..PCPUS, 0..PCPUS);
    let step = prop_oneof![
        3 => (pair(), any::<bool>()).prop_map(|((caller, target), awaited)| Step::Post { caller, target, awaited }),
        3 => pair().prop_map(|(caller, target)| Step::Mark { caller, target }),
        2 => pair().prop_map(|(caller, target)| Step::Withdraw { caller, target }),
        2 => pair().prop_map(|(caller, target)| Step::EndWait { caller, target }),
        2 => (0..PCPUS).prop_map(|target| Step::Take { target }),
        4 => (0..PCPUS).prop_map(|target| Step::Look { target }),
        3 => (0..PCPUS).prop_map(|target| Step::Finish { target }),
    ];
    proptest::collection::vec(step, 0..200)
}

/// The last call of one caller to one target, as it should be.
#[derive(Clone, Copy)]
struct Call {
    phase: Phase,
    awaited: bool,
    unmarked: bool,
    argument: u64,
}

/// What a target has in its hands.
#[derive(Default)]
struct Serving {
    /// Callers whose marks it has taken and whose slots it has not looked into.
    to_look: VecDeque<usize>,
    /// Claimed calls, the innermost last: a function that calls on serves others meanwhile.
    claimed: Vec<(usize, Claimed)>,
}

struct World {
    slots: [[Slot; PCPUS]; PCPUS],
    mailboxes: [Mailbox; PCPUS],
    serving: [Serving; PCPUS],
    calls: [[Call; PCPUS]; PCPUS],
    /// For each argument, how often it ran, and whether it was withdrawn.
    history: Vec<(u32, bool)>,
}

fn triple(argument: u64) -> u64 {
    argument * 3
}

impl World {
    fn new() -> Self {
        let call = Call { phase: Phase::Idle, awaited: false, unmarked: false, argument: 0 };
        Self {
            slots: Default::default(),
            mailboxes: Default::default(),
            serving: Default::default(),
            calls: [[call; PCPUS]; PCPUS],
            history: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Post { caller, target, awaited } => {
                let argument = self.history.len() as u64;
                let (slot, call) = (&self.slots[target][caller], &mut self.calls[target][caller]);
                let is_free = matches!(call.phase, Phase::Idle | Phase::Done) && !call.awaited;
                // A caller marks its call before it does anything else with the slot.
                if call.unmarked {
                    return Ok(());
                }
                prop_assert_eq!(slot.post(triple, argument, awaited, 1), is_free);
                if is_free {
                    *call = Call { phase: Phase::Posted, awaited, unmarked: true, argument };
                    self.history.push((0, false));
                }
            }
            Step::Mark { caller, target } => {
                if core::mem::take(&mut self.calls[target][caller].unmarked) {
                    self.mailboxes[target].mark_pending(caller);
                    prop_assert!(self.mailboxes[target].has_pending());
                }
            }
            Step::Withdraw { caller, target } => {
                let (slot, call) = (&self.slots[target][caller], &mut self.calls[target][caller]);
                if !call.awaited || call.unmarked {
                    return Ok(());
                }
                let is_posted = call.phase == Phase::Posted;
                prop_assert_eq!(slot.withdraw(), is_posted);
                if is_posted {
                    call.phase = Phase::Idle;
                    self.history[call.argument as usize].1 = true;
                }
            }
            Step::EndWait { caller, target } => {
                let (slot, call) = (&self.slots[target][caller], &mut self.calls[target][caller]);
                if !call.awaited || call.phase == Phase::Posted {
                    return Ok(());
                }
                match (slot.end_wait(), call.phase) {
                    (Ended::Answered(told), Phase::Done) => prop_assert_eq!(told.result, triple(call.argument)),
                    (Ended::Running, Phase::Running) | (Ended::Withdrawn, Phase::Idle) => {}
                    (ended, phase) => prop_assert!(false, "{ended:?} in {phase:?}"),
                }
                call.awaited = false;
            }
            Step::Take { target } => {
                let serving = &mut self.serving[target];
                self.mailboxes[target].take_pending().for_each(&self.slots[target], |caller, _| {
                    serving.to_look.push_back(caller);
                });
                prop_assert!(!self.mailboxes[target].has_pending());
            }
            Step::Look { target } => {
                let Some(caller) = self.serving[target].to_look.pop_front() else { return Ok(()) };
                let claimed = self.slots[target][caller].claim();
                let call = &mut self.calls[target][caller];
                prop_assert_eq!(claimed.is_some(), call.phase == Phase::Posted);
                if let Some(claimed) = claimed {
                    call.phase = Phase::Running;
                    self.serving[target].claimed.push((caller, claimed));
                }
            }
            Step::Finish { target } => {
                let Some((caller, claimed)) = self.serving[target].claimed.pop() else { return Ok(()) };
                let call = &mut self.calls[target][caller];
                let result = claimed.run();
                prop_assert_eq!(result, triple(call.argument), "the argument is that of this call");
                self.slots[target][caller].finish(&claimed, result, 2, 3, 4);
                call.phase = Phase::Done;
                self.history[call.argument as usize].0 += 1;
            }
        }
        for target in 0..PCPUS {
            for caller in 0..PCPUS {
                prop_assert_eq!(self.slots[target][caller].phase(), self.calls[target][caller].phase);
            }
        }
        Ok(())
    }

    /// Lets everyone come to an end with what is begun.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for target in 0..PCPUS {
            for caller in 0..PCPUS {
                self.take(Step::Mark { caller, target })?;
            }
            self.take(Step::Take { target })?;
            while !self.serving[target].to_look.is_empty() {
                self.take(Step::Look { target })?;
            }
            while !self.serving[target].claimed.is_empty() {
                self.take(Step::Finish { target })?;
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn in_any_order_each_call_runs_once_or_is_withdrawn(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
        }
        world.settle()?;
        for (argument, (runs, withdrawn)) in world.history.iter().enumerate() {
            prop_assert_eq!(*runs, u32::from(!withdrawn), "call {} of {}", argument, world.history.len());
        }
    }
}
