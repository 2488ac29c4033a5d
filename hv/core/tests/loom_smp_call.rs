//! Models of the mailbox, checked by loom in all interleavings up to a number of preemptions.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p partita-core --release --test loom_smp_call`.

#![cfg(loom)]

mod loom_model;

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use loom_model::{
    KICKS, NEVER, ONE_TURN, Storage, add, after, calls_left_run_nothing, check, expect, expect_answer, ran,
};
use partita_core::arch::PcpuId;
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{PcpuState, Reply};

/// A call whose deadline races the target's claim, and then another call in the same slot: each runs once or is
/// reported late, and a late one never runs, not even with the other's argument.
#[test]
fn a_withdrawal_races_the_claim_and_the_slot_is_used_again() {
    check(4, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                for _ in 0..2 {
                    calls.handle_smp_call(0);
                    thread::yield_now();
                }
            })
        };
        let calls = storage.be(0);
        let mut expected = 0;
        for argument in [1, 16] {
            match calls.smp_call_function_single(PcpuId(1), add, argument, after(ONE_TURN)).unwrap() {
                // The first runs for longer than its caller waited.
                Reply::Busy => assert_eq!((argument, expected), (16, 1)),
                reply => expected += expect(reply, argument),
            }
        }
        target.join().unwrap();
        // What runs late has run by now; what was withdrawn has not.
        assert_eq!(ran(1), expected);
        calls_left_run_nothing(&storage, 1, expected);
    });
}

/// A target that sleeps until it is kicked finds the call when it wakes. If the mark could come after the kick, it
/// would sleep on and the caller wait for ever, which loom reports.
#[test]
fn a_kick_is_never_lost() {
    check(4, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                let mut served = 0;
                while served < 2 {
                    if !calls.has_pending(PcpuId(1)) {
                        KICKS[1].wait();
                    }
                    served += calls.handle_smp_call(0);
                }
            })
        };
        let calls = storage.be(0);
        let posted = calls.smp_call_function_no_wait(&PcpuSet::single(PcpuId(1)).unwrap(), add, 1).unwrap();
        assert_eq!(posted.accepted.len(), 1);
        // The second waits for its turn in the slot.
        let reply = loop {
            match calls.smp_call_function_single(PcpuId(1), add, 16, NEVER).unwrap() {
                Reply::Busy => thread::yield_now(),
                reply => break reply,
            }
        };
        assert_eq!(expect_answer(reply, 16), 16);
        target.join().unwrap();
        assert_eq!(ran(1), 17);
    });
}

/// Two callers of one target, at once: each gets the result of its own call.
#[test]
fn two_callers_share_a_target() {
    check(3, || {
        let storage = Storage::new(3);
        let other = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                expect(calls.smp_call_function_single(PcpuId(2), add, 16, after(ONE_TURN)).unwrap(), 16)
            })
        };
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(2);
                for _ in 0..2 {
                    calls.inbox(PcpuId(2)).unwrap().handle_smp_call_inline(0);
                    thread::yield_now();
                }
            })
        };
        let calls = storage.be(0);
        let mine = expect(calls.smp_call_function_single(PcpuId(2), add, 1, after(ONE_TURN)).unwrap(), 1);
        let expected = mine + other.join().unwrap();
        target.join().unwrap();
        assert_eq!(ran(2), expected);
        calls_left_run_nothing(&storage, 2, expected);
    });
}

/// Two that call each other and wait without a deadline: both get their answers, because each serves while it waits.
#[test]
fn crossing_callers_answer_each_other() {
    check(4, || {
        let storage = Storage::new(2);
        let call = |storage: &Storage, me: u16| {
            let calls = storage.be(me);
            let reply = calls.smp_call_function_single(PcpuId(1 - me), add, 1, NEVER).unwrap();
            assert_eq!(expect_answer(reply, 1), 1);
            // It leaves only after it has served: the other may have posted after the last look.
            while ran(me) == 0 {
                calls.handle_smp_call(0);
                thread::yield_now();
            }
        };
        let other = {
            let storage = storage.clone();
            thread::spawn(move || call(&storage, 1))
        };
        call(&storage, 0);
        other.join().unwrap();
        assert_eq!((ran(0), ran(1)), (1, 1));
    });
}

