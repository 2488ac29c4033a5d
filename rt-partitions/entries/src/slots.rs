//! Where the entry code stores what: numbers of the words in its table. Those of registers are in the order of
//! [`GENERAL`].

/// By which entry point: one of [`crate::format`]'s numbers.
pub(crate) const FORMAT: usize = 0;
/// The first of the general-purpose registers.
pub(crate) const RAX: usize = 1;
pub(crate) const RBX: usize = RAX + 2;
pub(crate) const RSI: usize = RAX + 4;
pub(crate) const RDI: usize = RAX + 5;
pub(crate) const RFLAGS: usize = 17;
pub(crate) const CR0: usize = 18;
pub(crate) const CR2: usize = 19;
pub(crate) const CR3: usize = 20;
pub(crate) const CR4: usize = 21;
pub(crate) const EFER: usize = 22;
/// The first of the segment registers' selectors, in the order of [`SEGMENTS`].
pub(crate) const CS: usize = 23;
pub(crate) const TR: usize = 29;
pub(crate) const LDTR: usize = 30;
pub(crate) const GDT_LIMIT: usize = 31;
pub(crate) const GDT_BASE: usize = 32;
pub(crate) const IDT_LIMIT: usize = 33;
pub(crate) const IDT_BASE: usize = 34;
pub(crate) const DR6: usize = 35;
pub(crate) const DR7: usize = 36;
pub(crate) const FS_BASE: usize = 37;
pub(crate) const GS_BASE: usize = 38;
/// What is read through the segments from [`CS`] on at the address of the marker.
pub(crate) const READ: usize = 39;
/// What is written through DS, ES, FS, GS and SS, and read back through CS: the number of the segment.
pub(crate) const WRITTEN: usize = 45;
/// What LAR and LSL say of CS and SS in long mode.
pub(crate) const CS_ACCESS: usize = 51;
pub(crate) const CS_LIMIT: usize = 52;
pub(crate) const SS_ACCESS: usize = 53;
pub(crate) const SS_LIMIT: usize = 54;
/// How many there are.
pub(crate) const SLOTS: usize = 56;

/// Names of the general-purpose registers from [`RAX`] on.
pub(crate) const GENERAL: [&str; 16] =
    ["RAX", "RCX", "RBX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
/// Names of the segment registers from [`CS`] on.
pub(crate) const SEGMENTS: [&str; 6] = ["CS", "SS", "DS", "ES", "FS", "GS"];
/// What stands at the marker.
pub(crate) const MARKER: u32 = 0x5EED_CAFE;
