//! Entries of extended page tables (SDM vol. 3 section 29.3).

use core::fmt;

/// Reads are allowed.
pub const READ: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITE: u64 = 1 << 1;
/// Instruction fetches are allowed.
pub const EXECUTE: u64 = 1 << 2;
/// Memory type of a leaf: not cached. It is combined with the guest's PAT as an MTRR's type would be, so that the guest may
/// make it write-combining.
pub const UNCACHED: u64 = MemoryType::Uncached as u64 * (1 << TYPE_SHIFT);
/// Memory type of a leaf: write-back, so that the guest's PAT decides.
pub const WRITE_BACK: u64 = MemoryType::WriteBack as u64 * (1 << TYPE_SHIFT);
/// The guest's PAT is ignored for this leaf.
pub const IGNORE_PAT: u64 = 1 << 6;
/// A leaf above the lowest level: it maps 2 MiB or 1 GiB.
pub const LARGE: u64 = 1 << 7;
/// The entry has been used, if [`pointer()`] says that the CPU notes it.
pub const ACCESSED: u64 = 1 << 8;
/// The page has been written, if [`pointer()`] says that the CPU notes it.
pub const DIRTY: u64 = 1 << 9;
/// Physical address of what the entry leads to, whatever the CPU's width.
pub const ADDRESS: u64 = (1 << 52) - 0x1000;

/// An entry for a further table: it allows everything, leaves decide.
pub const TABLE: u64 = READ | WRITE | EXECUTE;
/// A leaf of the lowest level for a guest's RAM; with [`LARGE`], one above.
pub const RAM: u64 = READ | WRITE | EXECUTE | WRITE_BACK;
/// A leaf of the lowest level for device memory: not cached, and no instructions are fetched from it.
pub const DEVICE: u64 = READ | WRITE | UNCACHED;

const TYPE_SHIFT: u32 = 3;
const TYPE: u64 = 7 << TYPE_SHIFT;

/// Memory types (SDM vol. 3 section 12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// Not cached.
    Uncached = 0,
    /// Write-combining.
    WriteCombining = 1,
    /// Write-through.
    WriteThrough = 4,
    /// Write-protected.
    WriteProtected = 5,
    /// Write-back.
    WriteBack = 6,
}

/// The EPT pointer for tables of four levels, which are read by the cache: its root's physical address, and whether the CPU
/// notes accesses and writes in the entries (SDM vol. 3 section 25.6.11).
#[inline]
pub const fn pointer(root: u64, notes_accesses: bool) -> u64 {
    const LEVELS_LESS_1: u64 = 3 << 3;
    const NOTES_ACCESSES: u64 = 1 << 6;
    root & ADDRESS | LEVELS_LESS_1 | MemoryType::WriteBack as u64 | if notes_accesses { NOTES_ACCESSES } else { 0 }
}

/// A level of the tables, by what its entries are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The root: 512 GiB each.
    Pml4,
    /// 1 GiB each.
    Pdpt,
    /// 2 MiB each.
    Pd,
    /// 4 KiB each.
    Pt,
}

impl Level {
    /// From the root down.
    pub const ALL: [Self; 4] = [Self::Pml4, Self::Pdpt, Self::Pd, Self::Pt];

    /// Lowest bit of a guest-physical address by which an entry is chosen.
    #[inline]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Pml4 => 39,
            Self::Pdpt => 30,
            Self::Pd => 21,
            Self::Pt => 12,
        }
    }

    /// Whether the walk ends at this entry, which is present.
    #[inline]
    pub const fn ends_at(self, entry: u64) -> bool {
        match self {
            Self::Pml4 => false,
            Self::Pdpt | Self::Pd => entry & LARGE != 0,
            Self::Pt => true,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Pml4 => "PML4E",
            Self::Pdpt => "PDPTE",
            Self::Pd => "PDE",
            Self::Pt => "PTE",
        }
    }
}

