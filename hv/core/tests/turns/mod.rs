//! A machine whose pCPUs take turns, in an order that a number draws: threads of which one runs at a time. It changes
//! wherever the code under test asks the architecture anything, so that each run can be repeated. Its clock counts turns.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use partita_core::arch::{Arch, Kicks, PcpuId};
use partita_core::smp_call::{Mailbox, PcpuState, Round, Served, Slot, SmpCalls, Stamps};

/// pCPUs that take turns.
#[derive(Debug)]
pub(crate) enum Turns {}

/// SMP calls among them.
pub(crate) type Calls<'a> = SmpCalls<'a, Turns>;

/// More turns than any run needs: somebody waits for ever.
const TURNS_MAX: u64 = 500_000;

/// What a pCPU does when it has done its work, until all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtEnd {
    Serve,
    Retire,
}

/// What a caller was told of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Answered,
    Late,
    LateRunning,
    Busy,
    Unreachable,
    /// Nobody waits for it.
    Accepted,
}

/// What happened: numbers of calls, and their targets.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) calls: u64,
    pub(crate) told: Vec<(u64, PcpuId, Told)>,
    pub(crate) ran: Vec<(u64, PcpuId)>,
    /// Calls of others that ended with an answer, as their callers were told, and as their targets were.
    pub(crate) answered: [u64; 2],
}

#[derive(Clone, Copy, Default)]
struct Pcpu {
    asleep: bool,
    kicked: bool,
    /// Gets no turn before this one.
    stalled_until: u64,
    /// Has done its work.
    idle: bool,
    /// Has gone.
    ended: bool,
}

struct State {
    turn: u64,
    current: usize,
    pcpus: Vec<Pcpu>,
    random: u64,
    /// One turn in so many stalls a pCPU; 0 for never.
    stall_one_in: u64,
    /// A pCPU, and the turn at which it dies.
    dies: Option<(usize, u64)>,
    failed: bool,
    book: Book,
}

/// What the threads of one run share.
pub(crate) struct Machine {
    mailboxes: Vec<Mailbox>,
    slots: Vec<Slot>,
    rounds: Vec<Round>,
    state: Mutex<State>,
    turns: Vec<Condvar>,
}

thread_local! {
    static HERE: RefCell<Option<(Arc<Machine>, PcpuId)>> = const { RefCell::new(None) };
}

/// The machine and the pCPU of this thread.
pub(crate) fn here() -> (Arc<Machine>, PcpuId) {
    HERE.with_borrow(Clone::clone).expect("a pCPU's thread")
}

/// Lets others go on, if it is their turn.
fn turn() {
    let (machine, me) = here();
    machine.turn(me.index(), |_| {});
}

/// Kicks go out together to pCPUs whose number is not a multiple of three.
#[derive(Debug, Default)]
pub(crate) struct Together(Vec<PcpuId>);

impl Kicks for Together {
    const NOTE: u8 = 0;

    fn gather(&mut self, target: PcpuId) {
        self.0.push(target);
    }

    fn can_be_sent(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|target| !target.index().is_multiple_of(3))
    }

    fn send(self) {
        self.0.into_iter().for_each(Turns::arch_smp_call_kick_pcpu);
    }
}

impl Arch for Turns {
    type Kicks = Together;

    fn pcpu() -> PcpuId {
        here().1
    }

    fn now() -> u64 {
        turn();
        here().0.lock().turn
    }

    fn ticks_per_ms() -> u64 {
        1000
    }

    fn relax() {
        turn();
    }

    fn arch_init_smp_call() {
        turn();
    }

    fn arch_smp_call_kick_pcpu(target: PcpuId) {
        let (machine, me) = here();
        machine.turn(me.index(), |_| {});
        machine.lock().pcpus[target.index()].kicked = true;
        machine.turn(me.index(), |_| {});
    }

    fn smp_call_served(served: &Served) {
        here().0.with_book(|book| book.answered[1] += u64::from(served.is_awaited()));
    }

    fn smp_call_answered(_: PcpuId, _: u8, _: &Stamps) {
        here().0.with_book(|book| book.answered[0] += 1);
    }
}

impl State {
    /// A number below `limit`, by xorshift.
    fn draw(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % limit
    }

    fn all_idle(&self) -> bool {
        self.pcpus.iter().all(|pcpu| pcpu.idle)
    }

    fn may_run(&self, pcpu: &Pcpu) -> bool {
        let awake = !pcpu.asleep || pcpu.kicked || self.all_idle();
        awake && !pcpu.ended && pcpu.stalled_until <= self.turn
    }

    fn candidates(&self) -> Vec<usize> {
        (0..self.pcpus.len()).filter(|pcpu| self.may_run(&self.pcpus[*pcpu])).collect()
    }

