//! Histograms in a terminal: a table of all, then a chart of each. At most [`WIDTH`] columns, no colour.

use super::hist::{Bucket, HistFile, LatencySource};
use super::smp_legs;
pub use super::text::WIDTH;
use super::text::{nanoseconds, plain_table, short_duration};
use comfy_table::Table;

/// Most lines of a chart.
pub const LINES_MAX: usize = 12;
/// Columns of the longest bar.
const BAR: usize = 40;
/// Eighths of a column, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// One line for each source but the legs of SMP calls. Durations are shown in other units, too, where a tick is not a
/// nanosecond.
pub fn table(hist: &HistFile, tsc_hz: Option<u64>) -> Table {
    let sources = hist.sources.iter().filter(|source| source.kind != smp_legs::KIND);
    figures_table(&["latency", "source", "pCPU"], 2, sources, tsc_hz, |source| {
        [title(source), source.source.name().to_owned(), source.pcpu.to_string()]
    })
}

/// One line for each leg of the SMP calls of each target and kind of kick, with durations as in [`table`]. `None` if
/// there are none.
pub fn leg_table(hist: &HistFile, tsc_hz: Option<u64>) -> Option<Table> {
    let mut sources = hist.sources.iter().filter(|source| source.kind == smp_legs::KIND).peekable();
    sources.peek()?;
    let table = figures_table(&["target", "kick", "leg"], 3, sources, tsc_hz, |source| {
        let target = format!("pCPU {}", source.pcpu);
        [target, source.kick.unwrap_or_default().to_owned(), leg(source)]
    });
    Some(table)
}

/// A table of sources: three columns that say which it is, of which the first `words` are words, then its figures.
fn figures_table<'a>(
    which: &[&str; 3],
    words: usize,
    sources: impl Iterator<Item = &'a LatencySource>,
    tsc_hz: Option<u64>,
    describe: impl Fn(&LatencySource) -> [String; 3],
) -> Table {
    let hz = tsc_hz.filter(|hz| !is_nanoseconds(*hz));
    let mut header = [&which[..], &["count", "min", "p50", "p99", "max"]].concat();
    if hz.is_some() {
        header.extend(["p50", "p99", "max"]);
    }
    let mut table = plain_table(&header, words);
    for source in sources {
        let mut row = describe(source).to_vec();
        row.extend([source.count, source.min, source.p50, source.p99, source.max].map(|n| n.to_string()));
        if let Some(hz) = hz {
            let short = |ticks| nanoseconds(ticks, hz).map(short_duration).unwrap_or_default();
            row.extend([source.p50, source.p99, source.max].map(short));
        }
        table.add_row(row);
    }
    table
}

/// A leg, as the way between its two stamps.
fn leg(source: &LatencySource) -> String {
    source.name.replace('_', "->")
}

/// Whether a tick is a nanosecond.
pub const fn is_nanoseconds(tsc_hz: u64) -> bool {
    tsc_hz == 1_000_000_000
}

/// Kind and name, without saying the same twice.
fn title(source: &LatencySource) -> String {
    let LatencySource { kind, name, kick, .. } = source;
    if let Some(kick) = kick {
        return format!("{kind} {}, kick by {kick}", leg(source));
    }
    let name = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    format!("{kind} {name}")
}

/// The heading and the bars of one source.
pub fn chart(source: &LatencySource, tsc_hz: Option<u64>) -> Vec<String> {
    let LatencySource { pcpu, count, min, p50, p99, max, .. } = source;
    let plural = if *count == 1 { "" } else { "s" };
    let mut lines = vec![format!("{}, pCPU {pcpu}, {}: {count} sample{plural}", title(source), source.source.name())];
    let unit = if tsc_hz.is_some_and(is_nanoseconds) { "ticks = ns" } else { "ticks" };
    lines.push(format!("  min {min}, p50 {p50}, p99 {p99}, max {max} {unit}"));
    if let Some(hz) = tsc_hz.filter(|hz| !is_nanoseconds(*hz)) {
        let short = |ticks: &u64| nanoseconds(*ticks, hz).map(short_duration).unwrap_or_default();
        let [min, p50, p99, max] = [min, p50, p99, max].map(short);
        lines.push(format!("  min {min}, p50 {p50}, p99 {p99}, max {max}"));
    }
    let groups = groups(source);
    let most = groups.iter().map(|group| group.count).max().unwrap_or(0);
    let digits = groups.iter().map(|group| group.high.to_string().len()).max().unwrap_or(0);
    let total = groups.iter().map(|group| u128::from(group.count)).sum();
    let columns = BAR.min(WIDTH.saturating_sub(26 + 2 * digits));
    for Bucket { low, high, count } in groups {
        let range = if low == high {
            format!("{:>digits$}   {low:>digits$}", "")
        } else {
            format!("{low:>digits$} - {high:>digits$}")
        };
        lines.push(format!(
            "  {range} |{:<columns$} {count:>9} {:>7}",
            bar(count, most, columns),
            percent(count, total)
        ));
    }
    lines
}

