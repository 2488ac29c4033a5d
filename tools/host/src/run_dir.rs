//! The directory of a run: its logs, its trace and everything needed to decode it.

use crate::emulator::SERIAL_PORTS;
use crate::run_info::RUN_FILE;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The trace, as taken out of the machine.
pub const TRACE_FILE: &str = "trace.bin";
/// A copy of the system file.
pub const SYSTEM_FILE: &str = "system.toml";
/// The ELF files whose log strings the trace refers to, named by build ID.
pub const ELF_DIR: &str = "elf";
/// The machine's RAM; it is there during the run only, unless it is asked for.
pub const RAM_FILE: &str = "ram.bin";
/// The boot bundle.
pub const BUNDLE_FILE: &str = "bundle.bin";
/// What QEMU itself printed.
pub const QEMU_LOG: &str = "qemu.log";
/// The log of Bochs.
pub const BOCHS_LOG: &str = "bochs.log";
/// What Bochs printed on standard error.
pub const BOCHS_MESSAGES: &str = "bochs-messages.log";
/// The configuration file of Bochs.
pub const BOCHS_CONFIG: &str = "bochsrc";
/// What the debugger of Bochs is told.
pub const BOCHS_COMMANDS: &str = "debugger.rc";
/// What Bochs booted from; it is there during the run only, unless the RAM is asked for.
pub const ISO_FILE: &str = "boot.iso";
/// Standard output of Bochs, with what the machine wrote to its debug port; it is kept only if that is damaged, or if the RAM is
/// asked for.
pub const DEBUG_PORT_FILE: &str = "debug-port.bin";
/// What the hypervisor printed on COM1.
pub const HYPERVISOR_LOG: &str = "hypervisor.log";
/// What a payload without a hypervisor printed on COM1.
pub const PAYLOAD_LOG: &str = "payload.log";
/// The emulator's own log of entries into guests and exits from them; there only if it was asked for, and kept only if
/// trace and log differ.
pub const WITNESS_LOG: &str = "witness.log";
/// The emulator's log of the instructions that the hypervisor executed; there only if it was asked for.
pub const INSTRUCTION_LOG: &str = "instructions.log";
const LOCK_FILE: &str = ".lock";

/// Why a directory cannot take a run.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It cannot be made or written.
    #[error("cannot write to the output directory {}: {cause}; choose another with --out", path.display())]
    NotWritable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another run has it.
    #[error("another run is using the output directory {}; wait for its end or choose another with --out", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory of one run, locked against others as long as this lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory ready: there, writable, nobody else's, and without what an earlier run left.
    ///
    /// # Errors
    /// It cannot take a run.
    pub fn prepare(path: &Path) -> Result<Self, RunDirError> {
        let not_writable = |path: &Path| {
            let path = path.to_path_buf();
            move |cause| RunDirError::NotWritable { path, cause }
        };
        std::fs::create_dir_all(path).map_err(not_writable(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(not_writable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunDirError::InUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(cause)) => return Err(not_writable(&lock_path)(cause)),
        }
        let dir = Self { path: path.to_path_buf(), _lock: lock };
        dir.remove_stale().map_err(not_writable(path))?;
        Ok(dir)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The log of a partition.
    pub fn log(&self, partition: &str) -> PathBuf {
        self.path.join(format!("{partition}.log"))
    }

    /// What a partition wrote to its debugcon.
    pub fn debugcon_log(&self, partition: &str) -> PathBuf {
        self.path.join(format!("{partition}.debugcon.log"))
    }

    /// What the serial port of this number, from 0 on, reads during the run.
    pub fn input(&self, port: usize) -> PathBuf {
        self.path.join(format!("com{}.in", port + 1))
    }

    /// Removes what an earlier run left, and nothing else: the directory is the user's choice.
    fn remove_stale(&self) -> io::Result<()> {
        let of_bochs = [BOCHS_CONFIG, BOCHS_COMMANDS, ISO_FILE, DEBUG_PORT_FILE];
        for name in [TRACE_FILE, SYSTEM_FILE, RUN_FILE, RAM_FILE, BUNDLE_FILE].into_iter().chain(of_bochs) {
            remove_if_there(&self.file(name))?;
        }
        for port in 0..SERIAL_PORTS {
            remove_if_there(&self.input(port))?;
        }
        for (dir, suffix) in [(self.path.clone(), ".log"), (self.file(ELF_DIR), ".elf")] {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(suffix) && entry.file_type()?.is_file() {
                    remove_if_there(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_and_cleaned_of_an_earlier_run_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        drop(RunDir::prepare(&path).unwrap());
        std::fs::create_dir(path.join(ELF_DIR)).unwrap();
        for name in ["trace.bin", "rt0.log", "com2.in", "elf/0123.elf", "bench.json", "notes.txt"] {
            std::fs::write(path.join(name), "x").unwrap();
        }
        let dir = RunDir::prepare(&path).unwrap();
        let left = |name: &str| dir.file(name).exists();
        assert!(!left("trace.bin") && !left("rt0.log") && !left("com2.in") && !left("elf/0123.elf"));
        assert!(left("bench.json") && left("notes.txt"));
    }

    #[test]
    fn a_directory_takes_one_run_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = RunDir::prepare(root.path()).unwrap();
        let error = RunDir::prepare(root.path()).unwrap_err();
        assert!(error.to_string().contains("--out"), "{error}");
        drop(first);
        assert!(RunDir::prepare(root.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(RunDir::prepare(&path), Err(RunDirError::NotWritable { .. })));
    }
}
