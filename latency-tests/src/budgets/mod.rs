//! What the figures may be: `latency-tests/budgets*.toml`.
//!
//! - `limit`: the entries of these files.
//! - `excess`: what is not within its budget.
//! - `lowest`: budgets only go down.

mod excess;
mod limit;
mod lowest;
#[cfg(test)]
mod tests;

pub use excess::{Excess, Loose};
pub use lowest::Lowest;

use crate::extent::overshoot;
use crate::figures::{BenchFile, RowFigures, Unit};
use limit::{Bare, Limit, RowName, Thousandths};
use partita_host::cargo_build;
use partita_host::emulator::MachineKind;
use partita_host::run_info::ClockName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The budgets of this repository: file and text, for QEMU, and for VMX and SVM in Bochs.
const QEMU_SVM: (&str, &str) = ("budgets.toml", include_str!("../../budgets.toml"));
const BOCHS_VMX: (&str, &str) = ("budgets-bochs-vmx.toml", include_str!("../../budgets-bochs-vmx.toml"));
const BOCHS_SVM: (&str, &str) = ("budgets-bochs-svm.toml", include_str!("../../budgets-bochs-svm.toml"));

/// On hardware: whatever its speed, the hypervisor takes nothing from a guest that only computes.
const HARDWARE: (&str, &str) = ("src/budgets/mod.rs", "[max]\n\"quiet.gaps\" = 0\n\"housekeeping.stolen_per_s\" = 0");

