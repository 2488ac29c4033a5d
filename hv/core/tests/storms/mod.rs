//! Storms with random delays, short deadlines, and pCPUs that retire, come back, or are stuck: what the callers were told
//! is compared with what ran, call by call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{CallError, CallOutcome, Deadline, PcpuState, Phase, Reply};

use super::machine::{Calls, Machine, Threads, ample, answer, note};
use super::{Work, argument, idle, set};

const MICROSECOND: u64 = 1000;

/// Numbers by xorshift, so that a pCPU's delays and targets are its own.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn delay(&mut self) {
        (0..self.below(4)).for_each(|_| Threads::relax());
    }

    /// Some of `pcpus`, at least one.
    fn some(&mut self, pcpus: u16) -> PcpuSet {
        let mut set = PcpuSet::single(PcpuId(self.below(pcpus.into()) as u16)).unwrap();
        for pcpu in 0..pcpus {
            if self.below(2) == 0 {
                set.insert(PcpuId(pcpu)).unwrap();
            }
        }
        set
    }
}

/// What the callers of one storm were told.
#[derive(Default)]
struct Told {
    /// Targets and arguments of the calls that run, or have run.
    runs: Vec<(PcpuId, u64)>,
    /// Targets of those that were late, for each time.
    late: Vec<PcpuId>,
    answered: usize,
    unreachable: usize,
}

impl Told {
    fn note(&mut self, argument: u64, outcome: &CallOutcome, accepted: &PcpuSet) {
        let run = outcome.answered.union(&outcome.late_running).union(accepted);
        self.runs.extend(run.iter().map(|target| (target, argument)));
        self.late.extend(outcome.late.union(&outcome.late_running).iter());
        self.answered += outcome.answered.len();
        self.unreachable += outcome.unreachable.len();
    }

    fn append(&mut self, mut other: Self) {
        self.runs.append(&mut other.runs);
        self.late.append(&mut other.late);
        self.answered += other.answered;
        self.unreachable += other.unreachable;
    }

    /// Compares with what ran, and with the late counts.
    fn assert_true_of(&mut self, machine: &'static Machine, pcpus: u16) {
        let mut ran = Vec::new();
        for pcpu in 0..pcpus {
            ran.extend(machine.ran(pcpu).into_iter().map(|argument| (PcpuId(pcpu), argument)));
            let late = self.late.iter().filter(|target| **target == PcpuId(pcpu)).count() as u64;
            assert_eq!(machine.calls().mailbox(PcpuId(pcpu)).unwrap().late(), late);
            for caller in 0..pcpus {
                let phase = machine.calls().phase(PcpuId(pcpu), PcpuId(caller)).unwrap();
                assert!(matches!(phase, Phase::Idle | Phase::Done), "{phase:?}");
            }
        }
        ran.sort_unstable();
        self.runs.sort_unstable();
        assert_eq!(ran, self.runs);
    }
}

/// One call of some others, in a form that is drawn: answered with a deadline of `ticks`, or not waited for.
fn call_some(calls: Calls, random: &mut Random, pcpus: u16, argument: u64, ticks: u64, told: &mut Told) {
    let targets = random.some(pcpus);
    let deadline = Deadline::at(Threads::now().saturating_add(ticks));
    match random.below(4) {
        0 => {
            let posted = calls.smp_call_function_no_wait(&targets, note, argument).unwrap();
            assert_eq!(posted.accepted.union(&posted.busy).union(&posted.unreachable), targets);
            told.note(argument, &CallOutcome::default(), &posted.accepted);
            told.unreachable += posted.unreachable.len();
        }
        1 => {
            let target = targets.iter().next().unwrap();
            let only = PcpuSet::single(target).unwrap();
            let mut outcome = CallOutcome::default();
            match calls.smp_call_function_single(target, note, argument, deadline) {
                Ok(Reply::Answered(answered)) => {
                    assert_eq!(answered.result, answer(argument, target));
                    outcome.answered = only;
                }
                Ok(Reply::Late) => outcome.late = only,
                Ok(Reply::LateRunning) => outcome.late_running = only,
                Ok(Reply::Unreachable) => outcome.unreachable = only,
                // The deadline may have come before the call.
                Ok(Reply::Busy) | Err(_) => {}
            }
            told.note(argument, &outcome, &PcpuSet::EMPTY);
        }
        _ => {
            let outcome = calls.smp_call_function(&targets, note, argument, deadline, |target, reply| {
                assert!(!matches!(reply, Reply::Answered(told) if told.result != answer(argument, target)));
            });
            if let Ok(outcome) = outcome {
                assert_eq!(outcome.answered.union(&outcome.missing()), targets);
                told.note(argument, &outcome, &PcpuSet::EMPTY);
            }
        }
    }
}

