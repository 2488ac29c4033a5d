//! Log-linear histograms in fixed memory: always on, so that nothing is lost when a ring wraps.
//!
//! Values below 32 have a bucket each; above, every octave has 16 buckets, so that a bucket is at most 1/16 of
//! its lowest value wide. Every 64-bit value has a bucket, so that recording needs no clamp.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::names::ExitReason;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Buckets in one octave, as a power of two.
pub const SUB_BITS: u32 = 4;
/// Buckets of one histogram.
pub const BUCKETS: usize = ((u64::BITS - SUB_BITS - 1) as usize) * (1 << SUB_BITS) + (2 << SUB_BITS);
/// Bytes of one histogram in a bank.
pub const HISTOGRAM_LEN: usize = 3968;
/// Bytes of a bank: the histograms of one pCPU.
pub const BANK_LEN: usize = HISTOGRAM_LEN * HistogramId::COUNT;

/// The bucket of a value.
#[inline(always)]
pub const fn bucket_of(ticks: u64) -> usize {
    // With bit 4 set the logarithm is at least 4, so that small values need no branch of their own: their shift
    // is 0 and they are their own index.
    let shift = (ticks | (1 << SUB_BITS)).ilog2() - SUB_BITS;
    let mantissa = (ticks >> shift) as usize;
    mantissa + ((shift as usize) << SUB_BITS)
}

/// The lowest and the highest value of a bucket below [`BUCKETS`].
pub const fn bucket_range(bucket: usize) -> (u64, u64) {
    if bucket < (1 << SUB_BITS) {
        return (bucket as u64, bucket as u64);
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let mantissa = (bucket - (shift << SUB_BITS)) as u64;
    let low = mantissa << shift;
    (low, low + ((1 << shift) - 1))
}

/// What a histogram is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HistogramId {
    /// Durations of exits for one reason.
    Exit(ExitReason),
    /// Durations of exits for the ICR that sent IPIs themselves. What reads histograms adds these to those of
    /// [`ExitReason::IcrWrite`]; in memory they count here alone.
    IcrForward,
    /// From the sender's stamp to the target's first stamp after the exit, kicked by NMI; to when it was served, if the
    /// target was out of its guest already. In the bank of the caller of the SMP call, or in the target's if nobody
    /// waited for its answer any more: each served call counts once in the machine.
    KickNmi,
    /// The same, kicked by a vector.
    KickVector,
    /// Round trips of SMP calls, at the caller.
    SmpCall,
}

impl HistogramId {
    /// Number of histograms in a bank: their indices are `0..COUNT`.
    pub const COUNT: usize = ExitReason::COUNT + 4;

    /// The histogram whose values are this one's, too.
    pub const fn part(self) -> Option<Self> {
        match self {
            Self::Exit(ExitReason::IcrWrite) => Some(Self::IcrForward),
            _ => None,
        }
    }

    /// A dense index: its place in the bank.
    #[inline(always)]
    pub const fn as_index(self) -> usize {
        match self {
            Self::Exit(reason) => reason.as_index(),
            Self::IcrForward => ExitReason::COUNT,
            Self::KickNmi => ExitReason::COUNT + 1,
            Self::KickVector => ExitReason::COUNT + 2,
            Self::SmpCall => ExitReason::COUNT + 3,
        }
    }

    /// The histogram with this index.
    pub const fn from_index(index: usize) -> Option<Self> {
        if let Some(reason) = ExitReason::from_index(index) {
            return Some(Self::Exit(reason));
        }
        match index.wrapping_sub(ExitReason::COUNT) {
            0 => Some(Self::IcrForward),
            1 => Some(Self::KickNmi),
            2 => Some(Self::KickVector),
            3 => Some(Self::SmpCall),
            _ => None,
        }
    }

    /// Its group in `hist.json`: `exit`, `ipi`, `kick` or `smp_call`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Exit(_) => "exit",
            Self::IcrForward => "ipi",
            Self::KickNmi | Self::KickVector => "kick",
            Self::SmpCall => "smp_call",
        }
    }

    /// Its name in its group.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit(reason) => reason.name(),
            Self::IcrForward => "icr_forward",
            Self::KickNmi => "nmi",
            Self::KickVector => "vector",
            Self::SmpCall => "roundtrip",
        }
    }
}

/// One histogram in shared memory. All zeros is empty.
#[repr(C, align(64))]
pub(crate) struct Cells {
    pub(crate) count: AtomicU64,
    pub(crate) sum: AtomicU64,
    pub(crate) max: AtomicU64,
    /// `u64::MAX` minus the minimum, so that zeroed memory is an empty histogram.
    pub(crate) min_inverted: AtomicU64,
    pub(crate) buckets: [AtomicU32; BUCKETS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Cells>() == HISTOGRAM_LEN);
// Four pCPUs' histograms are a small part of the hypervisor's memory.
const _: () = assert!(4 * BANK_LEN <= 360 << 10);

/// The histograms of one pCPU, of which the caller is the only writer. A reader elsewhere may see a value in one
/// counter and not yet in another; each counter is exact when the writer rests.
pub struct HistogramBank<'a> {
    cells: NonNull<Cells>,
    memory: PhantomData<&'a Cells>,
}

// SAFETY: the memory behind it is only ever accessed through atomics.
unsafe impl Send for HistogramBank<'_> {}

