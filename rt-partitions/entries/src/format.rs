//! The formats of images, by the entry point that each has.

/// The numbers by which the entry code tells them apart.
pub(crate) const PVH: u64 = 1;
pub(crate) const MULTIBOOT: u64 = 2;
pub(crate) const PLAIN: u64 = 3;
pub(crate) const REAL: u64 = 4;
pub(crate) const PROTECTED: u64 = 5;
pub(crate) const LONG: u64 = 6;
pub(crate) const LINUX: u64 = 7;

/// What a format is called, by its number.
pub(crate) const fn name(number: u64) -> &'static str {
    match number {
        PVH => "PVH",
        MULTIBOOT => "multiboot",
        PLAIN => "plain ELF64",
        REAL => "flat, real mode",
        PROTECTED => "flat, protected mode",
        LONG => "flat, long mode",
        LINUX => "Linux, 64-bit entry",
        _ => "unknown",
    }
}