/// All call all, with deadlines of up to `ticks`, while the last two come and go.
fn storm(rounds: u64, ticks: u64) -> Told {
    const N: u16 = 4;
    let machine = Machine::new(N.into(), N.into());
    // It lives as long as the machine, in which threads of a failed test may be stuck.
    let all: &'static Mutex<Told> = Box::leak(Box::default());
    let work = |me: u16| -> Work {
        Box::new(move |calls| {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ u64::from(me) << 20);
            let mut told = Told::default();
            for number in 0..rounds {
                let ticks = if ticks == u64::MAX { ticks } else { 1 + random.below(ticks) };
                call_some(calls, &mut random, N, argument(me, number), ticks, &mut told);
                random.delay();
                if me >= N - 2 && random.below(4) == 0 {
                    calls.retire(if me == N - 2 { PcpuState::Parked } else { PcpuState::Offline });
                    random.delay();
                    calls.init_smp_call();
                    calls.handle_smp_call(Threads::now());
                }
            }
            all.lock().unwrap().append(told);
        })
    };
    machine.run((0..N).map(work).collect());
    let mut told = std::mem::take(&mut *all.lock().unwrap());
    told.assert_true_of(machine, N);
    told
}

#[test]
fn all_call_all_without_a_deadline_while_some_retire_and_come_back() {
    let told = storm(600, u64::MAX);
    assert!(told.late.is_empty());
    assert!(told.answered > 400 && told.unreachable > 0, "{} {}", told.answered, told.unreachable);
}

#[test]
fn all_call_all_with_short_deadlines_while_some_retire_and_come_back() {
    let told = storm(600, 40 * MICROSECOND);
    // How many are late is up to the host. Lateness itself is tested with pCPUs that are stuck.
    assert!(told.answered > 0, "{} late", told.late.len());
}

static RELAYS: OnceLock<Calls> = OnceLock::new();

/// Has the next pCPU of three relay the call, until `hops` are left no more. Returns how many hops it went, or `BUSY` in
/// place of the last if the next one was busy with a call of this pCPU's own.
fn relay(hops: u64) -> u64 {
    if hops == 0 {
        return 0;
    }
    let next = PcpuId((Threads::pcpu().0 + 1) % 3);
    match RELAYS.get().unwrap().smp_call_function_single(next, relay, hops - 1, Deadline::at(u64::MAX)).unwrap() {
        Reply::Answered(told) => 1 + told.result,
        Reply::Busy => BUSY,
        reply => panic!("{reply:?}"),
    }
}

const BUSY: u64 = 1 << 32;

#[test]
fn rings_of_calls_within_calls_turn_against_each_other_and_none_hangs() {
    let machine = Machine::new(3, 3);
    RELAYS.set(machine.calls()).unwrap();
    let work = |_| -> Work {
        Box::new(|_| {
            for _ in 0..300 {
                // Once round and home, unless it came to one that awaits an answer on the same way.
                let went = relay(3);
                assert!(went == 3 || (BUSY + 1..BUSY + 3).contains(&went), "{went}");
            }
        })
    };
    machine.run((0..3).map(work).collect());
}

#[test]
fn two_that_call_each_other_from_within_calls_do_not_hang() {
    // Each pCPU calls the other with a function that calls back: to a pCPU whose own call is awaited, that is busy.
    fn call_back(to: u64) -> u64 {
        let reply =
            CROSSING.get().unwrap().smp_call_function_single(PcpuId(to as u16), note, to, Deadline::at(u64::MAX));
        match reply.unwrap() {
            Reply::Answered(told) => told.result,
            Reply::Busy => BUSY,
            reply => panic!("{reply:?}"),
        }
    }
    static CROSSING: OnceLock<Calls> = OnceLock::new();
    let machine = Machine::new(2, 2);
    CROSSING.set(machine.calls()).unwrap();
    let work = |me: u16| -> Work {
        Box::new(move |calls| {
            for _ in 0..1000 {
                let other = PcpuId(1 - me);
                let reply =
                    calls.smp_call_function_single(other, call_back, me.into(), Deadline::at(u64::MAX)).unwrap();
                let Reply::Answered(told) = reply else { panic!("{reply:?}") };
                assert!(told.result == answer(me.into(), PcpuId(me)) || told.result == BUSY);
            }
        })
    };
    machine.run((0..2).map(work).collect());
}

