//! Property test: slots and mailboxes, step by step in any order, against a model of what each call should become.
//!
//! Up to six pCPUs call each other. Between any two steps of one, any other may take one; a deadline may come, a pCPU may
//! retire and come back, or die: it takes no step until it is woken, if ever. The steps of a caller are those of `call`, the
//! steps of a target those of `serve`.

mod pair;
mod world;

use proptest::prelude::*;

use super::mailbox::PcpuState;
use world::{Told, World};

/// One step of a caller towards a target, or of a target alone, or what happens to them. A step that does not apply at the
/// moment does nothing.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A caller begins a call, and looks whether the target serves.
    Ask { caller: usize, target: usize, awaited: bool },
    /// A caller takes its next step in the call that it has begun.
    Advance { caller: usize, target: usize },
    /// The deadline of a call that is waited for has come.
    Expire { caller: usize, target: usize },
    /// A function that a caller runs while it waits calls the same target.
    Nest { caller: usize, target: usize },
    /// A target takes the marks out of its mailbox.
    Take { target: usize },
    /// It looks into the next slot whose mark it has taken.
    Look { target: usize },
    /// It finishes the innermost call that it runs.
    Finish { target: usize },
    /// It publishes that it serves no longer; it takes the marks once more.
    Retire { target: usize, state: PcpuState },
    /// It publishes that it serves again.
    ComeBack { target: usize },
    /// From here on a pCPU takes no step, neither as a caller nor as a target.
    Die { pcpu: usize },
    /// It goes on where it was.
    Wake { pcpu: usize },
}

/// Steps of a few pCPUs, in any order.
fn steps(pcpus: usize) -> impl Strategy<Value = Vec<Step>> {
    let one = move || 0..pcpus;
    let pair = move || (0..pcpus, 0..pcpus);
    let away = prop_oneof![Just(PcpuState::Parked), Just(PcpuState::Stopped), Just(PcpuState::Offline)];
    let step = prop_oneof![
        12 => (pair(), any::<bool>()).prop_map(|((caller, target), awaited)| Step::Ask { caller, target, awaited }),
        40 => pair().prop_map(|(caller, target)| Step::Advance { caller, target }),
        8 => pair().prop_map(|(caller, target)| Step::Expire { caller, target }),
        2 => pair().prop_map(|(caller, target)| Step::Nest { caller, target }),
        10 => one().prop_map(|target| Step::Take { target }),
        16 => one().prop_map(|target| Step::Look { target }),
        10 => one().prop_map(|target| Step::Finish { target }),
        2 => (one(), away).prop_map(|(target, state)| Step::Retire { target, state }),
        4 => one().prop_map(|target| Step::ComeBack { target }),
        1 => one().prop_map(|pcpu| Step::Die { pcpu }),
        1 => one().prop_map(|pcpu| Step::Wake { pcpu }),
    ];
    proptest::collection::vec(step, 0..80 * pcpus)
}

proptest! {
    #[test]
    fn in_any_order_each_call_runs_once_or_is_reported(
        (pcpus, up, steps) in (2usize..=6).prop_flat_map(|pcpus| (Just(pcpus), any::<u8>(), steps(pcpus))),
    ) {
        let mut world = World::new(pcpus, |pcpu| up >> pcpu & 1 != 0);
        for step in steps {
            world.take(step)?;
        }
        // The dead stay dead for now, and nobody waits for them.
        world.let_the_living_end()?;
        world.probe_the_dead()?;
        world.revive_and_settle()?;
        world.check_history()?;
    }
}

/// What became of each call after these steps, and after all have come back and settled.
fn told(pcpus: usize, steps: &[Step]) -> (Vec<Option<Told>>, Vec<Option<Told>>, World) {
    let mut world = World::new(pcpus, |_| true);
    for step in steps {
        world.take(*step).unwrap();
    }
    let before = world.told();
    world.revive_and_settle().unwrap();
    world.check_history().unwrap();
    (before, world.told(), world)
}

