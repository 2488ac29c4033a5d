//! What several tests need.

use std::alloc::{Layout, alloc, dealloc};

use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};

/// Memory for a region, with a region in it.
pub(crate) struct Memory {
    base: *mut u8,
    layout: Layout,
}

impl Memory {
    /// Memory with dirt in it.
    pub(crate) fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, REGION_ALIGN).unwrap();
        // SAFETY: the length is not zero.
        let base = unsafe { alloc(layout) };
        assert!(!base.is_null());
        // SAFETY: just allocated.
        unsafe { base.write_bytes(0xA5, len) };
        Self { base, layout }
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Makes it a region.
    pub(crate) fn region(&self, spec: &RegionSpec) -> Region<'_> {
        // SAFETY: the memory is this object's, which outlives the region.
        unsafe { Region::init(self.base, self.layout.size(), spec) }.unwrap()
    }

    /// A copy of the bytes, as a dump would be.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: the memory is there, initialised, and no test writes to it meanwhile.
        unsafe { std::slice::from_raw_parts(self.base, self.layout.size()) }.to_vec()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}

/// A small region.
pub(crate) const SPEC: RegionSpec = RegionSpec {
    writer: WriterKind::Hypervisor,
    pcpus: 2,
    ring_slots: 64,
    histograms: true,
    tsc_hz: 1_000_000_000,
    build_id: [0xB1; 20],
};
