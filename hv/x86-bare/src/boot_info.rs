//! What the loader leaves: each entry fills one [`BootInfo`], and nothing after it knows the loader.

use heapless::Vec;
use partita_multiboot2::Error as Multiboot2Error;

/// Most ranges of RAM that a loader may report.
pub const MEMORY_RANGES_MAX: usize = 64;
/// Most bytes of a command line that a multiboot2 loader may pass.
pub const CMDLINE_MAX: usize = 1024;

/// A range of host-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// The boot module: the bundle, as yet unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Host-physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// What every loader tells, in one form.
#[derive(Debug)]
pub struct BootInfo {
    /// Usable RAM.
    pub memory: Vec<MemoryRange, MEMORY_RANGES_MAX>,
    /// Ranges that are not RAM, or not free: they count even where they overlap RAM.
    pub reserved: Vec<MemoryRange, MEMORY_RANGES_MAX>,
    /// The bundle, if the loader passed a module.
    pub module: Option<Module>,
    /// Host-physical address of ACPI's RSDP, 0 if the loader does not know it.
    pub rsdp: u64,
    /// The program's command line. Valid for as long as the first page tables are in use: a loader's memory is mapped by
    /// those alone.
    pub cmdline: &'static str,
}

/// Why the loader's tables are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootInfoError {
    /// The start info is not PVH's, version 1 or later.
    NotPvh {
        /// The magic found.
        magic: u32,
        /// The version found.
        version: u32,
    },
    /// The entry by multiboot2 was taken by no such loader.
    NotMultiboot2 {
        /// What EAX held.
        magic: u32,
    },
    /// The boot information of a multiboot2 loader.
    Multiboot2(Multiboot2Error),
    /// The command line has more than [`CMDLINE_MAX`] bytes.
    CmdlineTooLong {
        /// How many.
        len: usize,
    },
    /// More than [`MEMORY_RANGES_MAX`] ranges of RAM, or of reserved memory.
    TooManyMemoryRanges,
    /// A table lies above what is mapped at boot.
    OutOfReach {
        /// Which.
        table: &'static str,
        /// Its address.
        address: u64,
    },
    /// Not exactly one module.
    ModuleCount {
        /// How many there are.
        found: u32,
    },
}

impl core::fmt::Display for BootInfoError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotPvh { magic, version } => write!(
                f,
                "the loader passed no PVH start info of version 1 or later (magic {magic:#x}, version {version}); \
                 boot with a PVH loader, for instance QEMU's -kernel"
            ),
            Self::NotMultiboot2 { magic } => write!(
                f,
                "the loader left {magic:#x} in EAX, not multiboot2's magic; boot by multiboot2, for instance GRUB's, or by \
                 the PVH note"
            ),
            Self::Multiboot2(error) => write!(f, "the loader's boot information: {error}"),
            Self::CmdlineTooLong { len } => {
                write!(f, "the command line has {len} bytes; shorten it to {CMDLINE_MAX} at most")
            }
            Self::TooManyMemoryRanges => {
                write!(f, "the loader reports more than {MEMORY_RANGES_MAX} ranges of RAM, or of reserved memory")
            }
            Self::OutOfReach { table, address } => {
                write!(f, "the loader's {table} is at {address:#x}, above 4 GiB; have the loader put it lower")
            }
            Self::ModuleCount { found } => {
                write!(f, "{found} boot modules; pass the boot bundle as the only one, for instance by -initrd")
            }
        }
    }
}

impl From<Multiboot2Error> for BootInfoError {
    fn from(error: Multiboot2Error) -> Self {
        Self::Multiboot2(error)
    }
}

impl BootInfo {
    /// The value of the first word `KEY=VALUE` on the command line.
    pub fn value(&self, key: &str) -> Option<&'static str> {
        self.cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether the command line has this word.
    pub fn has_option(&self, option: &str) -> bool {
        self.cmdline.split_ascii_whitespace().any(|word| word == option)
    }
}
