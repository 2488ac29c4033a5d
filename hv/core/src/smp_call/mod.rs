//! SMP calls: one pCPU has others run a function.
//!
//! Each target has a [`Mailbox`] and one [`Slot`] for each caller, so that any number of pCPUs call at once, also
//! each other, without a lock: a slot has one producer. A caller posts function and argument in its slot, marks it
//! in the mailbox, kicks the target, and waits with a deadline; meanwhile it serves what is asked of itself. The
//! target leaves its guest, runs what is posted and acknowledges.
//!
//! What this promises, and by which ordering:
//! - **Once or reported**: a call leaves `Posted` by one compare-and-swap, of the target that claims it or of the
//!   caller that withdraws it; a target leaves `todo` of a round by one read-modify-write of either. A target that wakes late finds nothing.
//! - **Never stale**: the release of the post and the acquire of the claim order the function and argument; a slot
//!   is not written again before its call is over.
//! - **Never lost**: mark and slot are written before the kick, kicks are level-triggered, and a target takes the
//!   marks before it looks into the slots.
//! - **Never hangs**: targets that do not serve are reported at once, late ones at the deadline.

mod call;
mod go_round;
mod mailbox;
#[cfg(all(test, not(loom)))]
mod model;
mod reply;
mod round;
mod serve;
mod slot;
mod target;

pub use call::SmpCalls;
pub use mailbox::{Mailbox, PcpuState};
pub use reply::{Answer, CallError, CallOutcome, DEFAULT_DEADLINE_MS, Deadline, PostOutcome, Reply, Served, Stamps};
pub use round::{ROUND_PCPUS_MAX, Round};
pub use serve::Inbox;
pub use slot::{Function, Phase, Slot};
