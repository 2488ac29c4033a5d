//! `trace.bin`: the file in which the host tool keeps the regions of a run.
//!
//! ```text
//! index             header, section table with a copy of each region's header, one CRC-32 a block, CRC-32 of all that
//! zeros             to the next multiple of 4096
//! data              the sections, each from a block's start, padded with zeros
//! index             again
//! footer            16 bytes: length of the index, magic
//! ```
//! Every byte is under a CRC-32 or known to be zero, so that each flipped bit is found, and found in its block of
//! 4096 bytes. The producers pay nothing for it: the sums are made when the run is over.

use core::ops::Range;

use crate::layout::{CRC32, HEADER_LEN, LayoutError, RegionHeader};
use crate::reader::RegionDump;

/// First eight bytes of a trace file.
pub const FILE_MAGIC: [u8; 8] = *b"PARTITAF";
/// Last eight bytes of a trace file.
pub const FOOTER_MAGIC: [u8; 8] = *b"PARTITAE";
/// Version of the file's format.
pub const FILE_VERSION: u32 = 1;
/// Bytes under one CRC-32.
pub const BLOCK_LEN: usize = 4096;
/// Most sections of a file.
pub const SECTIONS_MAX: usize = 256;

const INDEX_HEAD_LEN: usize = 40;
const HEADER_COPY_LEN: usize = 128;
const SECTION_LEN: usize = 24 + HEADER_COPY_LEN;
const FOOTER_LEN: usize = 16;
const NO_PARTITION: u32 = u32::MAX;

/// A region in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The partition whose window it is; `None` for the hypervisor's region, or a bare payload's.
    pub partition: Option<u16>,
    /// Where it lay, host-physical.
    pub hpa: u64,
    /// Its length when it was written.
    pub len: usize,
    /// Its bytes: fewer than `len` if the file is cut off.
    pub data: &'a [u8],
    /// The parts of `data` that are damaged, sorted.
    pub damaged: Vec<Range<usize>>,
    /// The file's own copy of the region's header.
    pub header: Option<RegionHeader>,
}

impl<'a> Section<'a> {
    /// A section to be written.
    pub fn new(partition: Option<u16>, hpa: u64, data: &'a [u8]) -> Self {
        let header = RegionHeader::parse(data).ok();
        Self { partition, hpa, len: data.len(), data, damaged: Vec::new(), header }
    }

    /// Decodes the region.
    ///
    /// # Errors
    /// It has no usable header.
    pub fn decode(&self) -> Result<RegionDump, LayoutError> {
        RegionDump::parse(self.data, &self.damaged, self.header.as_ref())
    }
}

/// Something in a file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// No index is usable: nothing can be read.
    NoIndex,
    /// The file was written by another version; this crate's is [`FILE_VERSION`].
    BadVersion {
        /// The version found.
        version: u32,
    },
    /// The index at the start, or the one at the end, is damaged; the other one was used.
    Index {
        /// Bytes of the file.
        range: Range<u64>,
    },
    /// The file ends early.
    Truncated {
        /// Its length.
        actual: u64,
        /// The length that it should have.
        expected: u64,
    },
    /// There is something behind the end.
    TrailingBytes {
        /// How many bytes.
        len: u64,
    },
    /// Bytes between the sections that should be zero.
    Padding {
        /// Bytes of the file.
        range: Range<u64>,
    },
    /// Bytes of a section.
    Data {
        /// Number of the section.
        section: usize,
        /// The bytes, from the start of the section.
        range: Range<u64>,
    },
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoIndex => write!(f, "not a trace file, or both of its indexes are damaged: run the system again"),
            Self::BadVersion { version } => {
                write!(f, "trace file of version {version}, this tool reads {FILE_VERSION}: use the tool that wrote it")
            }
            Self::Index { range } => {
                write!(
                    f,
                    "the index in bytes {:#x} to {:#x} is damaged: the other one was used",
                    range.start, range.end
                )
            }
            Self::Truncated { actual, expected } => {
                write!(f, "the file ends after {actual} of {expected} bytes: what is missing is not shown")
            }
            Self::TrailingBytes { len } => write!(f, "{len} bytes behind the end of the file are ignored"),
            Self::Padding { range } => {
                write!(f, "bytes {:#x} to {:#x} between the parts are not zero", range.start, range.end)
            }
            Self::Data { section, range } => {
                write!(f, "bytes {:#x} to {:#x} of section {section} are damaged", range.start, range.end)
            }
        }
    }
}

/// A trace file that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySections;

