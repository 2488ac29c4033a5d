//! Why an image cannot become a partition.

use crate::system_file::human;

/// Why an image cannot become a partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not an ELF file of this machine.
    #[error("not an ELF64 file for x86-64 or an ELF32 file for i386 ({0}); give a kernel, as its linker wrote it")]
    NotElf(String),
    /// A program for an operating system.
    #[error("a program for an operating system (it names an interpreter); give a kernel, built for bare metal")]
    NeedsInterpreter,
    /// Its tables point outside the file.
    #[error("the ELF file is damaged: {0}; build it again")]
    DamagedElf(String),
    /// No PVH entry point.
    #[error("the ELF file has no PVH entry point (ELF note \"Xen\" of type 18 in a PT_NOTE segment); link it with one")]
    NoPvhNote,
    /// An ELF32 file that is to start in long mode.
    #[error("an ELF32 file cannot start in long mode; give an ELF64 file, or boot = \"pvh\" or \"multiboot\"")]
    PlainElf32,
    /// A payload has no such entry.
    #[error("the payload has no symbol {name}, where this way to boot enters it; give it one, or boot it by PVH")]
    NoSymbol {
        /// The symbol.
        name: String,
    },
    /// No multiboot header.
    #[error(
        "no multiboot header (0x1badb002 on a multiple of 4 in the first 8192 bytes of the file); link it to the \
         beginning of the image, or choose another boot protocol"
    )]
    NoMultibootHeader,
    /// A multiboot header with a wrong checksum.
    #[error("the multiboot header at offset {at:#x} has a wrong checksum; magic, flags and checksum must add up to 0")]
    MultibootChecksum {
        /// Where it lies in the file.
        at: usize,
    },
    /// A multiboot image that asks for a display.
    #[error("the multiboot header asks for a video mode (flag 2), and Partita has no display; build without it")]
    MultibootVideo,
    /// A multiboot image that asks for something unknown.
    #[error("the multiboot header has mandatory flags {unknown:#x} that Partita does not know; build without them")]
    MultibootFlags {
        /// The flags.
        unknown: u32,
    },
    /// The addresses in a multiboot header make no sense.
    #[error("the addresses in the multiboot header make no sense: {0}; check the image's linker script")]
    MultibootAddresses(&'static str),
    /// Neither ELF nor addresses.
    #[error("a multiboot image that is no ELF file, and whose header has no addresses (flag 16); give one of them")]
    MultibootWithoutAddresses,
    /// A flat image without bytes.
    #[error("the image is empty; give a file with code")]
    EmptyImage,
    /// A flat image is not where the partition has RAM.
    #[error(
        "the image ({start:#x}..{end:#x}) is not in the partition's RAM (0..0xa0000 and 0x100000..{memory:#x}); \
         give the partition more memory or load the image elsewhere"
    )]
    FlatOutside {
        /// First guest-physical address.
        start: u64,
        /// First address after it.
        end: u64,
        /// Bytes of the partition's memory.
        memory: u64,
    },
    /// Real mode does not reach there.
    #[error("real mode cannot begin at {entry:#x}; load the image below 0xa0000")]
    RealModeTooHigh {
        /// The entry point.
        entry: u64,
    },
    /// Nobody to take the command line.
    #[error("an image in real mode is given no command line; remove cmdline")]
    CmdlineInRealMode,
    /// More segments than the bundle has room for.
    #[error("the image has {found} segments, boot data and modules included, at most {max}; link it into fewer")]
    TooManySegments {
        /// How many there are.
        found: usize,
        /// Most.
        max: usize,
    },
    /// A module larger than what is left.
    #[error("module {number} has {len} bytes, {room} are free for it; raise the partition's memory")]
    ModuleTooLarge {
        /// Its number, from 0.
        number: usize,
        /// Its bytes.
        len: u64,
        /// Bytes free.
        room: u64,
    },
    /// Nothing to load.
    #[error("the ELF file has no bytes to load (no PT_LOAD segment); build it for bare metal")]
    NothingToLoad,
    /// A segment is not where the partition has RAM.
    #[error(
        "segment {index} ({start:#x}..{end:#x}) is not in the partition's RAM (0..0xa0000 and 0x100000..{memory:#x}); \
         give the partition more memory or link the image elsewhere"
    )]
    SegmentOutside {
        /// Its number among the program headers.
        index: usize,
        /// First guest-physical address.
        start: u64,
        /// First address after it.
        end: u64,
        /// Bytes of the partition's memory.
        memory: u64,
    },
    /// Two segments take the same memory.
    #[error("the segments at {first:#x} and {second:#x} overlap; check the image's linker script")]
    SegmentsOverlap {
        /// Address of the lower one.
        first: u64,
        /// Address of the higher one.
        second: u64,
    },
    /// The entry point is not part of the image.
    #[error("the entry point {entry:#x} is not among the bytes of the image; check its linker script, or the entry")]
    EntryOutside {
        /// The entry point.
        entry: u64,
    },
    /// A command line that the guest would cut off.
    #[error("the command line has {len} bytes, this image takes at most {max}; shorten it")]
    CmdlineTooLong {
        /// Its bytes.
        len: usize,
        /// Most bytes.
        max: usize,
    },
    /// Too much for the area that the tool fills below 1 MiB.
    #[error("boot data of {needed} bytes does not fit into the {room} bytes below 1 MiB; shorten the command lines")]
    HostAreaFull {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        room: u64,
    },
    /// Not a Linux kernel.
    #[error("not a Linux bzImage ({0}); give the vmlinuz file of an x86-64 kernel")]
    NotBzImage(&'static str),
    /// A Linux kernel that cannot start in long mode.
    #[error("the Linux kernel has no 64-bit entry point (XLF_KERNEL_64); give an x86-64 kernel, not an i386 one")]
    NoLinux64Entry,
    /// A Linux kernel with an old boot protocol.
    #[error("the Linux kernel has boot protocol {major}.{minor:02}, at least 2.12 is needed; give Linux 3.8 or later")]
    OldBootProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A Linux kernel larger than the partition.
    #[error(
        "the Linux kernel needs memory up to {} (it unpacks itself there), the partition has {}; raise its memory",
        human(*needed),
        human(*memory)
    )]
    KernelTooLarge {
        /// Bytes of memory needed.
        needed: u64,
        /// Bytes of the partition's memory.
        memory: u64,
    },
    /// An initial RAM disk larger than what is left.
    #[error("the initial RAM disk has {len} bytes, {room} are free for it; raise the partition's memory")]
    InitrdTooLarge {
        /// Its bytes.
        len: u64,
        /// Bytes free.
        room: u64,
    },
}
