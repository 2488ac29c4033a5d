//! The list of rules.

/// Declares the rules once: variant, ID, explanation.
macro_rules! rules {
    ($($variant:ident $id:literal $explanation:literal)*) => {
        /// A rule of a system.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $explanation] $variant,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its ID, which stays.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id,)*
                }
            }

            /// What it asks for, in one line.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => $explanation,)*
                }
            }
        }
    };
}

rules! {
    NameEmpty "name-empty" "The system and each partition have a name."
    NameCharacters "name-characters" "Names consist of letters, digits, `-`, `_` and `.`, and do not begin with `.`."
    NameDuplicate "name-duplicate" "No two partitions have the same name."
    NoPartition "no-partition" "A system has at least one partition."
    RingSize "ring-size" "The size of a trace ring is a power of two from 4 KiB to 8 MiB."
    DeadlineZero "deadline-zero" "SMP calls have a deadline of at least 1 ms."
    SmpCallRate "smp-call-rate" "At most 1000000 SMP calls are made per second."
    SmpCallRounds "smp-call-rounds" "A run that ends after a number of SMP calls makes SMP calls."
    PartitionWithoutPcpu "partition-without-pcpu" "Each partition has at least one pCPU."
    PcpuOutOfRange "pcpu-out-of-range" "pCPU numbers are below 256."
    PcpuOwnedTwice "pcpu-owned-twice" "A pCPU belongs to one partition, and to one vCPU of it."
    HousekeepingNotBoot "housekeeping-not-boot" "The housekeeping pCPU is 0, the one that boots."
    HousekeepingGivenAway "housekeeping-given-away" "The housekeeping pCPU belongs to no partition."
    PcpuMissing "pcpu-missing" "The machine has all pCPUs that the system names."
    ConsoleOwnedTwice "console-owned-twice" "A serial port belongs to one partition."
    MemoryTooSmall "memory-too-small" "A partition has at least 2 MiB of memory."
    MemoryTooLarge "memory-too-large" "A partition has at most 3 GiB of memory."
    MemoryMisaligned "memory-misaligned" "Sizes and addresses of memory are multiples of 2 MiB."
    MemoryOutOfRange "memory-out-of-range" "Memory lies within 52 bits of host-physical address."
    MemoryOverlap "memory-overlap" "No two partitions have fixed memory in common."
    PortRangeBackward "port-range-backward" "A range of I/O ports ends where it begins, or behind."
    PortOwnedTwice "port-owned-twice" "An I/O port belongs to one partition."
    MmioMisaligned "mmio-misaligned" "Addresses and sizes of device memory are multiples of 4 KiB, and sizes are not 0."
    MmioOutOfRange "mmio-out-of-range" "A guest sees device memory behind its own memory and below 512 GiB."
    MmioOwnedTwice "mmio-owned-twice" "Device memory belongs to one partition."
    MmioOverlap "mmio-overlap" "A partition sees no two ranges of device memory in one place."
    EntryOutsideMemory "entry-outside-memory" "All that a partition starts with lies in its memory."
    EntryNotLoaded "entry-not-loaded" "A partition's first instruction is part of its image."
    SegmentWithoutPartition "segment-without-partition" "Each segment of an image belongs to a partition of the system."
    SegmentOutsideMemory "segment-outside-memory" "Each segment begins in its partition's memory."
    ImageDoesNotFit "image-does-not-fit" "Each segment ends in its partition's memory."
    SegmentOverlap "segment-overlap" "No two segments of a partition have memory in common."
    SegmentOverAcpi "segment-over-acpi" "No segment lies where the hypervisor puts the ACPI tables."
}

impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.id())
    }
}
