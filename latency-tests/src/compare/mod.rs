//! The figures of a run beside those of an earlier one: `bench --compare OLD.json`.
//!
//! - `old_file`: the earlier run's file.
//! - `tolerance`: by how much a row may change by itself.

mod old_file;
mod tolerance;

pub use old_file::{CompareError, OldFile};

use crate::extent::{Extent, overshoot};
use crate::figures::{BenchFile, Figures, Unit};
use crate::table::plain_table;
use comfy_table::Table;
use old_file::OldFigures;
use partita_rows::Row;
use std::collections::BTreeMap;
use tolerance::Tolerance;

/// A row then and now.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    name: String,
    old: Option<OldFigures>,
    new: Option<OldFigures>,
    tolerance: Tolerance,
}

/// The rows of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    rows: Vec<Pair>,
    unit: Unit,
    machine: String,
}

impl Comparison {
    /// Puts the rows of both side by side: in the order of the new file, then those that are gone.
    pub fn of(old: &OldFile, file: &BenchFile) -> Self {
        let then = |name: &str| old.rows.iter().find(|row| row.name == name).map(|row| row.partita);
        let now = |figures: &Figures| OldFigures { p50: figures.p50, max: figures.max, count: figures.count };
        let pair = |name: &str, old, new| {
            let tolerance = Tolerance::of(name, &file.machine, file.clock);
            Pair { name: name.to_owned(), old, new, tolerance }
        };
        let there = file.rows.iter().map(|row| pair(row.name, then(row.name), Some(now(&row.partita))));
        let gone = old.rows.iter().filter(|row| file.row(&row.name).is_none());
        let gone = gone.map(|row| pair(&row.name, Some(row.partita), None));
        Self { rows: there.chain(gone).collect(), unit: file.unit, machine: file.machine.clone() }
    }

    /// The rows that are slower than they were, by more than they change by themselves: where time passes by instructions, by
    /// median, maximum, or number of what should not be there; else by their median.
    pub fn slower(&self) -> Vec<&str> {
        self.names(|pair| match (pair.old, pair.new) {
            (Some(old), Some(new)) => {
                pair.tolerance.is_exceeded(old, self.settled(&pair.name, new)) || pair.has_more(old, new)
            }
            _ => false,
        })
    }

    /// Figures without what the emulator may have added.
    fn settled(&self, name: &str, new: OldFigures) -> OldFigures {
        let max = new.max.saturating_sub(overshoot(&self.machine, name, new.count)).max(new.p50);
        OldFigures { max, ..new }
    }

    /// The rows that are not there any more, or have no samples any more.
    pub fn gone(&self) -> Vec<&str> {
        self.names(Pair::is_gone)
    }

    fn names(&self, is_one: impl Fn(&Pair) -> bool) -> Vec<&str> {
        self.rows.iter().filter(|pair| is_one(pair)).map(|pair| pair.name.as_str()).collect()
    }

