//! What was found against a rule, and what a person is told about it.

use core::fmt::{Display, Formatter, Result};

use partita_abi::guest::{ACPI_LEN, MEMORY_GRANULE, MEMORY_MAX, RSDP};

use super::devices::MMIO_GPA_MAX;
use super::{HOST_PHYSICAL_MAX, RING_BYTES_MAX, RING_BYTES_MIN, Rule, SMP_CALL_HZ_MAX};
use crate::memory::Range;
use crate::pcpu_set::PCPUS_MAX;
use crate::system::{PortRange, SerialPort};

/// Something found against a rule. It prints the thing, the value and the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the text of each violation says they are")]
pub enum Violation<'a> {
    /// [`Rule::NameEmpty`]; `None` is the system.
    NameEmpty { partition: Option<usize> },
    /// [`Rule::NameCharacters`].
    NameCharacters { name: &'a str },
    /// [`Rule::NameDuplicate`].
    NameDuplicate { name: &'a str, partitions: [usize; 2] },
    /// [`Rule::NoPartition`].
    NoPartition,
    /// [`Rule::RingSize`].
    RingSize { bytes: u32 },
    /// [`Rule::DeadlineZero`].
    DeadlineZero,
    /// [`Rule::SmpCallRate`].
    SmpCallRate { hz: u32 },
    /// [`Rule::SmpCallRounds`].
    SmpCallRounds { rounds: u32 },
    /// [`Rule::PartitionWithoutPcpu`].
    PartitionWithoutPcpu { partition: &'a str },
    /// [`Rule::PcpuOutOfRange`]; no partition for the housekeeping pCPU.
    PcpuOutOfRange { partition: Option<&'a str>, pcpu: u16 },
    /// [`Rule::PcpuOwnedTwice`].
    PcpuOwnedTwice { pcpu: u16, partitions: [&'a str; 2] },
    /// [`Rule::HousekeepingNotBoot`].
    HousekeepingNotBoot { pcpu: u16 },
    /// [`Rule::HousekeepingGivenAway`].
    HousekeepingGivenAway { partition: &'a str, pcpu: u16 },
    /// [`Rule::PcpuMissing`]; no partition for the housekeeping pCPU.
    PcpuMissing { partition: Option<&'a str>, pcpu: u16, count: usize },
    /// [`Rule::ConsoleOwnedTwice`].
    ConsoleOwnedTwice { console: SerialPort, partitions: [&'a str; 2] },
    /// [`Rule::MemoryTooSmall`].
    MemoryTooSmall { partition: &'a str, bytes: u64 },
    /// [`Rule::MemoryTooLarge`].
    MemoryTooLarge { partition: &'a str, bytes: u64 },
    /// [`Rule::MemoryMisaligned`].
    MemoryMisaligned { partition: &'a str, what: &'static str, value: u64 },
    /// [`Rule::MemoryOutOfRange`].
    MemoryOutOfRange { partition: &'a str, range: Range },
    /// [`Rule::MemoryOverlap`].
    MemoryOverlap { partitions: [&'a str; 2], ranges: [Range; 2] },
    /// [`Rule::PortRangeBackward`].
    PortRangeBackward { partition: &'a str, range: PortRange },
    /// [`Rule::PortOwnedTwice`].
    PortOwnedTwice { partitions: [&'a str; 2], ranges: [PortRange; 2] },
    /// [`Rule::MmioMisaligned`].
    MmioMisaligned { partition: &'a str, value: u64 },
    /// [`Rule::MmioOutOfRange`].
    MmioOutOfRange { partition: &'a str, what: &'static str, range: Range },
    /// [`Rule::MmioOwnedTwice`].
    MmioOwnedTwice { partitions: [&'a str; 2], ranges: [Range; 2] },
    /// [`Rule::MmioOverlap`].
    MmioOverlap { partition: &'a str, ranges: [Range; 2] },
    /// [`Rule::EntryOutsideMemory`].
    EntryOutsideMemory { partition: &'a str, what: &'static str, gpa: u64, memory_bytes: u64 },
    /// [`Rule::EntryNotLoaded`].
    EntryNotLoaded { partition: &'a str, gpa: u64 },
    /// [`Rule::SegmentWithoutPartition`].
    SegmentWithoutPartition { partition: u32, count: usize },
    /// [`Rule::SegmentOutsideMemory`].
    SegmentOutsideMemory { partition: &'a str, gpa: u64, memory_bytes: u64 },
    /// [`Rule::ImageDoesNotFit`].
    ImageDoesNotFit { partition: &'a str, end: u64, memory_bytes: u64 },
    /// [`Rule::SegmentOverlap`].
    SegmentOverlap { partition: &'a str, ranges: [Range; 2] },
    /// [`Rule::SegmentOverAcpi`].
    SegmentOverAcpi { partition: &'a str, range: Range },
}

impl Violation<'_> {
    /// The rule it is against.
    pub const fn rule(&self) -> Rule {
        match self {
            Self::NameEmpty { .. } => Rule::NameEmpty,
            Self::NameCharacters { .. } => Rule::NameCharacters,
            Self::NameDuplicate { .. } => Rule::NameDuplicate,
            Self::NoPartition => Rule::NoPartition,
            Self::RingSize { .. } => Rule::RingSize,
            Self::DeadlineZero => Rule::DeadlineZero,
            Self::SmpCallRate { .. } => Rule::SmpCallRate,
            Self::SmpCallRounds { .. } => Rule::SmpCallRounds,
            Self::PartitionWithoutPcpu { .. } => Rule::PartitionWithoutPcpu,
            Self::PcpuOutOfRange { .. } => Rule::PcpuOutOfRange,
            Self::PcpuOwnedTwice { .. } => Rule::PcpuOwnedTwice,
            Self::HousekeepingNotBoot { .. } => Rule::HousekeepingNotBoot,
            Self::HousekeepingGivenAway { .. } => Rule::HousekeepingGivenAway,
            Self::PcpuMissing { .. } => Rule::PcpuMissing,
            Self::ConsoleOwnedTwice { .. } => Rule::ConsoleOwnedTwice,
            Self::MemoryTooSmall { .. } => Rule::MemoryTooSmall,
            Self::MemoryTooLarge { .. } => Rule::MemoryTooLarge,
            Self::MemoryMisaligned { .. } => Rule::MemoryMisaligned,
            Self::MemoryOutOfRange { .. } => Rule::MemoryOutOfRange,
            Self::MemoryOverlap { .. } => Rule::MemoryOverlap,
            Self::PortRangeBackward { .. } => Rule::PortRangeBackward,
            Self::PortOwnedTwice { .. } => Rule::PortOwnedTwice,
            Self::MmioMisaligned { .. } => Rule::MmioMisaligned,
            Self::MmioOutOfRange { .. } => Rule::MmioOutOfRange,
            Self::MmioOwnedTwice { .. } => Rule::MmioOwnedTwice,
            Self::MmioOverlap { .. } => Rule::MmioOverlap,
            Self::EntryOutsideMemory { .. } => Rule::EntryOutsideMemory,
            Self::EntryNotLoaded { .. } => Rule::EntryNotLoaded,
            Self::SegmentWithoutPartition { .. } => Rule::SegmentWithoutPartition,
            Self::SegmentOutsideMemory { .. } => Rule::SegmentOutsideMemory,
            Self::ImageDoesNotFit { .. } => Rule::ImageDoesNotFit,
            Self::SegmentOverlap { .. } => Rule::SegmentOverlap,
            Self::SegmentOverAcpi { .. } => Rule::SegmentOverAcpi,
        }
    }
}

/// Who names a pCPU.
struct By<'a>(Option<&'a str>);

impl Display for By<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Some(partition) => write!(f, "partition \"{partition}\""),
            None => f.write_str("housekeeping"),
        }
    }
}

const GRANULE_MIB: u64 = MEMORY_GRANULE >> 20;

impl Display for Violation<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}: ", self.rule())?;
        match *self {
            Self::NameEmpty { partition: None } => write!(f, "the system has no name; give it one"),
            Self::NameEmpty { partition: Some(number) } => {
                write!(f, "partition number {number} (from 0) has no name; give it one")
            }
            Self::NameCharacters { name } => write!(
                f,
                "the name {name:?} has other characters than letters, digits, '-', '_' and '.', or begins with '.'; \
                 choose another"
            ),
            Self::NameDuplicate { name, partitions: [a, b] } => {
                write!(f, "partitions number {a} and {b} (from 0) are both named \"{name}\"; rename one")
            }
            Self::NoPartition => write!(f, "the system has no partition; add one"),
            Self::RingSize { bytes } => write!(
                f,
                "trace rings of {bytes} bytes; choose a power of two from {RING_BYTES_MIN} to {RING_BYTES_MAX}"
            ),
            Self::DeadlineZero => write!(f, "the deadline of SMP calls is 0 ms; choose at least 1 (100 is usual)"),
            Self::SmpCallRate { hz } => {
                write!(f, "{hz} SMP calls per second; choose at most {SMP_CALL_HZ_MAX}, or 0 for none")
            }
            Self::SmpCallRounds { rounds } => write!(
                f,
                "the run ends after {rounds} rounds of SMP calls, but their rate is 0; set a rate or drop the rounds"
            ),
            Self::PartitionWithoutPcpu { partition } => {
                write!(f, "partition \"{partition}\" has no pCPU; give it at least one")
            }
            Self::PcpuOutOfRange { partition, pcpu } => {
                write!(f, "{} names pCPU {pcpu}; choose one below {PCPUS_MAX}", By(partition))
            }
            Self::PcpuOwnedTwice { pcpu, partitions: [a, b] } if a == b => {
                write!(f, "partition \"{a}\" names pCPU {pcpu} twice; name each once")
            }
            Self::PcpuOwnedTwice { pcpu, partitions: [a, b] } => {
                write!(f, "pCPU {pcpu} belongs to both \"{a}\" and \"{b}\"; give it to one of them")
            }
            Self::HousekeepingNotBoot { pcpu } => {
                write!(
                    f,
                    "the housekeeping pCPU is {pcpu}, but the hypervisor keeps house on the pCPU that boots; set 0"
                )
            }
            Self::HousekeepingGivenAway { partition, pcpu } => {
                write!(f, "partition \"{partition}\" has pCPU {pcpu}, which is the housekeeping pCPU; give it another")
            }
            Self::PcpuMissing { partition, pcpu, count } => write!(
                f,
                "{} names pCPU {pcpu}, but the machine has {count} (from 0); choose one of them or a larger machine",
                By(partition)
            ),
            Self::ConsoleOwnedTwice { console, partitions: [a, b] } => {
                write!(f, "serial port {console} belongs to both \"{a}\" and \"{b}\"; give it to one of them")
            }
            Self::MemoryTooSmall { partition, bytes } => {
                write!(f, "partition \"{partition}\" has {bytes} bytes of memory; give it at least {GRANULE_MIB} MiB")
            }
            Self::MemoryTooLarge { partition, bytes } => write!(
                f,
                "partition \"{partition}\" has {bytes} bytes of memory; give it at most {} MiB",
                MEMORY_MAX >> 20
            ),
            Self::MemoryMisaligned { partition, what, value } => write!(
                f,
                "the memory {what} of partition \"{partition}\", {value:#x}, is no multiple of {GRANULE_MIB} MiB; \
                 make it one"
            ),
            Self::MemoryOutOfRange { partition, range } => write!(
                f,
                "the memory of partition \"{partition}\", {range}, lies beyond {HOST_PHYSICAL_MAX:#x}; choose a \
                 lower address or none"
            ),
            Self::MemoryOverlap { partitions: [a, b], ranges: [of_a, of_b] } => write!(
                f,
                "the memory of \"{a}\", {of_a}, and of \"{b}\", {of_b}, overlap; move one, or let the hypervisor choose"
            ),
            Self::PortRangeBackward { partition, range } => {
                write!(f, "the I/O ports {range} of partition \"{partition}\" end before they begin; swap the two")
            }
            Self::PortOwnedTwice { partitions: [a, b], ranges: [of_a, of_b] } => write!(
                f,
                "the I/O ports {of_a} of \"{a}\" and {of_b} of \"{b}\" overlap; give each port to one of them"
            ),
            Self::MmioMisaligned { partition, value } => write!(
                f,
                "device memory of partition \"{partition}\": {value:#x} is no multiple of 4 KiB above 0; make it one"
            ),
            Self::MmioOutOfRange { partition, what, range } => write!(
                f,
                "device memory of partition \"{partition}\": {what} {range} is out of range; choose a guest-physical \
                 address behind its memory and below {MMIO_GPA_MAX:#x}, a host-physical one below {HOST_PHYSICAL_MAX:#x}"
            ),
            Self::MmioOwnedTwice { partitions: [a, b], ranges: [of_a, of_b] } => {
                write!(f, "the device memory {of_a} of \"{a}\" and {of_b} of \"{b}\" overlaps; give it to one of them")
            }
            Self::MmioOverlap { partition, ranges: [a, b] } => write!(
                f,
                "partition \"{partition}\" is to see device memory at {a} and at {b}, which overlap; move one"
            ),
            Self::EntryOutsideMemory { partition, what, gpa, memory_bytes } => write!(
                f,
                "the {what} of partition \"{partition}\" is at {gpa:#x}, outside its {memory_bytes:#x} bytes of \
                 memory; give it more memory or link the image lower"
            ),
            Self::EntryNotLoaded { partition, gpa } => write!(
                f,
                "partition \"{partition}\" starts at {gpa:#x}, where nothing is loaded; check the entry point of \
                 its image"
            ),
            Self::SegmentWithoutPartition { partition, count } => write!(
                f,
                "a segment belongs to partition number {partition}, but there are {count} (from 0); build the \
                 bundle again"
            ),
            Self::SegmentOutsideMemory { partition, gpa, memory_bytes } => write!(
                f,
                "a segment of partition \"{partition}\" begins at {gpa:#x}, outside its {memory_bytes:#x} bytes of \
                 memory; give it more memory or link the image lower"
            ),
            Self::ImageDoesNotFit { partition, end, memory_bytes } => write!(
                f,
                "the image of partition \"{partition}\" needs memory up to {end:#x}, but has {memory_bytes:#x} bytes; \
                 give it more"
            ),
            Self::SegmentOverlap { partition, ranges: [a, b] } => write!(
                f,
                "the segments {a} and {b} of partition \"{partition}\" overlap; link its image, or place its parts, \
                 apart"
            ),
            Self::SegmentOverAcpi { partition, range } => write!(
                f,
                "the segment {range} of partition \"{partition}\" lies over the ACPI tables at {}; link its image \
                 elsewhere",
                Range::at(RSDP, ACPI_LEN)
            ),
        }
    }
}
