//! SMP calls among threads: storms whose counts must match exactly, and targets that do not answer.

#![cfg(not(loom))]

mod machine;
mod storms;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock, mpsc};

use machine::{Calls, Machine, Threads, ample, answer, in_nmi, note};
use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{CallError, Deadline, PcpuState, Phase, Reply};

type Work = Box<dyn FnOnce(Calls) + Send>;

fn set(pcpus: &[u16]) -> PcpuSet {
    PcpuSet::try_from_iter(pcpus.iter().copied().map(PcpuId)).unwrap()
}

fn idle() -> Work {
    Box::new(|_| {})
}

/// An argument that says who called, and which call of his it is.
fn argument(caller: u16, number: u64) -> u64 {
    (u64::from(caller) << 32) | number
}

/// Calls `targets` so many times and checks each answer.
fn storm(me: u16, targets: PcpuSet, rounds: u64) -> Work {
    Box::new(move |calls| {
        for number in 0..rounds {
            let argument = argument(me, number);
            let mut replies = PcpuSet::EMPTY;
            let outcome = calls
                .smp_call_function(&targets, note, argument, ample(), |target, reply| {
                    let Reply::Answered(told) = reply else { panic!("{target}: {reply:?}") };
                    assert_eq!(told.result, answer(argument, target));
                    let s = told.stamps;
                    assert!(s.posted <= s.run && s.entered <= s.run && s.run <= s.done, "{s:?}");
                    assert!(s.kicked == 0 || s.posted <= s.kicked, "{s:?}");
                    replies.insert(target).unwrap();
                })
                .unwrap();
            assert_eq!((outcome.answered, replies), (targets, targets));
            assert!(outcome.all_answered());
        }
    })
}

/// Each pCPU ran each call made to it once, those of one caller in order.
fn assert_each_ran_once(machine: &Machine, pcpus: u16, called_by: impl Fn(u16, u16) -> bool, rounds: u64) {
    for target in 0..pcpus {
        let ran = machine.ran(target);
        let mut expected = 0;
        for caller in (0..pcpus).filter(|caller| called_by(*caller, target)) {
            let of_caller: Vec<u64> =
                ran.iter().filter(|a| *a >> 32 == u64::from(caller)).map(|a| a & 0xFFFF_FFFF).collect();
            assert_eq!(of_caller, (0..rounds).collect::<Vec<_>>(), "{caller} calls {target}");
            expected += rounds;
        }
        assert_eq!(ran.len() as u64, expected);
    }
}

#[test]
fn all_call_all_and_themselves() {
    const N: u16 = 4;
    let machine = Machine::new(N.into(), N.into());
    machine.run((0..N).map(|me| storm(me, PcpuSet::first(N.into()), 1500)).collect());
    assert_each_ran_once(machine, N, |_, _| true, 1500);
    // The target hears of the calls of others, with the same stamps, not of its own.
    let served = machine.served(1);
    assert_eq!(served.len(), 3 * 1500);
    assert!(served.iter().all(|s| s.caller != PcpuId(1) && s.is_awaited()));
    assert!(served.iter().all(|s| (s.result / 1000) >> 32 == u64::from(s.caller.0)));
}

#[test]
fn two_that_call_each_other_both_get_their_answers() {
    let machine = Machine::new(2, 2);
    machine.run(vec![storm(0, set(&[1]), 5000), storm(1, set(&[0]), 5000)]);
    assert_each_ran_once(machine, 2, |caller, target| caller != target, 5000);
}

#[test]
fn a_ring_of_three_turns() {
    let machine = Machine::new(3, 3);
    machine.run(vec![storm(0, set(&[1]), 3000), storm(1, set(&[2]), 3000), storm(2, set(&[0]), 3000)]);
    assert_each_ran_once(machine, 3, |caller, target| (caller + 1) % 3 == target, 3000);
}

