//! The request word of a vCPU: what others ask of it, and read by it before each entry.

use core::sync::atomic::{AtomicU32, Ordering};

use partita_x86_policy::apic_events::Requests;

/// Not a request of anyone: set by a vCPU itself when it starts, so that its first exit looks at the word.
const STARTED: u32 = 1 << 31;
/// Nor is this: set by a pCPU itself when an SMP call leaves an order, so that one look at this word is enough for both.
const ORDERED: u32 = 1 << 30;

/// How often a request that has a place in the order of others tries to get it: a real-time core waits for nobody.
const MERGE_TRIES: u32 = 64;

/// A request word, in the encoding of `partita_x86_policy::apic_events`.
#[derive(Debug, Default)]
pub struct RequestWord(AtomicU32);

impl RequestWord {
    /// No requests.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Adds requests. The caller kicks the vCPU afterwards.
    pub fn add(&self, later: Requests) {
        // Release, here and below: the target that takes the requests sees what was done before they were made.
        if !later.init() && later.sipi_vector().is_none() {
            self.0.fetch_or(later.word(), Ordering::Release);
            return;
        }
        let mut old = self.0.load(Ordering::Relaxed);
        for _ in 0..MERGE_TRIES {
            let merged = Requests::from_word(old).merge(later).word() | old & (STARTED | ORDERED);
            match self.0.compare_exchange_weak(old, merged, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
        // The partition's own vCPUs flood the word. An INIT or SIPI of theirs may then lose its place in their order.
        self.0.fetch_or(later.word(), Ordering::Release);
    }

    /// Notes, on the vCPU's own pCPU, that it starts.
    pub fn note_start(&self) {
        self.0.fetch_or(STARTED, Ordering::Relaxed);
    }

    /// Notes, on the vCPU's own pCPU, that there is an order.
    pub fn note_order(&self) {
        self.0.fetch_or(ORDERED, Ordering::Relaxed);
    }

    /// Forgets that note, on the vCPU's own pCPU, before the order is looked at.
    pub fn forget_order(&self) {
        self.0.fetch_and(!ORDERED, Ordering::Relaxed);
    }

    /// What there is to take, as a number: 0 for nothing.
    #[inline(always)]
    pub fn peek(&self) -> u32 {
        // Relaxed: only a hint; who acts on it takes the word with acquire.
        self.0.load(Ordering::Relaxed)
    }

    /// Its address, for the [quick exits](crate::vcpu::quick).
    pub fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// Takes the requests, and whether the vCPU has just started.
    pub fn take(&self) -> (Requests, bool) {
        let word = self.0.swap(0, Ordering::Acquire);
        (Requests::from_word(word), word & STARTED != 0)
    }
}
