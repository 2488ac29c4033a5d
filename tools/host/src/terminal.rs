//! A person at the hypervisor's console.

use crate::emulator::{Console, ConsoleInput};
use std::io::Write;

/// What QEMU prints when it is ended by its own key.
const LEFT: &str = "QEMU: Terminated";

/// Tells how to leave, and where the other consoles are.
pub(crate) fn greet<'c>(others: impl Iterator<Item = &'c Console>) {
    let mut out = std::io::stdout();
    // Nobody is left to tell where standard output is closed.
    let _ = writeln!(out, "This terminal is the hypervisor's console: `help` lists its commands, Ctrl-A X ends QEMU.");
    for console in others {
        let _ = writeln!(out, "The console of {} goes to {}", console.name(), console.path().display());
    }
    let _ = out.flush();
}

/// Ends the line that the console was at, so that what follows begins a new one.
pub(crate) fn take_leave(console: &str) {
    if !console.is_empty() && !console.ends_with(['\n', '\r']) {
        let _ = writeln!(std::io::stdout());
    }
}

/// Whether the person ended the emulator.
pub(crate) fn was_left(input: &ConsoleInput, console: &str) -> bool {
    *input == ConsoleInput::Terminal && console.trim_end().ends_with(LEFT)
}
