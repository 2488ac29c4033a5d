//! A person at a console of the machine.

use crate::run::HYPERVISOR;
use std::io::Write;
use std::path::Path;

/// Tells how to leave the console whose log is at `own`, and where the others are.
pub(crate) fn greet<'c>(own: &Path, emulator: &str, consoles: impl Iterator<Item = (&'c str, &'c Path)>) {
    let (own, others): (Vec<_>, Vec<_>) = consoles.partition(|(_, log)| *log == own);
    let mut out = std::io::stdout();
    // Nobody is left to tell where standard output is closed.
    for (name, _) in own {
        let help = if name == HYPERVISOR { "`help` lists its commands, " } else { "" };
        let keys = format!("Ctrl-A X ends {emulator}, Ctrl-A twice types one");
        let _ = writeln!(out, "This terminal is the console of {name}: {help}{keys}.");
    }
    for (name, log) in others {
        let _ = writeln!(out, "The console of {name} goes to {}", log.display());
    }
    let _ = out.flush();
}

/// Ends the line that the console was at, so that what follows begins a new one.
pub(crate) fn take_leave(console: &str) {
    if !console.is_empty() && !console.ends_with(['\n', '\r']) {
        let _ = writeln!(std::io::stdout());
    }
}
