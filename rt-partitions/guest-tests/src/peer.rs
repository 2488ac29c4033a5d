//! CPU 1: it does what CPU 0 asks for, and takes interrupts in between.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use partita_rt::{Error, Machine, cpu, rdtsc, wait_until};

use crate::catch::open;
use crate::tables;

/// CPUs of a test.
pub(crate) const CPUS: usize = 2;

/// What CPU 1 is to do.
static JOB: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// How often CPU 1 started.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// The two CPUs of a test, as CPU 0 sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// x2APIC ID of CPU 0.
    pub(crate) own: u32,
    /// x2APIC ID of CPU 1.
    pub(crate) peer: u32,
    settling: u64,
}

impl Pair {
    /// Starts CPU 1.
    pub(crate) fn start(machine: &Machine) -> Result<Self, Error> {
        let [own, peer, ..] = machine.apic_ids[..] else {
            return Err(Error::TooFewCpus { found: machine.apic_ids.len(), needed: CPUS });
        };
        cpu::start(machine, 1, serve)?;
        wait_until(1, || starts() == 1)?;
        Ok(Self { own, peer, settling: machine.clocks.tsc_hz / 5000 })
    }

    /// Has CPU 1 call `job`, and waits for its end, taking interrupts meanwhile.
    pub(crate) fn call(&self, job: fn()) -> Result<(), Error> {
        self.begin(job);
        self.wait(|| JOB.load(Ordering::Acquire).is_null())
    }

    /// Has CPU 1 call `job`.
    pub(crate) fn begin(&self, job: fn()) {
        JOB.store(job as *mut (), Ordering::Release);
    }

    /// Waits, taking interrupts.
    pub(crate) fn wait(&self, done: impl Fn() -> bool) -> Result<(), Error> {
        wait_until(1, || {
            open();
            done()
        })
    }

    /// Gives everything that is under way 200 us to arrive.
    pub(crate) fn settle(&self) {
        let start = rdtsc();
        while rdtsc().wrapping_sub(start) < self.settling {
            open();
        }
    }
}

/// How often CPU 1 started.
pub(crate) fn starts() -> u64 {
    STARTS.load(Ordering::Acquire)
}

fn serve() -> ! {
    tables::load(1);
    JOB.store(core::ptr::null_mut(), Ordering::Release);
    STARTS.fetch_add(1, Ordering::Release);
    loop {
        open();
        let job = JOB.load(Ordering::Acquire);
        if !job.is_null() {
            // SAFETY: only functions of this type are stored, by `begin`.
            let job: fn() = unsafe { core::mem::transmute(job) };
            job();
            JOB.store(core::ptr::null_mut(), Ordering::Release);
        }
    }
}
