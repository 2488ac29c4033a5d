//! A gate before something of a pCPU that others use, and that its owner wants for itself now and then: nobody passes a closed
//! gate, and the owner sees who is still passing when it has closed it.

use crate::arch::PcpuId;
use crate::sync::{AtomicU8, AtomicU32, Ordering, const_unless_loom, fence};

const OPEN: u8 = 0;
const CLOSED: u8 = 1;

/// A gate. One of zero bytes is open.
#[derive(Debug)]
pub struct Gate {
    state: AtomicU8,
    /// How many are passing.
    passing: AtomicU32,
    /// Who came last.
    last: AtomicU32,
}

impl Gate {
    const_unless_loom! {
        /// An open gate.
        pub fn new() -> Self {
            Self { state: AtomicU8::new(OPEN), passing: AtomicU32::new(0), last: AtomicU32::new(0) }
        }
    }

    /// Whether it is open: a hint for who does not pass.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Acts if the gate is open, and says whether it was: the owner waits for the end of `act` after it has closed the gate.
    #[inline]
    pub fn pass(&self, who: PcpuId, act: impl FnOnce()) -> bool {
        self.passing.fetch_add(1, Ordering::Relaxed);
        self.last.store(who.0.into(), Ordering::Relaxed);
        // Pairs with the fence in `close`: of the two, one sees what the other has stored before it. So either this sees the
        // gate closed, or the owner sees this passing.
        fence(Ordering::SeqCst);
        let is_open = self.state.load(Ordering::Relaxed) == OPEN;
        if is_open {
            act();
        }
        // Release: who sees that nobody passes any more sees what was done.
        self.passing.fetch_sub(1, Ordering::Release);
        is_open
    }

    /// Opens it: by its owner.
    pub fn open(&self) {
        // Release: who sees it open sees what the owner has prepared.
        self.state.store(OPEN, Ordering::Release);
    }

    /// Closes it: by its owner, who then waits until there is no [`Self::straggler`].
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Someone who is still passing a gate that was closed, if there is anyone.
    pub fn straggler(&self) -> Option<PcpuId> {
        let nobody = self.passing.load(Ordering::Acquire) == 0;
        if nobody { None } else { Some(PcpuId(self.last.load(Ordering::Relaxed) as u16)) }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_a_closed_gate_and_who_passes_is_seen() {
        let gate = Gate::new();
        assert!(gate.pass(PcpuId(3), || assert_eq!(gate.straggler(), Some(PcpuId(3)))));
        gate.close();
        assert!(!gate.is_open() && gate.straggler().is_none());
        assert!(!gate.pass(PcpuId(3), || panic!("it is closed")));
        gate.open();
        assert!(gate.is_open() && gate.pass(PcpuId(4), || ()));
    }
}
