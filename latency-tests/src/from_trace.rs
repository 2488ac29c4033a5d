//! The figures of traces that are there already: `bench --from-trace DIR...`.

use crate::boot::{Boot, Place};
use crate::extent::Extent;
use crate::figures::{BenchFile, Figures, RowFigures, Unit, derived};
use crate::histogram::histogram;
use crate::samples;
use crate::systems::{SPARE_GAPS, WARM_UP_ROUNDS};
use anyhow::Context;
use partita_host::run_dir::{SYSTEM_FILE, TRACE_FILE};
use partita_host::run_info::ClockName;
use partita_host::system_file::SystemFile;
use partita_host::trace::{Owner, Trace};
use partita_rows::row::Source;
use partita_rows::{Group, Row};
use partita_trace::event::Event;
use partita_trace::snapshot::Body;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the names of directories begin with that [`crate::profile`] makes.
const PROFILE: &str = "profile-";

/// Values, and how often each is there.
type Distribution = Vec<(u64, u64)>;

/// What traces have.
#[derive(Debug)]
pub struct Found {
    /// The figures.
    pub file: BenchFile,
    /// The histogram of each row, as [`histogram`] has it.
    pub charts: Vec<Vec<String>>,
}

/// The figures of boots of the suite whose output directories are given, or lie in a directory that is given. Rows that no
/// trace has are not there. In nanoseconds if time passed as on the host.
///
/// # Errors
/// There is no such directory, a trace cannot be read or lacks samples, or they are of different machines or clocks.
pub fn figures_of(dirs: &[PathBuf]) -> anyhow::Result<Found> {
    let mut values: HashMap<(Place, Row), Distribution> = HashMap::new();
    let mut facts: Option<(String, ClockName, Option<u64>)> = None;
    for dir in boots_in(dirs)? {
        let trace = Trace::load(&dir)?;
        let found = trace.run.as_ref().map_or_else(
            || ("unknown".to_owned(), ClockName::Tsc, trace.tsc_hz),
            |run| (run.machine.clone(), run.clock, trace.tsc_hz),
        );
        if let Some(first) = facts.as_ref().filter(|first| (&first.0, first.1) != (&found.0, found.1)) {
            anyhow::bail!(
                "{} is of {} and the {} clock, those before it of {} and the {} clock; give traces of one machine",
                dir.display(),
                found.0,
                found.1.name(),
                first.0,
                first.1.name()
            );
        }
        for (row, distribution) in values_in(&dir, &trace).with_context(|| dir.display().to_string())? {
            let is_new = values.insert(row, distribution).is_none();
            anyhow::ensure!(
                is_new,
                "{} has {} again, which an earlier trace has; give the traces of one run",
                dir.display(),
                row.1.name()
            );
        }
        facts = Some(facts.unwrap_or(found));
    }
    let (machine, clock, tsc_hz) = facts.context("there is no trace of the latency suite")?;
    let mut figures: HashMap<(Place, Row), Figures> =
        values.iter().map(|(row, values)| (*row, Figures::of_counted(values))).collect();
    let derived: Vec<_> = derived(|row| figures.get(&(Place::Partita, row)).copied()).collect();
    figures.extend(derived.into_iter().map(|(row, of_row)| ((Place::Partita, row), of_row)));
    let row = |row: &Row| {
        let of = |place| figures.get(&(place, *row)).copied();
        Some(RowFigures { name: row.name(), bare: of(Place::Bare), partita: of(Place::Partita)? })
    };
    let file =
        BenchFile { machine, clock, unit: Unit::Ticks, host: None, rows: Row::ALL.iter().filter_map(row).collect() };
    let places = |row: &Row| [Place::Partita, Place::Bare].map(|place| (place, *row));
    let chart = |(place, row)| Some(histogram(row, place, values.get(&(place, row))?, tsc_hz));
    let charts = Row::ALL.iter().flat_map(places).filter_map(chart).collect();
    let file = match (clock, tsc_hz) {
        (ClockName::Tsc, Some(hz)) => file.in_nanoseconds(hz),
        _ => file,
    };
    Ok(Found { file, charts })
}

