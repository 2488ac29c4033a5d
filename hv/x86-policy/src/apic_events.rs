//! What arrives at a vCPU besides interrupts: NMI, INIT, SIPI and the order to stop, as bits in a request word, and
//! the state machine that turns them into what to do at the next entry.
//!
//! Senders put [`Requests`] into the target's word and kick it; nothing of this reaches hardware as such.
//!
//! NMI blocking. Where the CPU has no virtual NMI, a second NMI waits for the guest's IRET, which is intercepted
//! meanwhile. That exit comes *before* the IRET runs. Injecting there would push a frame onto the stack that the IRET
//! is about to pop, and overwrite it if the handler has a stack of its own (IST). So the IRET is stepped over first.

/// Requests to a vCPU, as they stand in its request word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests(u32);

const NMI: u32 = 1 << 0;
const INIT: u32 = 1 << 1;
const SIPI: u32 = 1 << 2;
const STOP: u32 = 1 << 3;
const VECTOR_SHIFT: u32 = 8;
const VECTOR: u32 = 0xFF << VECTOR_SHIFT;

impl Requests {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A non-maskable interrupt.
    pub const NMI: Self = Self(NMI);
    /// A reset to wait-for-SIPI.
    pub const INIT: Self = Self(INIT);
    /// The vCPU must not enter its guest any more.
    pub const STOP: Self = Self(STOP);

    /// A start at `vector << 12`.
    #[inline]
    pub const fn sipi(vector: u8) -> Self {
        Self(SIPI | (vector as u32) << VECTOR_SHIFT)
    }

    /// Reads a request word.
    #[inline]
    pub const fn from_word(word: u32) -> Self {
        let known = word & (NMI | INIT | SIPI | STOP);
        Self(if known & SIPI != 0 { known | word & VECTOR } else { known })
    }

    /// The request word.
    #[inline]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Whether nothing is requested.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether an NMI is requested.
    #[inline]
    pub const fn nmi(self) -> bool {
        self.0 & NMI != 0
    }

    /// Whether an INIT is requested.
    #[inline]
    pub const fn init(self) -> bool {
        self.0 & INIT != 0
    }

    /// The vector of a requested SIPI.
    #[inline]
    pub const fn sipi_vector(self) -> Option<u8> {
        if self.0 & SIPI != 0 { Some((self.0 >> VECTOR_SHIFT) as u8) } else { None }
    }

    /// Whether a stop is requested.
    #[inline]
    pub const fn stop(self) -> bool {
        self.0 & STOP != 0
    }

    /// Whether what was about to be delivered to the vCPU is of no account any more: these requests do not wait until it has
    /// been. A guest can arrange for a delivery that never ends.
    pub const fn drops_events(self) -> bool {
        self.stop() || self.init()
    }

    /// This word after `later` came in: to be stored by compare-and-swap. An INIT undoes an NMI and a SIPI that came
    /// before it; the first of several SIPIs counts.
    pub const fn merge(self, later: Self) -> Self {
        let mut old = self.0;
        if later.0 & INIT != 0 {
            old &= !(NMI | SIPI | VECTOR);
        }
        let new = if old & SIPI != 0 { later.0 & !(SIPI | VECTOR) } else { later.0 };
        Self(old | new)
    }
}

/// Whether a vCPU executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Its guest runs.
    Running,
    /// It waits for a SIPI, in the hypervisor.
    WaitForSipi,
    /// It has ended.
    Stopped,
}

/// Whether a vCPU may get an NMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NmiState {
    /// It may.
    Idle,
    /// It is in its NMI handler, up to the next IRET.
    Blocked,
    /// Likewise, and one more waits.
    BlockedPending,
    /// The IRET at this RIP is about to run, or has run: the vCPU tells by its RIP when the next NMI comes.
    AtIret {
        /// Guest RIP of the IRET.
        rip: u64,
    },
    /// The IRET is being stepped over; an NMI follows.
    Stepping,
}