/// Merges a source's buckets into at most [`LINES_MAX`] with round edges. An always-on bucket that reaches over an edge
/// counts where it begins.
fn groups(source: &LatencySource) -> Vec<Bucket> {
    let (min, max) = (source.min, source.max);
    if source.buckets.len() <= LINES_MAX {
        // The outermost buckets need not be shown wider than what is known to be in them.
        let tight = |b: &Bucket| Bucket { low: b.low.max(min), high: b.high.min(max), ..*b };
        return source.buckets.iter().map(tight).filter(|b| b.low <= b.high).collect();
    }
    let edges =
        if source.p99 / 4 <= min { linear_edges(min, source.p99, max) } else { geometric_edges(min, source.p99, max) };
    let ends = edges.iter().skip(1).map(|next| next - 1).chain([max]);
    let mut groups: Vec<Bucket> = edges.iter().zip(ends).map(|(&low, high)| Bucket { low, high, count: 0 }).collect();
    for bucket in &source.buckets {
        let index = edges.partition_point(|edge| *edge <= bucket.low).saturating_sub(1);
        if let Some(group) = groups.get_mut(index) {
            group.count = group.count.saturating_add(bucket.count);
        }
    }
    groups
}

/// Edges of equal distance where the values lie close together. What lies far behind the 99th percentile shares the
/// last group: a single late sample must not press all others into one bar.
fn linear_edges(min: u64, p99: u64, max: u64) -> Vec<u64> {
    let lines = LINES_MAX as u64 - 2;
    let whole = round_up((max - min) / lines + 1);
    let body = round_up((p99 - min) / lines + 1);
    // A tail of no more than three bodies' length is worth the coarser scale.
    let width = if whole <= body.saturating_mul(3) { whole } else { body };
    let start = min - min % width;
    let edges = (0..LINES_MAX as u64).map_while(|i| start.checked_add(width.checked_mul(i)?));
    edges.take_while(|edge| *edge <= max).collect()
}

/// Edges that grow with the values, as close as the lines allow up to the 99th percentile; the last group takes the
/// rest.
fn geometric_edges(min: u64, p99: u64, max: u64) -> Vec<u64> {
    const TENTHS: [&[u64]; 5] =
        [&[10, 12, 15, 20, 25, 30, 40, 50, 60, 80], &[10, 15, 20, 30, 50, 70], &[10, 20, 50], &[10, 30], &[10]];
    let decades = || (0..20).map(|power| 10u64.pow(power));
    let candidates = TENTHS.iter().map(|tenths| {
        let steps = decades().flat_map(|decade| tenths.iter().map(move |t| u128::from(decade) * u128::from(*t) / 10));
        let mut edges: Vec<u64> = std::iter::once(0).chain(steps.filter_map(|edge| u64::try_from(edge).ok())).collect();
        edges.dedup();
        edges
    });
    let thousands = std::iter::once(0).chain(decades().step_by(3)).collect();
    let mut needed = candidates.chain([thousands]).map(|edges| {
        let first = edges.partition_point(|edge| *edge <= min).saturating_sub(1);
        edges.into_iter().skip(first).take_while(|edge| *edge <= max).collect::<Vec<u64>>()
    });
    let body = |edges: &Vec<u64>| edges.partition_point(|edge| *edge <= p99);
    let mut edges = needed.find(|edges| body(edges) < LINES_MAX).unwrap_or_else(|| vec![0]);
    edges.truncate(LINES_MAX);
    edges
}

/// The next of 1, 2, 5, 10, 20, 50, ...
fn round_up(width: u64) -> u64 {
    let steps = (0..20).flat_map(|power| [1u64, 2, 5].map(|step| step.checked_mul(10u64.pow(power))));
    steps.flatten().find(|step| *step >= width).unwrap_or(u64::MAX)
}

/// A bar; what is not nothing is seen.
fn bar(count: u64, most: u64, columns: usize) -> String {
    let eighths = (u128::from(count) * columns as u128 * 8).checked_div(u128::from(most)).unwrap_or(0);
    let eighths = usize::try_from(eighths).unwrap_or(columns * 8).max(usize::from(count > 0));
    let mut bar = "█".repeat(eighths / 8);
    bar.extend((eighths % 8).checked_sub(1).and_then(|part| EIGHTHS.get(part)));
    bar
}