/// Those of these directories that have a trace, and the directories in the others that have one.
fn boots_in(dirs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut boots = Vec::new();
    for dir in dirs {
        if dir.join(TRACE_FILE).is_file() {
            boots.push(dir.clone());
            continue;
        }
        let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read the directory {}", dir.display()))?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // What a profile was made of is in a directory of its own, with few samples.
        let is_profile = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PROFILE));
        inside.retain(|inside| inside.join(TRACE_FILE).is_file() && !is_profile(inside));
        inside.sort();
        anyhow::ensure!(
            !inside.is_empty(),
            "{} has no {TRACE_FILE}, and no directory in it has one; give the directory of a boot, or that of a run of bench",
            dir.display()
        );
        boots.extend(inside);
    }
    Ok(boots)
}

/// The samples of one boot.
fn values_in(dir: &Path, trace: &Trace) -> anyhow::Result<Vec<((Place, Row), Distribution)>> {
    let is_bare = trace.regions.iter().all(|region| region.owner == Owner::Bare);
    let place = if is_bare { Place::Bare } else { Place::Partita };
    let system = dir.join(SYSTEM_FILE);
    let system = if system.is_file() { Some(SystemFile::load(&system)?) } else { None };
    let said = system.iter().flat_map(|system| system.cmdlines.first()).find_map(|line| option(line, "group"));
    let group = Group::ALL.iter().copied().find(|group| match said {
        Some(name) => group.name() == name,
        None => Row::ALL.iter().any(|row| row.group() == *group && taken(trace, *row) > 0),
    });
    let group =
        group.context("it is no boot of the latency suite: no command line names a group, and it has no samples")?;
    let rounds = system.as_ref().map_or(0, |system| system.config.housekeeping.smp_call_rounds);
    let boot = Boot { place, group };
    let of_row = |row: Row| {
        let wanted = match (taken(trace, row), group) {
            (0, _) if row.source() == Source::Hypervisor => u64::from(rounds.saturating_sub(WARM_UP_ROUNDS)),
            (0, Group::Gap) => taken(trace, Row::SmpCallGapSeen).saturating_sub(SPARE_GAPS.into()),
            (taken, Group::Gap) => taken.saturating_sub(SPARE_GAPS.into()),
            (taken, _) => taken,
        };
        let wanted = Extent::from(u32::try_from(wanted).unwrap_or(u32::MAX)).samples_of(group);
        let values = samples::distribution(trace, row, !is_bare, wanted).map_err(anyhow::Error::msg)?;
        Ok(((place, row), values))
    };
    boot.rows().map(of_row).collect()
}

/// The value of an option on a payload's command line.
fn option<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// How many samples of a row are in the traces of payloads.
fn taken(trace: &Trace, row: Row) -> u64 {
    let frames = trace.regions.iter().flat_map(|region| &region.dump.rings).flat_map(|ring| ring.frames());
    let is_sample = |body: &Body| matches!(body, Body::Event(Event::Sample { row: id, .. }) if *id == row.id());
    frames.filter(|frame| is_sample(&frame.body)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_command_line_are_found() {
        assert_eq!(option("group=exit samples=20", "samples"), Some("20"));
        assert_eq!(option("groups=exit", "group"), None);
    }

    #[test]
    fn a_directory_without_a_trace_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("partita-exit")).unwrap();
        let error = format!("{:#}", figures_of(&[dir.path().to_path_buf()]).unwrap_err());
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("has no trace.bin"), "{error}");
        let error = format!("{:#}", figures_of(&[dir.path().join("no")]).unwrap_err());
        assert!(error.contains("cannot read the directory"), "{error}");
        std::fs::write(dir.path().join("partita-exit").join(TRACE_FILE), "x").unwrap();
        assert!(figures_of(&[dir.path().to_path_buf()]).is_err());
    }
}
