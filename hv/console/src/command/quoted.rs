//! Words of the input, made fit to be shown.

use core::fmt::{Display, Formatter, Result, Write};

/// A word as an error shows it: in quotes, with escapes for quotes and everything that is not printable ASCII, and
/// with `...` in place of what is beyond [`Quoted::COLUMNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// Most columns between the quotes.
    pub const COLUMNS: usize = 20;
}

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut room = Self::COLUMNS;
        let mut end = "\"";
        f.write_char('"')?;
        for character in self.0.chars() {
            // `escape_default` would escape the apostrophe too.
            let columns = if character == '\'' { 1 } else { character.escape_default().len() };
            let Some(rest) = room.checked_sub(columns) else {
                end = "\"...";
                break;
            };
            room = rest;
            match character {
                '\'' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_default())?,
            }
        }
        f.write_str(end)
    }
}
