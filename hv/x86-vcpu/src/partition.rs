//! A partition in the machine: what all of its pCPUs share, and the housekeeping core sees.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use partita_abi::bundle::Bundle;
use partita_core::arch::PcpuId;
use partita_core::explanation::Explanation;
use partita_core::loading::Loading;
use partita_core::partition::PartitionLife;
use partita_core::system::{self, PARTITION_PCPUS_MAX};
use partita_trace::event::Event;
use partita_trace::names::{PolicyKind, StopCause};
use partita_x86_policy::apic_events::Requests;
use partita_x86_policy::apic_view::ApicView;
use partita_x86_policy::msr::MsrPolicy;
use partita_x86_policy::ports::PortPolicy;

use crate::arch::kick;
use crate::clock::Clocks;
use crate::cpu::{percpu, rdtsc};
use crate::trace;

/// A partition.
#[derive(Debug)]
pub struct Partition {
    /// Its number in the system.
    pub number: u16,
    /// Its description.
    pub config: system::Partition,
    /// Its pCPUs; the index is the vCPU's number.
    pub pcpus: Vec<PcpuId, PARTITION_PCPUS_MAX>,
    /// Its vCPUs' APIC IDs, as the ICR filter wants them.
    pub apic_view: ApicView,
    /// Where its memory lies, host-physical.
    pub memory_hpa: u64,
    /// Where that is mapped while it is loaded.
    pub window: u64,
    /// What it is loaded from.
    pub bundle: Bundle<'static>,
    /// How its loading stands.
    pub loading: Loading,
    /// Whether its window is open: the housekeeping core's own.
    pub is_window_open: AtomicBool,
    /// How often it was started.
    pub starts: AtomicU32,
    /// What its guest may do with model-specific registers.
    pub msr_policy: MsrPolicy,
    /// What its guest may do with I/O ports.
    pub port_policy: PortPolicy,
    /// What its guest is told about its clocks.
    pub clocks: Clocks,
    /// Whether its vCPUs' exits are recorded and counted.
    pub traces_exits: bool,
    /// Why it was stopped, if there is more to say than the cause.
    pub explanation: Explanation,
    /// Its life.
    pub life: PartitionLife,
    /// The trace window that its guest announced.
    pub trace_window: TraceWindow,
    /// What its guest tried in vain.
    pub refusals: Refusals,
    /// The housekeeping pCPU, which is told of its end.
    pub housekeeping: PcpuId,
}

/// How often a guest tried what its policy does not allow.
#[derive(Debug, Default)]
pub struct Refusals {
    accesses: AtomicU64,
    ipis: AtomicU64,
}

impl Refusals {
    /// Counts an access to a register, port or hypercall, or an instruction.
    pub fn count_access(&self) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write to the ICR.
    pub fn count_ipi(&self) {
        self.ipis.fetch_add(1, Ordering::Relaxed);
    }

    /// Accesses and IPIs refused so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.accesses.load(Ordering::Relaxed), self.ipis.load(Ordering::Relaxed))
    }
}

/// What a guest announced as its trace window, as yet unchecked but for its range: one word, so that of two vCPUs that
/// announce at the same time one wins whole. Bits 0 to 31 the address in units of 2 MiB, bits 32 to 63 the length in
/// pages; 0 for none.
#[derive(Debug, Default)]
pub struct TraceWindow {
    announced: AtomicU64,
    is_taken: AtomicBool,
}

impl TraceWindow {
    const ADDRESS_SHIFT: u32 = 21;
    const LENGTH_SHIFT: u32 = 12;

    /// Notes a window at a multiple of 2 MiB, of a length that is a multiple of 4 KiB: the first one stays.
    pub fn announce(&self, gpa: u64, len: u64) -> bool {
        let word = gpa >> Self::ADDRESS_SHIFT | (len >> Self::LENGTH_SHIFT) << 32;
        self.announced.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The window the first time it is asked for, by the housekeeping core.
    pub fn take(&self) -> Option<(u64, u64)> {
        self.get().filter(|_| !self.is_taken.swap(true, Ordering::Relaxed))
    }

    /// Forgets the window: the guest that announced it is no more.
    pub fn forget(&self) {
        self.announced.store(0, Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Relaxed);
    }

    /// The window, guest-physical address and length.
    pub fn get(&self) -> Option<(u64, u64)> {
        let word = self.announced.load(Ordering::Relaxed);
        (word != 0).then_some(((word & 0xFFFF_FFFF) << Self::ADDRESS_SHIFT, (word >> 32) << Self::LENGTH_SHIFT))
    }
}

/// Whether something became of a partition that the housekeeping core has not looked at.
static NEWS: AtomicBool = AtomicBool::new(true);

/// Whether something became of a partition since the last time that this was asked, by the housekeeping core.
pub fn take_news() -> bool {
    // Acquire: whoever sees the news sees what they are about.
    NEWS.swap(false, Ordering::Acquire)
}

impl Partition {
    /// Whether `len` bytes from guest-physical `gpa` lie in its memory.
    pub fn owns(&self, gpa: u64, len: u64) -> bool {
        gpa.checked_add(len).is_some_and(|end| end <= self.config.memory_bytes)
    }

    /// Notes what its guest tried in vain, in the trace of the pCPU that executes this.
    #[cold]
    #[inline(never)]
    pub fn note_refusal(&self, kind: PolicyKind, target: u64, value: u64) {
        self.refusals.count_access();
        trace::record_inline(rdtsc(), Event::PolicyRefused { kind, target, value });
    }

    /// Adds to the requests of one of its vCPUs and makes its pCPU look at them.
    pub fn request(&self, vcpu: usize, requests: Requests) {
        if let Some(&pcpu) = self.pcpus.get(vcpu) {
            percpu::public(pcpu).requests.add(requests);
            kick(pcpu);
        }
    }

    /// Notes its guest's trace window and tells the housekeeping core. `false` if it has one already.
    pub fn announce_window(&self, gpa: u64, len: u64) -> bool {
        let is_first = self.trace_window.announce(gpa, len);
        if is_first {
            self.tell();
        }
        is_first
    }

    /// It ends itself with a status, of which `note` makes a note before anyone sees the end. Nothing happens if it is over already.
    pub fn finish(&self, status: u64, note: impl FnOnce()) {
        if self.life.finish(status, note) {
            self.spread_end();
        }
    }

    /// The hypervisor ends it. `false` if it is over already.
    pub fn stop(&self, cause: StopCause, detail: u64) -> bool {
        self.stop_noted(cause, detail, || ())
    }

    /// The same, with a note as of [`Self::finish`].
    pub fn stop_noted(&self, cause: StopCause, detail: u64, note: impl FnOnce()) -> bool {
        let is_first = self.life.stop(cause as u16, detail, note);
        if is_first {
            self.spread_end();
        }
        is_first
    }

    fn spread_end(&self) {
        for vcpu in 0..self.pcpus.len() {
            self.request(vcpu, Requests::STOP);
        }
        self.tell();
    }

    /// Tells the housekeeping core to look.
    fn tell(&self) {
        NEWS.store(true, Ordering::Release);
        kick(self.housekeeping);
    }
}