#[test]
fn callers_beyond_the_64th_share_a_mark_and_are_all_served() {
    // 2 and 66 and 130 have one bit.
    const N: usize = 140;
    let machine = Machine::new(N, N);
    let work = (0..N as u16).map(|me| if matches!(me, 2 | 66 | 130) { storm(me, set(&[0]), 300) } else { idle() });
    machine.run(work.collect());
    assert_each_ran_once(machine, N as u16, |caller, target| target == 0 && matches!(caller, 2 | 66 | 130), 300);
}

#[test]
fn calls_to_one_target_are_answered() {
    let machine = Machine::new(2, 2);
    let caller: Work = Box::new(|calls| {
        for number in 0..2000 {
            for target in [PcpuId(1), PcpuId(0)] {
                let reply = calls.smp_call_function_single(target, note, number, ample()).unwrap();
                assert!(matches!(reply, Reply::Answered(told) if told.result == answer(number, target)), "{reply:?}");
            }
        }
    });
    machine.run(vec![caller, idle()]);
    assert_eq!(machine.ran(1), (0..2000).collect::<Vec<_>>());
    assert_eq!(machine.ran(0), machine.ran(1));
}

#[test]
fn fire_and_forget_runs_each_accepted_call_once() {
    const CALLERS: u16 = 3;
    let machine = Machine::new(4, 4);
    let (sent, accepted) = mpsc::channel();
    let mut work: Vec<Work> = Vec::new();
    for me in 0..CALLERS {
        let sent = sent.clone();
        work.push(Box::new(move |calls| {
            for number in 0..3000 {
                let outcome = calls.smp_call_function_no_wait(&set(&[3]), note, argument(me, number)).unwrap();
                assert_eq!(outcome.accepted.union(&outcome.busy), set(&[3]));
                if !outcome.accepted.is_empty() {
                    sent.send(argument(me, number)).unwrap();
                }
            }
        }));
    }
    work.push(idle());
    machine.run(work);
    drop(sent);
    let mut accepted: Vec<u64> = accepted.iter().collect();
    let mut ran = machine.ran(3);
    accepted.sort_unstable();
    ran.sort_unstable();
    assert!(accepted.len() >= CALLERS.into());
    assert_eq!(ran, accepted);
}

#[test]
fn a_target_that_is_stuck_is_late_and_never_runs_what_was_withdrawn() {
    let machine = Machine::new(3, 3);
    let (release, released) = mpsc::channel();
    let stuck: Work = Box::new(move |_| released.recv().unwrap());
    let caller: Work = Box::new(move |calls| {
        for number in 0..5 {
            let soon = Deadline::after_ms::<Threads>(1);
            let outcome = calls.smp_call_function(&set(&[1, 2]), note, number, soon, |_, _| {}).unwrap();
            assert!(Threads::now() >= soon.ticks());
            assert!(outcome.late.contains(PcpuId(1)) && outcome.missing().contains(PcpuId(1)));
            assert!(!outcome.all_answered());
        }
        assert_eq!(calls.mailbox(PcpuId(1)).unwrap().late(), 5);
        assert!(calls.has_pending(PcpuId(1)), "the mark stays, and leads to nothing");
        let single = calls.smp_call_function_single(PcpuId(1), note, 5, Deadline::after_ms::<Threads>(1)).unwrap();
        assert_eq!(single, Reply::Late);
        release.send(()).unwrap();
        let reply = calls.smp_call_function_single(PcpuId(1), note, 99, ample()).unwrap();
        assert!(matches!(reply, Reply::Answered(_)), "{reply:?}");
    });
    machine.run(vec![caller, stuck, idle()]);
    assert_eq!(machine.ran(1), [99]);
}

