//! Property test: whole SMP calls among pCPUs that take turns in any order, that are stalled, die, retire and come back.
//! What each caller is told is compared with what ran.

#![cfg(not(loom))]

mod turns;

use std::collections::BTreeSet;

use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{CallOutcome, Deadline, PcpuState, Phase, Reply};
use proptest::prelude::*;
use turns::{AtEnd, Calls, Machine, Told, Turns, here};

/// What a pCPU does next. Targets are bits.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Calls and waits for so many ticks.
    Call { targets: u8, kind: Kind, ticks: u64 },
    /// Calls one and waits for so many ticks.
    Single { target: u8, kind: Kind, ticks: u64 },
    /// Calls and does not wait.
    Send { targets: u8 },
    /// Serves what it finds.
    Serve,
    /// Serves nobody for so many turns.
    GoAway { state: PcpuState, turns: u8 },
}

/// What the called function does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Quick,
    /// Takes some turns.
    Slow,
    /// Calls the pCPU after its own.
    CallsOn,
}

fn action() -> impl Strategy<Value = Action> {
    let kind = || prop_oneof![4 => Just(Kind::Quick), 1 => Just(Kind::Slow), 1 => Just(Kind::CallsOn)];
    let ticks = || prop_oneof![1 => 1u64..30, 2 => 30u64..500];
    let state = prop_oneof![Just(PcpuState::Parked), Just(PcpuState::Offline)];
    prop_oneof![
        4 => (any::<u8>(), kind(), ticks()).prop_map(|(targets, kind, ticks)| Action::Call { targets, kind, ticks }),
        4 => (any::<u8>(), kind(), ticks()).prop_map(|(target, kind, ticks)| Action::Single { target, kind, ticks }),
        3 => any::<u8>().prop_map(|targets| Action::Send { targets }),
        1 => Just(Action::Serve),
        2 => (state, 0u8..40).prop_map(|(state, turns)| Action::GoAway { state, turns }),
    ]
}

/// Notes that a call ran here.
fn quick(number: u64) -> u64 {
    let (machine, me) = here();
    machine.with_book(|book| book.ran.push((number, me)));
    result(number, me)
}

fn slow(number: u64) -> u64 {
    (0..12).for_each(|_| Turns::relax());
    quick(number)
}

fn call_next(number: u64, ticks: u64) -> u64 {
    let (machine, me) = here();
    let next = (me.index() + 1) % machine.pcpus();
    single(&machine, machine.calls(), PcpuId(next as u16), quick, ticks);
    quick(number)
}

fn calls_on(number: u64) -> u64 {
    call_next(number, 60)
}

fn calls_on_patiently(number: u64) -> u64 {
    call_next(number, u64::MAX)
}

fn result(number: u64, pcpu: PcpuId) -> u64 {
    number * 1000 + u64::from(pcpu.0)
}

fn begin(machine: &Machine) -> u64 {
    machine.with_book(|book| {
        book.calls += 1;
        book.calls
    })
}

fn function(kind: Kind, patient: bool) -> fn(u64) -> u64 {
    match kind {
        Kind::Quick => quick,
        Kind::Slow => slow,
        Kind::CallsOn if patient => calls_on_patiently,
        Kind::CallsOn => calls_on,
    }
}

/// Checks a reply as far as one can without knowing what ran, and books it.
fn book(machine: &Machine, number: u64, target: PcpuId, reply: &Reply, from: u64, deadline: Deadline) -> Told {
    let told = match reply {
        Reply::Answered(answer) => {
            assert_eq!(answer.result, result(number, target), "the result is that of this call");
            let s = answer.stamps;
            assert!(from < s.posted && s.posted <= s.run && s.run < s.done && s.done < Turns::now(), "{s:?}");
            assert!(s.entered <= s.run && (s.kicked == 0 || s.posted <= s.kicked), "{s:?}");
            Told::Answered
        }
        Reply::Late => Told::Late,
        Reply::LateRunning => Told::LateRunning,
        Reply::Busy => Told::Busy,
        Reply::Unreachable => Told::Unreachable,
    };
    if matches!(told, Told::Late | Told::LateRunning) {
        assert!(deadline.has_passed(Turns::now()), "{target} is late before its time");
    }
    machine.with_book(|book| book.told.push((number, target, told)));
    told
}

fn single(machine: &Machine, calls: Calls<'_>, target: PcpuId, function: fn(u64) -> u64, ticks: u64) {
    let (number, from) = (begin(machine), Turns::now());
    let deadline = Deadline::at(from.saturating_add(ticks));
    let Ok(reply) = calls.smp_call_function_single(target, function, number, deadline) else { return };
    book(machine, number, target, &reply, from, deadline);
}

fn call(machine: &Machine, calls: Calls<'_>, targets: PcpuSet, function: fn(u64) -> u64, ticks: u64) {
    let (number, from) = (begin(machine), Turns::now());
    let deadline = Deadline::at(from.saturating_add(ticks));
    let mut replies = CallOutcome::default();
    let outcome = calls.smp_call_function(&targets, function, number, deadline, |target, reply| {
        let set = match book(machine, number, target, reply, from, deadline) {
            Told::Answered => &mut replies.answered,
            Told::Late => &mut replies.late,
            Told::LateRunning => &mut replies.late_running,
            Told::Busy => &mut replies.busy,
            Told::Unreachable | Told::Accepted => &mut replies.unreachable,
        };
        assert!(!set.contains(target), "{target} is told of once");
        set.insert(target).unwrap();
    });
    // A deadline that had come before the call began is refused, and nobody was asked.
    let Ok(outcome) = outcome else { return };
    let sets = |o: CallOutcome| [o.answered, o.late, o.late_running, o.busy, o.unreachable];
    assert_eq!(sets(outcome), sets(replies));
    assert_eq!(outcome.answered.union(&outcome.missing()), targets);
}

