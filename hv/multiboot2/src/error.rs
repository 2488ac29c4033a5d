//! Why boot information is refused.

use core::fmt::{Display, Formatter, Result};

/// What is wrong with the boot information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Its length is none that boot information has.
    Length {
        /// The length it claims, or has.
        found: u32,
    },
    /// There are fewer bytes than it has.
    Cut {
        /// Bytes it claims to have.
        len: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A tag is shorter than what it has to hold, or reaches beyond the end.
    TagLength {
        /// Its type.
        kind: u32,
        /// Its length, as it says.
        len: u32,
    },
    /// The last tag is not the end tag.
    NoEnd,
    /// The command line is not UTF-8.
    CommandLine {
        /// Bytes of it that are.
        valid: usize,
    },
    /// A module ends before it begins, or is empty.
    Module {
        /// Its first byte.
        start: u32,
        /// The first byte behind it.
        end: u32,
    },
    /// More than one module.
    Modules {
        /// How many.
        found: u32,
    },
    /// The entries of the memory map are no such entries.
    MemoryEntry {
        /// Bytes of each.
        len: u32,
    },
    /// There is no memory map.
    NoMemoryMap,
    /// The copy of ACPI's RSDP is not whole.
    Rsdp {
        /// Bytes that it says it has.
        len: usize,
        /// Bytes that are there.
        have: usize,
    },
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let loader = "; boot with another loader, for instance GRUB 2.06";
        match self {
            Self::Length { found } => write!(f, "it has a length of {found} bytes{loader}"),
            Self::Cut { len, have } => write!(f, "{have} bytes of {len} are there{loader}"),
            Self::TagLength { kind, len } => write!(f, "a tag of type {kind} has a length of {len} bytes{loader}"),
            Self::NoEnd => write!(f, "its last tag is not the end tag{loader}"),
            Self::CommandLine { valid } => {
                write!(f, "the command line is not UTF-8 from byte {valid} on; write it in ASCII")
            }
            Self::Module { start, end } => {
                write!(f, "the boot module is to reach from {start:#x} to {end:#x}; pass one that is not empty")
            }
            Self::Modules { found } => {
                write!(f, "{found} boot modules; pass the boot bundle as the only one, by a single `module2`")
            }
            Self::MemoryEntry { len } => {
                write!(f, "the entries of the memory map have a length of {len} bytes{loader}")
            }
            Self::NoMemoryMap => write!(f, "there is no memory map{loader}"),
            Self::Rsdp { len, have } => {
                write!(f, "ACPI's RSDP is to have {len} bytes, of which the loader copied {have}{loader}")
            }
        }
    }
}

impl core::error::Error for Error {}