#[test]
fn a_call_that_outlasts_its_deadline_is_reported_and_the_next_is_refused_until_it_ends() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    static RELEASED: AtomicBool = AtomicBool::new(false);
    static RUNS: AtomicU64 = AtomicU64::new(0);
    fn long(_: u64) -> u64 {
        RUNS.fetch_add(1, Ordering::SeqCst);
        ENTERED.store(true, Ordering::SeqCst);
        while !RELEASED.load(Ordering::SeqCst) {
            Threads::relax();
        }
        7
    }
    let machine = Machine::new(3, 3);
    // Another caller gets the target to run `long` for it, so that the deadline can pass while it runs.
    let first: Work = Box::new(|calls| {
        let posted = calls.smp_call_function_no_wait(&set(&[1]), long, 0).unwrap();
        assert_eq!(posted.accepted, set(&[1]));
        while !ENTERED.load(Ordering::SeqCst) {
            Threads::relax();
        }
        // A second one, of the same caller, is refused, not overwritten.
        let soon = Deadline::after_ms::<Threads>(1);
        let outcome = calls.smp_call_function(&set(&[1]), note, 1, soon, |_, reply| {
            assert_eq!(*reply, Reply::Busy);
        });
        assert_eq!(outcome.unwrap().busy, set(&[1]));
        assert_eq!(calls.smp_call_function_no_wait(&set(&[1]), note, 2).unwrap().busy, set(&[1]));
        RELEASED.store(true, Ordering::SeqCst);
        // Retried until the slot is free again.
        loop {
            match calls.smp_call_function_single(PcpuId(1), note, 3, ample()).unwrap() {
                Reply::Busy => Threads::relax(),
                reply => break assert!(matches!(reply, Reply::Answered(_)), "{reply:?}"),
            }
        }
    });
    machine.run(vec![first, idle(), idle()]);
    assert_eq!((machine.ran(1), RUNS.load(Ordering::SeqCst)), (vec![3], 1));
}

#[test]
fn a_deadline_that_passes_while_the_function_runs_is_told_apart() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    fn long(_: u64) -> u64 {
        while !RELEASED.load(Ordering::SeqCst) {
            Threads::relax();
        }
        7
    }
    let machine = Machine::new(2, 2);
    let caller: Work = Box::new(|calls| {
        // However short the deadline, sooner or later the target has begun before it.
        loop {
            let soon = Deadline::after_ms::<Threads>(20);
            match calls.smp_call_function_single(PcpuId(1), long, 0, soon).unwrap() {
                Reply::Late => {}
                reply => break assert_eq!(reply, Reply::LateRunning),
            }
        }
        let reply = calls.smp_call_function_single(PcpuId(1), note, 1, ample()).unwrap();
        assert_eq!(reply, Reply::Busy);
        RELEASED.store(true, Ordering::SeqCst);
    });
    machine.run(vec![caller, idle()]);
    assert_eq!(machine.ran(1), []);
    assert!(machine.calls().mailbox(PcpuId(1)).unwrap().late() >= 1);
}

/// The state of things on it is not to be trusted any more: who waits is told, without any deadline.
#[test]
fn a_target_that_faults_in_a_call_is_not_waited_for() {
    fn fault(_: u64) -> u64 {
        HERE_CALLS.get().unwrap().stop_serving();
        FAULTED.get_or_init(|| Barrier::new(2)).wait();
        0
    }
    static HERE_CALLS: OnceLock<Calls> = OnceLock::new();
    static FAULTED: OnceLock<Barrier> = OnceLock::new();
    let machine = Machine::new(2, 2);
    assert!(HERE_CALLS.set(machine.calls()).is_ok());
    let caller: Work = Box::new(|calls| {
        let never = Deadline::at(u64::MAX);
        assert_eq!(calls.smp_call_function_single(PcpuId(1), fault, 1, never).unwrap(), Reply::LateRunning);
        assert_eq!(calls.state(PcpuId(1)), PcpuState::Stopped);
        assert_eq!(calls.smp_call_function_single(PcpuId(1), note, 1, never).unwrap(), Reply::Unreachable);
        FAULTED.get_or_init(|| Barrier::new(2)).wait();
    });
    machine.run(vec![caller, idle()]);
}