impl core::fmt::Display for TooManySections {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a trace file holds at most {SECTIONS_MAX} regions")
    }
}

impl core::error::Error for TooManySections {}

/// A trace file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFile<'a> {
    /// Its regions.
    pub sections: Vec<Section<'a>>,
}

impl<'a> TraceFile<'a> {
    /// The bytes of the file.
    ///
    /// # Errors
    /// More than [`SECTIONS_MAX`] sections.
    pub fn write(&self) -> Result<Vec<u8>, TooManySections> {
        if self.sections.len() > SECTIONS_MAX {
            return Err(TooManySections);
        }
        let mut data = Vec::new();
        for section in &self.sections {
            data.extend_from_slice(section.data);
            data.resize(data.len().next_multiple_of(BLOCK_LEN), 0);
        }
        let blocks = data.len() / BLOCK_LEN;
        let mut index = Vec::new();
        index.extend_from_slice(&FILE_MAGIC);
        index.extend_from_slice(&FILE_VERSION.to_le_bytes());
        index.extend_from_slice(&(BLOCK_LEN as u32).to_le_bytes());
        index.extend_from_slice(&(index_len(self.sections.len(), blocks) as u64).to_le_bytes());
        index.extend_from_slice(&(self.sections.len() as u64).to_le_bytes());
        index.extend_from_slice(&(blocks as u64).to_le_bytes());
        for section in &self.sections {
            index.extend_from_slice(&section.partition.map_or(NO_PARTITION, u32::from).to_le_bytes());
            index.extend_from_slice(&[0; 4]);
            index.extend_from_slice(&section.hpa.to_le_bytes());
            index.extend_from_slice(&(section.data.len() as u64).to_le_bytes());
            let mut copy = [0; HEADER_COPY_LEN];
            if let Some(header) = section.data.get(..HEADER_COPY_LEN) {
                copy.copy_from_slice(header);
            }
            index.extend_from_slice(&copy);
        }
        for block in data.chunks(BLOCK_LEN) {
            index.extend_from_slice(&CRC32.checksum(block).to_le_bytes());
        }
        index.extend_from_slice(&CRC32.checksum(&index).to_le_bytes());
        let mut file = index.clone();
        file.resize(file.len().next_multiple_of(BLOCK_LEN), 0);
        file.extend_from_slice(&data);
        file.extend_from_slice(&index);
        file.extend_from_slice(&(index.len() as u64).to_le_bytes());
        file.extend_from_slice(&FOOTER_MAGIC);
        Ok(file)
    }

    /// Reads a file as far as it goes: what is there, and what is damaged.
    pub fn read(bytes: &'a [u8]) -> (Self, Vec<Damage>) {
        let mut damage = Vec::new();
        let first = Index::parse(bytes);
        let last = footer_index(bytes).and_then(|range| Index::parse(bytes.get(range)?).ok());
        let index = match (first, last) {
            (Ok(index), _) => index,
            (Err(_), Some(index)) => {
                damage.push(Damage::Index { range: 0..index.len as u64 });
                index
            }
            (Err(error), None) => return (Self::default(), vec![error]),
        };
        index.check_around(bytes, &mut damage);
        let sections = index.sections(bytes, &mut damage);
        (Self { sections }, damage)
    }
}

/// Bytes of an index.
const fn index_len(sections: usize, blocks: usize) -> usize {
    INDEX_HEAD_LEN + sections * SECTION_LEN + blocks * 4 + 4
}

/// Where the footer says that the second index lies.
fn footer_index(bytes: &[u8]) -> Option<Range<usize>> {
    let end = bytes.len().checked_sub(FOOTER_LEN)?;
    let footer = bytes.get(end..)?;
    let (len, magic) = footer.split_at_checked(8)?;
    let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
    (magic == FOOTER_MAGIC).then_some(end.checked_sub(len)?..end)
}

/// A checked index.
struct Index<'a> {
    len: usize,
    bytes: &'a [u8],
    sections: usize,
    blocks: usize,
}

/// A little-endian 32-bit number at a byte offset.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// A little-endian 64-bit number at a byte offset, as a length.
fn len_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, offset)?).ok()
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

