//! Log frames back to text, each with the strings of the ELF file that wrote it, and of no other.

use super::format_guard::FormatGuard;
use crate::artifacts::build_id_of;
use defmt_decoder::{Encoding, Locations, Table};
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Once;

/// Bytes of a build ID.
type BuildId = [u8; 20];

/// A log frame, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// Text.
    Text {
        /// `error`, `warn`, `info`, `debug` or `trace`; `None` for plain printing.
        level: Option<&'static str>,
        /// The message, without control characters.
        text: String,
        /// Where it was logged: module and line if the ELF file tells, else the crate.
        place: Option<String>,
    },
    /// The strings of the ELF file are not there.
    NoTable,
    /// The frame does not fit the strings.
    Malformed,
}

/// The strings of one ELF file.
struct LogTable {
    table: Table,
    locations: Locations,
    guard: FormatGuard,
}

/// The strings of all ELF files of a trace, read when they are needed.
pub struct LogTables {
    dir: PathBuf,
    tables: HashMap<BuildId, Option<LogTable>>,
    problems: Vec<String>,
}

impl LogTables {
    /// The ELF files in `dir`, named by build ID.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), tables: HashMap::new(), problems: Vec::new() }
    }

    /// Decodes a log frame that was written by the ELF file with this build ID.
    pub fn decode(&mut self, build_id: &BuildId, frame: &[u8]) -> LogLine {
        let (dir, problems) = (&self.dir, &mut self.problems);
        let table = self.tables.entry(*build_id).or_insert_with(|| {
            let name = hex(build_id);
            let path = dir.join(format!("{name}.elf"));
            match LogTable::load(&path, &name) {
                Ok(table) => Some(table),
                Err(problem) => {
                    problems.push(format!("{problem}: log frames of build {name} are shown raw"));
                    None
                }
            }
        });
        match table {
            Some(table) => table.decode(frame).unwrap_or(LogLine::Malformed),
            None => LogLine::NoTable,
        }
    }

    /// Why frames could not be decoded so far.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl LogTable {
    fn load(path: &std::path::Path, build_id: &str) -> Result<Self, String> {
        let elf = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        match build_id_of(&elf) {
            Some(own) if own == build_id => {}
            Some(other) => return Err(format!("{} has build ID {other}, it is not used", path.display())),
            None => return Err(format!("{} is no ELF file with a build ID", path.display())),
        }
        Self::parse(&elf).map_err(|error| format!("cannot use the log strings of {}: {error}", path.display()))
    }

    fn parse(elf: &[u8]) -> Result<Self, String> {
        let unusable = || "its debug information cannot be understood".to_owned();
        without_panic(|| {
            let table = Table::parse(elf).map_err(|error| format!("{error:#}"))?.ok_or("it has none")?;
            if table.encoding() != Encoding::Raw {
                return Err("their encoding is not \"raw\"".to_owned());
            }
            // Without line numbers the text is still worth having.
            let locations = table.get_locations(elf).unwrap_or_default();
            Ok(Self { locations, guard: FormatGuard::parse(elf)?, table })
        })
        .unwrap_or_else(|| Err(unusable()))
    }

    fn decode(&self, frame: &[u8]) -> Option<LogLine> {
        let crate_name = self.guard.check(frame)?;
        without_panic(|| {
            let (decoded, consumed) = self.table.decode(frame).ok()?;
            if consumed != frame.len() {
                return None;
            }
            let location = self.locations.get(&decoded.index());
            let place = location.map(|l| format!("{}:{}", l.module, l.line)).or(crate_name.map(str::to_owned));
            let text = printable(&decoded.display_message().to_string());
            Some(LogLine::Text { level: decoded.level().map(|level| level.as_str()), text, place })
        })?
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Guests choose what they log: no control character reaches the terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

thread_local! {
    /// Whether a panic of this thread is expected and caught.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs the decoder of defmt, which panics on some frames that no honest writer makes. `None` if it did.
fn without_panic<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                usual(info);
            }
        }));
    });
    CAUGHT.set(true);
    // Unwind safety: the closures only read their captures.
    let result = catch_unwind(AssertUnwindSafe(f)).ok();
    CAUGHT.set(false);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained() {
        assert_eq!(without_panic(|| [1, 2].iter().position(|n| *n == 2)), Some(Some(1)));
        assert_eq!(without_panic(|| -> u8 { panic!("as the decoder may") }), None);
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nä"), "a\\u{1b}[2J\\nä");
    }

    #[test]
    fn a_missing_file_is_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = LogTables::new(dir.path());
        assert_eq!(tables.decode(&[0xAB; 20], &[1, 0]), LogLine::NoTable);
        assert_eq!(tables.decode(&[0xAB; 20], &[1, 0]), LogLine::NoTable);
        let [problem] = tables.problems() else { panic!("{:?}", tables.problems()) };
        assert!(problem.contains(&"ab".repeat(20)) && problem.contains("cannot read"), "{problem}");
    }

    #[test]
    fn another_file_under_the_name_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for (id, bytes, expected) in [([1; 20], &own[..], "it is not used"), ([2; 20], b"hello", "no ELF file")] {
            std::fs::write(dir.path().join(format!("{}.elf", hex(&id))), bytes).unwrap();
            let mut tables = LogTables::new(dir.path());
            assert_eq!(tables.decode(&id, &[1, 0]), LogLine::NoTable);
            let problem = &tables.problems()[0];
            // The test's own build may have no build ID.
            assert!(problem.contains(expected) || problem.contains("no ELF file"), "{problem}");
        }
    }
}
