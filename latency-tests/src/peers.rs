//! Partita beside KVM: the same payload on the bare machine, under Partita, and as a guest of KVM on Debian's kernel, all in
//! the same QEMU (docs/peers.md).

use crate::boot::Boot;
use crate::suite::run_some;
use crate::{Figures, RowFigures, SuiteError, SuiteOptions, samples};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use partita_host::peers::{KvmGuest, KvmHost};
use partita_host::trace::Trace;
use partita_rows::{Group, Row};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// The rows: what a guest measures of its own, and whose meaning is the same everywhere.
pub const ROWS: [Row; 11] = [
    Row::ExitCpuid,
    Row::ExitHypercall,
    Row::ExitRdmsr,
    Row::ExitIo,
    Row::IpiSelf,
    Row::IpiOnewaySpin,
    Row::IpiOnewayHlt,
    Row::IpiRoundtripHlt,
    Row::TimerOneshot50usSpin,
    Row::TimerOneshot1msHlt,
    Row::TimerPeriodic200us,
];
/// The boots of the suite that measure them.
const GROUPS: [Group; 3] = [Group::Exit, Group::Ipi, Group::Timer];
/// vCPUs of KVM's guest, as many as the partition has.
const VCPUS: u16 = 2;
/// Periods of the row that counts them. The payload keeps so many different large values, and under KVM all are large.
const PERIODS: u32 = 500;
/// How long a boot of Linux and the guest may take, in time of the host: some half a minute on a quiet machine.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The rows of everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peers {
    /// The release of the kernel whose KVM it is.
    pub kernel: String,
    /// The rows, in the order of the suite.
    pub rows: Vec<PeerRow>,
}

/// A row of everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PeerRow {
    /// Its name.
    pub name: &'static str,
    /// On the bare machine, if there is such a thing there.
    pub bare: Option<Figures>,
    /// Under Partita.
    pub partita: Figures,
    /// Under KVM.
    pub kvm: Figures,
}

/// Boots everybody.
///
/// # Errors
/// A boot could not take place, or failed, or its samples are not all there.
pub fn run(options: &SuiteOptions) -> Result<Peers, SuiteError> {
    // What has to be fetched may be missing: that is told first.
    let host = KvmHost::prepare()?;
    let ours = run_some(options, Boot::all().filter(|boot| GROUPS.contains(&boot.group)))?;
    let payload = options.out_dir.join("payload.elf");
    let kvm = under_kvm(&host, &payload, options.samples, &options.out_dir.join("kvm"))?;
    let row = |(row, kvm): (Row, Figures)| {
        let RowFigures { name, bare, partita } = ours.rows.iter().find(|ours| ours.name == row.name()).copied()?;
        Some(PeerRow { name, bare, partita, kvm })
    };
    Ok(Peers { kernel: host.release(), rows: kvm.into_iter().filter_map(row).collect() })
}

/// The figures of all [`ROWS`] under KVM: of one boot, whose logs and trace stay in `dir`.
///
/// # Errors
/// The boot could not take place, or failed, or its samples are not all there.
pub fn under_kvm(host: &KvmHost, payload: &Path, samples: u32, dir: &Path) -> Result<Vec<(Row, Figures)>, SuiteError> {
    let cmdline = format!("group=all samples={samples} periods={PERIODS} hypercalls=1");
    let report = host.run(&KvmGuest { payload, cmdline: &cmdline, vcpus: VCPUS }, dir, TIMEOUT)?;
    let failed = |outcome| SuiteError::KvmFailed { outcome, dir: dir.to_path_buf() };
    if !report.outcome.is_success() {
        return Err(failed(report.outcome.to_string()));
    }
    let trace = Trace::load(dir).map_err(|error| failed(error.to_string()))?;
    let figures = |row| {
        let counted = samples::distribution(&trace, row, false, samples).map_err(failed)?;
        Ok((row, Figures::of_counted(&counted)))
    };
    ROWS.into_iter().map(figures).collect()
}

/// One line for each row; at most 100 columns.
pub fn table(peers: &Peers) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_header(["operation (ticks)", "bare p50", "Partita p50", "max", "KVM p50", "max", "KVM/Partita"]);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for PeerRow { name, bare, partita, kvm } in &peers.rows {
        const NONE: &str = "-";
        let ratio = (partita.p50 > 0).then(|| format!("{:.1}", kvm.p50 as f64 / partita.p50 as f64));
        table.add_row([
            (*name).to_owned(),
            bare.map_or(NONE.to_owned(), |bare| bare.p50.to_string()),
            partita.p50.to_string(),
            partita.max.to_string(),
            kvm.p50.to_string(),
            kvm.max.to_string(),
            ratio.unwrap_or(NONE.to_owned()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_and_has_a_ratio_where_there_is_one() {
        let of = |ticks| Figures::of(&mut [ticks; 3]).unwrap();
        let row = |row: Row, bare, partita, kvm| PeerRow { name: row.name(), bare, partita: of(partita), kvm: of(kvm) };
        let rows =
            vec![row(Row::ExitCpuid, Some(of(5)), 90, 2694), row(Row::TimerOneshot50usSpin, None, 0, 99_999_999)];
        let text = table(&Peers { kernel: String::new(), rows }).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["exit.cpuid", "5", "90", "90", "2694", "2694", "29.9"]);
        assert_eq!(lines[3].last(), Some(&"-"));
    }

    #[test]
    fn every_row_is_in_a_boot_of_the_suite() {
        assert!(ROWS.iter().all(|row| GROUPS.contains(&row.group())));
    }
}
