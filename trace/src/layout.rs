//! The trace region: one contiguous piece of memory that describes itself.
//!
//! ```text
//! 0        header page: constant words with a CRC-32, window table
//! 4096     rings, one a pCPU, `ring_stride` bytes each
//! ...      histogram banks, one a pCPU (if any)
//! ```
//! Everything is little-endian. The places follow from the number of pCPUs and slots; the header says them too,
//! and [`RegionHeader::parse`] takes a header only if all agree.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crc::{CRC_32_ISO_HDLC, Crc};

pub use crate::error::LayoutError;
use crate::histogram::{BANK_LEN, HistogramBank, HistogramId};
use crate::ring::{RING_HEAD_LEN, Ring, RingHead, SLOT_LEN, SLOTS_MAX, SLOTS_MIN};
use crate::sync::{AtomicU64, Ordering};
use crate::windows::{TAG_CLAIMED, WINDOW_WORDS};
pub use crate::windows::{Window, WindowDamaged, WindowsFull, windows};

pub(crate) const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// First eight bytes of a region.
pub const MAGIC: [u8; 8] = *b"PARTITAT";
/// Version of the region's format. A reader takes exactly its own.
pub const VERSION: u32 = 1;
/// Alignment of a region in physical memory.
pub const REGION_ALIGN: usize = 2 << 20;
/// Longest region in bytes.
pub const REGION_LEN_MAX: usize = 256 << 20;
/// Most pCPUs (rings) of one region.
pub const PCPUS_MAX: u16 = 256;
/// Bytes of the header page.
pub const HEADER_LEN: usize = 4096;
/// Most guest windows.
pub const WINDOWS_MAX: usize = 16;

/// Words of the constant part of the header, its CRC excluded.
const CONSTANT_WORDS: usize = 15;
/// Byte offset of the window table in the header page.
pub const WINDOWS_OFFSET: usize = 1024;

/// Who writes a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum WriterKind {
    /// The hypervisor: ring n is pCPU n's.
    Hypervisor = 1,
    /// A guest: ring n is vCPU n's.
    Guest = 2,
    /// A payload on the bare machine: ring n is CPU n's.
    Bare = 3,
}

impl WriterKind {
    const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Hypervisor),
            2 => Some(Self::Guest),
            3 => Some(Self::Bare),
            _ => None,
        }
    }
}

/// What a region is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Who writes it.
    pub writer: WriterKind,
    /// Rings, one a pCPU (or vCPU); 1 to [`PCPUS_MAX`].
    pub pcpus: u16,
    /// Slots of each ring: a power of two from [`SLOTS_MIN`] to [`SLOTS_MAX`].
    pub ring_slots: u32,
    /// With a histogram bank for each pCPU.
    pub histograms: bool,
    /// Frequency of the TSC in Hz, or 0 if unknown.
    pub tsc_hz: u64,
    /// The GNU build ID of the ELF that writes: it names the table of its log strings.
    pub build_id: [u8; 20],
}

impl RegionSpec {
    /// Bytes from one ring's head to the next.
    pub const fn ring_stride(&self) -> usize {
        RING_HEAD_LEN + self.ring_slots as usize * SLOT_LEN
    }

    const fn histograms_offset(&self) -> usize {
        HEADER_LEN + self.pcpus as usize * self.ring_stride()
    }

    /// Bytes of the region: a multiple of 4096.
    pub const fn len(&self) -> usize {
        let banks = if self.histograms { self.pcpus as usize * BANK_LEN } else { 0 };
        (self.histograms_offset() + banks).next_multiple_of(4096)
    }

    /// Never: a region has at least its header.
    pub const fn is_empty(&self) -> bool {
        false
    }

    const fn check(&self) -> Result<(), LayoutError> {
        if self.pcpus == 0 || self.pcpus > PCPUS_MAX {
            return Err(LayoutError::BadPcpus { pcpus: self.pcpus as u32 });
        }
        if !self.ring_slots.is_power_of_two() || self.ring_slots < SLOTS_MIN || self.ring_slots > SLOTS_MAX {
            return Err(LayoutError::BadSlots { slots: self.ring_slots });
        }
        if self.len() > REGION_LEN_MAX {
            return Err(LayoutError::TooLong { len: self.len() as u64 });
        }
        Ok(())
    }

