//! Whom a partition's vCPUs can name: their x2APIC IDs, and sets of them.

use partita_core::system::PARTITION_PCPUS_MAX;

/// Most vCPUs of one partition: a [`VcpuMask`] has a bit for each.
pub const VCPUS_MAX: usize = PARTITION_PCPUS_MAX;
const _: () = assert!(VCPUS_MAX == u32::BITS as usize);

/// The physical destination that names every CPU (SDM vol. 3, "x2APIC mode ICR"). No APIC has it as its ID.
pub const BROADCAST: u32 = u32::MAX;

/// A set of one partition's vCPUs: bit n is vCPU n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VcpuMask(pub u32);

impl VcpuMask {
    /// No vCPU.
    pub const EMPTY: Self = Self(0);

    /// The vCPU `vcpu` alone, or nobody if no partition can have so many.
    #[inline]
    pub const fn single(vcpu: usize) -> Self {
        if vcpu < VCPUS_MAX { Self(1 << vcpu) } else { Self(0) }
    }

    /// The first `count` vCPUs.
    #[inline]
    pub const fn first(count: usize) -> Self {
        if count < VCPUS_MAX { Self((1 << count) - 1) } else { Self(u32::MAX) }
    }

    /// Whether nobody is in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vcpu` is in the set.
    #[inline]
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 & Self::single(vcpu).0 != 0
    }

    /// The set without `vcpu`.
    #[inline]
    pub const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !Self::single(vcpu).0)
    }

    /// How many are in the set.
    #[inline]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl Iterator for VcpuMask {
    type Item = usize;

    /// Takes the lowest vCPU out of the set.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let vcpu = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(vcpu)
    }
}

/// The x2APIC IDs of one partition's vCPUs. Guest APIC IDs are the physical ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApicView {
    count: u32,
    /// [`BROADCAST`] from `count` on.
    ids: [u32; VCPUS_MAX],
    /// Those below 64, a bit for each.
    low_ids: u64,
}

/// Why a list of IDs is no [`ApicView`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApicViewError {
    /// No vCPU at all.
    Empty,
    /// More than [`VCPUS_MAX`].
    TooMany {
        /// How many.
        count: usize,
    },
    /// [`BROADCAST`] is no ID.
    Broadcast,
    /// Two vCPUs with one ID.
    Duplicate {
        /// The ID.
        id: u32,
    },
}

impl core::fmt::Display for ApicViewError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => write!(f, "a partition without a vCPU; give it at least one pCPU"),
            Self::TooMany { count } => write!(f, "{count} vCPUs in one partition; it can have at most {VCPUS_MAX}"),
            Self::Broadcast => {
                write!(f, "APIC ID {BROADCAST:#x} is the broadcast address; the firmware's MADT is wrong")
            }
            Self::Duplicate { id } => write!(f, "APIC ID {id:#x} twice in one partition; list each pCPU once"),
        }
    }
}

impl core::error::Error for ApicViewError {}

impl ApicView {
    /// The view of a partition whose vCPU n runs on the CPU with x2APIC ID `ids[n]`.
    ///
    /// # Errors
    /// None or too many IDs, the broadcast address, or an ID twice.
    pub fn new(ids: &[u32]) -> Result<Self, ApicViewError> {
        if ids.is_empty() {
            return Err(ApicViewError::Empty);
        }
        let mut view = Self { count: 0, ids: [BROADCAST; VCPUS_MAX], low_ids: 0 };
        for &id in ids {
            if id == BROADCAST {
                return Err(ApicViewError::Broadcast);
            }
            if view.vcpu_with_id(id).is_some() {
                return Err(ApicViewError::Duplicate { id });
            }
            let slot = view.ids.get_mut(view.count as usize).ok_or(ApicViewError::TooMany { count: ids.len() })?;
            *slot = id;
            view.count += 1;
            if id < u64::BITS {
                view.low_ids |= 1 << id;
            }
        }
        Ok(view)
    }

    /// The x2APIC IDs in the order of the vCPUs.
    #[inline]
    pub fn ids(&self) -> &[u32] {
        self.ids.get(..self.count as usize).unwrap_or(&[])
    }

    /// The number of vCPUs, 1 to [`VCPUS_MAX`].
    #[inline]
    pub const fn vcpus(&self) -> u32 {
        self.count
    }

    /// All vCPUs.
    #[inline]
    pub const fn all(&self) -> VcpuMask {
        VcpuMask::first(self.count as usize)
    }

