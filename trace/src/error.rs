//! Why memory is not a trace region.

use crate::layout::{PCPUS_MAX, REGION_ALIGN, REGION_LEN_MAX, VERSION};
use crate::ring::{SLOTS_MAX, SLOTS_MIN};

/// Why memory is not a region, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// The base is not aligned to [`REGION_ALIGN`].
    Misaligned,
    /// Fewer bytes than the region (or its header page) needs.
    TooShort {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        actual: u64,
    },
    /// The magic is another: no region.
    BadMagic,
    /// Another version of the format.
    BadVersion {
        /// The version found; this crate's is [`VERSION`].
        version: u32,
    },
    /// The CRC of the header does not match: it is damaged.
    BadCrc,
    /// An unknown kind of writer.
    BadWriter {
        /// The number found.
        writer: u32,
    },
    /// No pCPUs, or more than [`PCPUS_MAX`].
    BadPcpus {
        /// The number found.
        pcpus: u32,
    },
    /// Not a power of two from [`SLOTS_MIN`] to [`SLOTS_MAX`].
    BadSlots {
        /// The number found.
        slots: u32,
    },
    /// Longer than [`REGION_LEN_MAX`].
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// An offset or a length is not what the number of pCPUs and slots demands.
    BadPlace {
        /// Number of the header's word.
        word: usize,
    },
}

impl core::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Misaligned => write!(f, "the trace region is not aligned to {} MiB", REGION_ALIGN >> 20),
            Self::TooShort { needed, actual } => {
                write!(f, "the trace region needs {needed} bytes, but only {actual} are there")
            }
            Self::BadMagic => write!(f, "no trace region: its magic is missing"),
            Self::BadVersion { version } => {
                write!(
                    f,
                    "trace region of version {version}; this program reads version {VERSION}: use the tool of the same release"
                )
            }
            Self::BadCrc => write!(f, "the header of the trace region is damaged: its checksum does not match"),
            Self::BadWriter { writer } => write!(f, "trace region of an unknown kind of writer, {writer}"),
            Self::BadPcpus { pcpus } => write!(f, "trace region for {pcpus} pCPUs; 1 to {PCPUS_MAX} are possible"),
            Self::BadSlots { slots } => {
                write!(f, "trace rings of {slots} slots; a power of two from {SLOTS_MIN} to {SLOTS_MAX} is possible")
            }
            Self::TooLong { len } => {
                write!(f, "trace region of {len} bytes; at most {REGION_LEN_MAX} are possible: use smaller rings")
            }
            Self::BadPlace { word } => write!(f, "the header of the trace region contradicts itself in word {word}"),
        }
    }
}

impl core::error::Error for LayoutError {}
