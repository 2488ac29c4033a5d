//! The distribution of each row, as bars.

use crate::boot::{Boot, Place};
use crate::extent::Extent;
use crate::figures::Figures;
use crate::{SuiteError, samples};
use partita_host::emulator::MachineKind;
use partita_host::trace::{Bucket, LatencySource, Origin, Trace, chart};
use partita_rows::Row;
use std::path::Path;

/// The histograms of all rows of a run, one after the other, from the traces that its boots left in `dir`: each a heading, its
/// figures and its bars, in lines of at most 100 characters.
///
/// # Errors
/// A trace cannot be read, or lacks samples.
pub fn histograms(machine: MachineKind, extent: Extent, dir: &Path) -> Result<Vec<Vec<String>>, SuiteError> {
    let mut charts = Vec::new();
    let boots: Vec<Boot> = Boot::all_on(machine).collect();
    for row in Row::ALL.iter().copied() {
        for boot in boots.iter().filter(|boot| boot.rows().any(|of_boot| of_boot == row)) {
            let dir = dir.join(boot.to_string());
            let wrong = |problem| SuiteError::Samples { boot: *boot, problem, dir: dir.clone() };
            let trace = Trace::load(&dir).map_err(|error| wrong(error.to_string()))?;
            let wanted = extent.samples_of(boot.group);
            let values = samples::distribution(&trace, row, boot.place == Place::Partita, wanted).map_err(wrong)?;
            charts.push(histogram(row, boot.place, &values, trace.tsc_hz));
        }
    }
    Ok(charts)
}

/// The histogram of one row: values, and how often each is there.
pub fn histogram(row: Row, place: Place, values: &[(u64, u64)], tsc_hz: Option<u64>) -> Vec<String> {
    let whose = match place {
        Place::Bare => "bare",
        Place::Partita => "Partita",
    };
    let Figures { min, p50, p99, max, count, .. } = Figures::of_counted(values);
    let plural = if count == 1 { "" } else { "s" };
    let heading = format!("{}, {whose}: {count} sample{plural}", row.name());
    if count == 0 {
        return vec![heading];
    }
    let mut buckets: Vec<Bucket> =
        values.iter().map(|&(value, count)| Bucket { low: value, high: value, count }).collect();
    buckets.sort_by_key(|bucket| bucket.low);
    let (kind, name, kick, pcpu, source) = ("row", row.name(), None, 0, Origin::Ring);
    let source = LatencySource { kind, name, kick, pcpu, source, count, min, p50, p99, max, buckets };
    // Its own heading tells a pCPU and a ring.
    let lines = chart::chart(&source, tsc_hz).into_iter().skip(1);
    std::iter::once(heading).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_under_a_heading() {
        let lines = histogram(Row::ExitCpuid, Place::Partita, &[(101, 1), (99, 199)], Some(1_000_000_000));
        assert_eq!(lines[0], "exit.cpuid, Partita: 200 samples");
        assert_eq!(lines[1], "  min 99, p50 99, p99 99, max 101 ticks = ns");
        assert!(lines[2].contains("99 |█") && lines[3].contains("101 |▏"), "{lines:#?}");
        assert_eq!(histogram(Row::ExitCpuid, Place::Bare, &[], None), ["exit.cpuid, bare: 0 samples"]);
    }

    #[test]
    fn a_directory_without_traces_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = histograms(MachineKind::Qemu, 200.into(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("partita-exit") && error.contains(&dir.path().display().to_string()), "{error}");
    }
}