#[test]
fn targets_that_do_not_serve_are_reported_and_not_waited_for() {
    let machine = Machine::new(4, 3);
    let (retired, is_retired) = mpsc::channel();
    let retiring: Work = Box::new(move |calls| {
        calls.retire(PcpuState::Stopped);
        retired.send(()).unwrap();
    });
    let caller: Work = Box::new(move |calls| {
        is_retired.recv().unwrap();
        let never = Deadline::at(u64::MAX);
        let mut replies = Vec::new();
        let outcome =
            calls.smp_call_function(&PcpuSet::first(4), note, 1, never, |target, reply| replies.push((target, *reply)));
        let outcome = outcome.unwrap();
        assert_eq!((outcome.answered, outcome.unreachable), (set(&[0, 2]), set(&[1, 3])));
        let unreachable = |target| replies.contains(&(PcpuId(target), Reply::Unreachable));
        assert!(replies.len() == 4 && unreachable(1) && unreachable(3));
        assert_eq!(calls.smp_call_function_single(PcpuId(3), note, 1, never).unwrap(), Reply::Unreachable);
        let posted = calls.smp_call_function_no_wait(&set(&[1, 3]), note, 1).unwrap();
        assert_eq!(posted.unreachable, set(&[1, 3]));
        assert_eq!((calls.state(PcpuId(1)), calls.state(PcpuId(3))), (PcpuState::Stopped, PcpuState::Offline));
        assert_eq!(calls.online(), set(&[0, 2]));
    });
    machine.run(vec![caller, retiring, idle()]);
    assert_eq!((machine.ran(1), machine.ran(3)), (vec![], vec![]));
}

#[test]
fn a_target_that_retires_with_a_call_in_its_mailbox_is_not_waited_for() {
    let machine = Machine::new(2, 2);
    let caller: Work = Box::new(|calls| {
        // Runs in the storm of a target that goes and comes: each call is answered or reported, none hangs.
        let (mut answered, mut unreachable) = (0, 0);
        while answered < 200 || unreachable < 200 {
            match calls.smp_call_function_single(PcpuId(1), note, answered, Deadline::at(u64::MAX)).unwrap() {
                Reply::Answered(_) => answered += 1,
                Reply::Unreachable => unreachable += 1,
                reply => panic!("{reply:?}"),
            }
        }
        DONE.store(answered, Ordering::SeqCst);
    });
    static DONE: AtomicU64 = AtomicU64::new(0);
    let coming_and_going: Work = Box::new(|calls| {
        while DONE.load(Ordering::SeqCst) == 0 {
            calls.retire(PcpuState::Parked);
            Threads::relax();
            calls.init_smp_call();
            calls.handle_smp_call(Threads::now());
            Threads::relax();
        }
    });
    machine.run(vec![caller, coming_and_going]);
    assert_eq!(machine.ran(1), (0..DONE.load(Ordering::SeqCst)).collect::<Vec<_>>());
}

#[test]
fn a_function_may_call_on_and_an_awaited_answer_is_not_overwritten() {
    // 0 calls 1 and 3, which are kicked apart; 1's function calls 0 back, which then calls 3, whose answer to 0 is still
    // awaited.
    fn outer(argument: u64) -> u64 {
        if Threads::pcpu() != PcpuId(1) {
            return note(argument);
        }
        match CALLS.get().unwrap().smp_call_function_single(PcpuId(0), inner, argument, ample()) {
            Ok(Reply::Answered(told)) => told.result,
            other => panic!("{other:?}"),
        }
    }
    fn inner(argument: u64) -> u64 {
        let calls = CALLS.get().unwrap();
        // Wait until 3 has answered the outer call, so that its slot looks free.
        while machine_slot_phase(3, 0) != Phase::Done {
            Threads::relax();
        }
        let reply = calls.smp_call_function_single(PcpuId(3), note, argument + 1, ample()).unwrap();
        assert_eq!(reply, Reply::Busy);
        55
    }
    fn machine_slot_phase(target: u16, caller: u16) -> Phase {
        CALLS.get().unwrap().phase(PcpuId(target), PcpuId(caller)).unwrap()
    }
    static CALLS: std::sync::OnceLock<Calls> = std::sync::OnceLock::new();
    let machine = Machine::new(4, 4);
    CALLS.set(machine.calls()).unwrap();
    let caller: Work = Box::new(|calls| {
        let mut results = Vec::new();
        let outcome = calls.smp_call_function(&set(&[1, 3]), outer, 10, ample(), |_, reply| {
            if let Reply::Answered(told) = reply {
                results.push(told.result);
            }
        });
        assert!(outcome.unwrap().all_answered());
        assert_eq!(results, [55, answer(10, PcpuId(3))]);
    });
    machine.run(vec![caller, idle(), idle(), idle()]);
    assert_eq!(machine.ran(3), [10]);
}