/// A share with one digit, without saying 0.0 % or 100.0 % of what is less or more.
fn percent(count: u64, total: u128) -> String {
    let count = u128::from(count);
    let tenths = (count * 1000).checked_div(total).unwrap_or(0);
    match tenths {
        0 if count > 0 => "<0.1 %".to_owned(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hist::Origin;
    use super::*;
    use proptest::prelude::*;

    fn source(values: &[(u64, u64)]) -> LatencySource {
        let buckets: Vec<Bucket> =
            values.iter().map(|&(value, count)| Bucket { low: value, high: value, count }).collect();
        let total: u64 = buckets.iter().map(|b| b.count).sum();
        let rank = |percent: u64| {
            let mut seen = 0;
            buckets
                .iter()
                .find(|b| {
                    seen += b.count;
                    seen * 100 >= total * percent
                })
                .unwrap()
                .low
        };
        LatencySource {
            kind: "ipi",
            name: "ipi.roundtrip_hlt",
            kick: None,
            pcpu: 2,
            source: Origin::Ring,
            count: total,
            min: values.first().unwrap().0,
            p50: rank(50),
            p99: rank(99),
            max: values.last().unwrap().0,
            buckets,
        }
    }

    #[test]
    fn few_values_have_a_line_each() {
        let lines = chart(&source(&[(105, 1990), (110, 9), (2304, 1)]), Some(1_000_000_000));
        let full = "█".repeat(40);
        assert_eq!(
            lines,
            [
                "ipi roundtrip_hlt, pCPU 2, ring: 2000 samples".to_owned(),
                "  min 105, p50 105, p99 105, max 2304 ticks = ns".to_owned(),
                format!("          105 |{full}      1990  99.5 %"),
                format!("          110 |{:<40}         9   0.4 %", "▏"),
                format!("         2304 |{:<40}         1  <0.1 %", "▏"),
            ]
        );
    }

    #[test]
    fn a_late_sample_does_not_flatten_the_rest() {
        let mut values: Vec<(u64, u64)> = (100..200).map(|value| (value, 20)).collect();
        values.push((1_000_000, 1));
        let groups = groups(&source(&values));
        assert_eq!(groups.len(), LINES_MAX);
        let shown: Vec<_> = groups.iter().map(|b| (b.low, b.high, b.count)).take(3).collect();
        assert_eq!(shown, [(100, 109, 200), (110, 119, 200), (120, 129, 200)]);
        assert_eq!(groups.last().map(|b| (b.low, b.high, b.count)), Some((210, 1_000_000, 1)));
    }

    #[test]
    fn values_far_apart_have_growing_groups() {
        let values: Vec<(u64, u64)> = (0..60).map(|i| (2392 + i * i * 90, 5)).collect();
        let edges = |values: &[(u64, u64)]| groups(&source(values)).iter().map(|b| b.low).collect::<Vec<u64>>();
        assert_eq!(edges(&values), [2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]);
        let late: Vec<_> = values.iter().map(|&(value, _)| (value, if value < 40_000 { 1000 } else { 1 })).collect();
        let fine = [2000, 3000, 5000, 7000, 10_000, 15_000, 20_000, 30_000, 50_000, 70_000, 100_000, 150_000];
        assert_eq!(edges(&late), fine);
        let wide = chart(&source(&(0..60).map(|i| (1 << i, 1)).collect::<Vec<_>>()), Some(2_596_000_000));
        assert!(wide.len() > 8, "{wide:#?}");
        assert!(wide.iter().all(|line| line.chars().count() <= WIDTH), "{wide:#?}");
    }

    #[test]
    fn widths_are_round() {
        assert_eq!([1, 2, 3, 6, 11, 99, 101].map(round_up), [1, 2, 5, 10, 20, 100, 200]);
        assert!(round_up(u64::MAX) == u64::MAX);
    }

    proptest! {
        #[test]
        fn charts_are_small_and_complete(values in prop::collection::btree_map(
            prop_oneof![0..500u64, any::<u64>()], 1..1_000_000u64, 1..60)) {
            let source = source(&values.into_iter().collect::<Vec<_>>());
            let groups = groups(&source);
            prop_assert!(groups.len() <= LINES_MAX);
            prop_assert_eq!(groups.iter().map(|b| b.count).sum::<u64>(), source.count);
            for line in chart(&source, Some(1)).iter().filter(|line| line.contains('|')) {
                prop_assert!(line.chars().count() <= WIDTH, "{}", line);
            }
        }
    }
}
