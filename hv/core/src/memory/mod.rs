//! The division of host-physical memory among the hypervisor and the partitions. Pure: it gets lists and returns one.

mod range;
#[cfg(test)]
mod tests;

use heapless::Vec;
use partita_abi::guest::MEMORY_GRANULE;

use range::{Free, TooManyRanges};
pub use range::{RANGES_MAX, Range};

use crate::system::PARTITIONS_MAX;

/// Whose a range is that is taken before memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The hypervisor's image.
    Hypervisor,
    /// The boot bundle.
    Bundle,
    /// The firmware's and the machine's: the low 1 MiB, ACPI tables and the like.
    Firmware,
}

/// What memory one partition wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes; a multiple of [`MEMORY_GRANULE`] above 0.
    pub bytes: u64,
    /// The host-physical address, a multiple of [`MEMORY_GRANULE`], or `None` for any.
    pub at: Option<u64>,
}

/// What is to be divided.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// RAM, as the loader describes it; in any order, and it may overlap.
    pub usable: &'a [Range],
    /// What is taken already; it need not lie in RAM.
    pub reserved: &'a [(Owner, Range)],
    /// Bytes that the hypervisor wants for itself, in one piece.
    pub pool_bytes: u64,
    /// Where that piece has to end at the latest, host-physical: what the boot mappings reach.
    pub pool_end: u64,
    /// What each partition wants.
    pub partitions: &'a [Wanted],
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// The hypervisor's own memory, beginning on a multiple of [`MEMORY_GRANULE`].
    pub pool: Range,
    /// The memory of each partition, by its number.
    pub partitions: Vec<Range, PARTITIONS_MAX>,
    /// Who has how much.
    pub totals: Totals,
}

/// Bytes of RAM by owner. They add up to [`Self::usable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All RAM.
    pub usable: u64,
    /// All partitions together.
    pub partitions: u64,
    /// The boot bundle.
    pub bundle: u64,
    /// The hypervisor: image and pool.
    pub hypervisor: u64,
    /// The firmware and the machine.
    pub firmware: u64,
    /// Nobody.
    pub unassigned: u64,
}

/// Why memory cannot be divided as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DivideError {
    /// Memory falls into more than [`RANGES_MAX`] ranges.
    TooManyRanges,
    /// More partitions than [`PARTITIONS_MAX`].
    TooManyPartitions {
        /// How many.
        count: usize,
    },
    /// A size or an address is no multiple of [`MEMORY_GRANULE`], or the size is 0.
    Misaligned {
        /// The partition's number.
        partition: usize,
        /// The size or the address.
        value: u64,
    },
    /// Not all of a partition's fixed range is free RAM.
    NotFree {
        /// The partition's number.
        partition: usize,
        /// The range it wants.
        range: Range,
        /// Bytes of it that are no RAM, or taken.
        missing: u64,
    },
    /// No free range is large enough for a partition.
    NoRoom {
        /// The partition's number.
        partition: usize,
        /// Bytes it wants.
        bytes: u64,
        /// Bytes that the largest free range lacks.
        missing: u64,
    },
    /// No free range is large enough for the hypervisor.
    NoLowRoomForHypervisor {
        /// What it wants.
        bytes: u64,
        /// Where it has to end.
        end: u64,
    },
    /// There is no range that the hypervisor's own memory fits into.
    NoRoomForHypervisor {
        /// Bytes it wants.
        bytes: u64,
        /// Bytes that the largest free range lacks.
        missing: u64,
    },
}

impl From<TooManyRanges> for DivideError {
    fn from(_: TooManyRanges) -> Self {
        Self::TooManyRanges
    }
}

/// A number of bytes as people read it.
struct KiB(u64);

impl core::fmt::Display for KiB {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
        }
    }
}

impl core::fmt::Display for DivideError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let granule = KiB(MEMORY_GRANULE);
        match *self {
            Self::TooManyRanges => {
                write!(f, "memory falls into more than {RANGES_MAX} ranges; give the partitions no fixed addresses")
            }
            Self::TooManyPartitions { count } => {
                write!(f, "{count} partitions; at most {PARTITIONS_MAX} are possible")
            }
            Self::Misaligned { partition, value } => write!(
                f,
                "partition {partition}: memory size or address {value:#x} is no multiple of {granule}; make it one"
            ),
            Self::NotFree { partition, range, missing } => write!(
                f,
                "partition {partition}: {} of its memory {range} are no free RAM; let the hypervisor choose the address",
                KiB(missing)
            ),
            Self::NoRoom { partition, bytes, missing } => write!(
                f,
                "partition {partition}: {} of memory do not fit, {} are missing; give the machine more or the partitions less",
                KiB(bytes),
                KiB(missing)
            ),
            Self::NoLowRoomForHypervisor { bytes, end } => write!(
                f,
                "no room below {end:#x} for the hypervisor's own {bytes} bytes; put partitions with memory_at higher"
            ),
            Self::NoRoomForHypervisor { bytes, missing } => write!(
                f,
                "the hypervisor's {} of memory do not fit, {} are missing; give the machine more or the partitions less",
                KiB(bytes),
                KiB(missing)
            ),
        }
    }
}

