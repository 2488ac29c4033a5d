//! A ring in a static, for what is logged before the region exists: its frames move into a ring of the region
//! later.

use core::ptr::NonNull;

use crate::ring::{Ring, RingHead, Slot};

/// A ring of `SLOTS` slots (a power of two) in a static.
#[repr(C, align(64))]
pub struct StaticRing<const SLOTS: usize> {
    head: RingHead,
    slots: [Slot; SLOTS],
}

impl<const SLOTS: usize> StaticRing<SLOTS> {
    /// An empty ring.
    #[cfg(not(loom))]
    #[expect(clippy::new_without_default, reason = "a default that is not const cannot fill a static")]
    pub const fn new() -> Self {
        // SAFETY: it consists of atomic integers only, for which zero is a value.
        unsafe { core::mem::zeroed() }
    }

    /// An empty ring; loom's atomics have no const constructor.
    #[cfg(loom)]
    #[expect(clippy::new_without_default, reason = "as without loom")]
    pub fn new() -> Self {
        Self { head: RingHead::default(), slots: core::array::from_fn(|_| Slot::default()) }
    }

    /// The ring.
    pub const fn ring(&self) -> Ring<'_> {
        const { assert!(SLOTS.is_power_of_two() && SLOTS > crate::ring::FRAME_SLOTS_MAX) };
        let head = NonNull::from_ref(self).cast::<RingHead>();
        // SAFETY: the slots follow the head (repr(C), and the head's length is a multiple of any alignment in it);
        // all of it is atomics.
        unsafe { Ring::new(head, SLOTS as u32) }
    }
}
