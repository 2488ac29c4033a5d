//! The figures of the rows, and `bench.json`.

use crate::hardware::HostFacts;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::run_info::ClockName;
use partita_host::trace::nanoseconds;
use partita_rows::Row;
use partita_rows::row::DERIVED;
use serde::{Deserialize, Serialize};

/// The samples of a row in figures: exact, by nearest rank, in the unit of their file. All zero if there are no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// The least.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The most.
    pub max: u64,
    /// Number of samples.
    pub count: u64,
}

impl Figures {
    /// The figures of these samples, which are sorted on the way; `None` if there are none.
    pub fn of(samples: &mut [u64]) -> Option<Self> {
        samples.sort_unstable();
        let (&min, &max, count) = (samples.first()?, samples.last()?, samples.len() as u64);
        let at = |thousandths| usize::try_from(rank(count, thousandths)).ok().and_then(|i| samples.get(i)).copied();
        Some(Self { min, p50: at(500)?, p90: at(900)?, p99: at(990)?, p999: at(999)?, max, count })
    }

    /// The figures of values that occur so often, in any order; no sample at all is a row of zeros.
    pub fn of_counted(values: &[(u64, u64)]) -> Self {
        let mut values: Vec<(u64, u64)> = values.iter().copied().filter(|value| value.1 > 0).collect();
        values.sort_unstable();
        let count = values.iter().fold(0u64, |sum, value| sum.saturating_add(value.1));
        let (Some(&(min, _)), Some(&(max, _))) = (values.first(), values.last()) else { return Self::default() };
        let at = |thousandths| {
            let mut before = 0u64;
            let wanted = rank(count, thousandths);
            let reached = values.iter().find(|value| {
                before = before.saturating_add(value.1);
                before > wanted
            });
            reached.map_or(max, |value| value.0)
        };
        Self { min, p50: at(500), p90: at(900), p99: at(990), p999: at(999), max, count }
    }

    /// The figures if each value is changed by `change`, which must keep their order.
    pub fn map(self, change: impl Fn(u64) -> u64) -> Self {
        let Self { min, p50, p90, p99, p999, max, count } = self;
        let [min, p50, p90, p99, p999, max] = [min, p50, p90, p99, p999, max].map(change);
        Self { min, p50, p90, p99, p999, max, count }
    }
}

/// The rows that are derived from others, where these are there: of one sample each, the difference of the medians.
pub(crate) fn derived(partita: impl Fn(Row) -> Option<Figures>) -> impl Iterator<Item = (Row, Figures)> {
    DERIVED.iter().filter_map(move |&(row, minuend, subtrahend)| {
        let (with, without) = (partita(minuend)?, partita(subtrahend)?);
        Some((row, Figures::of_counted(&[(with.p50.saturating_sub(without.p50), 1)])))
    })
}

/// The index of the sample that so many thousandths of `count` samples do not exceed.
fn rank(count: u64, thousandths: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(thousandths)).div_ceil(1000);
    u64::try_from(rank).unwrap_or(u64::MAX).saturating_sub(1)
}

/// What figures are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Ticks of the time-stamp counter.
    Ticks,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Ns => "ns",
        }
    }
}

/// A row of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowFigures {
    /// Its name.
    pub name: &'static str,
    /// On the bare machine, if there is such a thing there.
    pub bare: Option<Figures>,
    /// Under Partita.
    pub partita: Figures,
}

/// `bench.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BenchFile {
    /// What the suite ran on: [`MachineKind::result_name`].
    pub machine: String,
    /// How time passed.
    pub clock: ClockName,
    /// What the figures are in.
    pub unit: Unit,
    /// What the host was like, where figures depend on that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFacts>,
    /// The rows, in the order of the suite.
    pub rows: Vec<RowFigures>,
}

impl BenchFile {
    /// Puts these rows together: `bare` and `partita` are asked for the figures of each, in ticks.
    ///
    /// # Errors
    /// Figures of a row are missing.
    pub fn new(
        machine: MachineKind,
        rows: &[Row],
        bare: impl Fn(Row) -> Option<Figures>,
        partita: impl Fn(Row) -> Option<Figures>,
    ) -> Result<Self, MissingRow> {
        let figures = |row: &Row| {
            let missing = || MissingRow(*row);
            let bare = if row.has_bare() { Some(bare(*row).ok_or_else(missing)?) } else { None };
            Ok(RowFigures { name: row.name(), bare, partita: partita(*row).ok_or_else(missing)? })
        };
        Ok(Self::of_rows(machine, rows.iter().map(figures).collect::<Result<_, _>>()?))
    }

    /// Puts those rows together that were measured under Partita.
    pub fn of_some(
        machine: MachineKind,
        bare: impl Fn(Row) -> Option<Figures>,
        partita: impl Fn(Row) -> Option<Figures>,
    ) -> Self {
        let figures = |row: &Row| Some(RowFigures { name: row.name(), bare: bare(*row), partita: partita(*row)? });
        Self::of_rows(machine, Row::ALL.iter().filter_map(figures).collect())
    }

    fn of_rows(machine: MachineKind, rows: Vec<RowFigures>) -> Self {
        let (machine, clock) = (machine.result_name(), machine.clock(Clock::Icount).into());
        Self { machine, clock, unit: Unit::Ticks, host: None, rows }
    }

