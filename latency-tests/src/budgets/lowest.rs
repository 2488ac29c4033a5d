//! Budgets only go down: the lowest that each ever was is on record in `latency-tests/lowest.toml`. A budget above that needs
//! a reason beside its number.

use super::limit::{Bare, Limit, RowName, Thousandths};
use super::{Budgets, built_in};
use partita_host::cargo_build;
use partita_host::emulator::MachineKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "lowest.toml";
const HEAD: &str = "# The lowest that each budget ever was: ratios in thousandths, rows that are equal to bare by 0 ticks above that, all else in
# ticks. `cargo partita bench --tighten` keeps this file. A number here only goes down; one that goes up in a change undoes what an
# earlier change had reached.

";

/// The lowest that each budget ever was, by machine, table and row: ratios in thousandths, what must be equal to bare as 0 ticks above
/// that, all else in ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Lowest(BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>);

/// An entry of a budget file.
struct Entry<'b> {
    table: String,
    row: &'b str,
    number: u64,
    reason: Option<&'b str>,
}

impl Lowest {
    /// The path of the file.
    ///
    /// # Errors
    /// The repository is not there any more.
    pub fn path() -> anyhow::Result<PathBuf> {
        Ok(cargo_build::repository()?.join("latency-tests").join(FILE))
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// There are none: each of its keys can be written.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// What is wrong with the budgets of a machine: a sentence for each that is above its lowest without a reason, for each that
    /// went down and is not on record, and for each that is on record but is no longer there.
    pub fn check(&self, machine: MachineKind, budgets: &Budgets) -> Vec<String> {
        let (file, name) = (built_in(machine).map_or("", |(file, _)| file), machine.result_name());
        let entries = entries(budgets);
        let record = "record it with `cargo partita bench --tighten`";
        let of_entry = |Entry { table, row, number, reason }: &Entry<'_>| match self.get(&name, table, row) {
            None => Some(format!("latency-tests/{file}: [{table}] {row:?} is new; {record}")),
            Some(lowest) if *number < lowest => {
                Some(format!("latency-tests/{file}: [{table}] {row:?} went down from {lowest} to {number}; {record}"))
            }
            Some(lowest) if *number > lowest && reason.is_none() => Some(format!(
                "latency-tests/{file}: [{table}] {row:?} is {number}, but was {lowest} once; make the path as short as it was, \
                 or write {{ max = ..., reason = \"...\" }}"
            )),
            Some(_) => None,
        };
        let known = self.0.get(&name).into_iter().flatten();
        let known = known.flat_map(|(table, rows)| rows.keys().map(move |row| (table, row)));
        let gone =
            known.filter(|(table, row)| !entries.iter().any(|entry| entry.table == **table && entry.row == **row));
        let of_gone = gone.map(|(table, row)| {
            format!(
                "latency-tests/{file}: [{table}] {row:?} is gone, but latency-tests/{FILE} has it; put the budget back, or \
                 take it out there, too, and say in the change why"
            )
        });
        entries.iter().filter_map(of_entry).chain(of_gone).collect()
    }

    /// Takes down what is new or lower than what is on record.
    pub fn record(&mut self, machine: MachineKind, budgets: &Budgets) {
        for Entry { table, row, number, .. } in entries(budgets) {
            let rows = self.0.entry(machine.result_name()).or_default().entry(table).or_default();
            let lowest = rows.entry(row.to_owned()).or_insert(number);
            *lowest = number.min(*lowest);
        }
    }

    fn get(&self, machine: &str, table: &str, row: &str) -> Option<u64> {
        self.0.get(machine)?.get(table)?.get(row).copied()
    }
}

fn entries(budgets: &Budgets) -> Vec<Entry<'_>> {
    let ticks = [("max", &budgets.max), ("median", &budgets.median)];
    let ticks = ticks.into_iter().flat_map(|(table, limits)| {
        limits.iter().map(|(RowName(row), Limit { max, reason })| Entry {
            table: table.to_owned(),
            row,
            number: *max,
            reason: reason.as_deref(),
        })
    });
    let ratios = budgets.ratio.iter().map(|(RowName(row), ratio)| {
        let Bare(Thousandths(max)) = ratio.max;
        Entry { table: "ratio".to_owned(), row, number: max.into(), reason: ratio.reason.as_deref() }
    });
    let against = budgets.against.iter().flat_map(|(machine, limits)| {
        limits.iter().map(move |(RowName(row), Limit { max: Thousandths(max), reason })| Entry {
            table: format!("against.{machine}"),
            row,
            number: (*max).into(),
            reason: reason.as_deref(),
        })
    });
    // Ticks above the bare machine's.
    let equal =
        budgets.bare.equal.iter().map(|RowName(row)| Entry { table: "bare".to_owned(), row, number: 0, reason: None });
    ticks.chain(ratios).chain(against).chain(equal).collect()
}
