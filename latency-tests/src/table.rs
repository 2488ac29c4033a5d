//! The figures for people.

use crate::figures::{BenchFile, Figures, RowFigures, Unit};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use partita_rows::Row;

/// What stands where there is no figure.
const NONE: &str = "-";

/// One line for each row; at most 100 columns. A row without a sample has `none` as its most. Figures in nanoseconds have more
/// percentiles.
pub fn table(file: &BenchFile) -> Table {
    let operation = format!("operation ({})", file.unit.name());
    let header: &[&str] = match file.unit {
        Unit::Ticks => &[&operation, "bare p50", "Partita min", "median", "p99", "max", "Partita/bare"],
        Unit::Ns => &[&operation, "bare p50", "Partita p50", "p90", "p99", "p99.9", "max", "Partita/bare"],
    };
    let mut table = plain_table(2, header);
    for row in &file.rows {
        table.add_row(cells(row, file.unit));
    }
    table
}

/// A table with a line under its header, its first column words, all others numbers, with `gap` blanks between.
pub(crate) fn plain_table(gap: u16, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_header(header.iter().copied());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The medians of several machines side by side: bare on the first of them, then under Partita on each; the last column is the
/// last machine's as a multiple of the one before it.
pub fn side_by_side(files: &[BenchFile]) -> Table {
    let names: Vec<String> = files.iter().map(|file| file.machine.clone()).collect();
    let unit = files.first().map_or(Unit::Ticks, |file| file.unit).name();
    let ratio = match names.as_slice() {
        [.., before, last] => format!("{}/{}", vendor(last), vendor(before)),
        _ => String::new(),
    };
    let (operation, bare) = (format!("median ({unit})"), format!("bare {}", names.first().map_or("", |name| name)));
    let header: Vec<&str> = [operation.as_str(), bare.as_str()]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .chain(std::iter::once(ratio.as_str()))
        .collect();
    let mut table = plain_table(2, &header);
    for row in Row::ALL {
        let of: Vec<Option<&RowFigures>> = files.iter().map(|file| file.row(row.name())).collect();
        if of.iter().all(Option::is_none) {
            continue;
        }
        let partita: Vec<Option<u64>> = of.iter().map(|row| median(&row.as_ref()?.partita)).collect();
        let bare = of.first().copied().flatten().and_then(|row| median(row.bare.as_ref()?));
        let times = match partita.as_slice() {
            [.., before, last] => ratio_of(*last, *before),
            _ => NONE.to_owned(),
        };
        let numbers = std::iter::once(bare).chain(partita).map(or_none);
        table.add_row(std::iter::once(row.name().to_owned()).chain(numbers).chain(std::iter::once(times)));
    }
    table
}

/// `VMX` of `bochs-vmx`.
fn vendor(machine: &str) -> String {
    machine.rsplit('-').next().unwrap_or(machine).to_uppercase()
}

fn median(figures: &Figures) -> Option<u64> {
    (figures.count > 0).then_some(figures.p50)
}

fn or_none(number: Option<u64>) -> String {
    number.map_or(NONE.to_owned(), |number| number.to_string())
}

fn ratio_of(value: Option<u64>, of: Option<u64>) -> String {
    let ratio = value.zip(of.filter(|of| *of > 0)).map(|(value, of)| format!("{:.2}", value as f64 / of as f64));
    ratio.unwrap_or(NONE.to_owned())
}

fn cells(row: &RowFigures, unit: Unit) -> Vec<String> {
    let bare = row.bare.as_ref().and_then(median);
    let Figures { min, p50, p90, p99, p999, max, count } = row.partita;
    let mut cells = vec![row.name.to_owned(), or_none(bare)];
    let figures = match unit {
        Unit::Ticks => vec![min, p50, p99, max],
        Unit::Ns => vec![p50, p90, p99, p999, max],
    };
    if count == 0 {
        cells.extend(std::iter::repeat_n(NONE.to_owned(), figures.len() - 1));
        cells.push("none".to_owned());
    } else {
        cells.extend(figures.iter().map(u64::to_string));
    }
    cells.push(ratio_of(median(&row.partita), bare));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;
    use partita_host::emulator::MachineKind;

    #[test]
    fn the_table_fits_and_has_every_row() {
        let (ticks, ns) = (file(99_999_999, 88_888_888), file(9_999_999, 8_888_888).in_nanoseconds(1_000_000_000));
        for text in [table(&ticks), table(&ns)].map(|table| table.to_string()) {
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            for row in Row::ALL {
                assert!(text.contains(row.name()), "{text}");
            }
        }
    }

    #[test]
    fn a_ratio_needs_something_to_compare_with() {
        let ratio_of = |bare, partita, place: usize| cells(&file(bare, partita).rows[place], Unit::Ticks)[6].clone();
        assert_eq!(ratio_of(40, 50, 0), "1.25");
        assert_eq!(ratio_of(40, 50, 1), "-");
        assert_eq!(ratio_of(0, 50, 0), "-");
    }

    #[test]
    fn a_row_without_a_sample_says_so() {
        let row = RowFigures { partita: Figures::default(), ..file(5, 6).rows[1] };
        assert_eq!(cells(&row, Unit::Ticks)[1..], ["-", "-", "-", "-", "none", "-"]);
    }

    #[test]
    fn machines_stand_side_by_side() {
        let of = |machine: MachineKind, ticks| BenchFile { machine: machine.result_name(), ..file(5, ticks) };
        let mut files = [of(MachineKind::Qemu, 100), of(MachineKind::BOCHS_SVM, 200), of(MachineKind::BOCHS_VMX, 250)];
        files[0].rows.remove(1);
        let text = side_by_side(&files).to_string();
        let words = |n: usize| text.lines().nth(n).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(0)[2..], ["bare", "qemu-svm", "qemu-svm", "bochs-svm", "bochs-vmx", "VMX/SVM"]);
        assert_eq!(words(2), ["exit.cpuid", "5", "100", "200", "250", "1.25"]);
        assert_eq!(words(3), ["exit.hypercall", "-", "-", "200", "250", "1.25"], "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