    /// The constant words of the header.
    fn words(&self) -> [u64; CONSTANT_WORDS] {
        let mut id = [0; 24];
        id[..20].copy_from_slice(&self.build_id);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x] = id;
        let (bank_offset, bank_len, banks) = if self.histograms {
            (self.histograms_offset() as u64, BANK_LEN as u64, HistogramId::COUNT as u64)
        } else {
            (0, 0, 0)
        };
        [
            u64::from_le_bytes(MAGIC),
            pair(VERSION, self.writer as u32),
            self.len() as u64,
            self.tsc_hz,
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            u64::from_le_bytes([q, r, s, t, u, v, w, x]),
            pair(self.pcpus as u32, self.ring_slots),
            HEADER_LEN as u64,
            self.ring_stride() as u64,
            bank_offset,
            bank_len,
            banks,
            WINDOWS_OFFSET as u64,
            WINDOWS_MAX as u64,
        ]
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

pub(crate) fn crc_of_words(words: &[u64]) -> u32 {
    let mut digest = CRC32.digest();
    for word in words {
        digest.update(&word.to_le_bytes());
    }
    digest.finalize()
}

/// A checked header: what it says can be used without further tests, but for the length of the memory behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHeader {
    /// What the region holds.
    pub spec: RegionSpec,
}

impl RegionHeader {
    /// Checks the bytes of a header page. For memory that someone else can write, give it a copy.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, LayoutError> {
        let too_short = LayoutError::TooShort { needed: HEADER_LEN as u64, actual: bytes.len() as u64 };
        if bytes.len() < HEADER_LEN {
            return Err(too_short);
        }
        let mut words = [0; CONSTANT_WORDS + 1];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.try_into().map(u64::from_le_bytes).map_err(|_| too_short)?;
        }
        Self::from_words(&words)
    }

    fn from_words(words: &[u64; CONSTANT_WORDS + 1]) -> Result<Self, LayoutError> {
        let [magic, version_writer, _, tsc_hz, id0, id1, id2, counts, _, _, banks_at, _, _, _, _, crc] = *words;
        let (constant, _) = words.split_at(CONSTANT_WORDS);
        if magic != u64::from_le_bytes(MAGIC) {
            return Err(LayoutError::BadMagic);
        }
        // The CRC comes before the version only in the sense that both are reported truly: a damaged version
        // must not be called a foreign one.
        if crc != u64::from(crc_of_words(constant)) {
            return Err(LayoutError::BadCrc);
        }
        let version = version_writer as u32;
        if version != VERSION {
            return Err(LayoutError::BadVersion { version });
        }
        let raw_writer = (version_writer >> 32) as u32;
        let writer = WriterKind::from_raw(raw_writer).ok_or(LayoutError::BadWriter { writer: raw_writer })?;
        let pcpus = counts as u32;
        let mut build_id = [0; 20];
        for (to, from) in build_id.iter_mut().zip([id0, id1, id2].iter().flat_map(|w| w.to_le_bytes())) {
            *to = from;
        }
        let spec = RegionSpec {
            writer,
            pcpus: u16::try_from(pcpus).map_err(|_| LayoutError::BadPcpus { pcpus })?,
            ring_slots: (counts >> 32) as u32,
            histograms: banks_at != 0,
            tsc_hz,
            build_id,
        };
        spec.check()?;
        // Every place follows from the counts: a header that says anything else is refused as a whole.
        match spec.words().iter().zip(constant).position(|(ours, theirs)| ours != theirs) {
            Some(word) => Err(LayoutError::BadPlace { word }),
            None => Ok(Self { spec }),
        }
    }

    /// Bytes of the region.
    pub const fn region_len(&self) -> usize {
        self.spec.len()
    }

    /// Byte offset of a ring's head.
    pub fn ring_offset(&self, ring: u16) -> Option<usize> {
        (ring < self.spec.pcpus).then(|| HEADER_LEN + ring as usize * self.spec.ring_stride())
    }

    /// Byte offset of a pCPU's histogram bank.
    pub fn bank_offset(&self, pcpu: u16) -> Option<usize> {
        (self.spec.histograms && pcpu < self.spec.pcpus)
            .then(|| self.spec.histograms_offset() + pcpu as usize * BANK_LEN)
    }
}

/// A live region. Everything behind it is accessed through atomics, so any number of threads may hold it; each
/// ring and each histogram bank must have one writer.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    base: NonNull<u8>,
    header: RegionHeader,
    memory: PhantomData<&'a AtomicU64>,
}

// SAFETY: the memory behind it is only ever accessed through atomics.
unsafe impl Send for Region<'_> {}
// SAFETY: as above.
unsafe impl Sync for Region<'_> {}