    /// The row of this name.
    pub fn row(&self, name: &str) -> Option<&RowFigures> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The same in nanoseconds, rounded down, of ticks of a counter of `tsc_hz`. A file that is in nanoseconds stays as it is.
    #[must_use]
    pub fn in_nanoseconds(mut self, tsc_hz: u64) -> Self {
        if self.unit == Unit::Ticks && tsc_hz > 0 {
            let ns = |ticks| nanoseconds(ticks, tsc_hz).map_or(ticks, |ns| u64::try_from(ns).unwrap_or(u64::MAX));
            for row in &mut self.rows {
                row.bare = row.bare.map(|figures| figures.map(ns));
                row.partita = row.partita.map(ns);
            }
            self.unit = Unit::Ns;
        }
        self
    }
}

/// A row without figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no boot of the latency suite measured the row {}; check the groups of the rows", .0.name())]
pub struct MissingRow(pub Row);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use partita_rows::Summary;
    use proptest::prelude::*;

    /// Rows whose samples are all alike: `bare` ticks, and `partita` ticks.
    pub(crate) fn file(bare: u64, partita: u64) -> BenchFile {
        let of = |ticks| move |_| Figures::of(&mut [ticks; 3]);
        BenchFile::new(MachineKind::Qemu, Row::ALL, of(bare), of(partita)).unwrap()
    }

    #[test]
    fn figures_are_exact() {
        let mut samples: Vec<u64> = (1..=2000).rev().collect();
        let expected = Figures { min: 1, p50: 1000, p90: 1800, p99: 1980, p999: 1998, max: 2000, count: 2000 };
        assert_eq!(Figures::of(&mut samples), Some(expected));
        assert_eq!(Figures::of(&mut []), None);
        assert_eq!(Figures::of_counted(&[]), Figures::default());
        assert_eq!(Figures::of_counted(&[(7, 0)]).count, 0);
    }

    #[test]
    fn figures_turn_into_nanoseconds_once() {
        let file = file(10, 3000).in_nanoseconds(3_000_000_000);
        assert_eq!((file.unit, file.rows[0].bare.unwrap().max, file.rows[0].partita.p999), (Unit::Ns, 3, 1000));
        assert_eq!(file.clone().in_nanoseconds(3_000_000_000), file);
    }

    proptest! {
        #[test]
        fn counted_values_have_the_same_figures(values in prop::collection::vec((0..40u64, 1..20u64), 1..40)) {
            let all = values.iter().flat_map(|&(value, count)| (0..count).map(move |_| value));
            prop_assert_eq!(Figures::of(&mut all.collect::<Vec<_>>()), Some(Figures::of_counted(&values)));
        }

        #[test]
        fn figures_agree_with_the_payloads_summary(mut samples in prop::collection::vec(0..50u64, 1..300)) {
            let summary = Summary::of(&mut samples).unwrap();
            let Figures { min, p50, p99, max, .. } = Figures::of(&mut samples).unwrap();
            prop_assert_eq!([min, p50, p99, max], [summary.min, summary.p50, summary.p99, summary.max]);
        }
    }

    #[test]
    fn the_file_has_the_agreed_form() {
        let json = serde_json::to_value(file(10, 20)).unwrap();
        assert_eq!((json["machine"].as_str(), json["clock"].as_str()), (Some("qemu-svm"), Some("icount")));
        let rows = json["rows"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names, Row::ALL.iter().map(|row| row.name()).collect::<Vec<_>>());
        for row in rows {
            let name = row["name"].as_str().unwrap();
            assert_eq!(row["bare"].is_null(), !Row::from_name(name).unwrap().has_bare(), "{row}");
            assert_eq!(row.as_object().unwrap().len(), 3);
        }
        let text = serde_json::to_string(&file(10, 20)).unwrap();
        let start = "{\"machine\":\"qemu-svm\",\"clock\":\"icount\",\"unit\":\"ticks\",\"rows\":[{\"name\":\"exit.cpuid\",\
                     \"bare\":{\"min\":10,\"p50\":10,\"p90\":10,\"p99\":10,\"p999\":10,\"max\":10,\"count\":3},\
                     \"partita\":{\"min\":20,";
        assert!(text.starts_with(start), "{text}");
        let host = |smis| BenchFile { host: Some(HostFacts { smis, warnings: Vec::new() }), ..file(10, 20) };
        for (smis, expected) in [(Some(3), "{\"smis\":3,\"warnings\":[]}"), (None, "{\"smis\":null,\"warnings\":[]}")] {
            let text = serde_json::to_string(&host(smis)).unwrap();
            assert!(text.contains(&format!("\"unit\":\"ticks\",\"host\":{expected},\"rows\"")), "{text}");
        }
    }

    #[test]
    fn of_some_rows_those_are_there_that_partita_has() {
        let one = |wanted| move |row| if row == wanted { Figures::of(&mut [1]) } else { None };
        let names = |bare, partita| {
            let file = BenchFile::of_some(MachineKind::BOCHS_VMX, one(bare), one(partita));
            file.rows.iter().map(|row| (row.name, row.bare.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(names(Row::IpiSelf, Row::IpiSelf), [("ipi.self", true)]);
        assert_eq!(names(Row::IpiSelf, Row::ExitCpuid), [("exit.cpuid", false)]);
    }

    #[test]
    fn a_row_without_figures_is_named() {
        let some = |_| Figures::of(&mut [1]);
        let none = |row| if row == Row::IpiSelf { None } else { Figures::of(&mut [1]) };
        assert_eq!(BenchFile::new(MachineKind::Qemu, Row::ALL, some, none), Err(MissingRow(Row::IpiSelf)));
        assert_eq!(BenchFile::new(MachineKind::Qemu, Row::ALL, none, some), Err(MissingRow(Row::IpiSelf)));
    }
}
