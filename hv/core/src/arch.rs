//! The architecture contract: what common code asks of the machine it runs on.
//!
//! x86_64 answers it in `partita-x86-vcpu`; a mock made of threads answers it in tests. It is resolved at compile
//! time, and small enough to read in one breath.

use crate::smp_call::{Served, Stamps};

/// Number of a physical CPU, dense from 0. It is not an APIC ID: the architecture looks that up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcpuId(pub u16);

impl PcpuId {
    /// The number as an index into tables that have an entry for each pCPU.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl core::fmt::Display for PcpuId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "pCPU {}", self.0)
    }
}

/// What an architecture provides to common code. All functions are called on the pCPU they are about, unless
/// they take a target.
pub trait Arch: 'static {
    /// The pCPU that executes this.
    fn pcpu() -> PcpuId;

    /// The time in ticks of the trace clock, which all pCPUs share.
    fn now() -> u64;

    /// Ticks of [`Self::now`] in one millisecond. At least 1.
    fn ticks_per_ms() -> u64;

    /// Tells the CPU that it is spinning.
    fn relax();

    /// Prepares this pCPU to be kicked: called on each pCPU before anyone may call it, and again when it comes back
    /// into service.
    fn arch_init_smp_call();

    /// Makes `target` leave its guest, or wake from its idle wait, soon, and serve its mailbox. A kick is
    /// level-triggered: several may merge, none may be lost. Everything written before the call must be visible to
    /// the target when the kick arrives.
    fn arch_smp_call_kick_pcpu(target: PcpuId);

    /// Kicks to several pCPUs that go out together; `()` where each goes by itself.
    type Kicks: Kicks;

    /// Whether this runs in NMI context, where SMP calls are refused.
    fn in_nmi_context() -> bool {
        false
    }

    /// Told on the target about each SMP call it has served, after the acknowledgement. It is part of the time that
    /// the call takes from the target's guest.
    fn smp_call_served(served: &Served) {
        let _ = served;
    }

    /// What the architecture wants to know about a kick when its call is answered, such as its kind: asked right before
    /// the kick, and handed to [`Self::smp_call_answered`].
    fn kick_note(target: PcpuId) -> u8 {
        let _ = target;
        0
    }

    /// Told on the caller about each answer that it waited for and got in time.
    fn smp_call_answered(target: PcpuId, kick_note: u8, stamps: &Stamps) {
        let _ = (target, kick_note, stamps);
    }
}

/// Kicks to several pCPUs that go out together, each as [`Arch::arch_smp_call_kick_pcpu`] says. None at first.
pub trait Kicks: Default {
    /// What [`Arch::kick_note`] says of pCPUs that are kicked together.
    const NOTE: u8;

    /// Adds one.
    fn gather(&mut self, target: PcpuId);

    /// Whether those that were gathered can be kicked together. `false` for none.
    fn can_be_sent(&self) -> bool;

    /// Kicks them all, if they can be.
    fn send(self);
}

impl Kicks for () {
    const NOTE: u8 = 0;

    #[inline(always)]
    fn gather(&mut self, _: PcpuId) {}

    #[inline(always)]
    fn can_be_sent(&self) -> bool {
        false
    }

    #[inline(always)]
    fn send(self) {}
}
