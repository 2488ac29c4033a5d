//! What the figures may be: `latency-tests/budgets.toml`.

use crate::figures::{BenchFile, RowFigures};
use partita_host::emulator::MachineKind;
use partita_rows::Row;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// The budgets of this repository: file and text, for QEMU, and for VMX and SVM in Bochs.
const QEMU_SVM: (&str, &str) = ("budgets.toml", include_str!("../budgets.toml"));
const BOCHS_VMX: (&str, &str) = ("budgets-bochs-vmx.toml", include_str!("../budgets-bochs-vmx.toml"));
const BOCHS_SVM: (&str, &str) = ("budgets-bochs-svm.toml", include_str!("../budgets-bochs-svm.toml"));

/// What the figures may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The most ticks of each row under Partita, by the row's name.
    #[serde(default)]
    max: BTreeMap<RowName, u64>,
    /// The most ticks of the median of each row under Partita, by the row's name.
    #[serde(default)]
    median: BTreeMap<RowName, u64>,
    /// What must be as on the bare machine.
    #[serde(default)]
    bare: BareBudgets,
    /// The most that the median of a row may be under Partita, as a multiple of another row's, by the row's name.
    #[serde(default)]
    ratio: BTreeMap<RowName, RatioBudget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RatioBudget {
    /// The other row.
    of: RowName,
    max: Thousandths,
}

/// A number of at most three decimal places, so that nothing is rounded when budgets are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
struct Thousandths(u32);