/// Whether an entry leads anywhere.
#[inline]
pub const fn present(entry: u64) -> bool {
    entry & (READ | WRITE | EXECUTE) != 0
}

/// What makes an entry a misconfiguration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// It allows writes, but no reads.
    WriteOnly,
    /// It allows instruction fetches, but no reads, for which the CPU would need execute-only translations.
    ExecuteOnly,
    /// Reserved bits are set.
    Reserved {
        /// Those bits.
        bits: u64,
    },
    /// A leaf with a memory type that does not exist: 2, 3 or 7.
    Type {
        /// Bits 5:3.
        memory_type: u8,
    },
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WriteOnly => write!(f, "bits 1:0 are 10: writes are allowed, reads are not"),
            Self::ExecuteOnly => write!(f, "bits 2:0 are 100: only instruction fetches are allowed"),
            Self::Reserved { bits } => write!(f, "reserved bits {bits:#x} are set"),
            Self::Type { memory_type } => write!(f, "bits 5:3 are {memory_type}: no such memory type"),
        }
    }
}

/// Which rule an entry breaks (SDM vol. 3 section 29.3.3.1), for a CPU with so many bits of physical addresses, no
/// execute-only translations and pages of 1 GiB; `None` if it is legal, or absent.
pub const fn misconfiguration(entry: u64, level: Level, physical_bits: u8) -> Option<Illegal> {
    if entry & (READ | WRITE) == WRITE {
        return Some(Illegal::WriteOnly);
    }
    if !present(entry) {
        return None;
    }
    let reserved = entry & reserved(entry, level, physical_bits);
    if reserved != 0 {
        return Some(Illegal::Reserved { bits: reserved });
    }
    let memory_type = ((entry & TYPE) >> TYPE_SHIFT) as u8;
    if level.ends_at(entry) && matches!(memory_type, 2 | 3 | 7) {
        return Some(Illegal::Type { memory_type });
    }
    if entry & READ == 0 {
        return Some(Illegal::ExecuteOnly);
    }
    None
}

/// Bits that have to be 0 in a present entry.
const fn reserved(entry: u64, level: Level, physical_bits: u8) -> u64 {
    let beyond = if physical_bits < 52 { ADDRESS & !((1 << physical_bits) - 1) } else { 0 };
    let low = match level {
        // No leaf: neither a memory type nor a size.
        Level::Pml4 => TYPE | IGNORE_PAT | LARGE,
        // A page begins at a multiple of its size.
        Level::Pdpt | Level::Pd if entry & LARGE != 0 => ADDRESS & ((1 << level.shift()) - 1),
        Level::Pdpt | Level::Pd => TYPE | IGNORE_PAT,
        Level::Pt => 0,
    };
    beyond | low
}

/// The entry that an EPT misconfiguration is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misconfiguration {
    /// Where in the tables it is.
    pub level: Level,
    /// Its physical address.
    pub address: u64,
    /// The entry.
    pub entry: u64,
    /// The rule that it breaks.
    pub illegal: Illegal,
}

impl fmt::Display for Misconfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, address, entry, illegal } = self;
        write!(f, "EPT {} {entry:#x} at {address:#x}: {illegal} (SDM vol. 3 section 29.3.3.1)", level.name())
    }
}

/// Walks the tables of `pointer` as the CPU does, and finds the first entry on the way to `gpa` that is not legal. `read`
/// reads an entry at a physical address, which is a multiple of 8, or refuses to.
pub fn explain(
    pointer: u64,
    gpa: u64,
    physical_bits: u8,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Option<Misconfiguration> {
    let mut table = pointer & ADDRESS;
    for level in Level::ALL {
        let address = table + (gpa >> level.shift() & 0x1FF) * 8;
        let entry = read(address)?;
        if let Some(illegal) = misconfiguration(entry, level, physical_bits) {
            return Some(Misconfiguration { level, address, entry, illegal });
        }
        if !present(entry) || level.ends_at(entry) {
            return None;
        }
        table = entry & ADDRESS;
    }
    None
}
