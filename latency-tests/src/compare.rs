//! The figures of a run beside those of an earlier one: `bench --compare OLD.json`.

use crate::figures::{BenchFile, Figures, Unit};
use crate::table::plain_table;
use comfy_table::Table;
use partita_host::run_info::ClockName;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where time does not pass by instructions, a median is slower if it is so by more than this share.
const NOISE: f64 = 0.05;

/// An earlier `bench.json`, of this version of the tool or of another.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OldFile {
    machine: String,
    clock: ClockName,
    /// Older files have ticks and do not say so.
    #[serde(default = "ticks")]
    unit: Unit,
    rows: Vec<OldRow>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct OldRow {
    name: String,
    partita: OldFigures,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct OldFigures {
    p50: u64,
    max: u64,
    count: u64,
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

/// A row then and now.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    name: String,
    old: Option<OldFigures>,
    new: Option<OldFigures>,
}

/// The rows of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    rows: Vec<Pair>,
    unit: Unit,
    is_exact: bool,
}

impl Comparison {
    /// Puts the rows of both side by side: in the order of the new file, then those that are gone.
    pub fn of(old: &OldFile, new: &BenchFile) -> Self {
        let then = |name: &str| old.rows.iter().find(|row| row.name == name).map(|row| row.partita);
        let now = |figures: &Figures| OldFigures { p50: figures.p50, max: figures.max, count: figures.count };
        let there = new.rows.iter().map(|row| Pair {
            name: row.name.to_owned(),
            old: then(row.name),
            new: Some(now(&row.partita)),
        });
        let gone = old.rows.iter().filter(|row| new.row(&row.name).is_none());
        let gone = gone.map(|row| Pair { name: row.name.clone(), old: Some(row.partita), new: None });
        Self { rows: there.chain(gone).collect(), unit: new.unit, is_exact: new.clock == ClockName::Icount }
    }

    /// The rows that are slower than they were: by a tick where time passes by instructions, else by their median, and more than
    /// by chance.
    pub fn slower(&self) -> Vec<&str> {
        let is_slower = |pair: &&Pair| match (pair.old, pair.new) {
            (Some(old), Some(new)) if self.is_exact => new.p50 > old.p50 || new.max > old.max,
            (Some(old), Some(new)) => new.p50 as f64 > old.p50 as f64 * (1.0 + NOISE),
            _ => false,
        };
        self.rows.iter().filter(is_slower).map(|pair| pair.name.as_str()).collect()
    }

    /// One line for each row that is there in both; at most 100 columns.
    pub fn table(&self) -> Table {
        let operation = format!("operation ({})", self.unit.name());
        let mut table = plain_table(1, &[&operation, "median was", "is", "diff", "%", "max was", "is", "diff", "%"]);
        for Pair { name, old, new } in &self.rows {
            let (Some(old), Some(new)) = (old, new) else { continue };
            let cells = |old: Option<u64>, new: Option<u64>| {
                let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
                let [diff, percent] = old.zip(new).map_or(["", ""].map(str::to_owned), |(old, new)| diff(old, new));
                [number(old), number(new), diff, percent]
            };
            let of = |figures: &OldFigures, value: u64| (figures.count > 0).then_some(value);
            let median = cells(of(old, old.p50), of(new, new.p50));
            let max = cells(of(old, old.max), of(new, new.max));
            table.add_row(std::iter::once(name.clone()).chain(median).chain(max));
        }
        table
    }

    /// Sentences about what the table does not have: rows that are new, and rows that are gone.
    pub fn notes(&self) -> Vec<String> {
        let of = |what: &str, is_it: fn(&Pair) -> bool| {
            let names: Vec<&str> = self.rows.iter().filter(|pair| is_it(pair)).map(|pair| pair.name.as_str()).collect();
            (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
        };
        let new = of("new, not in the old file", |pair| pair.old.is_none());
        let gone = of("gone, only in the old file", |pair| pair.new.is_none());
        new.into_iter().chain(gone).collect()
    }
}

/// A difference, with its sign, and in percent of what was.
fn diff(old: u64, new: u64) -> [String; 2] {
    let diff = i128::from(new) - i128::from(old);
    if diff == 0 {
        return ["0".to_owned(), String::new()];
    }
    let percent = if old == 0 { "new".to_owned() } else { format!("{:+.1}", diff as f64 * 100.0 / old as f64) };
    [format!("{diff:+}"), percent]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;
    use partita_host::emulator::MachineKind;

    fn old_of(file: &BenchFile) -> OldFile {
        serde_json::from_value(serde_json::to_value(file).unwrap()).unwrap()
    }

    #[test]
    fn one_tick_more_is_slower() {
        let compare = |old, new| Comparison::of(&old_of(&file(5, old)), &file(5, new));
        assert_eq!(compare(100, 100).slower(), [""; 0]);
        assert_eq!(compare(100, 99).slower(), [""; 0]);
        assert_eq!(compare(100, 101).slower().len(), partita_rows::Row::ALL.len());
        let text = compare(100, 101).table().to_string();
        let line = text.lines().find(|line| line.starts_with("exit.cpuid")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["exit.cpuid", "100", "101", "+1", "+1.0", "100", "101", "+1", "+1.0"]);
        let wide = compare(1_234_567, 9_999_999).table().to_string();
        assert!(wide.lines().all(|line| line.chars().count() <= 100), "{wide}");
    }

    #[test]
    fn chance_is_not_slower_on_hardware() {
        let by_threads = |ticks| BenchFile { clock: ClockName::Tsc, ..file(5, ticks) };
        let compare = |new| Comparison::of(&old_of(&by_threads(1000)), &by_threads(new)).slower().len();
        assert_eq!((compare(1050), compare(1051) > 0), (0, true));
    }

    #[test]
    fn new_and_gone_rows_are_named() {
        let mut old = old_of(&file(5, 100));
        old.rows[0].name = "exit.of_old".into();
        let comparison = Comparison::of(&old, &file(5, 100));
        assert_eq!(
            comparison.notes(),
            ["new, not in the old file: exit.cpuid", "gone, only in the old file: exit.of_old"]
        );
        assert!(comparison.slower().is_empty() && !comparison.table().to_string().contains("\nexit.cpuid "));
    }

    #[test]
    fn no_sample_is_no_figure() {
        let mut new = file(5, 100);
        new.rows[0].partita = Figures::default();
        let mut old = old_of(&new);
        let line = |old: &OldFile, new| Comparison::of(old, new).table().to_string().lines().nth(2).unwrap().to_owned();
        assert_eq!(line(&old, &new).split_whitespace().collect::<Vec<_>>(), ["exit.cpuid", "-", "-", "-", "-"]);
        old.rows[0].partita = OldFigures { p50: 3, max: 4, count: 9 };
        assert_eq!(line(&old, &new).split_whitespace().nth(1), Some("3"));
    }

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