fn send(machine: &Machine, calls: Calls<'_>, targets: PcpuSet) {
    let number = begin(machine);
    let outcome = calls.smp_call_function_no_wait(&targets, quick, number).unwrap();
    assert_eq!(outcome.accepted.union(&outcome.busy).union(&outcome.unreachable), targets);
    let of = |set: PcpuSet, told: Told| set.iter().map(move |target| (number, target, told)).collect::<Vec<_>>();
    machine.with_book(|book| {
        book.told.extend(of(outcome.accepted, Told::Accepted));
        book.told.extend(of(outcome.busy, Told::Busy));
        book.told.extend(of(outcome.unreachable, Told::Unreachable));
    });
}

fn act(machine: &Machine, calls: Calls<'_>, action: Action, patient: bool) {
    let count = machine.pcpus();
    let set = |bits: u8| {
        let bits = if bits.trailing_zeros() as usize >= count { 1 } else { bits };
        PcpuSet::try_from_iter((0..count as u16).filter(|pcpu| bits >> pcpu & 1 != 0).map(PcpuId)).unwrap()
    };
    let ticks = |ticks| if patient { u64::MAX } else { ticks };
    match action {
        Action::Call { targets, kind, ticks: t } => {
            call(machine, calls, set(targets), function(kind, patient), ticks(t))
        }
        Action::Single { target, kind, ticks: t } => {
            single(machine, calls, PcpuId(u16::from(target) % count as u16), function(kind, patient), ticks(t));
        }
        Action::Send { targets } => send(machine, calls, set(targets)),
        Action::Serve => {
            calls.handle_smp_call(Turns::now());
        }
        Action::GoAway { state, turns } => {
            calls.retire(state);
            (0..turns).for_each(|_| Turns::relax());
            calls.init_smp_call();
            calls.handle_smp_call(Turns::now());
        }
    }
}

/// Each call ran once on each target whose caller was told so, and nowhere else; the late counts are those told.
fn check(machine: &Machine) {
    let all = PcpuSet::first(machine.pcpus());
    let calls = machine.calls();
    machine.with_book(|book| {
        let runs: BTreeSet<(u64, PcpuId)> = book.ran.iter().copied().collect();
        assert_eq!(runs.len(), book.ran.len(), "a call ran twice");
        assert_eq!(book.answered[0], book.answered[1], "caller and target agree on who waited to the end");
        let will_run = |told| matches!(told, Told::Answered | Told::LateRunning | Told::Accepted);
        let told = book.told.iter().filter(|(_, _, told)| will_run(*told));
        assert_eq!(runs, told.map(|(number, target, _)| (*number, *target)).collect::<BTreeSet<_>>());
        for target in &all {
            let is_late = |t: &&(u64, PcpuId, Told)| t.1 == target && matches!(t.2, Told::Late | Told::LateRunning);
            let late = book.told.iter().filter(is_late).count() as u64;
            assert_eq!(calls.mailbox(target).unwrap().late(), late, "{target}");
            for caller in &all {
                let phase = calls.phase(target, caller).unwrap();
                assert!(matches!(phase, Phase::Idle | Phase::Done), "{caller} to {target}: {phase:?}");
            }
        }
    });
}

fn scripts() -> impl Strategy<Value = Vec<Vec<Action>>> {
    let script = proptest::collection::vec(action(), 0..8);
    proptest::collection::vec(script, 2..=6)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Delays, deadlines, retirements and a death.
    #[test]
    fn what_callers_are_told_is_what_ran(
        scripts in scripts(),
        seed in any::<u64>(),
        stall_one_in in prop_oneof![Just(0u64), 8u64..100],
        dies in proptest::option::of((any::<prop::sample::Index>(), 0u64..300)),
    ) {
        let dies = dies.map(|(which, at)| (which.index(scripts.len()), at));
        let machine = Machine::new(scripts.len(), seed, stall_one_in, dies);
        machine.run(|me, calls| {
            scripts[usize::from(me)].iter().for_each(|action| act(&here().0, calls, *action, false));
            AtEnd::Serve
        });
        check(&machine);
    }

    /// Nobody dies, and nobody has a deadline, but some go away for good: each call comes to an end all the same, and nobody
    /// is late.
    #[test]
    fn without_a_deadline_nobody_waits_for_ever(
        scripts in scripts(),
        seed in any::<u64>(),
        leaving in any::<u8>(),
        stall_one_in in prop_oneof![Just(0u64), 8u64..100],
    ) {
        let machine = Machine::new(scripts.len(), seed, stall_one_in, None);
        machine.run(|me, calls| {
            scripts[usize::from(me)].iter().for_each(|action| act(&here().0, calls, *action, true));
            if leaving >> me & 1 != 0 { AtEnd::Retire } else { AtEnd::Serve }
        });
        check(&machine);
        let is_late = |told| matches!(told, Told::Late | Told::LateRunning);
        machine.with_book(|book| assert!(!book.told.iter().any(|(_, _, told)| is_late(*told))));
    }
}
