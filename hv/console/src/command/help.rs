//! What `help` prints.

use core::fmt::{Result, Write};

use super::table::{COMMANDS, find};
use super::unknown;

/// Columns of the usage in the list of commands.
const USAGE_COLUMNS: usize = 28;

/// Writes the list of all commands, or what there is to say about one. The name of none is answered with the nearest
/// name.
///
/// # Errors
/// Those of `out`.
pub fn write_help(out: &mut impl Write, command: Option<&str>) -> Result {
    let Some(name) = command else {
        for entry in &COMMANDS {
            writeln!(out, "  {:USAGE_COLUMNS$}{}", entry.usage, entry.summary)?;
        }
        return writeln!(out, "Numbers are decimal, or hexadecimal after 0x; _ may stand between digits.");
    };
    let Some(entry) = find(name) else { return writeln!(out, "{}", unknown(name)) };
    writeln!(out, "{}: {}", entry.usage, entry.summary)?;
    entry.more.iter().try_for_each(|line| writeln!(out, "  {line}"))
}
