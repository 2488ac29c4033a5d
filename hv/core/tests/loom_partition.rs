//! Models of a partition's end, of the gate before a pCPU's local APIC, and of a loading, checked by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p partita-core --release --test loom_partition`.

#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;
use partita_core::arch::PcpuId;
use partita_core::gate::Gate;
use partita_core::loading::{Loading, Outcome};
use partita_core::partition::{PartitionLife, PartitionState};

/// Two vCPUs end a partition at once while the housekeeping core looks: one wins, and whoever sees the end sees the
/// winner's cause and detail, and what the winner noted before; the loser notes nothing.
#[test]
fn one_end_wins_and_is_seen_whole() {
    loom::model(|| {
        let shared = Arc::new((PartitionLife::new(), [AtomicBool::new(false), AtomicBool::new(false)]));
        assert!(shared.0.begin());
        let finisher = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.finish(7, || shared.1[0].store(true, Ordering::Relaxed)))
        };
        let stopper = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.stop(3, 9, || shared.1[1].store(true, Ordering::Relaxed)))
        };
        let (life, notes) = &*shared;
        let noted = || [0, 1].map(|end: usize| notes[end].load(Ordering::Relaxed));
        let ends = [PartitionState::Ended(7), PartitionState::Stopped { cause: 3, detail: 9 }];
        let seen = life.state();
        match ends.iter().position(|end| *end == seen) {
            Some(end) => assert_eq!(noted(), [end == 0, end == 1], "who sees {seen:?} sees its note"),
            None => assert_eq!(seen, PartitionState::Running),
        }
        let (finished, stopped) = (finisher.join().unwrap(), stopper.join().unwrap());
        assert!(finished != stopped);
        assert_eq!(life.state(), ends[usize::from(stopped)]);
        assert_eq!(noted(), [finished, stopped], "only the winner notes");
    });
}

/// A pCPU passes the gate while its owner closes it: when the owner sees nobody pass any more, whoever passed is done, and
/// nobody passes later.
#[test]
fn nobody_passes_a_gate_whose_owner_has_seen_it_free() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(|| {
        let gate = Arc::new((Gate::new(), AtomicU32::new(0), AtomicBool::new(false)));
        let passers = [1].map(|who| {
            let gate = gate.clone();
            thread::spawn(move || {
                let (gate, sent, is_taken) = &*gate;
                gate.pass(PcpuId(who), || {
                    assert!(!is_taken.load(Ordering::Relaxed), "it is the owner's by now");
                    sent.fetch_add(1, Ordering::Relaxed);
                })
            })
        });
        let (owned, sent, is_taken) = &*gate;
        owned.close();
        while owned.straggler().is_some() {
            thread::yield_now();
        }
        let drained = sent.load(Ordering::Relaxed);
        is_taken.store(true, Ordering::Relaxed);
        let passed = passers.map(|passer| u32::from(passer.join().unwrap()));
        assert_eq!(sent.load(Ordering::Relaxed), drained, "nothing is sent behind the drain");
        assert_eq!(passed.iter().sum::<u32>(), drained);
    });
}

/// The housekeeping core gives a loading up while its pCPU claims it: either nobody loads, or it is seen to its end.
#[test]
fn a_loading_is_given_up_or_done() {
    loom::model(|| {
        let shared = Arc::new((Loading::new(), AtomicU32::new(0)));
        assert!(shared.0.want());
        let loader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let is_claimed = shared.0.claim();
                if is_claimed {
                    shared.1.store(7, Ordering::Relaxed);
                    shared.0.finish(true);
                }
                is_claimed
            })
        };
        let is_given_up = shared.0.give_up();
        if shared.0.outcome() == Outcome::Done {
            assert_eq!(shared.1.load(Ordering::Relaxed), 7, "who sees it done sees the memory filled");
        }
        assert_ne!(loader.join().unwrap(), is_given_up);
    });
}
