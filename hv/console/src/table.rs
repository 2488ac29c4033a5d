//! Tables, written row by row.

use core::fmt::{self, Arguments, Write};

use heapless::String;

use crate::COLUMNS_MAX;

/// Spaces between two columns.
const GAP: usize = 2;

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    heading: &'static str,
    width: usize,
    align: Align,
}

impl Column {
    /// A column of words, `width` columns of the terminal wide.
    pub const fn left(heading: &'static str, width: usize) -> Self {
        Self { heading, width, align: Align::Left }
    }

    /// A column of numbers, `width` columns of the terminal wide.
    pub const fn right(heading: &'static str, width: usize) -> Self {
        Self { heading, width, align: Align::Right }
    }
}

/// A table of at most [`COLUMNS_MAX`] columns of the terminal. It holds no rows: each is written as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<const N: usize> {
    columns: [Column; N],
}

impl<const N: usize> Table<N> {
    /// The table of these columns, two spaces apart. To be a constant, so that the compiler checks it:
    ///
    /// ```
    /// use partita_console::table::{Column, Table};
    /// const PARTITIONS: Table<2> = Table::new([Column::left("PARTITION", 16), Column::right("PCPUS", 5)]);
    /// # let _ = PARTITIONS;
    /// ```
    ///
    /// # Panics
    /// A column is narrower than its heading, or all together are wider than [`COLUMNS_MAX`].
    pub const fn new(columns: [Column; N]) -> Self {
        let mut total = 0;
        let mut rest: &[Column] = &columns;
        while let [column, others @ ..] = rest {
            assert!(column.width > 0 && column.heading.len() <= column.width, "a column is narrower than its heading");
            total += column.width + if others.is_empty() { 0 } else { GAP };
            assert!(total <= COLUMNS_MAX, "the table is too wide");
            rest = others;
        }
        Self { columns }
    }

    /// Writes the headings.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn head(&self, out: &mut impl Write) -> fmt::Result {
        let mut line = Line::new(out);
        for column in &self.columns {
            line.cell(column, format_args!("{}", column.heading))?;
        }
        line.finish()
    }

    /// Writes a row. A cell that is too long is cut, with `~` at its end; what is not printable ASCII is shown as `?`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn row(&self, out: &mut impl Write, cells: [Arguments<'_>; N]) -> fmt::Result {
        let mut line = Line::new(out);
        for (column, cell) in self.columns.iter().zip(cells) {
            line.cell(column, cell)?;
        }
        line.finish()
    }
}

/// A line that never ends in spaces.
struct Line<'a, W> {
    out: &'a mut W,
    /// Spaces to write before the next text.
    spaces: usize,
}

impl<'a, W: Write> Line<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Self { out, spaces: 0 }
    }

    fn cell(&mut self, column: &Column, cell: Arguments<'_>) -> fmt::Result {
        let text = Cell::format(column.width, cell);
        let padding = column.width.saturating_sub(text.len());
        let (before, after) = match column.align {
            Align::Left => (0, padding),
            Align::Right => (padding, 0),
        };
        self.spaces += before;
        if !text.is_empty() {
            write!(self.out, "{:1$}{text}", "", self.spaces)?;
            self.spaces = 0;
        }
        self.spaces += after + GAP;
        Ok(())
    }

    fn finish(self) -> fmt::Result {
        self.out.write_char('\n')
    }
}

/// Collects the text of a cell, as far as it fits.
struct Cell {
    text: String<COLUMNS_MAX>,
    width: usize,
}

impl Cell {
    fn format(width: usize, cell: Arguments<'_>) -> String<COLUMNS_MAX> {
        let mut collected = Self { text: String::new(), width };
        // An error is the end of the room, or the value's own: what there is, is shown.
        let _ = collected.write_fmt(cell);
        collected.text
    }
}

impl Write for Cell {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.text.len() >= self.width {
                self.text.pop();
                let _ = self.text.push('~');
                // Ends the formatting.
                return Err(fmt::Error);
            }
            let shown = if matches!(character, ' '..='~') { character } else { '?' };
            self.text.push(shown).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    const TABLE: Table<3> =
        Table::new([Column::left("NAME", 6), Column::right("EXITS", 8), Column::left("STATE", COLUMNS_MAX - 18)]);

    fn row(cells: [&str; 3]) -> String {
        let mut out = String::new();
        let [a, b, c] = cells;
        TABLE.row(&mut out, [format_args!("{a}"), format_args!("{b}"), format_args!("{c}")]).unwrap();
        out
    }

    #[test]
    fn cells_stand_below_their_headings() {
        let mut head = String::new();
        TABLE.head(&mut head).unwrap();
        assert_eq!(head, "NAME       EXITS  STATE\n");
        assert_eq!(row(["rt0", "1,234", "running"]), "rt0        1,234  running\n");
        assert_eq!(row(["rt0", "", ""]), "rt0\n");
        assert_eq!(row(["", "", ""]), "\n");
    }

    #[test]
    fn a_cell_that_is_too_long_is_cut() {
        assert_eq!(row(["latency", "123456789", "x"]), "laten~  1234567~  x\n");
        assert_eq!(row(["exact!", "12345678", "x"]), "exact!  12345678  x\n");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        assert_eq!(row(["a\nb\t", "\x1B[K", "\u{e9}"]), "a?b?         ?[K  ?\n");
    }

    #[test]
    #[should_panic(expected = "narrower than its heading")]
    fn a_heading_is_not_cut() {
        let _ = Table::new([Column::left("HEADING", 6)]);
    }

    #[test]
    #[should_panic(expected = "too wide")]
    fn a_table_is_not_too_wide() {
        let _ = Table::new([Column::left("A", 50), Column::left("B", 49)]);
    }

    proptest! {
        #[test]
        fn no_cell_breaks_the_alignment(a: String, b: String, c in ".{0,120}") {
            let out = row([&a, &b, &c]);
            let line = out.strip_suffix('\n').unwrap();
            prop_assert!(line.len() <= COLUMNS_MAX && line.bytes().all(|b| matches!(b, b' '..=b'~')), "{:?}", line);
            let shown = |text: &str, width: usize| -> String {
                let text: String = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
                if text.len() > width { format!("{}~", &text[..width - 1]) } else { text }
            };
            let expected = format!("{:6}  {:>8}  {}", shown(&a, 6), shown(&b, 8), shown(&c, COLUMNS_MAX - 18));
            prop_assert_eq!(line.trim_end(), expected.trim_end());
        }
    }
}