impl core::error::Error for DivideError {}

/// The highest range of `bytes` bytes, at a multiple of `align` (a power of two), that is in `usable`, not in `taken`, and
/// ends at `end` or below.
pub fn highest_room(usable: &[Range], taken: &[Range], bytes: u64, align: u64, end: u64) -> Option<Range> {
    let mut free = Free::of(usable).ok()?;
    for range in taken {
        free.take(range).ok()?;
    }
    free.find_last(bytes, align, end)
}

/// Divides the memory: fixed ranges first, then the hypervisor's, then the other partitions' from the largest to
/// the smallest, each at the lowest place that is left. The same request always gets the same division.
///
/// # Errors
/// See [`DivideError`].
pub fn divide(request: &Request<'_>) -> Result<Division, DivideError> {
    let count = request.partitions.len();
    if count > PARTITIONS_MAX {
        return Err(DivideError::TooManyPartitions { count });
    }
    let mut free = Free::of(request.usable)?;
    let mut totals = Totals { usable: free.bytes(), ..Totals::default() };
    for (owner, range) in request.reserved {
        let total = match owner {
            Owner::Hypervisor => &mut totals.hypervisor,
            Owner::Bundle => &mut totals.bundle,
            Owner::Firmware => &mut totals.firmware,
        };
        *total += free.take(range)?;
    }

    let mut placed = [Range::default(); PARTITIONS_MAX];
    for (partition, (place, wanted)) in placed.iter_mut().zip(request.partitions).enumerate() {
        let odd = |value: &u64| !value.is_multiple_of(MEMORY_GRANULE);
        if let Some(value) = [wanted.bytes, wanted.at.unwrap_or(0)].into_iter().find(odd) {
            return Err(DivideError::Misaligned { partition, value });
        }
        if wanted.bytes == 0 {
            return Err(DivideError::Misaligned { partition, value: 0 });
        }
        if let Some(at) = wanted.at {
            let range = Range::at(at, wanted.bytes);
            // Of what was wanted, not of the range: it may be cut off at the end of the address space.
            let missing = wanted.bytes - free.bytes_in(&range);
            if missing != 0 {
                return Err(DivideError::NotFree { partition, range, missing });
            }
            free.take(&range)?;
            *place = range;
        }
    }

    let bytes = request.pool_bytes;
    let missing = bytes.saturating_sub(free.largest(MEMORY_GRANULE));
    let pool = free.find(bytes, MEMORY_GRANULE).ok_or(DivideError::NoRoomForHypervisor { bytes, missing })?;
    // The lowest place that is large enough was taken.
    if pool.end > request.pool_end {
        return Err(DivideError::NoLowRoomForHypervisor { bytes, end: request.pool_end });
    }
    totals.hypervisor += free.take(&pool)?;

    let mut by_size: Vec<(usize, u64), PARTITIONS_MAX> = Vec::new();
    for (partition, wanted) in request.partitions.iter().enumerate().filter(|(_, wanted)| wanted.at.is_none()) {
        by_size.push((partition, wanted.bytes)).map_err(|_| DivideError::TooManyPartitions { count })?;
    }
    by_size.sort_unstable_by_key(|(partition, bytes)| (core::cmp::Reverse(*bytes), *partition));
    for (partition, bytes) in by_size {
        let missing = bytes.saturating_sub(free.largest(MEMORY_GRANULE));
        let range = free.find(bytes, MEMORY_GRANULE).ok_or(DivideError::NoRoom { partition, bytes, missing })?;
        free.take(&range)?;
        if let Some(place) = placed.get_mut(partition) {
            *place = range;
        }
    }

    totals.partitions = request.partitions.iter().map(|wanted| wanted.bytes).sum();
    totals.unassigned = free.bytes();
    let partitions = placed.into_iter().take(count).collect();
    Ok(Division { pool, partitions, totals })
}
