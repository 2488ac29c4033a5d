//! pCPUs that are threads of loom, for the models of SMP calls.

use std::cell::Cell;
use std::sync::Arc;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use partita_core::arch::{Arch, Kicks, PcpuId};
use partita_core::smp_call::{Deadline, Mailbox, Reply, Round, Served, Slot, SmpCalls, Stamps};

/// pCPUs that are loom's threads.
#[derive(Debug)]
pub(crate) enum Model {}

loom::thread_local! {
    static ME: Cell<u16> = Cell::new(0);
    /// A clock of one's own: it counts the looks at it, so that a wait ends after some.
    static CLOCK: Cell<u64> = Cell::new(0);
}

loom::lazy_static! {
    /// Kicks: level-triggered, and what was written before is visible after.
    pub(crate) static ref KICKS: [Notify; 3] = [Notify::new(), Notify::new(), Notify::new()];
    /// For each pCPU, the sum of the arguments it ran.
    static ref RAN: [AtomicU64; 3] = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
    /// Calls that ended with an answer, as their callers were told, and as their targets were.
    static ref ANSWERED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    /// 1 for each pCPU that is prepared to be kicked.
    pub(crate) static ref PREPARED: [AtomicU64; 3] = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
}

/// All go out together, by a bit for each pCPU.
#[derive(Default)]
pub(crate) struct All(u8);

impl Kicks for All {
    const NOTE: u8 = 0;

    fn gather(&mut self, target: PcpuId) {
        self.0 |= 1 << target.index();
    }

    fn can_be_sent(&self) -> bool {
        self.0 != 0
    }

    fn send(self) {
        let named = |target: &u16| self.0 & 1 << target != 0;
        (0..3).filter(named).for_each(|target| Model::arch_smp_call_kick_pcpu(PcpuId(target)));
    }
}

impl Arch for Model {
    type Kicks = All;

    fn pcpu() -> PcpuId {
        PcpuId(ME.with(Cell::get))
    }

    fn now() -> u64 {
        CLOCK.with(|clock| clock.replace(clock.get() + 1))
    }

    fn ticks_per_ms() -> u64 {
        1
    }

    fn relax() {
        thread::yield_now();
    }

    fn arch_init_smp_call() {
        PREPARED[Self::pcpu().index()].store(1, Relaxed);
    }

    fn arch_smp_call_kick_pcpu(target: PcpuId) {
        assert_eq!(PREPARED[target.index()].load(Relaxed), 1, "kicked before it is prepared");
        KICKS[target.index()].notify();
    }

    fn smp_call_served(served: &Served) {
        ANSWERED[1].fetch_add(u64::from(served.is_awaited()), Relaxed);
    }

    fn smp_call_answered(_: PcpuId, _: u8, _: &Stamps) {
        ANSWERED[0].fetch_add(1, Relaxed);
    }
}

/// Adds its argument to what this pCPU ran. Arguments are powers of 16, so that the sum tells each call and how often.
pub(crate) fn add(argument: u64) -> u64 {
    let ran = &RAN[Model::pcpu().index()];
    // Not atomic as a whole: two runs at once would lose one.
    ran.store(ran.load(Relaxed) + argument, Relaxed);
    argument + 1
}

pub(crate) fn ran(pcpu: u16) -> u64 {
    RAN[usize::from(pcpu)].load(Relaxed)
}

pub(crate) struct Storage {
    mailboxes: Vec<Mailbox>,
    slots: Vec<Slot>,
    rounds: Vec<Round>,
}

impl Storage {
    /// For so many pCPUs, all online.
    pub(crate) fn new(pcpus: u16) -> Arc<Self> {
        let storage = Self::offline(pcpus);
        (0..pcpus).for_each(|pcpu| storage.be(pcpu).init_smp_call());
        storage
    }

    /// For so many pCPUs, all offline.
    pub(crate) fn offline(pcpus: u16) -> Arc<Self> {
        Arc::new(Self {
            mailboxes: (0..pcpus).map(|_| Mailbox::new()).collect(),
            slots: (0..pcpus * pcpus).map(|_| Slot::new()).collect(),
            rounds: (0..pcpus).map(|_| Round::new()).collect(),
        })
    }

    /// From here on, this thread is that pCPU.
    pub(crate) fn be(&self, pcpu: u16) -> SmpCalls<'_, Model> {
        ME.with(|me| me.set(pcpu));
        SmpCalls::new(&self.mailboxes, &self.slots, &self.rounds).unwrap()
    }
}

/// A deadline that comes after so many looks at the clock.
pub(crate) fn after(ticks: u64) -> Deadline {
    Deadline::at(CLOCK.with(Cell::get) + ticks)
}

/// Looks at the clock before a caller has waited for a turn: for the check of the deadline and the kick.
pub(crate) const ONE_TURN: u64 = 2;

pub(crate) const NEVER: Deadline = Deadline::at(u64::MAX);

/// What must have run if a call with this argument got this reply.
pub(crate) fn expect(reply: Reply, argument: u64) -> u64 {
    match reply {
        Reply::Answered(told) => {
            assert_eq!(told.result, argument + 1, "the result is that of this call");
            assert!(told.stamps.run <= told.stamps.done);
            argument
        }
        Reply::LateRunning => argument,
        Reply::Late => 0,
        Reply::Busy | Reply::Unreachable => panic!("{reply:?}"),
    }
}

/// Likewise for a call without a deadline: nobody is late.
pub(crate) fn expect_answer(reply: Reply, argument: u64) -> u64 {
    assert!(matches!(reply, Reply::Answered(_)), "{reply:?}");
    expect(reply, argument)
}

pub(crate) fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A target that looks again finds nothing left to run.
pub(crate) fn calls_left_run_nothing(storage: &Storage, pcpu: u16, expected: u64) {
    assert_eq!(storage.be(pcpu).handle_smp_call(0), 0);
    assert_eq!(ran(pcpu), expected);
    // A call whose deadline races its end has one that waited, or nobody.
    assert_eq!(ANSWERED[0].load(Relaxed), ANSWERED[1].load(Relaxed));
}
