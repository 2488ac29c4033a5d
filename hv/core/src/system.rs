//! The description of a partitioned system: what the host tool makes of a system file, what the bundle carries,
//! and what the hypervisor divides the machine by.
//!
//! The host checks it (`partita check`) and the hypervisor checks it again at boot, by the same rules.

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// Most partitions of one system.
pub const PARTITIONS_MAX: usize = 16;
/// Most pCPUs of one partition.
pub const PARTITION_PCPUS_MAX: usize = 32;
/// Most ranges of I/O ports that one partition is given.
pub const PORT_RANGES_MAX: usize = 16;
/// Most ranges of device memory that one partition is given.
pub const MMIO_RANGES_MAX: usize = 8;
/// Longest name of a system or a partition, in bytes.
pub const NAME_MAX: usize = 32;

/// Name of a system or a partition.
pub type Name = String<NAME_MAX>;

/// A whole system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemConfig {
    /// What people call it.
    pub name: Name,
    /// The hypervisor's own core.
    pub housekeeping: Housekeeping,
    /// The trace.
    pub trace: TraceConfig,
    /// The partitions, in the order of the system file. Their index is their number.
    pub partitions: Vec<Partition, PARTITIONS_MAX>,
}

/// The hypervisor's own core: it runs no guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Housekeeping {
    /// Its pCPU number.
    pub pcpu: u16,
    /// SMP calls that it makes to every other pCPU in use, per second; 0 for never.
    pub smp_call_hz: u32,
    /// How long an SMP call waits before it reports its late targets, in milliseconds.
    pub smp_call_deadline_ms: u32,
    /// End the run after so many rounds of SMP calls; 0 for no such end. A latency or kick test counts with it.
    pub smp_call_rounds: u32,
    /// How a round of SMP calls reaches its targets.
    pub smp_call_mode: SmpCallMode,
}

/// How a round of SMP calls reaches its targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmpCallMode {
    /// Each target by a call of its own, one after the other.
    #[default]
    Each,
    /// All targets at once by one call.
    Broadcast,
}

/// The trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceConfig {
    /// Bytes of each pCPU's ring; a power of two from 4 KiB to 8 MiB.
    pub ring_bytes: u32,
    /// Whether the exits of guests are recorded and counted: a frame and a histogram's bin for each. All else always is.
    pub exits: bool,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// What people call it; unique in the system.
    pub name: Name,
    /// vCPU n runs on the n-th of these, alone, for ever.
    pub pcpus: Vec<u16, PARTITION_PCPUS_MAX>,
    /// Who owns the local APIC of its pCPUs.
    pub lapic: LapicMode,
    /// Bytes of guest-physical memory, from address 0.
    pub memory_bytes: u64,
    /// Host-physical address of that memory, or `None` to let the hypervisor choose.
    pub memory_at: Option<u64>,
    /// How its first vCPU starts.
    pub entry: Entry,
    /// What the guest is told about its hypervisor.
    pub identity: Identity,
    /// The serial port it owns.
    pub console: Option<SerialPort>,
    /// I/O ports of devices that it owns, beside its serial port.
    pub io_ports: Vec<PortRange, PORT_RANGES_MAX>,
    /// Memory of devices that it owns.
    pub mmio: Vec<MmioRange, MMIO_RANGES_MAX>,
    /// What its end means for the run.
    pub expect: Expectation,
    /// What follows when its guest reboots.
    pub on_reboot: OnReboot,
    /// Whether the system is to run only with it: else, if its image is bad, the others start without it.
    pub is_required: bool,
}

/// I/O ports of a device that a partition owns: the guest reaches them without an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// Memory of a device that a partition owns: the guest reaches it without an exit, uncached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioRange {
    /// Where the guest sees it: a multiple of 4 KiB behind its memory.
    pub gpa: u64,
    /// Where it is: a multiple of 4 KiB that is no RAM.
    pub hpa: u64,
    /// Bytes, a multiple of 4 KiB.
    pub bytes: u64,
}

/// What follows when a guest reboots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnReboot {
    /// The partition starts again, loaded anew.
    #[default]
    Restart,
    /// The partition ends, which is a success as a power-off is.
    End,
}

/// Who owns the local APIC of a partition's pCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LapicMode {
    /// The guest: timer, EOI, TPR and received interrupts cost no exit.
    Passthrough,
}

/// How a partition's first vCPU starts. All addresses are guest-physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// PVH: 32-bit protected mode without paging, EBX = start info
    /// (Xen, docs/misc/pvh.pandoc).
    Pvh {
        /// First instruction.
        entry: u32,
        /// The `hvm_start_info`.
        start_info: u32,
    },
    /// Linux's 64-bit boot protocol: long mode, identity-mapped, RSI = boot parameters
    /// (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Linux64 {
        /// First instruction.
        entry: u64,
        /// The `boot_params`.
        boot_params: u64,
        /// Root of the first page tables.
        page_tables: u64,
        /// The first GDT: 0x10 is code, 0x18 is data.
        gdt: u64,
    },
    /// Multiboot 1: 32-bit protected mode without paging, EAX = 0x2BADB002, EBX = information
    /// (Multiboot Specification 0.6.96, section 3.2).
    Multiboot {
        /// First instruction.
        entry: u32,
        /// The multiboot information structure.
        info: u32,
    },
    /// Long mode, identity-mapped, RDI = PVH start info: an ELF64 without a boot protocol, or a flat image.
    Long {
        /// First instruction.
        entry: u64,
        /// The `hvm_start_info`.
        start_info: u64,
        /// Root of the first page tables.
        page_tables: u64,
        /// The first GDT: 0x10 is code, 0x18 is data.
        gdt: u64,
    },
    /// Real mode, as after a start-up IPI but at any address below 1 MiB: a flat image.
    Real {
        /// Selector of CS; its base is 16 times that.
        segment: u16,
        /// IP.
        offset: u16,
    },
    /// Nothing to start: its image is bad, and the system starts without it.
    Missing,
}

/// What a guest is told about its hypervisor in CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// Partita's own leaves only.
    Partita,
    /// And VMware's, by which Linux learns its frequencies and accepts x2APIC without interrupt remapping.
    Linux,
}

/// A PC serial port that a partition can own. COM1 is the hypervisor's. From COM5 on no standard says where they are:
/// these ports are customary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SerialPort {
    /// Ports 0x2F8 to 0x2FF.
    Com2,
    /// Ports 0x3E8 to 0x3EF.
    Com3,
    /// Ports 0x2E8 to 0x2EF.
    Com4,
    /// Ports 0x5F8 to 0x5FF.
    Com5,
    /// Ports 0x4F8 to 0x4FF.
    Com6,
    /// Ports 0x5E8 to 0x5EF.
    Com7,
    /// Ports 0x4E8 to 0x4EF.
    Com8,
}

impl SerialPort {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [Self::Com2, Self::Com3, Self::Com4, Self::Com5, Self::Com6, Self::Com7, Self::Com8];

    /// Its number, from 2 to 8: that of COM2 is 2.
    pub const fn number(self) -> u8 {
        self as u8 + 2
    }
}

/// What the end of a partition means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expectation {
    /// It ends by itself, with success; the run ends when all such partitions have.
    Finish,
    /// It runs for as long as the others do; its end is a failure.
    Run,
    /// Whatever becomes of it is right: the run neither waits for it nor fails with it.
    Anything,
}

impl core::fmt::Display for SerialPort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "COM{}", self.number())
    }
}

impl core::fmt::Display for PortRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}
