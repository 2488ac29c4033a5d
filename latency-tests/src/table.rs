//! The figures for people.

use crate::figures::{BenchFile, RowFigures};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// One line for each row; at most 100 columns.
pub fn table(file: &BenchFile) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_header(["operation (ticks)", "bare p50", "Partita min", "median", "p99", "max", "Partita/bare"]);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in &file.rows {
        table.add_row(cells(row));
    }
    table
}

fn cells(row: &RowFigures) -> [String; 7] {
    const NONE: &str = "-";
    let bare = row.bare.map(|bare| bare.p50);
    let partita = row.partita;
    let ratio = bare.filter(|bare| *bare > 0).map(|bare| format!("{:.2}", partita.p50 as f64 / bare as f64));
    [
        row.name.to_owned(),
        bare.map_or(NONE.to_owned(), |bare| bare.to_string()),
        partita.min.to_string(),
        partita.p50.to_string(),
        partita.p99.to_string(),
        partita.max.to_string(),
        ratio.unwrap_or(NONE.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::file;

    #[test]
    fn the_table_fits_and_has_every_row() {
        let text = table(&file(99_999_999, 88_888_888)).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for row in partita_rows::Row::ALL {
            assert!(text.contains(row.name()), "{text}");
        }
    }

    #[test]
    fn a_ratio_needs_something_to_compare_with() {
        let ratio_of = |bare, partita, place: usize| cells(&file(bare, partita).rows[place])[6].clone();
        assert_eq!(ratio_of(40, 50, 0), "1.25");
        assert_eq!(ratio_of(40, 50, 1), "-");
        assert_eq!(ratio_of(0, 50, 0), "-");
    }
}