/// Three that call each other in a ring, all waiting and serving at once: each call runs once or is reported late. That
/// none waits for ever is shown by the tests with turns, as three that wait without a deadline are too much for loom.
#[test]
fn a_ring_of_three_turns() {
    check(3, || {
        let storage = Storage::new(3);
        let call = |storage: &Storage, me: u16| {
            let calls = storage.be(me);
            let reply = calls.smp_call_function_single(PcpuId((me + 1) % 3), add, 1, after(ONE_TURN)).unwrap();
            expect(reply, 1)
        };
        let others = [1, 2].map(|me| {
            let storage = storage.clone();
            thread::spawn(move || call(&storage, me))
        });
        let first = call(&storage, 0);
        let [second, third] = others.map(|other| other.join().unwrap());
        assert_eq!([ran(1), ran(2), ran(0)], [first, second, third]);
        (0..3).for_each(|pcpu| calls_left_run_nothing(&storage, pcpu, ran(pcpu)));
    });
}

/// What its caller does not wait for and then awaits, in one slot, while the target looks now and then: the second is
/// refused until the first is over, and never gets in its way.
#[test]
fn a_call_behind_one_that_nobody_waits_for_does_not_touch_it() {
    check(7, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                for _ in 0..2 {
                    calls.handle_smp_call(0);
                    thread::yield_now();
                }
            })
        };
        let calls = storage.be(0);
        let one = PcpuSet::single(PcpuId(1)).unwrap();
        assert_eq!(calls.smp_call_function_no_wait(&one, add, 1).unwrap().accepted, one);
        let expected = match calls.smp_call_function_single(PcpuId(1), add, 16, after(ONE_TURN)).unwrap() {
            Reply::Busy => 1,
            reply => 1 + expect(reply, 16),
        };
        target.join().unwrap();
        storage.be(1).handle_smp_call(0);
        assert_eq!(ran(1), expected);
    });
}

/// A caller that finds a pCPU online while it comes up may kick it.
#[test]
fn who_is_online_is_prepared_to_be_kicked() {
    check(7, || {
        let storage = Storage::offline(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                calls.init_smp_call();
                calls.handle_smp_call(0);
            })
        };
        let calls = storage.be(0);
        let posted = calls.smp_call_function_no_wait(&PcpuSet::single(PcpuId(1)).unwrap(), add, 1).unwrap();
        target.join().unwrap();
        storage.be(1).handle_smp_call(0);
        assert_eq!(ran(1), posted.accepted.len() as u64);
    });
}

/// A target that retires and comes back while it is called without a deadline: the call is answered or reported.
#[test]
fn a_target_that_retires_and_comes_back_answers_or_is_unreachable() {
    check(4, || {
        let storage = Storage::new(2);
        let is_told = Arc::new(AtomicU64::new(0));
        let target = {
            let (storage, is_told) = (storage.clone(), is_told.clone());
            thread::spawn(move || {
                let calls = storage.be(1);
                calls.retire(PcpuState::Parked);
                calls.init_smp_call();
                while is_told.load(Relaxed) == 0 {
                    calls.handle_smp_call(0);
                    thread::yield_now();
                }
            })
        };
        let calls = storage.be(0);
        let expected = match calls.smp_call_function_single(PcpuId(1), add, 1, NEVER).unwrap() {
            Reply::Unreachable => 0,
            reply => expect_answer(reply, 1),
        };
        is_told.store(1, Relaxed);
        target.join().unwrap();
        calls_left_run_nothing(&storage, 1, expected);
    });
}

/// A call that nobody waits for races a target that retires: once accepted, it runs once, at the latest when the target has
/// come back.
#[test]
fn what_nobody_waits_for_outlasts_a_retirement() {
    check(7, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || {
                let calls = storage.be(1);
                calls.retire(PcpuState::Parked);
                calls.init_smp_call();
                calls.handle_smp_call(0);
            })
        };
        let calls = storage.be(0);
        let posted = calls.smp_call_function_no_wait(&PcpuSet::single(PcpuId(1)).unwrap(), add, 1).unwrap();
        target.join().unwrap();
        // A mark is left if it came after the last look.
        let accepted = posted.accepted.len() as u64;
        let calls = storage.be(1);
        assert!(ran(1) == accepted || calls.has_pending(PcpuId(1)));
        calls.handle_smp_call(0);
        assert_eq!(ran(1), accepted);
    });
}

/// A target that retires for good while it is called without a deadline: the call is answered or reported.
#[test]
fn a_target_that_retires_is_not_waited_for() {
    check(4, || {
        let storage = Storage::new(2);
        let target = {
            let storage = storage.clone();
            thread::spawn(move || storage.be(1).retire(PcpuState::Parked))
        };
        let calls = storage.be(0);
        let expected = match calls.smp_call_function_single(PcpuId(1), add, 1, NEVER).unwrap() {
            Reply::Unreachable => 0,
            reply => expect_answer(reply, 1),
        };
        target.join().unwrap();
        assert_eq!(ran(1), expected);
        calls_left_run_nothing(&storage, 1, expected);
    });
}
