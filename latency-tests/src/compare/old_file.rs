//! The file of an earlier run.

use crate::figures::{BenchFile, Unit};
use partita_host::run_info::ClockName;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// An earlier `bench.json`, of this version of the tool or of another.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OldFile {
    machine: String,
    clock: ClockName,
    /// Older files have ticks and do not say so.
    #[serde(default = "ticks")]
    unit: Unit,
    pub(super) rows: Vec<OldRow>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct OldRow {
    pub(super) name: String,
    pub(super) partita: OldFigures,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct OldFigures {
    pub(super) p50: u64,
    pub(super) max: u64,
    pub(super) count: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OldFiles {
    Several(Vec<serde_json::Value>),
    One(serde_json::Value),
}

fn ticks() -> Unit {
    Unit::Ticks
}

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}; give a file that `cargo partita bench --json` wrote", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not what `bench` writes.
    #[error("{} is no file of the latency suite: {cause}; give one that `cargo partita bench --json` wrote", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// It is about another machine.
    #[error(
        "{} has the figures of {}, but these are of {machine}; compare with a file of the same machine (--machine)",
        path.display(), there.join(", ")
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// Its machines.
        there: Vec<String>,
        /// This one.
        machine: String,
    },
    /// It has another clock, or other units.
    #[error(
        "{} is in {there}, but these figures are in {here}; a {there} and a {here} cannot be compared, measure again",
        path.display()
    )]
    OtherClock {
        /// The file.
        path: PathBuf,
        /// Unit and clock there.
        there: String,
        /// Unit and clock here.
        here: String,
    },
}

impl OldFile {
    /// Reads the files of all machines that are in a `bench.json`: one, or a list of them.
    ///
    /// # Errors
    /// It cannot be read, or is not what `bench` writes.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, CompareError> {
        let text = std::fs::read(path).map_err(|cause| CompareError::Read { path: path.to_path_buf(), cause })?;
        let form = |cause| CompareError::Form { path: path.to_path_buf(), cause };
        let values = match serde_json::from_slice(&text).map_err(form)? {
            OldFiles::Several(values) => values,
            OldFiles::One(value) => vec![value],
        };
        values.into_iter().map(|value| serde_json::from_value(value).map_err(form)).collect()
    }

    /// That of these which is about a machine.
    ///
    /// # Errors
    /// There is none. `path` is where they are from.
    pub fn of_machine<'f>(files: &'f [Self], machine: &str, path: &Path) -> Result<&'f Self, CompareError> {
        let found = files.iter().find(|old| old.machine == machine);
        found.ok_or_else(|| CompareError::OtherMachine {
            path: path.to_path_buf(),
            there: files.iter().map(|old| old.machine.clone()).collect(),
            machine: machine.to_owned(),
        })
    }

    /// That of these which can be compared with `file`.
    ///
    /// # Errors
    /// There is none of that machine, or it has another clock or unit. `path` is where they are from.
    pub fn fitting<'f>(files: &'f [Self], file: &BenchFile, path: &Path) -> Result<&'f Self, CompareError> {
        let old = Self::of_machine(files, &file.machine, path)?;
        if (old.clock, old.unit) == (file.clock, file.unit) {
            return Ok(old);
        }
        let words = |unit: Unit, clock: ClockName| match unit {
            Unit::Ticks => format!("ticks of the {} clock", clock.name()),
            Unit::Ns => "nanoseconds".to_owned(),
        };
        let (there, here) = (words(old.unit, old.clock), words(file.unit, file.clock));
        Err(CompareError::OtherClock { path: path.to_path_buf(), there, here })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;
    use partita_host::emulator::MachineKind;

    #[test]
    fn what_cannot_be_compared_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            OldFile::read_all(&path).map_err(|error| error.to_string())
        };
        for broken in ["", "{", "7", "{\"machine\": \"qemu-svm\"}", "[{\"rows\": []}]"] {
            let error = read(broken).unwrap_err();
            assert!(error.contains("old.json is no file of the latency suite") && error.contains("--json"), "{error}");
        }
        let here = file(5, 100);
        let text = serde_json::to_string(&here).unwrap();
        let fitting = |text: &str, here: &BenchFile| {
            OldFile::fitting(&read(text).unwrap(), here, &path).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(fitting(&text, &here), Ok(()));
        assert_eq!(fitting(&format!("[{text}]"), &here), Ok(()), "several machines in one file");
        let bochs = BenchFile { machine: MachineKind::BOCHS_VMX.result_name(), ..here.clone() };
        let error = fitting(&text, &bochs).unwrap_err();
        assert!(error.contains("the figures of qemu-svm, but these are of bochs-vmx"), "{error}");
        let error = fitting(&text, &here.clone().in_nanoseconds(1)).unwrap_err();
        assert!(error.contains("ticks of the icount clock") && error.contains("nanoseconds"), "{error}");
        let missing = OldFile::read_all(&dir.path().join("no.json")).unwrap_err().to_string();
        assert!(missing.contains("no.json") && missing.contains("--json"), "{missing}");
        let old_form = "{\"machine\":\"qemu-svm\",\"clock\":\"icount\",\"rows\":[{\"name\":\"exit.cpuid\",\"bare\":null,\
                        \"partita\":{\"min\":1,\"p50\":2,\"p99\":3,\"max\":4,\"count\":5}}]}";
        assert_eq!(fitting(old_form, &here), Ok(()), "files without units are in ticks");
    }
}