/// Three call all others and each other while the fourth is stuck: in a call of the first of them if `in_call`.
fn others_while_one_is_stuck(in_call: bool) {
    const STUCK: PcpuId = PcpuId(3);
    const ROUNDS: u64 = 30;
    /// Still to do with the stuck one, and whether it hangs in a call.
    struct Stuck {
        callers: AtomicUsize,
        hangs: AtomicBool,
    }
    static IN_CALL: Stuck = Stuck { callers: AtomicUsize::new(3), hangs: AtomicBool::new(false) };
    static OUTSIDE: Stuck = Stuck { callers: AtomicUsize::new(3), hangs: AtomicBool::new(false) };
    fn hang(stuck: &Stuck) {
        stuck.hangs.store(true, Ordering::SeqCst);
        while stuck.callers.load(Ordering::SeqCst) > 0 {
            Threads::relax();
        }
    }
    fn hang_in_call(argument: u64) -> u64 {
        hang(&IN_CALL);
        note(argument)
    }
    let stuck = if in_call { &IN_CALL } else { &OUTSIDE };
    let machine = Machine::new(4, 4);
    let caller = |me: u16| -> Work {
        Box::new(move |calls| {
            if in_call && me == 0 {
                let posted = calls.smp_call_function_no_wait(&set(&[3]), hang_in_call, u64::MAX >> 16).unwrap();
                assert_eq!(posted.accepted, set(&[3]));
            }
            while !stuck.hangs.load(Ordering::SeqCst) {
                calls.handle_smp_call(Threads::now());
                Threads::relax();
            }
            for number in 0..ROUNDS {
                let argument = argument(me, number);
                let (soon, reply) = loop {
                    let soon = Deadline::at(Threads::now() + 500 * MICROSECOND);
                    match calls.smp_call_function_single(STUCK, note, argument, soon) {
                        // This thread did not run for so long.
                        Err(CallError::DeadlinePassed { .. }) => {}
                        reply => break (soon, reply.unwrap()),
                    }
                };
                if in_call && me == 0 {
                    assert_eq!(reply, Reply::Busy);
                } else {
                    assert!(reply == Reply::Late && soon.has_passed(Threads::now()), "{reply:?}");
                }
                // The others answer, as ever.
                let others = set(&[0, 1, 2]);
                let outcome = calls.smp_call_function(&others, note, argument, ample(), |_, _| {}).unwrap();
                assert_eq!(outcome.answered, others);
            }
            stuck.callers.fetch_sub(1, Ordering::SeqCst);
        })
    };
    let stuck_one: Work = if in_call { idle() } else { Box::new(move |_| hang(stuck)) };
    machine.run(vec![caller(0), caller(1), caller(2), stuck_one]);
    let callers = if in_call { 2 } else { 3 };
    assert_eq!(machine.calls().mailbox(STUCK).unwrap().late(), callers * ROUNDS);
    // What was withdrawn did not run when it went on; only the call that it hung in has.
    let expected: &[u64] = if in_call { &[u64::MAX >> 16] } else { &[] };
    assert_eq!(machine.ran(STUCK.0), expected);
    (0..3).for_each(|pcpu| assert_eq!(machine.ran(pcpu).len() as u64, 3 * ROUNDS));
}

#[test]
fn a_pcpu_that_is_stuck_is_late_for_all_and_holds_up_nobody() {
    others_while_one_is_stuck(false);
}

#[test]
fn a_pcpu_that_is_stuck_in_a_call_is_busy_for_its_caller_and_late_for_others() {
    others_while_one_is_stuck(true);
}

#[test]
fn who_retires_serves_what_it_still_finds() {
    let machine = Machine::new(2, 2);
    let caller: Work = Box::new(|calls| {
        assert_eq!(calls.smp_call_function_no_wait(&set(&[1]), note, 7).unwrap().accepted, set(&[1]));
    });
    let retiring: Work = Box::new(move |calls| {
        while !calls.has_pending(PcpuId(1)) {
            Threads::relax();
        }
        calls.retire(PcpuState::Parked);
        assert_eq!(machine.ran(1), [7]);
    });
    machine.run(vec![caller, retiring]);
}
