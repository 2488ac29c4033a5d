//! What a caller learns: times, answers, outcomes and errors.

use crate::arch::{Arch, PcpuId};
use crate::pcpu_set::PcpuSet;

/// When the steps of one call happened, in ticks of [`Arch::now`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// The caller began to post.
    pub posted: u64,
    /// The caller was about to kick. 0 if the target was done before that.
    pub kicked: u64,
    /// The target's first stamp after it left its guest, or when it looked into its mailbox otherwise. It precedes
    /// `kicked` if the target was out of its guest already.
    pub entered: u64,
    /// The function was about to run.
    pub run: u64,
    /// The function had run.
    pub done: u64,
}

impl Stamps {
    /// Ticks from the kick to the target's exit, if it was the kick that made the target leave its guest.
    pub const fn kick_to_exit(&self) -> Option<u64> {
        if self.kicked == 0 { None } else { self.entered.checked_sub(self.kicked) }
    }
}

/// The answer of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the function returned.
    pub result: u64,
    /// When what happened.
    pub stamps: Stamps,
    /// When the caller had seen it, in ticks of [`Arch::now`].
    pub seen: u64,
}

/// What one target made of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The function ran.
    Answered(Answer),
    /// The deadline passed before the target began; the call is withdrawn and will never run.
    Late,
    /// The deadline passed while the function ran, or the target stopped in it for a fault of its own. If it goes on, it
    /// runs to its end, and its result is lost; until then the target is [`Reply::Busy`] for this caller.
    LateRunning,
    /// An earlier call from this pCPU to this target is not over, so that this one was not made.
    Busy,
    /// The target does not serve calls (see [`super::SmpCalls::state`]); this one was not made, or withdrawn.
    Unreachable,
}

/// Which targets answered and which did not. Each target of the call is in exactly one of the sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOutcome {
    /// The function ran.
    pub answered: PcpuSet,
    /// [`Reply::Late`]: withdrawn, will never run.
    pub late: PcpuSet,
    /// [`Reply::LateRunning`]: ran, or runs still.
    pub late_running: PcpuSet,
    /// [`Reply::Busy`]: not asked.
    pub busy: PcpuSet,
    /// [`Reply::Unreachable`]: not asked, or withdrawn.
    pub unreachable: PcpuSet,
    /// When the wait was over, in ticks of [`Arch::now`].
    pub ended: u64,
}

impl CallOutcome {
    /// Whether every target answered.
    pub fn all_answered(&self) -> bool {
        self.missing().is_empty()
    }

    /// The targets that did not answer, for whatever reason.
    pub fn missing(&self) -> PcpuSet {
        self.late.union(&self.late_running).union(&self.busy).union(&self.unreachable)
    }

    pub(super) fn note(&mut self, target: PcpuId, reply: &Reply) {
        let set = match reply {
            Reply::Answered(_) => &mut self.answered,
            Reply::Late => &mut self.late,
            Reply::LateRunning => &mut self.late_running,
            Reply::Busy => &mut self.busy,
            Reply::Unreachable => &mut self.unreachable,
        };
        put(set, target);
    }
}

/// Which targets a call that nobody waits for went to. Each target is in exactly one of the sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostOutcome {
    /// The function runs there once: it has, it will at once, or, if the target retires just now, when that comes back.
    pub accepted: PcpuSet,
    /// An earlier call from this pCPU is not over there: not asked.
    pub busy: PcpuSet,
    /// Serves no calls: not asked.
    pub unreachable: PcpuSet,
}

/// Adds a target that is known to be below [`crate::pcpu_set::PCPUS_MAX`], because it came out of a set.
pub(super) fn put(set: &mut PcpuSet, target: PcpuId) {
    let in_range = set.insert(target);
    debug_assert!(in_range.is_ok(), "{target} came out of a set");
}

/// One call as its target saw it, told to [`Arch::smp_call_served`] after the acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who called.
    pub caller: PcpuId,
    /// What the function returned.
    pub result: u64,
    /// When what happened. `None` if it waited for the answer when the function had run; then it is told of it by
    /// [`Arch::smp_call_answered`].
    pub stamps: Option<Stamps>,
}

impl Served {
    /// Whether its caller waited for the answer when the function had run.
    pub const fn is_awaited(&self) -> bool {
        self.stamps.is_none()
    }
}

/// Why a call was not made: no target was asked and nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No pCPU was named.
    EmptySet,
    /// The machine has no pCPU of this number.
    NoSuchPcpu {
        /// The number.
        pcpu: PcpuId,
        /// How many pCPUs there are.
        count: usize,
    },
    /// The deadline was not in the future.
    DeadlinePassed {
        /// The deadline.
        deadline: Deadline,
        /// The time of the call.
        now: u64,
    },
    /// Made in NMI context, where a wait could not be interrupted and the mailbox may be in use.
    NmiContext,
}

impl core::fmt::Display for CallError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::EmptySet => f.write_str("SMP call to no pCPU; name at least one"),
            Self::NoSuchPcpu { pcpu, count } => {
                write!(f, "SMP call to {pcpu}, but the machine has {count} pCPUs; name one below {count}")
            }
            Self::DeadlinePassed { deadline, now } => write!(
                f,
                "SMP call with a deadline at tick {}, but it is tick {now} already; allow it some time",
                deadline.ticks()
            ),
            Self::NmiContext => f.write_str("SMP call from NMI context; leave a note and call after the NMI"),
        }
    }
}

impl core::error::Error for CallError {}

/// Milliseconds that a call waits if nobody says otherwise.
pub const DEFAULT_DEADLINE_MS: u32 = 100;

/// A moment, in ticks of [`Arch::now`], at which a caller stops to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// The moment at which the clock shows `ticks`.
    pub const fn at(ticks: u64) -> Self {
        Self(ticks)
    }

    /// The moment in `milliseconds` from now.
    #[inline]
    pub fn after_ms<A: Arch>(milliseconds: u32) -> Self {
        Self(A::now().saturating_add(A::ticks_per_ms().saturating_mul(u64::from(milliseconds))))
    }

    /// What the clock shows at that moment.
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// Whether the moment has come at the time `now`.
    pub const fn has_passed(self, now: u64) -> bool {
        now >= self.0
    }
}
