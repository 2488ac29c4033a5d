//! What the suite came to, in words and tables.

use crate::commands::say;
use partita_host::emulator::{Clock, MachineKind};
use partita_latency_tests::budgets::Excess;
use partita_latency_tests::compare::{Comparison, OldFile};
use partita_latency_tests::profile::{PathKind, Profile, changes as changes_of, measure};
use partita_latency_tests::table::{side_by_side as side_by_side_table, table};
use partita_latency_tests::{BenchFile, Images};
use std::io::Write;
use std::path::Path;

/// Prints an error; nobody is left to tell where standard error is closed.
pub(super) fn complain(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "error: {what}");
}

/// The same for a warning.
pub(super) fn warn(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "warning: {what}");
}

/// Prints what a reader should know.
pub(super) fn note(what: std::fmt::Arguments<'_>) {
    say(format_args!("note: {what}"));
}

/// The table of one machine, and what a tick is there; with its name if it is one of several.
pub(super) fn table_of(machine: MachineKind, file: &BenchFile, is_one_of_several: bool) {
    if is_one_of_several {
        say(format_args!("{}", file.machine));
    }
    table_alone(file);
    say(format_args!("{}", machine.tick(machine.clock(Clock::Icount))));
    if is_one_of_several {
        say(format_args!(""));
    }
}

/// The table of figures whose machine may be any.
pub(super) fn table_alone(file: &BenchFile) {
    say(format_args!("{}", table(file).trim_fmt()));
}

/// The medians of all machines.
pub(super) fn side_by_side(files: &[BenchFile]) {
    say(format_args!("{}", side_by_side_table(files).trim_fmt()));
}

/// Histograms, with a blank line behind each.
pub(super) fn charts(charts: &[Vec<String>]) {
    for chart in charts {
        chart.iter().for_each(|line| say(format_args!("{line}")));
        say(format_args!(""));
    }
}

/// What is above its budget.
pub(super) fn excesses(file: &BenchFile, excesses: &[Excess]) {
    for excess in excesses {
        complain(format_args!("{}: above budget: {excess}", file.machine));
    }
}

/// What changed since an earlier run. Returns whether nothing is slower, and nothing gone.
pub(super) fn comparison(old: &OldFile, new: &BenchFile) -> bool {
    let comparison = Comparison::of(old, new);
    say(format_args!("\n{}: compared with the earlier run", new.machine));
    say(format_args!("{}", comparison.table().trim_fmt()));
    comparison.notes().iter().for_each(|line| note(format_args!("{line}")));
    let slower = comparison.slower();
    if !slower.is_empty() {
        complain(format_args!("{}: slower than before: {}", new.machine, slower.join(", ")));
    }
    let gone = comparison.gone();
    if !gone.is_empty() {
        complain(format_args!("{}: gone since the old file: {}", new.machine, gone.join(", ")));
    }
    slower.is_empty() && gone.is_empty()
}

/// Which functions execute more instructions on the paths behind rows that are above their budgets. `dir` is that of the run.
pub(super) fn growth(excesses: &[Excess], dir: &Path) {
    let mut kinds: Vec<PathKind> =
        excesses.iter().flat_map(|excess| PathKind::of_row_named(excess.row())).copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() {
        return;
    }
    let images = Images { hypervisor: dir.join("hypervisor.elf"), payload: dir.join("payload.elf") };
    let compared = Profile::of_repository().and_then(|known| Ok((known, measure(&kinds, &images, dir)?)));
    match compared {
        Ok((known, now)) => changes(&known, &now),
        Err(error) => complain(format_args!("cannot tell what grew: {error:#}")),
    }
}

/// What changed between two profiles.
pub(super) fn changes(before: &Profile, after: &Profile) {
    let changes = changes_of(before, after);
    if changes.is_empty() {
        say(format_args!("no function executes more or less instructions than in latency-tests/profiles"));
    }
    changes.iter().for_each(|change| say(format_args!("\n{change}")));
}