#[test]
fn a_function_may_call_who_has_answered_a_round_that_is_awaited() {
    // 0 calls 1 and 2 in one round; 1's function calls 0 back, which then calls 2, whose answer to 0 is still awaited.
    static HAS_ANSWERED: AtomicBool = AtomicBool::new(false);
    static CALLS: std::sync::OnceLock<Calls> = std::sync::OnceLock::new();
    fn outer(argument: u64) -> u64 {
        if Threads::pcpu() != PcpuId(1) {
            return note(argument);
        }
        match CALLS.get().unwrap().smp_call_function_single(PcpuId(0), inner, argument, ample()) {
            Ok(Reply::Answered(told)) => told.result,
            other => panic!("{other:?}"),
        }
    }
    fn inner(argument: u64) -> u64 {
        let calls = CALLS.get().unwrap();
        let reply = loop {
            match calls.smp_call_function_single(PcpuId(2), note, argument + 1, ample()).unwrap() {
                // It has not ended the round.
                Reply::Busy => Threads::relax(),
                reply => break reply,
            }
        };
        assert!(matches!(reply, Reply::Answered(told) if told.result == answer(11, PcpuId(2))), "{reply:?}");
        HAS_ANSWERED.store(true, Ordering::SeqCst);
        // Neither does a second round find the first one's place free: it goes by slots.
        let outcome = calls.smp_call_function(&set(&[2]), note, argument + 2, ample(), |_, _| {}).unwrap();
        assert!(outcome.all_answered());
        55
    }
    let machine = Machine::new(3, 3);
    CALLS.set(machine.calls()).unwrap();
    let caller: Work = Box::new(|calls| {
        let mut results = Vec::new();
        let outcome = calls.smp_call_function(&set(&[1, 2]), outer, 10, ample(), |_, reply| {
            if let Reply::Answered(told) = reply {
                results.push(told.result);
            }
        });
        assert!(outcome.unwrap().all_answered());
        assert_eq!(results, [55, answer(10, PcpuId(2))]);
    });
    machine.run(vec![caller, idle(), idle()]);
    assert!(HAS_ANSWERED.load(Ordering::SeqCst));
    assert_eq!(machine.ran(2), [10, 11, 12]);
}

