//! The directory of a run, read back.

use crate::run_dir::{ELF_DIR, SYSTEM_FILE, TRACE_FILE};
use crate::run_info::{RUN_FILE, RunInfo};
use crate::system_file::SystemFile;
use partita_trace::file::{Damage, TraceFile};
use partita_trace::layout::WriterKind;
use partita_trace::reader::RegionDump;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no trace to show.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a directory.
    #[error("{} is not a directory; pass the output directory of a run", path.display())]
    NoDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// There is no trace in it.
    #[error("cannot read the trace {}: {cause}; pass the output directory of a run", path.display())]
    NoTrace {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nothing of the trace can be read.
    #[error("{}: {damage}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        damage: Damage,
    },
}

/// Whose region it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The hypervisor's: ring n is pCPU n's.
    Hypervisor,
    /// A payload's on the bare machine: ring n is CPU n's.
    Bare,
    /// A partition's: ring n is vCPU n's.
    Partition {
        /// Its number.
        number: u16,
        /// Its name, if the system file is there.
        name: Option<String>,
        /// The pCPU of each vCPU, if the system file is there.
        pcpus: Vec<u16>,
    },
}

impl Owner {
    /// The pCPU that writes a ring, if it is known.
    pub fn pcpu(&self, ring: u16) -> Option<u16> {
        match self {
            Self::Hypervisor | Self::Bare => Some(ring),
            Self::Partition { pcpus, .. } => pcpus.get(usize::from(ring)).copied(),
        }
    }

    /// What people call a ring.
    pub fn ring_name(&self, ring: u16) -> String {
        match self {
            Self::Hypervisor => format!("pCPU {ring}"),
            Self::Bare => format!("bare CPU {ring}"),
            Self::Partition { .. } => format!("{}/vCPU {ring}", self.name()),
        }
    }

    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Hypervisor => "hypervisor".to_owned(),
            Self::Bare => "bare payload".to_owned(),
            Self::Partition { name: Some(name), .. } => name.clone(),
            Self::Partition { number, .. } => format!("partition {number}"),
        }
    }
}

/// A region of a trace.
#[derive(Clone, Debug)]
pub struct TraceRegion {
    /// Whose it is.
    pub owner: Owner,
    /// Where it lay, host-physical.
    pub hpa: u64,
    /// What is in it.
    pub dump: RegionDump,
}

/// The trace of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its regions, the hypervisor's first.
    pub regions: Vec<TraceRegion>,
    /// What of it is damaged, and where; a sentence each.
    pub damage: Vec<String>,
    /// What else a reader should know.
    pub notes: Vec<String>,
    /// The facts of the run, if they are there.
    pub run: Option<RunInfo>,
    /// Frequency of the TSC in Hz, if it is known.
    pub tsc_hz: Option<u64>,
    /// Names of the partitions by number, if the system file is there.
    pub partitions: Vec<String>,
    /// Where the ELF files are whose log strings it refers to.
    pub elf_dir: PathBuf,
}

impl Trace {
    /// Reads the trace of the run whose output directory `dir` is, as far as it is whole.
    ///
    /// # Errors
    /// There is no trace, or nothing of it can be read.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        if !dir.is_dir() {
            return Err(LoadError::NoDirectory { path: dir.to_path_buf() });
        }
        let path = dir.join(TRACE_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) => return Err(LoadError::NoTrace { path, cause }),
        };
        let mut notes = Vec::new();
        let run = RunInfo::read(&dir.join(RUN_FILE)).unwrap_or_else(|error| {
            notes.push(error.to_string());
            None
        });
        let system = read_system(&dir.join(SYSTEM_FILE), &mut notes);
        let mut trace = Self::parse(&bytes, system.as_ref()).map_err(|damage| LoadError::Unusable { path, damage })?;
        trace.notes.splice(0..0, notes);
        trace.run = run;
        trace.elf_dir = dir.join(ELF_DIR);
        Ok(trace)
    }

    /// Reads the bytes of a trace file. `system` is the system that ran.
    ///
    /// # Errors
    /// Nothing of it can be read.
    pub fn parse(bytes: &[u8], system: Option<&SystemFile>) -> Result<Self, Damage> {
        let (file, file_damage) = TraceFile::read(bytes);
        if let [only @ (Damage::NoIndex | Damage::BadVersion { .. })] = file_damage.as_slice() {
            return Err(only.clone());
        }
        let partitions: Vec<String> =
            system.iter().flat_map(|s| &s.config.partitions).map(|p| p.name.as_str().to_owned()).collect();
        let mut trace = Self {
            regions: Vec::new(),
            damage: file_damage.iter().map(ToString::to_string).collect(),
            notes: Vec::new(),
            run: None,
            tsc_hz: None,
            partitions,
            elf_dir: PathBuf::new(),
        };
        for (number, section) in file.sections.iter().enumerate() {
            let dump = match section.decode() {
                Ok(dump) => dump,
                Err(error) => {
                    trace.damage.push(format!("section {number} cannot be shown: {error}"));
                    continue;
                }
            };
            let owner = owner_of(section.partition, dump.header.spec.writer, system);
            trace.damage.extend(dump.damage.iter().map(|damage| format!("{}: {damage}", owner.name())));
            trace.regions.push(TraceRegion { owner, hpa: section.hpa, dump });
        }
        // All partitions share the hypervisor's time line; what it says of the clock is worth more than a guest's word.
        trace.tsc_hz = trace.regions.first().map(|region| region.dump.header.spec.tsc_hz).filter(|hz| *hz != 0);
        let is_nameless = |region: &TraceRegion| matches!(&region.owner, Owner::Partition { name: None, .. });
        if trace.regions.iter().any(is_nameless) {
            trace.notes.push(format!(
                "{SYSTEM_FILE} does not tell the names and pCPUs of all partitions in the trace: they are shown by number"
            ));
        }
        Ok(trace)
    }

    /// Whether nothing of it is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

fn owner_of(partition: Option<u16>, writer: WriterKind, system: Option<&SystemFile>) -> Owner {
    let Some(number) = partition else {
        return if writer == WriterKind::Hypervisor { Owner::Hypervisor } else { Owner::Bare };
    };
    let known = system.and_then(|system| system.config.partitions.get(usize::from(number)));
    Owner::Partition {
        number,
        name: known.map(|partition| partition.name.as_str().to_owned()),
        pcpus: known.map(|partition| partition.pcpus.to_vec()).unwrap_or_default(),
    }
}

/// The system that ran. A bare payload's run has none.
fn read_system(path: &Path, notes: &mut Vec<String>) -> Option<SystemFile> {
    if !path.exists() {
        return None;
    }
    match SystemFile::load(path) {
        Ok(system) => Some(system),
        Err(error) => {
            notes.push(error.to_string());
            None
        }
    }
}
