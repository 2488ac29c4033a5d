//! Models of rounds: calls to several pCPUs that are posted and awaited as a whole.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p partita-core --release --test loom_rounds`.

#![cfg(loom)]

mod loom_model;

use loom::thread;
use loom_model::{NEVER, ONE_TURN, Storage, add, after, calls_left_run_nothing, check, expect, expect_answer, ran};
use partita_core::arch::PcpuId;
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{Deadline, PcpuState, Reply, SmpCalls};

/// Calls these, and returns the reply of each.
fn call(
    calls: &SmpCalls<'_, loom_model::Model>,
    targets: &[u16],
    argument: u64,
    deadline: Deadline,
) -> Vec<(PcpuId, Reply)> {
    let targets = PcpuSet::try_from_iter(targets.iter().copied().map(PcpuId)).unwrap();
    let mut replies = Vec::new();
    calls.smp_call_function(&targets, add, argument, deadline, |pcpu, reply| replies.push((pcpu, *reply))).unwrap();
    replies
}

/// A target that looks so many times whether it is asked.
fn looks(storage: &std::sync::Arc<Storage>, pcpu: u16, times: usize) -> thread::JoinHandle<()> {
    let storage = storage.clone();
    thread::spawn(move || {
        let calls = storage.be(pcpu);
        for _ in 0..times {
            calls.inbox(PcpuId(pcpu)).unwrap().handle_smp_call_inline(0);
            thread::yield_now();
        }
    })
}

/// Two rounds, each with a deadline that races the target's claim: each runs once or is reported late, and a late one never
/// runs, not even with the other's argument. Behind a round that a target still runs, it is told to be busy.
#[test]
fn a_withdrawal_races_the_claim_and_the_round_is_used_again() {
    check(4, || {
        let storage = Storage::new(2);
        let target = looks(&storage, 1, 2);
        let calls = storage.be(0);
        let mut expected = 0;
        for argument in [1, 16] {
            for (_, reply) in call(&calls, &[1], argument, after(ONE_TURN)) {
                match reply {
                    Reply::Busy => assert_eq!((argument, expected), (16, 1)),
                    reply => expected += expect(reply, argument),
                }
            }
        }
        target.join().unwrap();
        assert_eq!(ran(1), expected);
        calls_left_run_nothing(&storage, 1, expected);
    });
}

/// Two targets of one round: each runs it once or is reported late.
#[test]
fn each_target_of_a_round_has_its_own_end() {
    check(3, || {
        let storage = Storage::new(3);
        let targets = [looks(&storage, 1, 1), looks(&storage, 2, 1)];
        let replies = call(&storage.be(0), &[1, 2], 1, after(ONE_TURN));
        let expected: Vec<u64> = replies.iter().map(|(_, reply)| expect(*reply, 1)).collect();
        targets.into_iter().for_each(|target| target.join().unwrap());
        assert_eq!(vec![ran(1), ran(2)], expected);
        [1, 2].into_iter().for_each(|pcpu| calls_left_run_nothing(&storage, pcpu, ran(pcpu)));
    });
}

/// Two that call each other and wait without a deadline: both get their answers, because each serves while it waits.
#[test]
fn crossing_rounds_answer_each_other() {
    check(4, || {
        let storage = Storage::new(2);
        let go = |storage: &Storage, me: u16| {
            let calls = storage.be(me);
            for (_, reply) in call(&calls, &[1 - me], 1, NEVER) {
                assert_eq!(expect_answer(reply, 1), 1);
            }
            while ran(me) == 0 {
                calls.handle_smp_call(0);
                thread::yield_now();
            }
        };
        let other = {
            let storage = storage.clone();
            thread::spawn(move || go(&storage, 1))
        };
        go(&storage, 0);
        other.join().unwrap();
        assert_eq!((ran(0), ran(1)), (1, 1));
    });
}

/// A round beside a call by slot that its caller does not wait for: neither touches the other.
#[test]
fn a_round_behind_a_call_that_nobody_waits_for() {
    check(3, || {
        let storage = Storage::new(2);
        let target = looks(&storage, 1, 2);
        let calls = storage.be(0);
        let posted = calls.smp_call_function_no_wait(&PcpuSet::single(PcpuId(1)).unwrap(), add, 1).unwrap();
        assert_eq!(posted.accepted.len(), 1);
        let mut expected = 1;
        for (_, reply) in call(&calls, &[1], 16, after(ONE_TURN)) {
            if reply != Reply::Busy {
                expected += expect(reply, 16);
            }
        }
        target.join().unwrap();
        storage.be(1).handle_smp_call(0);
        assert_eq!(ran(1), expected);
    });
}

/// A target that retires during a round, and comes back: it answers, or is told to be unreachable and runs nothing of it.
#[test]
fn a_target_that_retires_answers_a_round_or_is_unreachable() {
    check(3, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                calls.retire(PcpuState::Parked);
                thread::yield_now();
                calls.init_smp_call();
                calls.handle_smp_call(0);
            })
        };
        let mut expected = 0;
        for (_, reply) in call(&storage.be(0), &[1], 1, after(ONE_TURN)) {
            if reply != Reply::Unreachable {
                expected += expect(reply, 1);
            }
        }
        target.join().unwrap();
        assert_eq!(ran(1), expected);
        calls_left_run_nothing(&storage, 1, expected);
    });
}