impl<'a> Region<'a> {
    /// Makes memory a region with empty rings and histograms.
    ///
    /// # Errors
    /// The specification is out of range, or the memory too short or misaligned; it is untouched then.
    ///
    /// # Safety
    /// `base` points to `len` bytes that can be read and written for `'a`, that nobody else accesses until this
    /// returns, and that are accessed only through a [`Region`], or read from outside the program, after.
    pub unsafe fn init(base: *mut u8, len: usize, spec: &RegionSpec) -> Result<Self, LayoutError> {
        spec.check()?;
        let needed = spec.len();
        if len < needed {
            return Err(LayoutError::TooShort { needed: needed as u64, actual: len as u64 });
        }
        if !base.addr().is_multiple_of(REGION_ALIGN) {
            return Err(LayoutError::Misaligned);
        }
        let base = NonNull::new(base).ok_or(LayoutError::Misaligned)?;
        // SAFETY: `needed` bytes are writable and nobody else's (contract).
        unsafe { base.write_bytes(0, needed) };
        let region = Self { base, header: RegionHeader { spec: *spec }, memory: PhantomData };
        for ring in 0..spec.pcpus {
            if let Some(head) = region.ring_head(ring) {
                // SAFETY: the head lies in the region, as zeros.
                unsafe { head.as_ref() }.init(ring, spec.ring_slots);
            }
        }
        let words = spec.words();
        // The magic goes last, behind a release: whoever finds it finds a whole region.
        region.word(CONSTANT_WORDS).store(u64::from(crc_of_words(&words)), Ordering::Relaxed);
        for (i, &word) in words.iter().enumerate().rev() {
            region.word(i).store(word, Ordering::Release);
        }
        Ok(region)
    }

    /// A region that [`Self::init`] made, in this program or another, for instance in a shared mapping.
    ///
    /// # Errors
    /// The header is not one.
    ///
    /// # Safety
    /// `base` points to `len` bytes, aligned to 64, that live for `'a` and are accessed only through atomics.
    pub unsafe fn open(base: *mut u8, len: usize) -> Result<Self, LayoutError> {
        let base = NonNull::new(base).ok_or(LayoutError::Misaligned)?;
        if len < HEADER_LEN {
            return Err(LayoutError::TooShort { needed: HEADER_LEN as u64, actual: len as u64 });
        }
        if !base.addr().get().is_multiple_of(64) {
            return Err(LayoutError::Misaligned);
        }
        let mut words = [0; CONSTANT_WORDS + 1];
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: the header page is there and aligned (checked above).
            let cell = unsafe { base.cast::<AtomicU64>().add(i).as_ref() };
            // Acquire pairs with the release stores of `init`.
            *word = cell.load(Ordering::Acquire);
        }
        let header = RegionHeader::from_words(&words)?;
        if len < header.region_len() {
            return Err(LayoutError::TooShort { needed: header.region_len() as u64, actual: len as u64 });
        }
        Ok(Self { base, header, memory: PhantomData })
    }

    /// The header.
    pub fn header(&self) -> &RegionHeader {
        &self.header
    }

    /// Where it lies.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The ring of a pCPU (or of a vCPU, in a guest's region).
    pub fn ring(&self, ring: u16) -> Option<Ring<'a>> {
        self.ring_head(ring).map(|head| {
            // SAFETY: the slots of the ring follow its head; the spec was checked.
            unsafe { Ring::new(head, self.header.spec.ring_slots) }
        })
    }

    /// The histograms of a pCPU.
    pub fn histograms(&self, pcpu: u16) -> Option<HistogramBank<'a>> {
        let offset = self.header.bank_offset(pcpu)?;
        // SAFETY: the offset lies in the region, on a multiple of 64, with `BANK_LEN` bytes behind it.
        Some(unsafe { HistogramBank::new(self.base.add(offset)) })
    }

    /// Notes a guest's window, in place of the one that its partition had. Any pCPU may call it at any time.
    ///
    /// # Errors
    /// The table is full.
    pub fn add_window(&self, window: Window) -> Result<(), WindowsFull> {
        let tag_of = |entry: usize| self.word(WINDOWS_OFFSET / 8 + entry * WINDOW_WORDS + 3);
        let claim = |entry: &usize, tag: u64| {
            // Claims the entry among pCPUs; nothing is read under the claim, so no ordering is needed.
            tag_of(*entry).compare_exchange(tag, TAG_CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let own = (0..WINDOWS_MAX).find(|entry| {
            let tag = tag_of(*entry).load(Ordering::Relaxed);
            window.has_tag(tag) && claim(entry, tag)
        });
        let entry = own.or_else(|| (0..WINDOWS_MAX).find(|entry| claim(entry, 0))).ok_or(WindowsFull)?;
        let first = WINDOWS_OFFSET / 8 + entry * WINDOW_WORDS;
        for (offset, word) in [window.gpa, window.hpa, window.len].into_iter().enumerate() {
            // Release: whoever sees a word of this window sees that its tag is gone.
            self.word(first + offset).store(word, Ordering::Release);
        }
        // Release: whoever sees the final tag sees the words before it.
        tag_of(entry).store(window.tag(), Ordering::Release);
        Ok(())
    }

    fn ring_head(&self, ring: u16) -> Option<NonNull<RingHead>> {
        let offset = self.header.ring_offset(ring)?;
        // SAFETY: the offset lies in the region.
        Some(unsafe { self.base.add(offset) }.cast())
    }

    /// A word of the header page.
    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < HEADER_LEN / 8);
        // SAFETY: callers stay in the header page, which is there and aligned.
        unsafe { self.base.cast::<AtomicU64>().add(index).as_ref() }
    }
}
