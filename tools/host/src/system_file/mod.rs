//! System files: one TOML file describes one partitioned system.
//!
//! [`SystemFile::load`] reads one and makes of it the [`SystemConfig`] that the hypervisor gets, and the facts that
//! only the host needs: where the images come from, and the machine to emulate. `docs/configuration.md` is the
//! reference of its keys.

mod convert;
mod devices;
mod diagnostic;
mod image;
mod raw;
mod rules;
mod size;
mod spans;

pub use devices::TestDevice;
pub use diagnostic::{Diagnostic, SystemFileError};
pub use size::human;
pub use spans::{Part, Place};

use crate::emulator::Clock;
use crate::image::{ElfBoot, FlatMode, FlatPlace, LinkedImage};
use diagnostic::Diagnostics;
use partita_core::system::{Expectation, SystemConfig};
use spans::{PartitionSpans, Spans};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest command line of a partition, in bytes.
pub const CMDLINE_MAX: usize = 2047;
/// Most pCPUs of the emulated machine.
pub const MACHINE_PCPUS_MAX: u16 = 255;
/// Names that no system and no partition can have: logs of a run are called so.
pub const RESERVED_NAMES: [&str; 3] = ["hypervisor", "qemu", "payload"];

/// A system file that was read and understood.
#[derive(Clone, Debug)]
pub struct SystemFile {
    /// The file.
    pub path: PathBuf,
    /// What the hypervisor gets. The partitions' entries are placeholders until their images are linked.
    pub config: SystemConfig,
    /// The machine to emulate.
    pub machine: Machine,
    /// Where the image of each partition comes from, by partition number.
    pub images: Vec<ImageSource>,
    /// The command line of each partition, by partition number.
    pub cmdlines: Vec<String>,
    /// The emulator's test devices that each partition has, by partition number.
    pub test_devices: Vec<Vec<TestDevice>>,
    /// What is reported of a run, if anything.
    pub report: Option<CyclictestReport>,
    /// How it is run, if nothing else is said.
    pub run: RunDefaults,
    text: String,
    spans: Spans,
}

/// How a system is run, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunDefaults {
    /// How time passes.
    pub clock: Clock,
    /// When the run is ended, if the system file says so.
    pub timeout: Option<Duration>,
}

/// A report on a run of cyclictest in one partition, and on what another one does meanwhile. By partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CyclictestReport {
    /// Runs cyclictest.
    pub partition: usize,
    /// Keeps its own pCPUs busy meanwhile.
    pub beside: Option<usize>,
}

/// The emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of pCPUs.
    pub pcpus: u16,
    /// RAM in bytes; `None` for as much as the system needs.
    pub memory: Option<u64>,
}

/// Where a partition's image comes from. Paths are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An ELF file.
    Elf {
        /// The file.
        path: PathBuf,
        /// How it boots; `None` for what the file has.
        boot: Option<ElfBoot>,
        /// What is loaded beside it.
        modules: Vec<ModuleSource>,
    },
    /// A multiboot image in a file of any format.
    Multiboot {
        /// The file.
        path: PathBuf,
        /// What is loaded beside it.
        modules: Vec<ModuleSource>,
    },
    /// A file that is loaded as it is.
    Flat {
        /// The file.
        path: PathBuf,
        /// Where it goes, and how it begins.
        place: FlatPlace,
    },
    /// A bare-metal payload of this repository, built when needed.
    Payload {
        /// Its name: the package is `partita-payload-NAME`.
        name: String,
        /// How it boots.
        boot: PayloadBoot,
        /// What is loaded beside it.
        modules: Vec<ModuleSource>,
    },
    /// A Linux kernel.
    Linux {
        /// The bzImage.
        kernel: KernelSource,
        /// Its initial RAM disk, if any.
        initrd: Option<InitrdSource>,
    },
}

/// How a payload of this repository boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBoot {
    /// As the ELF file that it is; for multiboot, as the ELF32 file that is made of it.
    Elf(ElfBoot),
    /// As the flat image that is made of it.
    Flat {
        /// In which mode it begins.
        mode: FlatMode,
        /// Where it is loaded; `None` for where it is linked to.
        at: Option<u64>,
    },
}

/// Where a boot module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// The file.
    pub path: PathBuf,
    /// Its command line.
    pub cmdline: String,
}

/// Where a Linux kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// `boot/vmlinuz-*` of a Debian package, or of the package that this one depends on.
    Package(String),
    /// A bzImage file.
    File(PathBuf),
}

/// Where an initial RAM disk comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitrdSource {
    /// A file, passed on as it is.
    File(PathBuf),
    /// Built from Debian packages.
    Initramfs(InitramfsSource),
}

/// What an initramfs is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitramfsSource {
    /// The script or program that becomes `/init`.
    pub init: PathBuf,
    /// Debian packages that files and the libraries they need are taken from, in this order.
    pub packages: Vec<String>,
    /// Files of the packages.
    pub files: Vec<PackageFile>,
}

/// One file of a package, on its way into an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Path in a package, without a leading slash.
    pub from: String,
    /// Absolute path in the initramfs.
    pub to: String,
}

/// Why a system file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the system file {}: {cause}; pass the path of an existing .toml file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is read but wrong.
    #[error(transparent)]
    Invalid(#[from] SystemFileError),
}

impl SystemFile {
    /// Reads and understands the file at `path`, and checks it by the rules of [`partita_core::rules`].
    ///
    /// # Errors
    /// The file cannot be read, or has problems: all that were found.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| LoadError::Read { path: path.to_path_buf(), cause })?;
        Ok(Self::parse(&text, path)?)
    }

    /// Understands and checks `text` as the system file at `path`, to whose directory paths in it are relative.
    ///
    /// # Errors
    /// All problems that were found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SystemFileError> {
        let file = convert::convert(text, path)?;
        rules::check(&file)?;
        Ok(file)
    }

    /// What the rules that the hypervisor will check, too, find about the linked images, by partition number.
    pub fn image_problems(&self, images: &[LinkedImage]) -> Vec<(Place, String)> {
        rules::image_problems(self, images)
    }

    /// The file's text, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A problem of one partition that was found later than at reading, as an error with its position.
    pub fn problem(&self, partition: usize, part: Part, message: impl Into<String>) -> SystemFileError {
        self.problems([(Place::Partition(partition, part), message.into())])
    }

    /// Problems that were found later than at reading, as an error with their positions.
    pub fn problems(&self, found: impl IntoIterator<Item = (Place, String)>) -> SystemFileError {
        let mut diagnostics = Diagnostics::new(&self.text);
        for (place, message) in found {
            diagnostics.add(self.spans.of(place), message);
        }
        diagnostics.into_error(self.path.clone())
    }

    /// Whether no partition is expected to finish and no number of rounds ends the run: then only a time-out does.
    pub fn is_open_ended(&self) -> bool {
        let finishes = self.config.partitions.iter().any(|partition| partition.expect == Expectation::Finish);
        self.config.housekeeping.smp_call_rounds == 0 && !finishes
    }
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod tests;