impl TryFrom<f64> for Thousandths {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let thousandths = (number * 1000.0).round();
        let is_exact = (1.0..=f64::from(u32::MAX)).contains(&thousandths) && thousandths / 1000.0 == number;
        let error = || format!("{number} is no ratio; write a number above 0 with at most three decimal places");
        if is_exact { Ok(Self(thousandths as u32)) } else { Err(error()) }
    }
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
    /// The median is too long.
    Median {
        /// The row.
        row: String,
        /// Its median in ticks.
        value: u64,
        /// What that may be.
        budget: u64,
    },
    /// The median is too large a multiple of another row's.
    Ratio {
        /// The row.
        row: String,
        /// Its median in ticks.
        value: u64,
        /// The other row.
        of: String,
        /// The median of that in ticks.
        of_value: u64,
        /// What the ratio may be, in thousandths.
        budget: u32,
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
            Self::Median { row, value, budget } => {
                write!(f, "{row}: the median is {value} ticks, the budget is {budget}")
            }
            Self::Ratio { row, value, of, of_value, budget } => write!(
                f,
                "{row}: the median is {value} ticks, {:.3} times the {of_value} of {of}, the budget is {:.3} times",
                *value as f64 / *of_value as f64,
                f64::from(*budget) / 1000.0
            ),
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
    /// The budgets of this repository for a machine; there are none for Bochs' other CPUs.
    ///
    /// # Errors
    /// Their file is malformed.
    pub fn of_repository(machine: MachineKind) -> anyhow::Result<Self> {
        let (file, text) = match machine {
            MachineKind::Qemu => QEMU_SVM,
            MachineKind::BOCHS_VMX => BOCHS_VMX,
            MachineKind::BOCHS_SVM => BOCHS_SVM,
            MachineKind::Bochs(_) => ("", ""),
        };
        Self::parse(text).map_err(|error| anyhow::anyhow!("latency-tests/{file}: {error}"))
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
        let too_slow = self.median.iter().filter_map(|(name, &budget)| {
            let value = of(name)?.partita.p50;
            (value > budget).then_some(Excess::Median { row: name.0.clone(), value, budget })
        });
        let too_many_times = self.ratio.iter().filter_map(|(name, ratio)| {
            let RatioBudget { of: other, max: Thousandths(budget) } = ratio;
            let (value, of_value) = (of(name)?.partita.p50, of(other)?.partita.p50);
            let is_excess = u128::from(value) * 1000 > u128::from(of_value) * u128::from(*budget);
            let (row, of) = (name.0.clone(), other.0.clone());
            is_excess.then_some(Excess::Ratio { row, value, of, of_value, budget: *budget })
        });
        let not_as_bare = self.bare.equal.iter().filter_map(|name| {
            let RowFigures { partita, bare, .. } = of(name)?;
            let four = |f: &crate::Figures| [f.min, f.p50, f.p99, f.max];
            let (partita, bare) = (four(partita), bare.as_ref().map(four));
            (bare != Some(partita)).then_some(Excess::NotAsBare { row: name.0.clone(), partita, bare })
        });
        too_long.chain(too_slow).chain(too_many_times).chain(not_as_bare).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Figures;
    use crate::figures::tests::file;

    #[test]
    fn the_repositorys_budgets_are_those_agreed() {
        let budgets = Budgets::of_repository(MachineKind::Qemu).unwrap();
        let max = |name: &str| budgets.max.get(&RowName(name.to_owned())).copied();
        assert!(max("exit.cpuid").unwrap() <= 158);
        assert!(max("ipi.oneway_spin").unwrap() <= 205 && max("ipi.oneway_hlt").unwrap() <= 205);
        assert!(max("kick.nmi_to_exit").unwrap() <= 60 && max("smp_call.roundtrip").unwrap() <= 400);
        assert!(max("smp_call.stolen").unwrap() <= 150 && max("smp_call.gap_seen").unwrap() <= 400);
        let broadcast = &budgets.ratio[&RowName("smp_call.broadcast_3".to_owned())];
        assert!(broadcast.of.0 == "smp_call.roundtrip" && broadcast.max.0 <= 2900);
        let timers = Row::ALL.iter().filter(|row| row.name().starts_with("timer."));
        assert!(
            timers.clone().count() == 2
                && timers.clone().all(|row| budgets.bare.equal.contains(&RowName(row.name().to_owned())))
        );
    }

    #[test]
    fn the_budgets_in_bochs_are_those_agreed() {
        let budgets = Budgets::of_repository(MachineKind::BOCHS_VMX).unwrap();
        let name = |name: &str| RowName(name.to_owned());
        assert!(budgets.max[&name("exit.cpuid")] <= 150 && budgets.median[&name("kick.nmi_to_exit")] <= 110);
        assert!(budgets.ratio[&name("smp_call.broadcast_3")].max.0 <= 1600);
        assert!(Budgets::of_repository(MachineKind::BOCHS_SVM).is_ok());
        let slow = file(10, 111);
        let words: Vec<String> = budgets.check(&slow).iter().map(ToString::to_string).collect();
        assert_eq!(words, ["kick.nmi_to_exit: the median is 111 ticks, the budget is 110"]);
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
    fn a_ratio_of_medians_is_checked_exactly() {
        let budgets =
            Budgets::parse("[ratio]\n\"smp_call.broadcast_3\" = { of = \"smp_call.roundtrip\", max = 2.9 }").unwrap();
        let check = |broadcast: [u64; 3], single: u64| {
            let of = |row| Figures::of(&mut if row == Row::SmpCallBroadcast3 { broadcast } else { [single; 3] });
            let file = BenchFile::new(MachineKind::Qemu, of, of).unwrap();
            budgets.check(&file).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        // Only the median counts.
        assert_eq!(check([1160, 1160, 9999], 400), [""; 0]);
        assert_eq!(
            check([1, 1161, 1161], 400),
            [
                "smp_call.broadcast_3: the median is 1161 ticks, 2.902 times the 400 of smp_call.roundtrip, the budget is \
              2.900 times"
            ]
        );
        assert_eq!(check([1; 3], 0).len(), 1);
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
            ("[ratio]\n\"exit.cpuid\" = 2", "invalid type"),
            ("[ratio]\n\"exit.cpuid\" = { of = \"exit\", max = 2.0 }", "no row \"exit\""),
            ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = 0.0 }", "0 is no ratio; write a number above 0"),
            ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = 2.9001 }", "2.9001 is no ratio"),
            ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = nan }", "NaN is no ratio"),
            ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\" }", "missing field `max`"),
        ] {
            let error = Budgets::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