impl<'a> Index<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        Self::parse_checked(bytes).ok_or(Damage::NoIndex).and_then(|(version, index)| match version {
            FILE_VERSION => index.ok_or(Damage::NoIndex),
            version => Err(Damage::BadVersion { version }),
        })
    }

    /// The version, and the index if it has this crate's layout. `None` if its CRC does not match.
    fn parse_checked(bytes: &'a [u8]) -> Option<(u32, Option<Self>)> {
        if bytes.get(..8)? != FILE_MAGIC {
            return None;
        }
        let len = len_at(bytes, 16)?;
        let summed = bytes.get(..len.checked_sub(4)?)?;
        if CRC32.checksum(summed) != u32_at(bytes, len - 4)? {
            return None;
        }
        let (sections, blocks) = (len_at(bytes, 24)?, len_at(bytes, 32)?);
        let index = Self { len, bytes: bytes.get(..len)?, sections, blocks };
        let fits = sections <= SECTIONS_MAX
            && blocks <= len / 4
            && index_len(sections, blocks) == len
            && u32_at(bytes, 12)? == BLOCK_LEN as u32
            && index.needed_blocks() == Some(blocks);
        Some((u32_at(bytes, 8)?, fits.then_some(index)))
    }

    fn section_at(&self, section: usize) -> usize {
        INDEX_HEAD_LEN + section * SECTION_LEN
    }

    fn section_len(&self, section: usize) -> Option<usize> {
        len_at(self.bytes, self.section_at(section) + 16)
    }

    /// The blocks that the sections take.
    fn needed_blocks(&self) -> Option<usize> {
        (0..self.sections).try_fold(0usize, |sum, s| sum.checked_add(self.section_len(s)?.div_ceil(BLOCK_LEN)))
    }

    fn data_offset(&self) -> usize {
        self.len.next_multiple_of(BLOCK_LEN)
    }

    /// Checks all that is not data: padding, the second index, the footer, the length.
    fn check_around(&self, bytes: &[u8], damage: &mut Vec<Damage>) {
        let padding = bytes.get(self.len.min(bytes.len())..self.data_offset().min(bytes.len())).unwrap_or(&[]);
        if padding.iter().any(|&b| b != 0) {
            damage.push(Damage::Padding { range: self.len as u64..self.data_offset() as u64 });
        }
        let data_end = self.data_offset() + self.blocks * BLOCK_LEN;
        let (footer_at, end) = (data_end + self.len, data_end + self.len + FOOTER_LEN);
        if bytes.len() < end {
            damage.push(Damage::Truncated { actual: bytes.len() as u64, expected: end as u64 });
            return;
        }
        let footer = [&(self.len as u64).to_le_bytes()[..], &FOOTER_MAGIC].concat();
        if bytes.get(data_end..footer_at) != Some(self.bytes) || bytes.get(footer_at..end) != Some(&footer) {
            damage.push(Damage::Index { range: data_end as u64..end as u64 });
        }
        if bytes.len() > end {
            damage.push(Damage::TrailingBytes { len: (bytes.len() - end) as u64 });
        }
    }

    /// The sections, their blocks checked.
    fn sections(&self, file: &'a [u8], damage: &mut Vec<Damage>) -> Vec<Section<'a>> {
        let mut block = 0;
        let mut sections = Vec::new();
        for section in 0..self.sections {
            let at = self.section_at(section);
            let len = self.section_len(section).unwrap_or(0);
            let start = (self.data_offset() + block * BLOCK_LEN).min(file.len());
            let data = file.get(start..(start + len).min(file.len())).unwrap_or(&[]);
            let mut damaged: Vec<Range<usize>> = Vec::new();
            for i in 0..len.div_ceil(BLOCK_LEN) {
                let from = start + i * BLOCK_LEN;
                let sum = file.get(from..from + BLOCK_LEN).map(|b| CRC32.checksum(b));
                let expected = u32_at(self.bytes, self.section_at(self.sections) + (block + i) * 4);
                if sum.is_some() && sum == expected {
                    continue;
                }
                let (from, to) = (i * BLOCK_LEN, ((i + 1) * BLOCK_LEN).min(len));
                match damaged.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => damaged.push(from..to),
                }
            }
            block += len.div_ceil(BLOCK_LEN);
            damage.extend(damaged.iter().map(|d| Damage::Data { section, range: d.start as u64..d.end as u64 }));
            let mut page = self.bytes.get(at + 24..at + SECTION_LEN).unwrap_or(&[]).to_vec();
            page.resize(HEADER_LEN, 0);
            sections.push(Section {
                partition: u32_at(self.bytes, at).and_then(|p| u16::try_from(p).ok()),
                hpa: u64_at(self.bytes, at + 8).unwrap_or(0),
                len,
                data,
                damaged,
                header: RegionHeader::parse(&page).ok(),
            });
        }
        sections
    }
}