    /// One line for each row that is there in both; at most 100 columns.
    pub fn table(&self) -> Table {
        let operation = format!("operation ({})", self.unit.name());
        let mut table = plain_table(1, &[&operation, "median was", "is", "diff", "%", "max was", "is", "diff", "%"]);
        for Pair { name, old, new, .. } in &self.rows {
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

    /// Sentences about what the table does not have: rows that are new, and rows that have another number of samples.
    pub fn notes(&self) -> Vec<String> {
        let new = self.names(|pair| pair.old.is_none());
        let new = (!new.is_empty()).then(|| format!("new, not in the old file: {}", new.join(", ")));
        let mut counts: BTreeMap<(u64, u64), Vec<&str>> = BTreeMap::new();
        for Pair { name, old, new, .. } in &self.rows {
            let Some((old, new)) = old.zip(*new).map(|(old, new)| (old.count, new.count)) else { continue };
            if old != new {
                counts.entry((old, new)).or_default().push(name);
            }
        }
        let of_counts = |((old, new), names): ((u64, u64), Vec<&str>)| {
            format!("{old} samples in the old file, {new} now: {}", names.join(", "))
        };
        new.into_iter().chain(counts.into_iter().map(of_counts)).collect()
    }
}

impl Pair {
    /// Whether the number of samples is the figure itself: nobody knows it beforehand.
    fn is_number(&self) -> bool {
        Row::from_name(&self.name).is_some_and(|row| Extent::from(1).count_of(row).is_none())
    }

    /// Whether there is more of what should not be there at all.
    fn has_more(&self, old: OldFigures, new: OldFigures) -> bool {
        self.is_number() && matches!(self.tolerance, Tolerance::Ticks(_)) && new.count > old.count
    }

    fn is_gone(&self) -> bool {
        match (self.old, self.new) {
            (Some(_), None) => true,
            (Some(old), Some(new)) => !self.is_number() && old.count > 0 && new.count == 0,
            _ => false,
        }
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
    use partita_host::run_info::ClockName;

    fn old_of(file: &BenchFile) -> OldFile {
        serde_json::from_value(serde_json::to_value(file).unwrap()).unwrap()
    }

    #[test]
    fn one_tick_more_is_slower() {
        let compare = |old, new| Comparison::of(&old_of(&file(5, old)), &file(5, new));
        assert_eq!(compare(100, 100).slower(), [""; 0]);
        assert_eq!(compare(100, 99).slower(), [""; 0]);
        let slower = compare(100, 101);
        let slower = slower.slower();
        assert!(slower.len() == Row::ALL.len() - 2 && slower.contains(&"timer.oneshot_1ms_hlt"), "{slower:?}");
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
    fn a_row_without_samples_is_gone() {
        let mut new = file(5, 100);
        let old = old_of(&new);
        for row in &mut new.rows {
            row.partita = Figures::default();
        }
        let comparison = Comparison::of(&old, &new);
        // To have no gap is good.
        assert_eq!((comparison.gone().len(), comparison.slower().len()), (Row::ALL.len() - 2, 0));
        assert!(!comparison.gone().contains(&"quiet.gaps"));
    }

    #[test]
    fn other_counts_are_told() {
        let mut new = file(5, 100);
        let old = old_of(&new);
        for row in &mut new.rows {
            row.partita.count = if row.name.starts_with("ipi") { 200 } else { 3 };
        }
        let comparison = Comparison::of(&old, &new);
        let all = "ipi.self, ipi.oneway_spin, ipi.oneway_hlt, ipi.roundtrip_hlt";
        assert_eq!(comparison.notes(), [format!("3 samples in the old file, 200 now: {all}")]);
        assert!(comparison.slower().is_empty() && comparison.gone().is_empty());
        // But of gaps there should be none.
        new.rows.iter_mut().for_each(|row| row.partita.count = 4);
        assert_eq!(Comparison::of(&old, &new).slower(), ["quiet.gaps"]);
        new.machine = MachineKind::BOCHS_VMX.result_name();
        assert_eq!(Comparison::of(&old, &new).slower(), ["quiet.gaps", "quiet.gaps_outside"]);
    }

    #[test]
    fn single_ones_of_a_million_wake_ups_may_be_late() {
        let compare = |count, max| {
            let mut new = file(16, 16);
            let old = old_of(&new);
            let periodic = new.rows.iter_mut().find(|row| row.name == "timer.periodic_200us").unwrap();
            (periodic.partita.count, periodic.partita.max) = (count, max);
            Comparison::of(&old, &new).slower().len()
        };
        assert_eq!((compare(1_000_000, 32), compare(1_000_000, 33), compare(2000, 17)), (0, 1, 1));
    }

    #[test]
    fn new_and_gone_rows_are_named() {
        let mut old = old_of(&file(5, 100));
        old.rows[0].name = "exit.of_old".into();
        let comparison = Comparison::of(&old, &file(5, 100));
        assert_eq!(
            (comparison.notes(), comparison.gone()),
            (vec!["new, not in the old file: exit.cpuid".to_owned()], vec!["exit.of_old"])
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
}