const ASK: Step = Step::Ask { caller: 0, target: 1, awaited: true };
const SEND: Step = Step::Ask { caller: 0, target: 1, awaited: false };
const ADVANCE: Step = Step::Advance { caller: 0, target: 1 };
const EXPIRE: Step = Step::Expire { caller: 0, target: 1 };
const TAKE: Step = Step::Take { target: 1 };
const LOOK: Step = Step::Look { target: 1 };
const DIE: Step = Step::Die { pcpu: 1 };
const RETIRE: Step = Step::Retire { target: 1, state: PcpuState::Parked };
/// Posted and marked.
const ASKED: [Step; 3] = [ASK, ADVANCE, ADVANCE];
/// Posted and marked, and nobody waits.
const SENT: [Step; 3] = [SEND, ADVANCE, ADVANCE];
/// Looked, withdrew if it could, ended the wait and told.
const GIVEN_UP: [Step; 5] = [EXPIRE, ADVANCE, ADVANCE, ADVANCE, ADVANCE];

#[test]
fn a_target_that_dies_in_a_call_is_late_running_then_busy_and_finishes_when_it_wakes() {
    let steps = [&ASKED[..], &[TAKE, LOOK, DIE], &GIVEN_UP, &ASKED];
    let (before, after, world) = told(2, &steps.concat());
    assert_eq!(before, [Some(Told::LateRunning), Some(Told::Busy)]);
    assert_eq!((after, world.runs()), (before, vec![1, 0]));
}

#[test]
fn a_target_that_dies_before_it_looks_is_late_each_time_and_finds_nothing_when_it_wakes() {
    let steps = [&ASKED[..], &[TAKE, DIE], &GIVEN_UP, &ASKED, &GIVEN_UP];
    let (before, after, world) = told(2, &steps.concat());
    assert_eq!(before, [Some(Told::Late), Some(Told::Late)]);
    assert_eq!((after, world.runs()), (before, vec![0, 0]));
}

#[test]
fn a_call_that_comes_too_late_for_a_target_that_retires_is_withdrawn_without_a_deadline() {
    // It had seen the target online. Then: looks, sees that the target serves no longer, withdraws, ends the wait, tells.
    let steps = [&[ASK, RETIRE, TAKE][..], &[ADVANCE; 7], &[ASK]];
    let (before, after, world) = told(2, &steps.concat());
    assert_eq!(before, [Some(Told::Unreachable), Some(Told::Unreachable)]);
    assert_eq!((after, world.runs()), (before, vec![0, 0]));
}

#[test]
fn what_nobody_waits_for_stays_until_the_target_comes_back_and_then_runs_once() {
    let steps = [&[SEND, RETIRE, TAKE][..], &[ADVANCE; 2], &[SEND]];
    let (before, after, world) = told(2, &steps.concat());
    assert_eq!(before, [Some(Told::Accepted), Some(Told::Unreachable)]);
    assert_eq!((after, world.runs()), (before, vec![1, 0]));
}

#[test]
fn what_nobody_waits_for_keeps_a_dead_target_busy() {
    let steps = [&[DIE][..], &SENT, &SENT, &ASKED];
    let (before, after, world) = told(2, &steps.concat());
    assert_eq!(before, [Some(Told::Accepted), Some(Told::Busy), Some(Told::Busy)]);
    assert_eq!((after, world.runs()), (before, vec![1, 0, 0]));
}

#[test]
fn a_caller_that_dies_between_post_and_mark_harms_nobody() {
    // Its call is run when it has woken and marked it.
    let steps = [ASK, ADVANCE, Step::Die { pcpu: 0 }, TAKE, LOOK];
    let (before, after, world) = told(2, &steps);
    assert_eq!((before, after, world.runs()), (vec![None], vec![Some(Told::Answered)], vec![1]));
}