impl<'a> HistogramBank<'a> {
    /// A bank at `base`.
    ///
    /// # Safety
    /// `base` is aligned to 64 bytes and points to [`BANK_LEN`] bytes that live for the bank's lifetime, start as
    /// zeros or as an earlier bank's, and are accessed only through atomics meanwhile.
    pub unsafe fn new(base: NonNull<u8>) -> Self {
        Self { cells: base.cast(), memory: PhantomData }
    }

    /// Its address, for a writer in assembly that counts in its stead.
    #[cfg(not(loom))]
    pub fn base(&self) -> u64 {
        self.cells.as_ptr() as u64
    }

    /// The counters of one histogram.
    #[inline(always)]
    pub(crate) fn cells(&self, id: HistogramId) -> &'a Cells {
        // SAFETY: the index is below `HistogramId::COUNT`, which `BANK_LEN` covers (contract of `new`).
        unsafe { self.cells.add(id.as_index()).as_ref() }
    }

    /// A copy of one histogram.
    #[cfg(any(test, feature = "std", loom))]
    pub fn snapshot(&self, id: HistogramId) -> HistogramSnapshot {
        let own = self.snapshot_cells(id);
        match id.part() {
            Some(part) => own.with(&self.snapshot_cells(part)),
            None => own,
        }
    }

    #[cfg(any(test, feature = "std", loom))]
    fn snapshot_cells(&self, id: HistogramId) -> HistogramSnapshot {
        let cells = self.cells(id);
        HistogramSnapshot {
            id,
            count: cells.count.load(Ordering::Relaxed),
            sum: cells.sum.load(Ordering::Relaxed),
            max: cells.max.load(Ordering::Relaxed),
            min: !cells.min_inverted.load(Ordering::Relaxed),
            buckets: cells.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect(),
        }
    }

    /// Counts a duration: wait-free, with a bounded handful of plain loads and stores.
    #[inline(always)]
    pub fn record(&mut self, id: HistogramId, ticks: u64) {
        let cells = self.cells(id);
        // SAFETY: `bucket_of` is below `BUCKETS` for every value.
        let bucket = unsafe { cells.buckets.get_unchecked(bucket_of(ticks)) };
        // Relaxed loads and stores, no read-modify-write: there is one writer, and no counter orders another.
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        add(&cells.count, 1);
        add(&cells.sum, ticks);
        raise(&cells.max, ticks);
        raise(&cells.min_inverted, !ticks);
    }
}

#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

#[inline(always)]
fn raise(counter: &AtomicU64, value: u64) {
    // An atomic load would take a register and an instruction of its own.
    // SAFETY: only the calling writer stores the counter, so that nothing races with its own ordinary load.
    #[cfg(not(loom))]
    let highest = unsafe { *counter.as_ptr() };
    #[cfg(loom)]
    let highest = counter.load(Ordering::Relaxed);
    if value > highest {
        counter.store(value, Ordering::Relaxed);
    }
}

/// A copy of a histogram.
#[cfg(any(test, feature = "std", loom))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// What it is about.
    pub id: HistogramId,
    /// Recorded values.
    pub count: u64,
    /// Their sum, modulo 2^64.
    pub sum: u64,
    /// The lowest; `u64::MAX` if there is none.
    pub min: u64,
    /// The highest; 0 if there is none.
    pub max: u64,
    buckets: Vec<u32>,
}

#[cfg(any(test, feature = "std", loom))]
impl HistogramSnapshot {
    /// The same with the values of another.
    #[must_use]
    pub fn with(mut self, part: &Self) -> Self {
        self.count = self.count.wrapping_add(part.count);
        self.sum = self.sum.wrapping_add(part.sum);
        (self.min, self.max) = (self.min.min(part.min), self.max.max(part.max));
        self.buckets.iter_mut().zip(&part.buckets).for_each(|(own, more)| *own = own.wrapping_add(*more));
        self
    }

    /// A histogram of a dump: [`HISTOGRAM_LEN`] bytes, or `None` if fewer are there.
    pub fn from_bytes(id: HistogramId, bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(32)?;
        let buckets = rest.get(..BUCKETS * 4)?;
        let mut words = head.chunks_exact(8).filter_map(|w| w.try_into().ok().map(u64::from_le_bytes));
        Some(Self {
            id,
            count: words.next()?,
            sum: words.next()?,
            max: words.next()?,
            min: !words.next()?,
            buckets: buckets.chunks_exact(4).filter_map(|b| b.try_into().ok().map(u32::from_le_bytes)).collect(),
        })
    }

    /// The buckets that are not empty: lowest value, highest value, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u32)> + '_ {
        self.buckets.iter().enumerate().filter(|(_, n)| **n != 0).map(|(i, &n)| {
            let (low, high) = bucket_range(i);
            (low, high, n)
        })
    }

    /// The counters agree with each other: not so if it was copied in the middle of a record, is damaged, or a
    /// bucket counted past 2^32.
    pub fn is_consistent(&self) -> bool {
        let total: u64 = self.buckets.iter().map(|&n| u64::from(n)).sum();
        let mut filled = self.buckets();
        match filled.next() {
            None => self.count == 0,
            Some((low, high, _)) => {
                let (last_low, last_high, _) = filled.last().unwrap_or((low, high, 0));
                total == self.count && (low..=high).contains(&self.min) && (last_low..=last_high).contains(&self.max)
            }
        }
    }
}
