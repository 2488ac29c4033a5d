//! What ends a payload before its time.

use partita_rows::OptionError;
use partita_trace::layout::LayoutError;
use partita_x86_bare::boot_info::BootInfoError;
use partita_x86_bare::discover::PlatformError;
use partita_x86_bare::pm_timer;

/// Why a payload cannot go on.
#[derive(Debug)]
pub enum Error {
    /// What the loader left is no use.
    Boot(BootInfoError),
    /// The ACPI tables are no use.
    Platform(PlatformError),
    /// The clocks cannot be measured.
    Clock(pm_timer::Dead),
    /// The CPU has no x2APIC mode.
    NoX2apic,
    /// The trace region does not fit its place.
    Trace(LayoutError),
    /// The hypervisor refused the trace window.
    WindowRefused {
        /// The hypercall's result.
        result: u64,
    },
    /// The command line.
    Options(OptionError<'static>),
    /// Fewer CPUs than the payload needs.
    TooFewCpus {
        /// Those that are there.
        found: usize,
        /// Those that it needs.
        needed: usize,
    },
    /// What is to be done makes no sense on the bare machine.
    OnlyInPartition {
        /// What it is.
        what: &'static str,
    },
    /// A CPU did not do what the others waited for.
    CpuSilent {
        /// Its number.
        cpu: usize,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Boot(error) => error.fmt(f),
            Self::Platform(error) => error.fmt(f),
            Self::Clock(error) => error.fmt(f),
            Self::NoX2apic => write!(f, "the CPU has no x2APIC mode; use one that has, for instance -cpu max"),
            Self::Trace(error) => write!(f, "trace region: {error:?}"),
            Self::WindowRefused { result } => {
                write!(
                    f,
                    "the hypervisor refused the trace window (result {result:#x}); give the partition more memory"
                )
            }
            Self::Options(error) => error.fmt(f),
            Self::TooFewCpus { found, needed } => write!(f, "{found} CPU(s), but the payload needs {needed}; add some"),
            Self::OnlyInPartition { what } => {
                write!(f, "{what} is for partitions: on the bare machine nobody calls; run it under Partita")
            }
            Self::CpuSilent { cpu } => write!(f, "CPU {cpu} did not answer within the deadline"),
        }
    }
}

impl From<BootInfoError> for Error {
    fn from(error: BootInfoError) -> Self {
        Self::Boot(error)
    }
}

impl From<PlatformError> for Error {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}

impl From<pm_timer::Dead> for Error {
    fn from(error: pm_timer::Dead) -> Self {
        Self::Clock(error)
    }
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        Self::Trace(error)
    }
}

impl From<OptionError<'static>> for Error {
    fn from(error: OptionError<'static>) -> Self {
        Self::Options(error)
    }
}
