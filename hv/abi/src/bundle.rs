//! The boot bundle: the one module that the hypervisor boots with.
//!
//! ```text
//! header            64 bytes
//! section table     section_count * 48 bytes
//! section data      each on a 4 KiB boundary
//! ```
//! All numbers are little-endian. Two CRC-32 (ISO-HDLC) sums cover everything: one the header, one all bytes
//! after it. [`Bundle::parse`] checks both, and every offset, before anything else looks inside.

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// First eight bytes of a bundle.
pub const MAGIC: [u8; 8] = *b"PARTITAB";
/// Version of the container and of the configuration in it. A hypervisor takes exactly its own.
pub const VERSION: u32 = 4;
/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Bytes of one entry of the section table.
pub const SECTION_LEN: usize = 48;
/// Most sections a bundle can have.
pub const SECTIONS_MAX: usize = 1024;
/// Alignment of section data in the bundle.
pub const DATA_ALIGN: usize = 4096;
/// The `partition` of a section that belongs to none.
pub const NO_PARTITION: u32 = u32::MAX;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// The system description, in postcard encoding. Exactly one, and the first.
    Config = 1,
    /// Bytes for a partition's memory: `len` bytes copied to `gpa`, zeros up to `mem_len`.
    Segment = 2,
}

impl SectionKind {
    const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Config),
            2 => Some(Self::Segment),
            _ => None,
        }
    }
}

/// One section of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// Number of the partition it belongs to, or [`NO_PARTITION`].
    pub partition: u32,
    /// Guest-physical address of a segment; 0 for others.
    pub gpa: u64,
    /// Bytes the segment takes in memory, at least `data.len()`; 0 for others.
    pub mem_len: u64,
    /// Its bytes.
    pub data: &'a [u8],
}

/// Why bytes are not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleError {
    /// Shorter than the header or than the header says; `expected` bytes are needed.
    Truncated {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        actual: u64,
    },
    /// The magic is another: not a bundle at all.
    BadMagic,
    /// Made for another version of the hypervisor.
    BadVersion {
        /// The version found; this crate's is [`VERSION`].
        found: u32,
    },
    /// A checksum differs: damaged.
    BadChecksum {
        /// Which part: "header" or "contents".
        part: &'static str,
        /// The sum stored in the bundle.
        stored: u32,
        /// The sum of the bytes.
        computed: u32,
    },
    /// A section's kind, range or memory length makes no sense.
    BadSection {
        /// Its number, from 0.
        index: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than [`SECTIONS_MAX`] sections.
    TooManySections {
        /// How many the header says.
        found: u32,
    },
}

impl core::fmt::Display for BundleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated { expected, actual } => {
                write!(f, "the boot bundle is truncated: {expected} bytes needed, {actual} there; build it again")
            }
            Self::BadMagic => write!(f, "not a Partita boot bundle (wrong magic); pass one as the only boot module"),
            Self::BadVersion { found } => {
                write!(f, "boot bundle version {found}, this hypervisor takes {VERSION}; build both from one tree")
            }
            Self::BadChecksum { part, stored, computed } => write!(
                f,
                "the boot bundle is damaged: checksum of its {part} {computed:#010x}, stored {stored:#010x}; build it again"
            ),
            Self::BadSection { index, why } => write!(f, "boot bundle section {index}: {why}"),
            Self::TooManySections { found } => write!(f, "{found} boot bundle sections, at most {SECTIONS_MAX}"),
        }
    }
}

impl core::error::Error for BundleError {}

/// A bundle whose sums and ranges have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    count: u32,
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

// Header: magic 0, version 8, section_count 12, total_len 16, contents_crc 24, zeros, header_crc 60.
const AT_VERSION: usize = 8;
const AT_COUNT: usize = 12;
const AT_TOTAL: usize = 16;
const AT_CONTENTS_CRC: usize = 24;
const AT_HEADER_CRC: usize = 60;