#[test]
fn an_answer_of_a_round_that_is_not_collected_is_not_overwritten() {
    // 0 calls itself, 1 and 2 in one round, and calls 1 again when both have answered: amid its own part, and as it is told.
    static CALLS: std::sync::OnceLock<Calls> = std::sync::OnceLock::new();
    fn again() {
        let calls = CALLS.get().unwrap();
        let outcome = calls.smp_call_function(&set(&[1]), note, 77, ample(), |_, _| {}).unwrap();
        assert!(outcome.all_answered());
    }
    fn outer(argument: u64) -> u64 {
        if Threads::pcpu() == PcpuId(0) {
            let phase = |target| CALLS.get().unwrap().phase(PcpuId(target), PcpuId(0)).unwrap();
            while [1, 2].into_iter().any(|target| matches!(phase(target), Phase::Posted | Phase::Running)) {
                Threads::relax();
            }
            again();
        }
        note(argument)
    }
    let machine = Machine::new(3, 3);
    CALLS.set(machine.calls()).unwrap();
    let caller: Work = Box::new(|calls| {
        let mut told = Vec::new();
        let outcome = calls.smp_call_function(&set(&[0, 1, 2]), outer, 10, ample(), |pcpu, reply| {
            let Reply::Answered(answer) = reply else { panic!("{reply:?}") };
            assert!(answer.stamps.posted <= answer.stamps.run && answer.stamps.run <= answer.stamps.done);
            told.push((pcpu, answer.result, answer.stamps.posted));
            again();
        });
        assert!(outcome.unwrap().all_answered());
        let of = |pcpu: u16| (PcpuId(pcpu), answer(10, PcpuId(pcpu)));
        assert_eq!(told.iter().map(|(pcpu, result, _)| (*pcpu, *result)).collect::<Vec<_>>(), [of(0), of(1), of(2)]);
        assert_eq!(told[1].2, told[2].2, "one post for both");
    });
    machine.run(vec![caller, idle(), idle()]);
    assert_eq!((machine.ran(1), machine.ran(2)), (vec![10, 77, 77, 77, 77], vec![10]));
}

#[test]
fn a_call_that_makes_no_sense_is_refused_before_anyone_is_asked() {
    let machine = Machine::new(2, 2);
    let caller: Work = Box::new(|calls| {
        let refuse = |targets: PcpuSet, deadline, expected: CallError| {
            let error = calls.smp_call_function(&targets, note, 0, deadline, |_, _| panic!("asked")).unwrap_err();
            assert_eq!(error, expected);
            assert!(error.to_string().contains("; ") || expected == CallError::EmptySet);
        };
        let missing = CallError::NoSuchPcpu { pcpu: PcpuId(2), count: 2 };
        refuse(PcpuSet::EMPTY, ample(), CallError::EmptySet);
        refuse(set(&[0, 1, 2]), ample(), missing);
        assert_eq!(calls.smp_call_function_single(PcpuId(2), note, 0, ample()), Err(missing));
        assert_eq!(calls.smp_call_function_no_wait(&set(&[2]), note, 0), Err(missing));
        assert_eq!(calls.smp_call_function_no_wait(&PcpuSet::EMPTY, note, 0), Err(CallError::EmptySet));
        let error = calls.smp_call_function(&set(&[0, 1]), note, 0, Deadline::at(1), |_, _| {}).unwrap_err();
        assert!(matches!(error, CallError::DeadlinePassed { deadline, .. } if deadline == Deadline::at(1)));
        in_nmi(|| refuse(set(&[0, 1]), ample(), CallError::NmiContext));
    });
    machine.run(vec![caller, idle()]);
    assert_eq!((machine.ran(0), machine.ran(1)), (vec![], vec![]));
}

#[test]
fn storage_of_another_size_is_refused() {
    use partita_core::smp_call::{Mailbox, ROUND_PCPUS_MAX, Round, Slot};
    let mailboxes: &'static [Mailbox] = (0..ROUND_PCPUS_MAX + 1).map(|_| Mailbox::new()).collect::<Vec<_>>().leak();
    let slots: &'static [Slot] = (0..Calls::slots_for(mailboxes.len())).map(|_| Slot::new()).collect::<Vec<_>>().leak();
    let rounds: &'static [Round] = (0..3).map(|_| Round::new()).collect::<Vec<_>>().leak();
    let fits = |slots_len: usize, rounds_len: usize| {
        Calls::new(&mailboxes[..2], &slots[..slots_len], &rounds[..rounds_len]).is_some()
    };
    assert!(fits(4, 2));
    assert!(!fits(5, 2) && !fits(3, 2) && !fits(4, 3) && !fits(4, 1));
    // So many have no rounds.
    assert!(Calls::new(mailboxes, slots, &[]).is_some() && Calls::new(mailboxes, slots, &rounds[..1]).is_none());
}
