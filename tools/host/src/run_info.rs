//! `run.json`: what a trace does not know about its own run.

use crate::emulator::{Clock, MachineKind, MachineSpec};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The file, in the directory of a run.
pub const RUN_FILE: &str = "run.json";
/// Version of the file's format.
pub const RUN_VERSION: u32 = 1;

/// How time passed, as files of results name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockName {
    /// By instructions: two runs are identical.
    Icount,
    /// As on the host.
    Tsc,
}

impl ClockName {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Icount => "icount",
            Self::Tsc => "tsc",
        }
    }
}

impl From<Clock> for ClockName {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Host => Self::Tsc,
            Clock::Icount => Self::Icount,
        }
    }
}

/// The facts of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// Version of the format: [`RUN_VERSION`].
    pub version: u32,
    /// How time passed.
    pub clock: ClockName,
    /// What a tick of its time-stamp counter is; empty if an older version of the tool ran it.
    #[serde(default)]
    pub tick: String,
    /// What the system ran in.
    pub emulator: String,
    /// Emulator and virtualisation, as results name them; empty if an older version of the tool ran it.
    #[serde(default)]
    pub machine: String,
    /// pCPUs of the machine.
    pub pcpus: u16,
    /// RAM of the machine in bytes.
    pub memory: u64,
}

/// Why the facts of a run cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RunInfoError {
    /// The file cannot be read or written.
    #[error("cannot read or write {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is not what a run writes.
    #[error("{} is not the file of a run: {cause}; run the system again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
    /// Another version of the tool wrote it.
    #[error("{} is of version {version}, this tool reads {RUN_VERSION}; run the system again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl RunInfo {
    /// The facts of a run of `machine` in an emulator.
    pub fn new(kind: MachineKind, machine: &MachineSpec<'_>) -> Self {
        Self {
            version: RUN_VERSION,
            clock: machine.clock.into(),
            tick: kind.tick(machine.clock).to_owned(),
            emulator: kind.emulator().name().to_owned(),
            machine: kind.result_name(),
            pcpus: machine.pcpus,
            memory: machine.memory,
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RunInfoError> {
        let io = |cause| RunInfoError::Io { path: path.to_path_buf(), cause };
        let mut text = serde_json::to_vec_pretty(self).map_err(|cause| io(cause.into()))?;
        text.push(b'\n');
        std::fs::write(path, text).map_err(io)
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what a run writes.
    pub fn read(path: &Path) -> Result<Option<Self>, RunInfoError> {
        let path_buf = || path.to_path_buf();
        let text = match std::fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|cause| RunInfoError::Io { path: path_buf(), cause })?,
        };
        let info: Self =
            serde_json::from_slice(&text).map_err(|cause| RunInfoError::Form { path: path_buf(), cause })?;
        if info.version != RUN_VERSION {
            return Err(RunInfoError::Version { path: path_buf(), version: info.version });
        }
        Ok(Some(info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RUN_FILE);
        assert_eq!(RunInfo::read(&path).unwrap(), None);
        let info = RunInfo {
            version: 1,
            clock: ClockName::Icount,
            tick: "1 tick".into(),
            emulator: "QEMU".into(),
            machine: "qemu-svm".into(),
            pcpus: 4,
            memory: 512 << 20,
        };
        info.write(&path).unwrap();
        assert_eq!(RunInfo::read(&path).unwrap(), Some(info.clone()));
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"clock\": \"icount\""));
        let old = r#"{"version": 1, "clock": "icount", "emulator": "QEMU", "pcpus": 4, "memory": 536870912}"#;
        std::fs::write(&path, old).unwrap();
        let (tick, machine) = (String::new(), String::new());
        assert_eq!(RunInfo::read(&path).unwrap(), Some(RunInfo { tick, machine, ..info.clone() }));
        RunInfo { version: 9, ..info }.write(&path).unwrap();
        assert!(matches!(RunInfo::read(&path), Err(RunInfoError::Version { version: 9, .. })));
        std::fs::write(&path, "{\"version\": 1}").unwrap();
        assert!(RunInfo::read(&path).unwrap_err().to_string().contains("run.json"));
    }
}