impl<'a> Bundle<'a> {
    /// Checks everything that can be checked without knowing the system, and returns the bundle.
    /// `bytes` may be longer than the bundle, as a boot module padded by its loader is.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let actual = bytes.len() as u64;
        let short = |expected: u64| BundleError::Truncated { expected, actual };
        let header = bytes.get(..HEADER_LEN).ok_or(short(HEADER_LEN as u64))?;
        if header[..8] != MAGIC {
            return Err(BundleError::BadMagic);
        }
        let field = |at| le32(header, at).unwrap_or(0);
        let computed = CRC32.checksum(&header[..AT_HEADER_CRC]);
        if computed != field(AT_HEADER_CRC) {
            return Err(BundleError::BadChecksum { part: "header", stored: field(AT_HEADER_CRC), computed });
        }
        if field(AT_VERSION) != VERSION {
            return Err(BundleError::BadVersion { found: field(AT_VERSION) });
        }
        let total = le64(header, AT_TOTAL).unwrap_or(0);
        let bytes = usize::try_from(total).ok().and_then(|total| bytes.get(..total)).ok_or(short(total))?;
        let computed = CRC32.checksum(bytes.get(HEADER_LEN..).ok_or(short(HEADER_LEN as u64))?);
        if computed != field(AT_CONTENTS_CRC) {
            return Err(BundleError::BadChecksum { part: "contents", stored: field(AT_CONTENTS_CRC), computed });
        }
        let count = field(AT_COUNT);
        if count as usize > SECTIONS_MAX {
            return Err(BundleError::TooManySections { found: count });
        }
        let bundle = Self { bytes, count };
        for index in 0..count {
            let section = bundle.read_section(index)?;
            let is_config = section.kind == SectionKind::Config;
            if is_config != (index == 0) {
                return Err(BundleError::BadSection { index, why: "the configuration is not the first section" });
            }
        }
        if count == 0 {
            return Err(BundleError::BadSection { index: 0, why: "the configuration is missing" });
        }
        Ok(bundle)
    }

    fn read_section(&self, index: u32) -> Result<Section<'a>, BundleError> {
        let bad = |why| BundleError::BadSection { index, why };
        let at = HEADER_LEN + index as usize * SECTION_LEN;
        let outside = bad("its table entry lies outside the bundle");
        let entry = self.bytes.get(at..at + SECTION_LEN).ok_or(outside)?;
        let word32 = |at| le32(entry, at).unwrap_or(0);
        let word64 = |at| le64(entry, at).unwrap_or(0);
        let kind = SectionKind::from_raw(word32(0)).ok_or(bad("unknown kind"))?;
        let (offset, len, gpa, mem_len) = (word64(8), word64(16), word64(24), word64(32));
        let end = offset.checked_add(len).ok_or(bad("its range overflows"))?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        let data =
            range.and_then(|(from, to)| self.bytes.get(from..to)).ok_or(bad("its bytes lie outside the bundle"))?;
        if kind == SectionKind::Segment {
            if mem_len < len {
                return Err(bad("its memory is smaller than its bytes"));
            }
            if gpa.checked_add(mem_len).is_none() {
                return Err(bad("its guest-physical range overflows"));
            }
        }
        Ok(Section { kind, partition: word32(4), gpa, mem_len, data })
    }

    /// The bundle's length in bytes.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the bundle has no bytes, which a parsed one never has.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All sections, the configuration first.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + Clone + '_ {
        // Every section was read once by `parse`, so that none is dropped here.
        (0..self.count).filter_map(|index| self.read_section(index).ok())
    }

    /// The encoded system description.
    pub fn config(&self) -> &'a [u8] {
        self.sections().next().map_or(&[], |section| section.data)
    }

    /// The segments of one partition, in the order of the bundle.
    pub fn segments(&self, partition: u32) -> impl Iterator<Item = Section<'a>> + Clone + '_ {
        self.sections().filter(move |s| s.kind == SectionKind::Segment && s.partition == partition)
    }
}

/// Builds a bundle, on the host.
#[cfg(any(test, feature = "std"))]
#[derive(Debug, Default)]
pub struct BundleBuilder {
    segments: Vec<(u32, u64, u64, Vec<u8>)>,
}

#[cfg(any(test, feature = "std"))]
impl BundleBuilder {
    /// An empty bundle.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes for the memory of `partition`: `data` at `gpa`, then zeros up to `mem_len` bytes
    /// (raised to the length of `data` if it is smaller).
    pub fn segment(&mut self, partition: u32, gpa: u64, mem_len: u64, data: Vec<u8>) -> &mut Self {
        let mem_len = mem_len.max(data.len() as u64);
        self.segments.push((partition, gpa, mem_len, data));
        self
    }

