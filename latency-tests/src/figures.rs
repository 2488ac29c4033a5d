//! The figures of the rows, and `bench.json`.

use partita_host::emulator::MachineKind;
use partita_host::run_info::ClockName;
use partita_rows::{Row, Summary};
use serde::Serialize;

/// The samples of a row in figures: exact, by nearest rank, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// The least.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The most.
    pub max: u64,
    /// Number of samples.
    pub count: u64,
}

impl Figures {
    /// The figures of these samples, which are sorted on the way; `None` if there are none.
    pub fn of(samples: &mut [u64]) -> Option<Self> {
        let Summary { min, p50, p99, max } = Summary::of(samples)?;
        Some(Self { min, p50, p99, max, count: samples.len() as u64 })
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
    /// The rows, in the order of the suite.
    pub rows: Vec<RowFigures>,
}

impl BenchFile {
    /// Puts the rows together: `bare` and `partita` are asked for the figures of each row of the suite.
    ///
    /// # Errors
    /// Figures of a row are missing.
    pub fn new(
        machine: MachineKind,
        bare: impl Fn(Row) -> Option<Figures>,
        partita: impl Fn(Row) -> Option<Figures>,
    ) -> Result<Self, MissingRow> {
        let figures = |row: &Row| {
            let missing = || MissingRow(*row);
            let bare = if row.has_bare() { Some(bare(*row).ok_or_else(missing)?) } else { None };
            Ok(RowFigures { name: row.name(), bare, partita: partita(*row).ok_or_else(missing)? })
        };
        let rows = Row::ALL.iter().map(figures).collect::<Result<_, _>>()?;
        Ok(Self { machine: machine.result_name(), clock: ClockName::Icount, rows })
    }

    /// Puts those rows together that were measured under Partita.
    pub fn of_some(
        machine: MachineKind,
        bare: impl Fn(Row) -> Option<Figures>,
        partita: impl Fn(Row) -> Option<Figures>,
    ) -> Self {
        let figures = |row: &Row| Some(RowFigures { name: row.name(), bare: bare(*row), partita: partita(*row)? });
        let rows = Row::ALL.iter().filter_map(figures).collect();
        Self { machine: machine.result_name(), clock: ClockName::Icount, rows }
    }
}

/// A row without figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no boot of the latency suite measured the row {}; check the groups of the rows", .0.name())]
pub struct MissingRow(pub Row);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rows whose samples are all alike: `bare` ticks, and `partita` ticks.
    pub(crate) fn file(bare: u64, partita: u64) -> BenchFile {
        let of = |ticks| move |_| Figures::of(&mut [ticks; 3]);
        BenchFile::new(MachineKind::Qemu, of(bare), of(partita)).unwrap()
    }

    #[test]
    fn figures_are_exact() {
        let mut samples: Vec<u64> = (1..=2000).rev().collect();
        let expected = Figures { min: 1, p50: 1000, p99: 1980, max: 2000, count: 2000 };
        assert_eq!(Figures::of(&mut samples), Some(expected));
        assert_eq!(Figures::of(&mut []), None);
    }

    #[test]
    fn the_file_has_the_agreed_form() {
        let json = serde_json::to_value(file(10, 20)).unwrap();
        assert_eq!((json["machine"].as_str(), json["clock"].as_str()), (Some("qemu-svm"), Some("icount")));
        let rows = json["rows"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        let expected = [
            "exit.cpuid",
            "exit.hypercall",
            "exit.rdmsr",
            "exit.io",
            "ipi.self",
            "ipi.oneway_spin",
            "ipi.oneway_hlt",
            "ipi.roundtrip_hlt",
            "timer.oneshot_50us_spin",
            "timer.oneshot_1ms_hlt",
            "kick.nmi_to_exit",
            "smp_call.roundtrip",
            "smp_call.leg.post_kick",
            "smp_call.leg.kick_exit",
            "smp_call.leg.exit_run",
            "smp_call.leg.run_ack",
            "smp_call.stolen",
            "smp_call.gap_seen",
            "smp_call.broadcast_3",
        ];
        assert_eq!(names, expected);
        for row in rows {
            let name = row["name"].as_str().unwrap();
            let is_null = name == "exit.hypercall" || name.starts_with("smp_call.");
            assert_eq!(row["bare"].is_null(), is_null, "{row}");
            assert_eq!(row.as_object().unwrap().len(), 3);
        }
        let text = serde_json::to_string(&file(10, 20)).unwrap();
        let start = "{\"machine\":\"qemu-svm\",\"clock\":\"icount\",\"rows\":[{\"name\":\"exit.cpuid\",\"bare\":\
                     {\"min\":10,\"p50\":10,\"p99\":10,\"max\":10,\"count\":3},\"partita\":{\"min\":20,";
        assert!(text.starts_with(start), "{text}");
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
        assert_eq!(BenchFile::new(MachineKind::Qemu, some, none), Err(MissingRow(Row::IpiSelf)));
        assert_eq!(BenchFile::new(MachineKind::Qemu, none, some), Err(MissingRow(Row::IpiSelf)));
    }
}
