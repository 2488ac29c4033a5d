//! Why an image cannot become a partition.

use crate::system_file::human;

/// Why an image cannot become a partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not an ELF64 file of this machine.
    #[error("not an x86-64 ELF64 file ({0}); give the unstripped output of the x86_64-unknown-none linker")]
    NotElf(String),
    /// Its tables point outside the file.
    #[error("the ELF file is damaged: {0}; build it again")]
    DamagedElf(String),
    /// No PVH entry point.
    #[error("the ELF file has no PVH entry point (ELF note \"Xen\" of type 18 in a PT_NOTE segment); link it with one")]
    NoPvhNote,
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
    /// The entry point is in no segment.
    #[error("the PVH entry point {entry:#x} lies in no loaded segment; check the image's linker script")]
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
    #[error("boot data of {needed} bytes does not fit into the {room} bytes below 1 MiB; shorten the command line")]
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