    /// Draws whose turn it is. `None` if it is nobody's, ever again.
    fn pick(&mut self) -> Option<usize> {
        self.turn += 1;
        if self.stall_one_in != 0 && self.draw(self.stall_one_in) == 0 {
            let (stalled, until) = (self.draw(self.pcpus.len() as u64), self.turn + self.draw(400));
            let pcpu = &mut self.pcpus[stalled as usize];
            pcpu.stalled_until = pcpu.stalled_until.max(until);
        }
        if let Some((dead, _)) = self.dies.take_if(|(_, at)| *at <= self.turn) {
            self.pcpus[dead].stalled_until = u64::MAX;
        }
        // The dead come back when all others have done their work.
        if self.pcpus.iter().all(|pcpu| pcpu.idle || pcpu.stalled_until == u64::MAX) {
            self.pcpus.iter_mut().for_each(|pcpu| pcpu.stalled_until = 0);
        }
        let mut candidates = self.candidates();
        while candidates.is_empty() {
            // Who can run is stalled: time passes.
            let stalled = self.pcpus.iter().filter(|pcpu| !pcpu.ended).map(|pcpu| pcpu.stalled_until);
            self.turn = stalled.filter(|until| (self.turn + 1..u64::MAX).contains(until)).min()?;
            candidates = self.candidates();
        }
        let choice = self.draw(candidates.len() as u64);
        (self.turn <= TURNS_MAX).then(|| candidates[choice as usize])
    }
}

impl Machine {
    /// A machine of so many pCPUs, all offline, whose turns are drawn from `seed`. One turn in `stall_one_in` stalls a
    /// pCPU for a while; `dies` is a pCPU that gets no turn from some turn on, until all others have done their work.
    pub(crate) fn new(pcpus: usize, seed: u64, stall_one_in: u64, dies: Option<(usize, u64)>) -> Arc<Self> {
        let state = State {
            turn: 0,
            current: 0,
            pcpus: vec![Pcpu::default(); pcpus],
            random: seed | 1 << 63,
            stall_one_in,
            dies,
            failed: false,
            book: Book::default(),
        };
        Arc::new(Self {
            mailboxes: (0..pcpus).map(|_| Mailbox::new()).collect(),
            slots: (0..Calls::slots_for(pcpus)).map(|_| Slot::new()).collect(),
            rounds: (0..Calls::rounds_for(pcpus)).map(|_| Round::new()).collect(),
            state: Mutex::new(state),
            turns: (0..pcpus).map(|_| Condvar::new()).collect(),
        })
    }

    pub(crate) fn pcpus(&self) -> usize {
        self.mailboxes.len()
    }

    /// Its SMP calls.
    pub(crate) fn calls(&self) -> Calls<'_> {
        SmpCalls::new(&self.mailboxes, &self.slots, &self.rounds).unwrap()
    }

    /// What has happened so far.
    pub(crate) fn with_book<R>(&self, f: impl FnOnce(&mut Book) -> R) -> R {
        f(&mut self.lock().book)
    }

    /// Has each pCPU do its work, and then serve until all have; or retire until then, if its work says so.
    pub(crate) fn run(self: &Arc<Self>, work: impl Fn(u16, Calls<'_>) -> AtEnd + Sync) {
        std::thread::scope(|scope| {
            for number in 0..self.pcpus() {
                let work = &work;
                scope.spawn(move || self.be_pcpu(number, work));
            }
        });
    }

    fn be_pcpu(self: &Arc<Self>, me: usize, work: impl Fn(u16, Calls<'_>) -> AtEnd) {
        HERE.set(Some((self.clone(), PcpuId(me as u16))));
        let result = catch_unwind(AssertUnwindSafe(|| {
            drop(self.wait_for_turn(me, self.lock()));
            let calls = self.calls();
            calls.init_smp_call();
            let at_end = work(me as u16, calls);
            if at_end == AtEnd::Retire {
                calls.retire(PcpuState::Parked);
            }
            self.lock().pcpus[me].idle = true;
            let inbox = calls.inbox(PcpuId(me as u16)).unwrap();
            while at_end == AtEnd::Retire && !self.lock().all_idle() {
                self.turn(me, |_| {});
            }
            if at_end == AtEnd::Retire {
                calls.init_smp_call();
            }
            while !self.lock().all_idle() {
                if !inbox.has_pending() {
                    self.turn(me, |pcpu| pcpu.asleep = true);
                    // A kick is taken by waking up.
                    let mut state = self.lock();
                    (state.pcpus[me].asleep, state.pcpus[me].kicked) = (false, false);
                }
                inbox.handle_smp_call_inline(Turns::now());
            }
            inbox.handle_smp_call(Turns::now());
            self.lock().pcpus[me].ended = true;
            self.leave_turn();
        }));
        HERE.set(None);
        if let Err(panic) = result {
            self.lock().failed = true;
            self.turns.iter().for_each(Condvar::notify_all);
            resume_unwind(panic);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes this pCPU, and gives the turn away until it comes back.
    fn turn(&self, me: usize, change: impl FnOnce(&mut Pcpu)) {
        let mut state = self.lock();
        change(&mut state.pcpus[me]);
        let next = state.pick();
        assert!(next.is_some(), "in turn {} somebody waits for ever", state.turn);
        state.current = next.unwrap_or(me);
        self.turns[state.current].notify_one();
        drop(self.wait_for_turn(me, state));
    }

    fn wait_for_turn<'a>(&'a self, me: usize, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waiting = |state: &mut State| state.current != me && !state.failed;
        let state = self.turns[me].wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        assert!(!state.failed, "another pCPU failed");
        state
    }

    /// Gives the turn away for ever.
    fn leave_turn(&self) {
        let mut state = self.lock();
        if let Some(next) = state.pick() {
            state.current = next;
            self.turns[next].notify_one();
        } else {
            assert!(state.pcpus.iter().all(|pcpu| pcpu.ended), "in turn {} somebody waits for ever", state.turn);
        }
    }
}
