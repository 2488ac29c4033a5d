//! The current row of a VT100, as far as the editor uses it: anything else that is written is a failure.

use std::fmt::{self, Write};

pub(crate) struct Screen {
    row: Vec<char>,
    cursor: usize,
    /// A character was written in the last column: the next one goes to the next row.
    wraps: bool,
    bells: usize,
    escape: String,
}

impl Screen {
    pub(crate) fn new(width: usize) -> Self {
        Self { row: vec![' '; width], cursor: 0, wraps: false, bells: 0, escape: String::new() }
    }

    pub(crate) fn show(&mut self, text: &str) {
        self.write_str(text).unwrap();
    }

    pub(crate) fn row(&self) -> String {
        self.row.iter().collect::<String>().trim_end().to_owned()
    }

    /// Column of the cursor.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(crate) fn bells(&self) -> usize {
        self.bells
    }

    fn next_row(&mut self) {
        self.row.fill(' ');
        (self.cursor, self.wraps) = (0, false);
    }

    fn put(&mut self, character: char) {
        if self.wraps {
            self.next_row();
        }
        self.row[self.cursor] = character;
        self.wraps = self.cursor + 1 == self.row.len();
        self.cursor += usize::from(!self.wraps);
    }

    fn sequence(&mut self) -> bool {
        let Some(rest) = self.escape.strip_prefix("\x1B[") else { return false };
        match rest.chars().last() {
            Some('K') => {
                assert_eq!(rest, "K");
                self.row[self.cursor..].fill(' ');
            }
            Some('C') => {
                let columns: usize = rest.trim_end_matches('C').parse().unwrap();
                self.cursor = (self.cursor + columns).min(self.row.len() - 1);
            }
            Some('0'..='9') | None => return false,
            Some(other) => panic!("the editor does not use {other:?}"),
        }
        self.wraps = false;
        true
    }
}

impl Write for Screen {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if !self.escape.is_empty() {
                self.escape.push(character);
                assert!(self.escape.len() < 8, "{:?}", self.escape);
                if self.sequence() {
                    self.escape.clear();
                }
                continue;
            }
            match character {
                '\x1B' => self.escape.push(character),
                '\r' => (self.cursor, self.wraps) = (0, false),
                // The UART's writer makes CR LF of it.
                '\n' => self.next_row(),
                '\x07' => self.bells += 1,
                ' '..='~' => self.put(character),
                other => panic!("the editor does not write {other:?}"),
            }
        }
        Ok(())
    }
}
