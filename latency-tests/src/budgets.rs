//! What the figures may be: `latency-tests/budgets.toml`.

use crate::figures::{BenchFile, RowFigures};
use partita_rows::Row;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// The budgets of this repository.
const TEXT: &str = include_str!("../budgets.toml");

/// What the figures may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The most ticks of each row under Partita, by the row's name.
    #[serde(default)]
    max: BTreeMap<RowName, u64>,
    /// What must be as on the bare machine.
    #[serde(default)]
    bare: BareBudgets,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct BareBudgets {
    /// Rows whose figures are those of the bare machine.
    #[serde(default)]
    equal: Vec<RowName>,
}

/// The name of a row that there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct RowName(String);

impl TryFrom<String> for RowName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || Row::ALL.iter().map(|row| row.name()).collect::<Vec<_>>().join(", ");
        match Row::from_name(&name) {
            Some(_) => Ok(Self(name)),
            None => Err(format!("the suite has no row {name:?}; there are {}", names())),
        }
    }
}

/// A row that is not within its budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excess {
    /// A sample takes too long.
    Max {
        /// The row.
        row: String,
        /// Its longest sample in ticks.
        value: u64,
        /// What that may be.
        budget: u64,
    },
    /// The figures are not those of the bare machine.
    NotAsBare {
        /// The row.
        row: String,
        /// Least, median, 99th percentile and most in ticks.
        partita: [u64; 4],
        /// The same of the bare machine.
        bare: Option<[u64; 4]>,
    },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max { row, value, budget } => {
                write!(f, "{row}: a sample took {value} ticks, the budget is {budget}")
            }
            Self::NotAsBare { row, partita, bare: Some(bare) } => write!(
                f,
                "{row}: min, median, p99, max are {partita:?} ticks, the budget is {bare:?}, as on the bare machine"
            ),
            Self::NotAsBare { row, bare: None, .. } => {
                write!(f, "{row}: the budget is the bare machine's figures, but there are none")
            }
        }
    }
}

impl Budgets {
    /// The budgets of this repository.
    ///
    /// # Errors
    /// `budgets.toml` is malformed.
    pub fn of_repository() -> anyhow::Result<Self> {
        Self::parse(TEXT).map_err(|error| anyhow::anyhow!("latency-tests/budgets.toml: {error}"))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// It is malformed, or names a row that there is not.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The rows that are not within their budgets.
    pub fn check(&self, file: &BenchFile) -> Vec<Excess> {
        let of = |name: &RowName| file.rows.iter().find(|row| row.name == name.0);
        let too_long = self.max.iter().filter_map(|(name, &budget)| {
            let value = of(name)?.partita.max;
            (value > budget).then_some(Excess::Max { row: name.0.clone(), value, budget })
        });
        let not_as_bare = self.bare.equal.iter().filter_map(|name| {
            let RowFigures { partita, bare, .. } = of(name)?;
            let four = |f: &crate::Figures| [f.min, f.p50, f.p99, f.max];
            let (partita, bare) = (four(partita), bare.as_ref().map(four));
            (bare != Some(partita)).then_some(Excess::NotAsBare { row: name.0.clone(), partita, bare })
        });
        too_long.chain(not_as_bare).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;

    #[test]
    fn the_repositorys_budgets_are_those_agreed() {
        let budgets = Budgets::of_repository().unwrap();
        let max = |name: &str| budgets.max.get(&RowName(name.to_owned())).copied();
        assert!(max("exit.cpuid").unwrap() <= 160);
        assert!(max("ipi.oneway_spin").unwrap() <= 240 && max("ipi.oneway_hlt").unwrap() <= 240);
        let timers = Row::ALL.iter().filter(|row| row.name().starts_with("timer."));
        assert!(
            timers.clone().count() == 2
                && timers.clone().all(|row| budgets.bare.equal.contains(&RowName(row.name().to_owned())))
        );
    }

    #[test]
    fn a_row_above_its_budget_is_named_with_value_and_budget() {
        let budgets =
            Budgets::parse("[max]\n\"exit.cpuid\" = 160\n[bare]\nequal = [\"timer.oneshot_1ms_hlt\"]").unwrap();
        assert_eq!(budgets.check(&file(160, 160)), []);
        let texts: Vec<String> = budgets.check(&file(10, 161)).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "exit.cpuid: a sample took 161 ticks, the budget is 160",
                "timer.oneshot_1ms_hlt: min, median, p99, max are [161, 161, 161, 161] ticks, the budget is \
                 [10, 10, 10, 10], as on the bare machine",
            ]
        );
    }

    #[test]
    fn faster_than_bare_is_not_equal_to_bare() {
        let budgets = Budgets::parse("[bare]\nequal = [\"timer.oneshot_1ms_hlt\"]").unwrap();
        assert_eq!(budgets.check(&file(11, 10)).len(), 1);
        let unmeasured = Budgets::parse("[bare]\nequal = [\"exit.hypercall\"]").unwrap();
        assert!(unmeasured.check(&file(1, 1))[0].to_string().contains("there are none"));
    }

    #[test]
    fn malformed_budgets_are_refused() {
        for (text, expected) in [
            ("[max]\n\"exit.cpu\" = 1", "no row \"exit.cpu\"; there are exit.cpuid,"),
            ("[max]\n\"exit.cpuid\" = -1", "invalid value"),
            ("[max]\n\"exit.cpuid\" = \"1\"", "invalid type"),
            ("[bare]\nequal = [\"\"]", "no row \"\""),
            ("[maximum]", "unknown field"),
        ] {
            let error = Budgets::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