/// What a vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuAction {
    /// Enter the guest.
    Enter,
    /// Inject an NMI and enter.
    InjectNmi,
    /// Set RFLAGS.TF, intercept #DB and enter; then call [`VcpuEvents::on_step`].
    StepOverIret,
    /// Put the vCPU into its state after INIT, with CS = `vector << 8` and RIP = 0, and enter.
    Start {
        /// The SIPI's vector.
        vector: u8,
    },
    /// Do not enter: wait for requests.
    Wait,
    /// Do not enter: park for ever.
    Stop,
}

/// The events' state of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuEvents {
    run: RunState,
    nmi: NmiState,
    hardware_nmi: bool,
}

impl VcpuEvents {
    /// A vCPU that starts in `run`. With `hardware_nmi` the CPU itself keeps NMIs back until the guest's IRET (VNMI);
    /// the caller then makes an NMI pending there at each [`VcpuAction::InjectNmi`].
    pub const fn new(run: RunState, hardware_nmi: bool) -> Self {
        Self { run, nmi: NmiState::Idle, hardware_nmi }
    }

    /// Whether it executes.
    #[inline]
    pub const fn run(&self) -> RunState {
        self.run
    }

    /// Whether it may get an NMI.
    #[inline]
    pub const fn nmi(&self) -> NmiState {
        self.nmi
    }

    /// Whether IRET is to be intercepted at the next entry.
    #[inline]
    pub const fn intercepts_iret(&self) -> bool {
        matches!(self.nmi, NmiState::Blocked | NmiState::BlockedPending)
    }

    /// Takes requests, the guest's next instruction being at `rip`.
    ///
    /// Stop before INIT before SIPI before NMI. A SIPI that nobody waits for is ignored. An NMI to a vCPU that waits
    /// for its SIPI is dropped, as is one that comes together with the SIPI: it would run into a real-mode vector
    /// table that the guest has not made. (The manuals promise nothing here; KVM keeps it.)
    #[must_use]
    pub const fn on_request(&mut self, requests: Requests, rip: u64) -> VcpuAction {
        if requests.stop() {
            self.run = RunState::Stopped;
        }
        if let RunState::Stopped = self.run {
            return VcpuAction::Stop;
        }
        if requests.init() {
            self.run = RunState::WaitForSipi;
            self.nmi = NmiState::Idle;
        }
        if let RunState::WaitForSipi = self.run {
            return match requests.sipi_vector() {
                Some(vector) => {
                    self.run = RunState::Running;
                    VcpuAction::Start { vector }
                }
                None => VcpuAction::Wait,
            };
        }
        if requests.nmi() { self.on_nmi(rip) } else { VcpuAction::Enter }
    }

    const fn on_nmi(&mut self, next: u64) -> VcpuAction {
        let (nmi, action) = match self.nmi {
            NmiState::Idle => (NmiState::Blocked, VcpuAction::InjectNmi),
            NmiState::Blocked | NmiState::BlockedPending => (NmiState::BlockedPending, VcpuAction::Enter),
            NmiState::AtIret { rip } if rip == next => (NmiState::Stepping, VcpuAction::StepOverIret),
            NmiState::AtIret { .. } => (NmiState::Blocked, VcpuAction::InjectNmi),
            NmiState::Stepping => (NmiState::Stepping, VcpuAction::Enter),
        };
        if !self.hardware_nmi {
            self.nmi = nmi;
        }
        action
    }

    /// Takes the exit at the guest's IRET at `rip`, which has not run yet.
    #[must_use]
    pub const fn on_iret(&mut self, rip: u64) -> VcpuAction {
        let (nmi, action) = match self.nmi {
            NmiState::Blocked => (NmiState::AtIret { rip }, VcpuAction::Enter),
            NmiState::BlockedPending => (NmiState::Stepping, VcpuAction::StepOverIret),
            other => (other, VcpuAction::Enter),
        };
        self.nmi = nmi;
        action
    }

    /// Takes the #DB after the IRET has run.
    #[must_use]
    pub const fn on_step(&mut self) -> VcpuAction {
        match self.nmi {
            NmiState::Stepping => {
                self.nmi = NmiState::Blocked;
                VcpuAction::InjectNmi
            }
            _ => VcpuAction::Enter,
        }
    }
}
