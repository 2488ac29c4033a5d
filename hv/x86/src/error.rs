//! Why the hypervisor refuses to start, or a partition to start or stop: one line for the console that names the thing,
//! the value and the cure.

use core::fmt::{Display, Formatter, Result};

use partita_abi::bundle::BundleError;
use partita_console::serial::{Serial, SerialError};
use partita_core::arch::PcpuId;
use partita_core::encode::CodecError;
use partita_core::memory::DivideError;
use partita_trace::layout::LayoutError;
use partita_x86_policy::apic_view::ApicViewError;

use crate::clock::ClockError;
use crate::memory::paging::MapError;
use crate::memory::pool::PoolExhausted;
use partita_x86_bare::boot_info::BootInfoError;
use partita_x86_bare::discover::PlatformError;
use partita_x86_policy::capabilities::Missing;

/// A refusal.
#[derive(Debug)]
pub enum Refusal {
    /// The loader's tables.
    Boot(BootInfoError),
    /// The option that chooses the serial port.
    Serial(SerialError<'static>),
    /// A partition is to have the hypervisor's console.
    ConsoleTaken {
        /// Number of the partition.
        partition: usize,
        /// The console.
        serial: Serial,
    },
    /// The CPU lacks something.
    Cpu(Missing),
    /// ACPI's tables.
    Platform(PlatformError),
    /// The clocks.
    Clock(ClockError),
    /// No boot module.
    NoBundle,
    /// The boot module lies above what is mapped at boot.
    BundleTooHigh {
        /// Its end.
        end: u64,
    },
    /// The boot module lies where the start-up page goes, and there is no room for it elsewhere.
    BundleTooLow {
        /// Its end.
        end: u64,
    },
    /// The bundle.
    Bundle(BundleError),
    /// Its system description.
    Config(CodecError),
    /// The rules of the system, each violation printed before.
    Rules {
        /// How many.
        violations: usize,
    },
    /// Device memory or I/O ports that no partition can have.
    Reserved {
        /// Number of the partition that wants them.
        partition: usize,
        /// Which of the two.
        what: &'static str,
        /// The first port or address of the range that it wants.
        first: u64,
        /// What they are for.
        why: &'static str,
    },
    /// The memory.
    Memory(DivideError),
    /// The hypervisor's own memory.
    Pool(PoolExhausted),
    /// Its page tables.
    Map(MapError),
    /// The trace region.
    Trace(LayoutError),
    /// The APIC IDs of a partition's pCPUs.
    ApicIds(ApicViewError),
    /// A table of the hypervisor is too small for the system.
    TooLarge(&'static str),
    /// A pCPU did not come up.
    PcpuDead {
        /// Which.
        pcpu: u16,
        /// Its x2APIC ID.
        apic_id: u32,
    },
    /// A pCPU came up, but answers no kick.
    PcpuSilent {
        /// Which.
        pcpu: u16,
        /// Its x2APIC ID.
        apic_id: u32,
    },
    /// A pCPU lacks what the boot pCPU has.
    PcpuUnfit {
        /// Which.
        pcpu: u16,
        /// Its x2APIC ID.
        apic_id: u32,
        /// What, if that is more than being told apart from the boot pCPU.
        missing: Option<Missing>,
    },
    /// A pCPU did not take its vCPU.
    PcpuLate {
        /// Which.
        pcpu: u16,
    },
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Boot(error) => error.fmt(f),
            Self::Serial(error) => error.fmt(f),
            Self::ConsoleTaken { partition, serial } => write!(
                f,
                "partition {partition} is to own {serial}, which is the hypervisor's console; give one of them another port, \
                 the hypervisor by the option serial"
            ),
            Self::Cpu(error) => error.fmt(f),
            Self::Platform(error) => error.fmt(f),
            Self::Clock(error) => error.fmt(f),
            Self::NoBundle => write!(f, "no boot bundle; pass it as the only boot module, for instance by -initrd"),
            Self::BundleTooHigh { end } => {
                write!(f, "the boot bundle ends at {end:#x}, above 4 GiB; have the loader put it lower")
            }
            Self::BundleTooLow { end } => {
                write!(
                    f,
                    "the boot bundle ends at {end:#x}, in low memory, and fits nowhere else; give the machine more memory"
                )
            }
            Self::Bundle(error) => error.fmt(f),
            Self::Config(error) => write!(f, "the bundle's system description: {error}"),
            Self::Rules { violations } => {
                write!(f, "the system breaks {violations} rule(s), listed above; see `partita check`")
            }
            Self::Reserved { partition, what, first, why } => {
                write!(f, "partition {partition} is to own the {what} from {first:#x} on, with {why}; leave them out")
            }
            Self::Memory(error) => error.fmt(f),
            Self::Pool(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Trace(error) => write!(f, "the trace region: {error}"),
            Self::ApicIds(error) => error.fmt(f),
            Self::TooLarge(what) => write!(f, "the system is too large for this build: {what}"),
            Self::PcpuDead { pcpu, apic_id } => {
                write!(f, "pCPU {pcpu} (x2APIC ID {apic_id}) did not come up within its deadline")
            }
            Self::PcpuSilent { pcpu, apic_id } => {
                write!(f, "pCPU {pcpu} (x2APIC ID {apic_id}) came up, but answers no kick within its deadline")
            }
            Self::PcpuUnfit { pcpu, apic_id, missing: Some(missing) } => {
                write!(f, "pCPU {pcpu} (x2APIC ID {apic_id}) is not as the boot CPU: {missing}")
            }
            Self::PcpuUnfit { pcpu, apic_id, missing: None } => write!(
                f,
                "pCPU {pcpu} (x2APIC ID {apic_id}) has not all of SVM or VMX that the boot CPU has, or cannot switch it on; \
                 update the firmware, or use pCPUs of one kind"
            ),
            Self::PcpuLate { pcpu } => write!(f, "pCPU {pcpu} did not take its vCPU within its deadline"),
        }
    }
}

macro_rules! from {
    ($($source:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$source> for Refusal {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

from! {
    BootInfoError => Boot,
    SerialError<'static> => Serial,
    Missing => Cpu,
    PlatformError => Platform,
    ClockError => Clock,
    BundleError => Bundle,
    CodecError => Config,
    DivideError => Memory,
    PoolExhausted => Pool,
    MapError => Map,
    LayoutError => Trace,
    ApicViewError => ApicIds,
}

/// How long a pCPU may take for a step of a partition's life: to leave its guest, to load some memory, to take its vCPU.
pub const STEP_DEADLINE_MS: u32 = 5000;

/// Why a partition was not started or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeError {
    /// It runs already.
    Runs,
    /// It does not run.
    IsDown,
    /// Its image was bad when the bundle was built.
    NoImage,
    /// Its memory cannot be mapped.
    Map(MapError),
    /// Its segments or tables do not fit its memory.
    Misfit,
    /// A pCPU was late.
    Late {
        /// Which.
        pcpu: PcpuId,
        /// With what.
        step: &'static str,
    },
}

impl Display for LifeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Runs => f.write_str("it runs already; stop it first, or restart it"),
            Self::IsDown => f.write_str("it does not run; start it"),
            Self::NoImage => {
                f.write_str("it has no image; `partita check` says what is wrong with the one it should have")
            }
            Self::Map(error) => error.fmt(f),
            Self::Misfit => f.write_str("its image or its ACPI tables do not fit into its memory"),
            Self::Late { pcpu, step } => {
                write!(f, "{pcpu} did not {step} within {STEP_DEADLINE_MS} ms; see `smp` for its state")
            }
        }
    }
}

impl From<MapError> for LifeError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}