/// What the figures may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The most ticks of each row under Partita, by the row's name.
    #[serde(default)]
    max: BTreeMap<RowName, Limit<u64>>,
    /// The most ticks of the median of each row under Partita, by the row's name.
    #[serde(default)]
    median: BTreeMap<RowName, Limit<u64>>,
    /// What must be as on the bare machine.
    #[serde(default)]
    bare: BareBudgets,
    /// The most that the median of a row may be under Partita, as a multiple of another row's, by the row's name.
    #[serde(default)]
    ratio: BTreeMap<RowName, RatioBudget>,
    /// The most that the median of a row may be under Partita, as a multiple of the same row's on another machine, by that machine
    /// and the row's name.
    #[serde(default)]
    against: BTreeMap<String, BTreeMap<RowName, Limit<Thousandths>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RatioBudget {
    /// The other row.
    of: RowName,
    max: Bare<Thousandths>,
    /// Why it is higher than it was once.
    reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct BareBudgets {
    /// Rows whose figures are those of the bare machine.
    #[serde(default)]
    equal: Vec<RowName>,
}

impl Budgets {
    /// The budgets of this repository for a machine; there are none for Bochs' other CPUs.
    ///
    /// # Errors
    /// Their file is malformed.
    pub fn of_repository(machine: MachineKind) -> anyhow::Result<Self> {
        let Some((file, text)) = built_in(machine) else { return Ok(Self::default()) };
        Self::parse(text).map_err(|error| anyhow::anyhow!("latency-tests/{file}: {error}"))
    }

    /// The path of the file that [`of_repository`](Self::of_repository) reads, if there is one.
    ///
    /// # Errors
    /// The repository is not there any more.
    pub fn path(machine: MachineKind) -> anyhow::Result<Option<PathBuf>> {
        let root = cargo_build::repository()?;
        let file = built_in(machine).filter(|_| machine != MachineKind::Kvm);
        Ok(file.map(|(file, _)| root.join("latency-tests").join(file)))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// It is malformed, or names a row that there is not.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The rows that are not within their budgets. Budgets are in ticks: of a file in nanoseconds only what needs no unit is
    /// checked, as nothing needs none.
    pub fn check(&self, file: &BenchFile) -> Vec<Excess> {
        let of = |name: &RowName| file.row(&name.0);
        let is_limit = |limit: &Limit<u64>| file.unit == Unit::Ticks || limit.max == 0;
        let too_long = self.max.iter().filter(|(_, limit)| is_limit(limit)).filter_map(|(name, limit)| {
            let (value, budget) = (of(name)?.partita.max, limit.max);
            (value > budget).then(|| Excess::Max { row: name.0.clone(), value, budget, unit: file.unit })
        });
        let too_slow = self.median.iter().filter(|(_, limit)| is_limit(limit)).filter_map(|(name, limit)| {
            let (value, budget) = (of(name)?.partita.p50, limit.max);
            (value > budget).then(|| Excess::Median { row: name.0.clone(), value, budget, unit: file.unit })
        });
        let too_many_times = self.ratio.iter().filter_map(|(name, ratio)| {
            let RatioBudget { of: other, max: Bare(max), .. } = ratio;
            let (value, of_value) = (of(name)?.partita.p50, of(other)?.partita.p50);
            let (row, of) = (name.0.clone(), other.0.clone());
            max.is_exceeded(value, of_value).then_some(Excess::Ratio { row, value, of, of_value, budget: max.0 })
        });
        let not_as_bare = self.bare.equal.iter().filter_map(|name| {
            let RowFigures { partita, bare, .. } = of(name)?;
            let four = |f: &crate::Figures| [f.min, f.p50, f.p99, f.max];
            let overshoot = overshoot(&file.machine, &name.0, partita.count);
            let (partita, bare) = (four(partita), bare.as_ref().map(four));
            let is_as = |bare: [u64; 4]| {
                let ([bare @ .., bare_max], [partita @ .., max]) = (bare, partita);
                bare == partita && bare_max.abs_diff(max) <= overshoot
            };
            (!bare.is_some_and(is_as)).then_some(Excess::NotAsBare { row: name.0.clone(), partita, bare })
        });
        too_long.chain(too_slow).chain(too_many_times).chain(not_as_bare).collect()
    }

    /// The rows that take too long for what they take on the other machines, whose files are `others`. A machine without a
    /// file is not compared with.
    pub fn check_against(&self, file: &BenchFile, others: &[BenchFile]) -> Vec<Excess> {
        let limits = self.against.iter().flat_map(|(machine, limits)| limits.iter().map(move |limit| (machine, limit)));
        let excess = |(machine, (name, limit)): (&String, (&RowName, &Limit<Thousandths>))| {
            let there = others.iter().find(|other| other.machine == *machine && other.unit == file.unit)?;
            let (value, there) = (file.row(&name.0)?.partita.p50, there.row(&name.0)?.partita.p50);
            let (row, machine, budget) = (name.0.clone(), machine.clone(), limit.max.0);
            limit.max.is_exceeded(value, there).then_some(Excess::Against { row, value, machine, there, budget })
        };
        limits.filter_map(excess).collect()
    }

    /// The budgets that are above what was measured by more than the clock of `machine` can err: one tick, in Bochs five. Of a
    /// clock that does not count instructions, nothing can be said.
    pub fn loose(&self, machine: MachineKind, file: &BenchFile) -> Vec<Loose> {
        let step = clock_step(&machine.result_name()).unwrap_or(1);
        if file.clock == ClockName::Icount { self.above(file, step) } else { Vec::new() }
    }

    /// The budgets that are above what was measured by more than `step` ticks.
    pub fn above(&self, file: &BenchFile, step: u64) -> Vec<Loose> {
        let tables = [("max", &self.max), ("median", &self.median)];
        let limits = tables.into_iter().flat_map(|(table, limits)| limits.iter().map(move |limit| (table, limit)));
        let loose = |(table, (name, limit)): (&'static str, (&RowName, &Limit<u64>))| {
            let figures = file.row(&name.0)?.partita;
            let value = if table == "max" { figures.max } else { figures.p50 };
            let budget = limit.max;
            (budget > value.saturating_add(step)).then(|| Loose { table, row: name.0.clone(), value, budget })
        };
        limits.filter_map(loose).collect()
    }
}

/// By how many ticks a figure of a machine, as results name it, changes with the place of the code in the image: in Bochs by a turn
/// of a pCPU. `None` for machines whose pCPUs do not take turns of a few instructions.
pub(crate) fn clock_step(machine: &str) -> Option<u64> {
    machine.starts_with("bochs-").then_some(5)
}

/// File and text of the budgets of a machine.
fn built_in(machine: MachineKind) -> Option<(&'static str, &'static str)> {
    match machine {
        MachineKind::Qemu => Some(QEMU_SVM),
        MachineKind::BOCHS_VMX => Some(BOCHS_VMX),
        MachineKind::BOCHS_SVM => Some(BOCHS_SVM),
        MachineKind::Kvm => Some(HARDWARE),
        MachineKind::Bochs(_) => None,
    }
}
