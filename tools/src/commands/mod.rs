//! The commands: each a thin layer of arguments and words over the library.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod costs;
pub(crate) mod image;
pub(crate) mod peers;
pub(crate) mod run;
pub(crate) mod size;
pub(crate) mod trace;

use std::io::Write;

/// Prints a line on standard output. A reader that went away, as `head` does, is no reason to fail.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