    /// The finished bundle with `config` as its system description.
    pub fn build(&self, config: &[u8]) -> Vec<u8> {
        let count = self.segments.len() + 1;
        let align = |len: usize| len.next_multiple_of(DATA_ALIGN);
        let mut table = Vec::with_capacity(count * SECTION_LEN);
        let mut data = Vec::new();
        let data_base = align(HEADER_LEN + count * SECTION_LEN);
        let mut add = |kind: SectionKind, partition: u32, gpa: u64, mem_len: u64, bytes: &[u8]| {
            let offset = (data_base + data.len()) as u64;
            table.extend_from_slice(&(kind as u32).to_le_bytes());
            table.extend_from_slice(&partition.to_le_bytes());
            for word in [offset, bytes.len() as u64, gpa, mem_len, 0] {
                table.extend_from_slice(&word.to_le_bytes());
            }
            data.extend_from_slice(bytes);
            data.resize(align(data.len()), 0);
        };
        add(SectionKind::Config, NO_PARTITION, 0, 0, config);
        for (partition, gpa, mem_len, bytes) in &self.segments {
            add(SectionKind::Segment, *partition, *gpa, *mem_len, bytes);
        }
        let mut bundle = vec![0; HEADER_LEN];
        bundle.extend_from_slice(&table);
        bundle.resize(data_base, 0);
        bundle.extend_from_slice(&data);

        let total = bundle.len() as u64;
        let contents = CRC32.checksum(&bundle[HEADER_LEN..]);
        bundle[..8].copy_from_slice(&MAGIC);
        bundle[AT_VERSION..][..4].copy_from_slice(&VERSION.to_le_bytes());
        bundle[AT_COUNT..][..4].copy_from_slice(&(count as u32).to_le_bytes());
        bundle[AT_TOTAL..][..8].copy_from_slice(&total.to_le_bytes());
        bundle[AT_CONTENTS_CRC..][..4].copy_from_slice(&contents.to_le_bytes());
        let header = CRC32.checksum(&bundle[..AT_HEADER_CRC]);
        bundle[AT_HEADER_CRC..][..4].copy_from_slice(&header.to_le_bytes());
        bundle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut builder = BundleBuilder::new();
        builder.segment(0, 0x10_0000, 0x2000, vec![1, 2, 3]).segment(1, 0, 0, vec![9; 5000]);
        builder.build(b"configuration")
    }

    #[test]
    fn a_built_bundle_parses_to_what_went_in() {
        let bytes = sample();
        let bundle = Bundle::parse(&bytes).unwrap();
        assert_eq!(bundle.config(), b"configuration");
        let first = bundle.segments(0).next().unwrap();
        assert_eq!((first.gpa, first.mem_len, first.data), (0x10_0000, 0x2000, &[1u8, 2, 3][..]));
        assert_eq!(bundle.segments(1).next().unwrap().mem_len, 5000);
        assert_eq!(bundle.segments(2).count(), 0);
    }

    #[test]
    fn the_header_keeps_its_layout() {
        let bytes = sample();
        assert_eq!(&bytes[..12], b"PARTITAB\x04\0\0\0");
        assert_eq!(&bytes[12..16], &3u32.to_le_bytes());
        assert_eq!(&bytes[HEADER_LEN..HEADER_LEN + 8], &[1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(bytes.len() % DATA_ALIGN, 0);
    }

    #[test]
    fn a_padded_bundle_parses() {
        let mut bytes = sample();
        bytes.extend([0xAA; 100]);
        assert!(Bundle::parse(&bytes).is_ok());
    }

    #[test]
    fn every_shortened_bundle_is_refused() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(Bundle::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let mut bytes = sample();
        bytes[AT_VERSION] = 7;
        let sum = CRC32.checksum(&bytes[..AT_HEADER_CRC]);
        bytes[AT_HEADER_CRC..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Bundle::parse(&bytes).unwrap_err(), BundleError::BadVersion { found: 7 });
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..20_000, bit in 0u8..8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Bundle::parse(&bytes).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            prop_assert!(Bundle::parse(&bytes).is_err());
            prop_assert!(Bundle::parse(&framed).is_err());
        }
    }
}
