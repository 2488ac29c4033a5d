//! Bringing budgets down to what was measured: `bench --tighten`.

use crate::budgets::{Budgets, Loose, Lowest};
use crate::figures::BenchFile;
use anyhow::Context;
use partita_host::emulator::MachineKind;
use std::path::Path;
use toml_edit::{DocumentMut, Item, Value};

/// Lowers the budgets of a machine to the figures of `file`, and has the lowest that each ever was on record. Returns what was
/// lowered. Nothing else in the files changes.
///
/// # Errors
/// A file cannot be read or written, or is malformed.
pub fn tighten(machine: MachineKind, file: &BenchFile) -> anyhow::Result<Vec<Loose>> {
    let Some(path) = Budgets::path(machine)? else { return Ok(Vec::new()) };
    let text = read(&path)?;
    let lowered = Budgets::parse(&text).with_context(|| path.display().to_string())?.above(file, 0);
    let text = lower(&text, &lowered).with_context(|| path.display().to_string())?;
    let budgets = Budgets::parse(&text).with_context(|| path.display().to_string())?;
    let lowest_path = Lowest::path()?;
    let mut lowest = Lowest::parse(&read(&lowest_path)?).with_context(|| lowest_path.display().to_string())?;
    lowest.record(machine, &budgets);
    write(&path, &text)?;
    write(&lowest_path, &lowest.text()?)?;
    Ok(lowered)
}

/// The text of a budget file with these budgets lowered; comments, order and reasons stay.
fn lower(text: &str, lowered: &[Loose]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    for Loose { table, row, value, .. } in lowered {
        let limit = document.get_mut(table).and_then(|table| table.get_mut(row));
        let limit = match limit {
            Some(limit @ Item::Value(Value::InlineTable(_))) => limit.get_mut("max"),
            limit => limit,
        };
        let limit = limit.and_then(Item::as_value_mut).with_context(|| format!("[{table}] has no number for {row}"))?;
        let decor = limit.decor().clone();
        *limit = Value::from(i64::try_from(*value)?);
        *limit.decor_mut() = decor;
    }
    Ok(document.to_string())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;

    #[test]
    fn only_numbers_change() {
        let text = "# Why.\n[max]\n\"exit.cpuid\" = 100 # a\n\"exit.io\" = { max = 99, reason = \"so\" }\n\"exit.rdmsr\" = 90\n\
                    [median]\n\"exit.io\" = 95\n[ratio]\n\"exit.io\" = { of = \"exit.rdmsr\", max = 1.5 }\n";
        let lowered = Budgets::parse(text).unwrap().above(&file(1, 92), 0);
        assert_eq!(lowered.len(), 3);
        let expected = "# Why.\n[max]\n\"exit.cpuid\" = 92 # a\n\"exit.io\" = { max = 92, reason = \"so\" }\n\"exit.rdmsr\" = 90\n\
                        [median]\n\"exit.io\" = 92\n[ratio]\n\"exit.io\" = { of = \"exit.rdmsr\", max = 1.5 }\n";
        assert_eq!(lower(text, &lowered).unwrap(), expected);
        assert!(lower("[max]", &lowered).unwrap_err().to_string().contains("[max] has no number for exit.cpuid"));
    }
}
