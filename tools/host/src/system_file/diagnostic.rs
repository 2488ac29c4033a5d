//! What is wrong with a system file, and where: file, line, column, key, and the cure.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// One problem of a system file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key it is about, such as `partition[1].pcpus`; empty where none can be named.
    pub key: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// All problems found in one system file, in the order of the file.
#[derive(Debug)]
pub struct SystemFileError {
    /// The file.
    pub path: PathBuf,
    /// Its problems; at least one.
    pub problems: Vec<Diagnostic>,
}

impl fmt::Display for SystemFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{}:{}: ", self.path.display(), problem.line, problem.column)?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for SystemFileError {}

/// Collects problems of one text.
pub(super) struct Diagnostics<'t> {
    text: &'t str,
    problems: Vec<(usize, Diagnostic)>,
}

impl<'t> Diagnostics<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// Adds a problem of the value at `span`.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        let (line, column) = position(self.text, span.start);
        let key = key_at(self.text, &span);
        self.problems.push((span.start, Diagnostic { line, column, key, message: message.into() }));
    }

    /// Adds what the TOML parser or serde found.
    pub(super) fn add_toml(&mut self, error: &toml::de::Error) {
        let message = error.message().trim().replace('\n', "; ");
        self.add(error.span().unwrap_or(0..0), message);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The problems as one error.
    pub(super) fn into_error(mut self, path: PathBuf) -> SystemFileError {
        self.problems.sort_by_key(|(offset, _)| *offset);
        SystemFileError { path, problems: self.problems.into_iter().map(|(_, problem)| problem).collect() }
    }
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The key whose name or value lies most closely around `span`; empty where the text does not parse.
fn key_at(text: &str, span: &Range<usize>) -> String {
    let Ok(root) = DeTable::parse(text) else { return String::new() };
    let mut best: Option<(usize, String)> = None;
    walk_table(root.get_ref(), "", &mut |range, path| {
        let inside = range.start <= span.start && span.end <= range.end;
        if inside && best.as_ref().is_none_or(|(len, _)| range.len() <= *len) {
            best = Some((range.len(), path.to_owned()));
        }
    });
    best.map(|(_, path)| path).unwrap_or_default()
}

type Visit<'v> = dyn FnMut(Range<usize>, &str) + 'v;

fn walk_table(table: &DeTable<'_>, prefix: &str, visit: &mut Visit<'_>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        visit(key.span(), &path);
        walk_value(value, &path, visit);
    }
}

fn walk_value(value: &toml::Spanned<DeValue<'_>>, path: &str, visit: &mut Visit<'_>) {
    visit(value.span(), path);
    match value.get_ref() {
        DeValue::Table(table) => walk_table(table, path, visit),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                walk_value(item, &format!("{path}[{index}]"), visit);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position("ab\ncäd", 0), (1, 1));
        assert_eq!(position("ab\ncäd", 6), (2, 3));
        assert_eq!(position("ab", 99), (1, 3));
    }

    #[test]
    fn keys_are_found_by_position() {
        let text = "[[p]]\na = 1\n[[p]]\nb = [1, 22]\nc = { d = \"x\" }\n";
        let at = |what: &str| text.find(what).map(|from| key_at(text, &(from..from + what.len()))).unwrap();
        assert_eq!(at("22"), "p[1].b[1]");
        assert_eq!(at("\"x\""), "p[1].c.d");
        assert_eq!(at("a"), "p[0].a");
    }
}