    /// The x2APIC ID of a vCPU.
    #[inline]
    pub fn id(&self, vcpu: usize) -> Option<u32> {
        self.ids().get(vcpu).copied()
    }

    /// The vCPU with this physical x2APIC ID.
    #[inline]
    pub fn vcpu_with_id(&self, id: u32) -> Option<usize> {
        // Unused slots hold the broadcast address, so that the count need not be looked at.
        if id == BROADCAST { None } else { self.ids.iter().position(|&own| own == id) }
    }

    /// The x2APIC IDs of its vCPUs that are below 64, a bit for each.
    pub const fn low_ids(&self) -> u64 {
        self.low_ids
    }

    /// The vCPUs that a logical destination names: IDs `destination[31:16]` of one cluster of 16, a bit for each.
    pub fn with_logical(&self, destination: u32) -> VcpuMask {
        let mut mask = 0;
        let mut bit = 1u32;
        for &id in self.ids() {
            let own = logical_id(id);
            if own >> 16 == destination >> 16 && own & destination & 0xFFFF != 0 {
                mask |= bit;
            }
            bit = bit.wrapping_shl(1);
        }
        VcpuMask(mask)
    }

    /// Bits that the largest ID of the partition takes: the width of its one package in CPUID's topology leaves.
    pub fn id_bits(&self) -> u32 {
        let largest = self.ids().iter().copied().max().unwrap_or(0);
        u32::BITS - largest.leading_zeros()
    }
}

/// The logical x2APIC ID (LDR) that hardware derives from an ID: the cluster in the upper half, one bit in the lower
/// (SDM vol. 3, "Logical destination mode in x2APIC mode").
#[inline]
pub const fn logical_id(id: u32) -> u32 {
    ((id >> 4) << 16) | (1 << (id & 15))
}

/// The same for who sends to it: `None` for an ID whose cluster the register does not hold, from 2^20 on, and for those of the
/// last cluster, which broadcasts name.
#[inline]
pub const fn logical_destination(id: u32) -> Option<u32> {
    if id < 0xF_FFF0 { Some(logical_id(id)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_knows_its_ids_and_no_others() {
        let view = ApicView::new(&[2, 3, 0x123]).unwrap();
        assert_eq!((view.vcpus(), view.all(), view.id_bits()), (3, VcpuMask(0b111), 9));
        assert_eq!(view.vcpu_with_id(0x123), Some(2));
        assert_eq!(view.vcpu_with_id(0), None);
        assert_eq!(view.vcpu_with_id(BROADCAST), None, "unused slots match nothing");
        assert_eq!((view.id(1), view.id(3), view.id(usize::MAX)), (Some(3), None, None));
    }

    #[test]
    fn logical_ids_are_cluster_and_bit() {
        assert_eq!(logical_id(2), 0b100);
        assert_eq!(logical_id(0x123), (0x12 << 16) | (1 << 3));
        assert_eq!(logical_destination(0xF_FFEF), Some(0xFFFE_8000));
        assert_eq!((logical_destination(0xF_FFF0), logical_destination(0x10_0000)), (None, None));
        let view = ApicView::new(&[2, 3, 0x13]).unwrap();
        assert_eq!(view.with_logical(0xFFFF), VcpuMask(0b011));
        assert_eq!(view.with_logical((1 << 16) | (1 << 3)), VcpuMask(0b100));
        assert_eq!(view.with_logical(1 << 16), VcpuMask::EMPTY);
    }

    #[test]
    fn wrong_lists_are_refused() {
        assert_eq!(ApicView::new(&[]), Err(ApicViewError::Empty));
        assert_eq!(ApicView::new(&[1, 2, 1]), Err(ApicViewError::Duplicate { id: 1 }));
        assert_eq!(ApicView::new(&[BROADCAST]), Err(ApicViewError::Broadcast));
        let ids: Vec<u32> = (0..33).collect();
        assert_eq!(ApicView::new(&ids), Err(ApicViewError::TooMany { count: 33 }));
        assert_eq!(ApicView::new(&ids[..32]).unwrap().all(), VcpuMask(u32::MAX));
    }

    #[test]
    fn a_mask_is_walked_from_the_lowest_vcpu() {
        assert_eq!(VcpuMask(0x8000_0011).collect::<Vec<_>>(), [0, 4, 31]);
        assert!(!VcpuMask(u32::MAX).contains(32));
        assert_eq!(VcpuMask(0b11).without(0), VcpuMask(0b10));
        assert_eq!(VcpuMask(0b11).len(), 2);
    }
}
