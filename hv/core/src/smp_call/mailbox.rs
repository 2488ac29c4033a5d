//! A target's mailbox: who may have asked something, and whether the target serves at all.

use super::round::{ROUND_PCPUS_MAX, Round};
use crate::arch::PcpuId;
use crate::sync::{AtomicU8, AtomicU64, Ordering, const_unless_loom};

/// Whether a pCPU serves SMP calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PcpuState {
    /// Not brought up: the state of a zeroed mailbox.
    Offline = 0,
    /// Serves calls: in a guest, in the hypervisor or idle.
    Online = 1,
    /// Waits without a guest for something other than a call.
    Parked = 2,
    /// Taken out of service after a fault; does not come back.
    Stopped = 3,
}

impl core::fmt::Display for PcpuState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Parked => "parked",
            Self::Stopped => "stopped",
        })
    }
}

/// Bits of the pending word. Callers beyond share them: bit `n` is for the callers `n`, `n + 64`, `n + 128`, ... On a machine of
/// no more than [`ROUND_PCPUS_MAX`] pCPUs, bit `n` is for the slot of caller `n`, and bit `n + 32` for its round.
pub(super) const PENDING_BITS: usize = u64::BITS as usize;

/// Somebody may be left of a caller's round.
pub(super) const LOOSE_ROUND: u8 = 1 << 0;
/// A target may not be over with what it was asked by its slot, and nobody waits for.
pub(super) const LOOSE_SLOTS: u8 = 1 << 1;
/// This pCPU runs a function amid a call of its own, or has not collected all answers of its round.
pub(super) const NESTED: u8 = 1 << 2;

/// A target's mailbox: one cache line. Its slots are apart, one for each caller.
///
/// A mailbox of zero bytes is empty and [`PcpuState::Offline`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Mailbox {
    /// Hints which slots and rounds to look into; those decide. One word whatever the number of pCPUs, so that the check
    /// before each entry of a guest is one load.
    pending: AtomicU64,
    /// Calls that this target let pass their deadline.
    late: AtomicU64,
    state: AtomicU8,
    /// The pCPU's own, as a caller: why its next call may have to go without a round, [`LOOSE_ROUND`], [`LOOSE_SLOTS`] and
    /// [`NESTED`].
    loose: AtomicU8,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Mailbox>() == 64);

impl Mailbox {
    const_unless_loom! {
        /// An empty mailbox of a pCPU that is offline.
        pub fn new() -> Self {
            Self { pending: AtomicU64::new(0), late: AtomicU64::new(0), state: AtomicU8::new(0), loose: AtomicU8::new(0) }
        }
    }

    /// Caller: marks its slot as worth a look.
    #[inline]
    pub(super) fn mark_pending(&self, caller: usize) {
        // Release: a target that sees the bit sees the slot posted. What makes the bit visible before the kick
        // arrives is the kick's business (`Arch::arch_smp_call_kick_pcpu`).
        self.pending.fetch_or(1 << (caller % PENDING_BITS), Ordering::Release);
    }

    /// Caller: marks its round as worth a look, on a machine with rounds, whose callers' slots leave bits for them.
    #[inline(always)]
    pub(super) fn mark_round(&self, caller: usize) {
        // Release: as above.
        self.pending.fetch_or(1 << (ROUND_PCPUS_MAX + caller % ROUND_PCPUS_MAX), Ordering::Release);
    }

    /// Caller: why its next call may have to go without a round.
    #[inline(always)]
    pub(super) fn loose(&self) -> u8 {
        self.loose.load(Ordering::Relaxed)
    }

    /// Caller: notes that.
    #[inline(always)]
    pub(super) fn set_loose(&self, loose: u8) {
        self.loose.store(loose, Ordering::Relaxed);
    }

    /// Target: whether anyone may have asked something.
    #[inline(always)]
    pub(super) fn has_pending(&self) -> bool {
        self.pending_marks() != 0
    }

    /// Target: the marks of all who may have asked something.
    #[inline(always)]
    pub(super) fn pending_marks(&self) -> u64 {
        // Relaxed: only a hint; who acts on it takes the bits with acquire.
        self.pending.load(Ordering::Relaxed)
    }

    /// Target: where [`Self::pending_marks`] looks.
    #[cfg(not(loom))]
    pub(super) fn marks_address(&self) -> u64 {
        self.pending.as_ptr() as u64
    }

    /// Target: takes the marks of all callers.
    #[inline(always)]
    pub(super) fn take_pending(&self) -> Callers {
        // Acquire: pairs with `mark_pending`. Taken before the slots are looked into, so that a post which comes
        // too late for this look leaves its mark for the next.
        Callers { bits: self.pending.swap(0, Ordering::Acquire) }
    }

    /// The state that the target has published.
    #[inline]
    pub fn state(&self) -> PcpuState {
        // Acquire: who sees a pCPU online sees it prepared to be kicked.
        match self.state.load(Ordering::Acquire) {
            1 => PcpuState::Online,
            2 => PcpuState::Parked,
            3 => PcpuState::Stopped,
            _ => PcpuState::Offline,
        }
    }

    /// Whether that is [`PcpuState::Online`].
    #[inline(always)]
    pub(super) fn is_online(&self) -> bool {
        // Acquire: as in `state`.
        self.state.load(Ordering::Acquire) == PcpuState::Online as u8
    }

    pub(super) fn set_state(&self, state: PcpuState) {
        // Release: pairs with `state`.
        self.state.store(state as u8, Ordering::Release);
    }

    pub(super) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls that this target let pass their deadline.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

/// The marks taken out of a mailbox.
#[derive(Debug)]
pub(super) struct Callers {
    bits: u64,
}

impl Callers {
    /// The one slot that is worth a look among `slots`, of which there are at most [`PENDING_BITS`], if there is only
    /// one.
    #[inline(always)]
    pub(super) fn only_one<'s, T>(&self, slots: &'s [T]) -> Option<&'s T> {
        if self.bits & self.bits.wrapping_sub(1) != 0 {
            return None;
        }
        // Without a bit, this is no slot's number.
        slots.get(self.bits.trailing_zeros() as usize)
    }

    /// The one round that is worth a look, if there is only one and nothing else, and its caller.
    #[inline(always)]
    pub(super) fn only_round<'r>(&self, rounds: &'r [Round]) -> Option<(PcpuId, &'r Round)> {
        if self.bits & self.bits.wrapping_sub(1) != 0 {
            return None;
        }
        let caller = (self.bits.trailing_zeros() as usize).checked_sub(ROUND_PCPUS_MAX)?;
        Some((PcpuId(caller as u16), rounds.get(caller)?))
    }

    /// Those whose round is worth a look, on a machine with rounds.
    #[inline(always)]
    pub(super) fn rounds(&self) -> impl Iterator<Item = usize> {
        let mut bits = self.bits >> ROUND_PCPUS_MAX;
        core::iter::from_fn(move || {
            let caller = bits.trailing_zeros() as usize;
            let is_there = bits != 0;
            bits &= bits.wrapping_sub(1);
            is_there.then_some(caller)
        })
    }

    /// Goes to the slots that are worth a look among `slots`, each at most once.
    #[inline(always)]
    pub(super) fn for_each<T>(mut self, slots: &[T], mut visit: impl FnMut(usize, &T)) {
        while self.bits != 0 {
            let mut caller = self.bits.trailing_zeros() as usize;
            self.bits &= self.bits - 1;
            while let Some(slot) = slots.get(caller) {
                visit(caller, slot);
                caller += PENDING_BITS;
            }
        }
    }
}
