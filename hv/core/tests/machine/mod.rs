//! A machine whose pCPUs are threads: the architecture contract's answer for tests.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use partita_core::arch::{Arch, Kicks, PcpuId};
use partita_core::smp_call::{Deadline, Mailbox, PcpuState, Round, Served, Slot, SmpCalls};

/// pCPUs that are threads. A kick is an unpark, which a thread that is not parked remembers.
#[derive(Debug)]
pub(crate) enum Threads {}

/// SMP calls among threads.
pub(crate) type Calls = SmpCalls<'static, Threads>;

/// What the threads of one test share.
pub(crate) struct Machine {
    mailboxes: Vec<Mailbox>,
    slots: Vec<Slot>,
    rounds: Vec<Round>,
    threads: Vec<OnceLock<Thread>>,
    /// Arguments of the calls that each pCPU ran, in order.
    ran: Vec<Mutex<Vec<u64>>>,
    /// What `smp_call_served` told on each pCPU.
    served: Vec<Mutex<Vec<Served>>>,
    working: AtomicUsize,
    all_up: Barrier,
    /// A pCPU's work has panicked: nobody waits for it any more.
    failed: AtomicBool,
}

thread_local! {
    static HERE: Cell<Option<(&'static Machine, PcpuId)>> = const { Cell::new(None) };
    static IN_NMI: Cell<bool> = const { Cell::new(false) };
}

fn here() -> (&'static Machine, PcpuId) {
    HERE.get().expect("a pCPU's thread")
}

/// Kicks go out together to pCPUs 0 to 2, 3 to 5 and so on, but not to every fifth.
#[derive(Debug, Default)]
pub(crate) struct Threes(Vec<PcpuId>);

impl Kicks for Threes {
    const NOTE: u8 = 0;

    fn gather(&mut self, target: PcpuId) {
        self.0.push(target);
    }

    fn can_be_sent(&self) -> bool {
        let fits = |target: &PcpuId| target.index() % 5 != 4 && target.index() / 3 == self.0[0].index() / 3;
        !self.0.is_empty() && self.0.iter().all(fits)
    }

    fn send(self) {
        self.0.into_iter().for_each(Threads::arch_smp_call_kick_pcpu);
    }
}

impl Arch for Threads {
    type Kicks = Threes;

    fn pcpu() -> PcpuId {
        here().1
    }

    fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
    }

    fn ticks_per_ms() -> u64 {
        1_000_000
    }

    fn relax() {
        assert!(!here().0.failed.load(Ordering::Relaxed), "another pCPU failed");
        std::thread::yield_now();
    }

    fn arch_init_smp_call() {
        let (machine, me) = here();
        machine.threads[me.index()].get_or_init(std::thread::current);
    }

    fn arch_smp_call_kick_pcpu(target: PcpuId) {
        here().0.threads[target.index()].get().expect("kicked before it could be").unpark();
    }

    fn in_nmi_context() -> bool {
        IN_NMI.get()
    }

    fn smp_call_served(served: &Served) {
        let (machine, me) = here();
        machine.served[me.index()].lock().unwrap().push(*served);
    }
}

/// The call of most tests: notes its argument where it ran, and answers with the argument and the pCPU.
pub(crate) fn note(argument: u64) -> u64 {
    let (machine, me) = here();
    machine.ran[me.index()].lock().unwrap().push(argument);
    answer(argument, me)
}

/// What [`note`] returns on a pCPU.
pub(crate) fn answer(argument: u64, pcpu: PcpuId) -> u64 {
    argument * 1000 + u64::from(pcpu.0)
}

/// A deadline that no test expects to see.
pub(crate) fn ample() -> Deadline {
    Deadline::after_ms::<Threads>(5000)
}

/// Runs `f` as an NMI handler would.
pub(crate) fn in_nmi<R>(f: impl FnOnce() -> R) -> R {
    IN_NMI.set(true);
    let result = f();
    IN_NMI.set(false);
    result
}

impl Machine {
    /// A machine of so many pCPUs, all offline.
    pub(crate) fn new(pcpus: usize, up: usize) -> &'static Self {
        fn fill<T>(count: usize, make: fn() -> T) -> Vec<T> {
            (0..count).map(|_| make()).collect()
        }
        Box::leak(Box::new(Self {
            mailboxes: fill(pcpus, Mailbox::new),
            slots: fill(Calls::slots_for(pcpus), Slot::new),
            rounds: fill(Calls::rounds_for(pcpus), Round::new),
            threads: fill(pcpus, OnceLock::new),
            ran: fill(pcpus, Mutex::default),
            served: fill(pcpus, Mutex::default),
            working: AtomicUsize::new(up),
            all_up: Barrier::new(up),
            failed: AtomicBool::new(false),
        }))
    }

    /// Its SMP calls.
    pub(crate) fn calls(&'static self) -> Calls {
        Calls::new(&self.mailboxes, &self.slots, &self.rounds).unwrap()
    }

    /// Arguments of the calls that a pCPU ran, in order.
    pub(crate) fn ran(&self, pcpu: u16) -> Vec<u64> {
        self.ran[usize::from(pcpu)].lock().unwrap().clone()
    }

    /// What a pCPU's `smp_call_served` was told.
    pub(crate) fn served(&self, pcpu: u16) -> Vec<Served> {
        self.served[usize::from(pcpu)].lock().unwrap().clone()
    }

    /// Sleeps until kicked, then serves: the idle loop, or a guest, of a pCPU.
    pub(crate) fn serve_once(&'static self, calls: Calls) {
        let inbox = calls.inbox(here().1).unwrap();
        if !inbox.has_pending() {
            std::thread::park();
        }
        inbox.handle_smp_call_inline(Threads::now());
    }

    /// Brings up pCPU 0, 1, ... for each of `work`, has each do its work, and serve until all have.
    pub(crate) fn run(&'static self, work: Vec<Box<dyn FnOnce(Calls) + Send>>) {
        std::thread::scope(|scope| {
            for (number, work) in work.into_iter().enumerate() {
                scope.spawn(move || self.be_pcpu(PcpuId(number as u16), work));
            }
        });
    }

    fn be_pcpu(&'static self, me: PcpuId, work: Box<dyn FnOnce(Calls) + Send>) {
        HERE.set(Some((self, me)));
        let calls = self.calls();
        calls.init_smp_call();
        self.all_up.wait();
        let at_work = AtWork(self);
        work(calls);
        drop(at_work);
        while self.working.load(Ordering::SeqCst) > 0 {
            self.serve_once(calls);
        }
        // What was asked without waiting by the last to work.
        calls.retire(PcpuState::Parked);
        HERE.set(None);
    }
}

/// A pCPU that is at work, also if its work panics: then the others end, and the test fails.
struct AtWork(&'static Machine);

impl Drop for AtWork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.threads.iter().filter_map(OnceLock::get).for_each(Thread::unpark);
        }
    }
}
