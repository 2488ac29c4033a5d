//! The line editor: bytes of a terminal become lines.

mod history;
mod keys;
mod split_line;

use core::fmt::{self, Write};

use history::History;
use keys::{Key, KeyDecoder};
use split_line::SplitLine;

/// Longest line, in bytes.
pub const LINE_MAX: usize = 96;
/// Lines that are remembered.
pub const HISTORY_LINES: usize = 8;
/// What the caller prints at the beginning of a line, before the first byte of it is pushed.
pub const PROMPT: &str = "partita> ";

const BELL: char = '\x07';

/// What a byte made of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited<'a> {
    /// The line is not finished.
    Pending,
    /// The line is finished: printable ASCII, at most [`LINE_MAX`] bytes, perhaps none. The cursor is at the beginning
    /// of a new line, and the next prompt is due.
    Line(&'a str),
    /// The line is given up (`^C`). The cursor is at the beginning of a new line, and the next prompt is due.
    Cancelled,
}

/// A line editor with a history, for a VT100 terminal whose line has room for prompt and text.
///
/// | key | what it does |
/// |---|---|
/// | left, right, home (`^A`), end (`^E`) | move |
/// | backspace, delete | delete one character |
/// | `^U`, `^K`, `^W` | delete to the beginning, to the end, the word before the cursor |
/// | up (`^P`), down (`^N`) | earlier and later lines; what was typed comes back after the latest |
/// | `^L` | draw the line again |
/// | `^C` | give the line up |
///
/// Every other control byte, and every byte that is not ASCII, is ignored.
#[derive(Debug)]
pub struct LineEditor {
    keys: KeyDecoder,
    line: SplitLine,
    history: History,
    /// The finished line, which the caller reads.
    finished: SplitLine,
}

impl LineEditor {
    /// An editor with an empty line and an empty history.
    pub const fn new() -> Self {
        Self { keys: KeyDecoder::new(), line: SplitLine::new(), history: History::new(), finished: SplitLine::new() }
    }

    /// Takes the next byte from the terminal, and writes what the terminal has to show for it. CR, LF and CR LF end a
    /// line once. A character too many rings the bell. Errors of `echo` are ignored: the line is right even if it
    /// cannot be seen.
    pub fn push(&mut self, byte: u8, echo: &mut impl Write) -> Edited<'_> {
        let Some(key) = self.keys.push(byte) else { return Edited::Pending };
        match key {
            Key::Enter => {
                let _ = echo.write_char('\n');
                self.line.end();
                self.finished = core::mem::take(&mut self.line);
                self.history.remember(self.finished.left());
                Edited::Line(self.finished.left())
            }
            Key::Cancel => {
                let _ = echo.write_str("^C\n");
                self.line = SplitLine::new();
                self.history.leave();
                Edited::Cancelled
            }
            key => {
                let _ = self.edit(key, echo);
                Edited::Pending
            }
        }
    }

    /// Draws prompt and line again, from the beginning of the terminal's current line: after something else was
    /// written there.
    ///
    /// # Errors
    /// Those of `echo`.
    pub fn redraw(&self, echo: &mut impl Write) -> fmt::Result {
        write!(echo, "\r\x1B[K{PROMPT}{}", self.line.left())?;
        self.write_right(echo)
    }

    fn edit(&mut self, key: Key, echo: &mut impl Write) -> fmt::Result {
        // The cursor of the terminal is where the cursor of the line is, and each arm leaves it so.
        match key {
            Key::Character(character) => {
                if self.line.len() >= LINE_MAX {
                    return echo.write_char(BELL);
                }
                self.line.insert(character);
                echo.write_char(character)?;
                self.write_right(echo)
            }
            Key::Left => self.moved(SplitLine::step_left, echo),
            Key::Right => self.moved(SplitLine::step_right, echo),
            Key::Home => self.moved(SplitLine::home, echo),
            Key::End => self.moved(SplitLine::end, echo),
            Key::Backspace => self.shortened(SplitLine::delete_left, echo),
            Key::Delete => self.shortened(SplitLine::delete_right, echo),
            Key::DeleteToBeginning => self.shortened(SplitLine::delete_to_beginning, echo),
            Key::DeleteToEnd => self.shortened(SplitLine::delete_to_end, echo),
            Key::DeleteWord => self.shortened(SplitLine::delete_word, echo),
            Key::Up => self.replaced(History::earlier, echo),
            Key::Down => self.replaced(History::later, echo),
            Key::Redraw => self.redraw(echo),
            Key::Enter | Key::Cancel => Ok(()),
        }
    }

    fn moved(&mut self, step: fn(&mut SplitLine), echo: &mut impl Write) -> fmt::Result {
        let before = self.line.cursor();
        step(&mut self.line);
        if self.line.cursor() == before { Ok(()) } else { self.place_cursor(echo) }
    }

    fn shortened(&mut self, delete: fn(&mut SplitLine), echo: &mut impl Write) -> fmt::Result {
        let before = self.line.len();
        delete(&mut self.line);
        if self.line.len() == before {
            return Ok(());
        }
        // Erased first: after a character in the last column, the terminal would erase that one.
        self.place_cursor(echo)?;
        echo.write_str("\x1B[K")?;
        self.write_right(echo)
    }

    fn replaced(
        &mut self,
        other: impl FnOnce(&mut History, &SplitLine) -> Option<SplitLine>,
        echo: &mut impl Write,
    ) -> fmt::Result {
        match other(&mut self.history, &self.line) {
            Some(line) => {
                self.line = line;
                self.redraw(echo)
            }
            None => Ok(()),
        }
    }

    /// Writes what is right of the cursor, and goes back.
    fn write_right(&self, echo: &mut impl Write) -> fmt::Result {
        if self.line.is_at_end() {
            return Ok(());
        }
        self.line.right().try_for_each(|character| echo.write_char(character))?;
        self.place_cursor(echo)
    }

    /// Places the terminal's cursor, counted from the beginning of the line: right even when the cursor waits behind
    /// the last column.
    fn place_cursor(&self, echo: &mut impl Write) -> fmt::Result {
        write!(echo, "\r\x1B[{}C", PROMPT.len() + self.line.cursor())
    }
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}
