//! Frames as lines of text.

use super::load::Trace;
use super::logs::{LogLine, hex};
use crate::system_file::human;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use partita_rows::Row;
use partita_trace::Event;
use partita_trace::event::{Field, Unit, Value};
use partita_trace::snapshot::{Body, Frame};
use std::fmt::Write;

/// Widest line of tables and charts, in columns.
pub const WIDTH: usize = 100;

/// A table with a line under its header, no wider than [`WIDTH`]; its first `words` columns are words, the rest
/// numbers.
pub(super) fn plain_table(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH as u16);
    table.set_header(header.iter().copied());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if index >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A duration or a time of so many ticks, in nanoseconds.
pub fn nanoseconds(ticks: u64, tsc_hz: u64) -> Option<u128> {
    (u128::from(ticks) * 1_000_000_000).checked_div(u128::from(tsc_hz))
}

/// A duration in three digits and a unit: `1.02 us`.
pub(super) fn short_duration(ns: u128) -> String {
    let units = [(1, "ns"), (1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")];
    let (unit, name) = units.into_iter().rev().find(|(unit, _)| ns >= *unit).unwrap_or((1, "ns"));
    let (whole, thousandths) = (ns / unit, ns % unit * 1000 / unit);
    match whole {
        _ if unit == 1 => format!("{ns} ns"),
        0..=9 => format!("{whole}.{:02} {name}", thousandths / 10),
        10..=99 => format!("{whole}.{} {name}", thousandths / 100),
        _ => format!("{whole} {name}"),
    }
}

/// The name of what a frame carries.
pub(super) fn kind_name(body: &Body) -> &'static str {
    match body {
        Body::Event(event) => event.name(),
        Body::Log(_) => "log",
        Body::Unknown { .. } => "unknown",
    }
}

/// The first columns: time and origin.
pub(super) fn columns(trace: &Trace, frame: &Frame, origin: &str) -> String {
    let mut line = format!("{:>16}", frame.tsc);
    if let Some(ns) = trace.tsc_hz.and_then(|hz| nanoseconds(frame.tsc, hz)) {
        // Writing to a string does not fail.
        let _ = write!(line, " {ns:>16}");
    }
    let _ = write!(line, "  {origin:<12}  {:<16}", kind_name(&frame.body));
    line
}

/// The heading of the columns.
pub(super) fn heading(trace: &Trace) -> String {
    let ns = if trace.tsc_hz.is_some() { format!(" {:>16}", "ns") } else { String::new() };
    format!("{:>16}{ns}  {:<12}  {:<16}  what", "ticks", "where", "event")
}

/// The fields of an event.
pub(super) fn event_text(trace: &Trace, event: &Event) -> String {
    let mut text = String::new();
    let is_sample = matches!(event, Event::Sample { .. });
    event.for_each_field(|field| {
        let space = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{space}{}={}", field.name, value_text(trace, &field, is_sample));
    });
    text
}

fn value_text(trace: &Trace, field: &Field, is_sample: bool) -> String {
    let number = match field.value {
        Value::Name(name) if name.contains(' ') => return format!("{name:?}"),
        Value::Name(name) => return name.to_owned(),
        Value::Number(number) => number,
    };
    match field.unit {
        Unit::Hex => format!("{number:#x}"),
        Unit::Ticks => match trace.tsc_hz.and_then(|hz| nanoseconds(number, hz)) {
            Some(ns) => format!("{number} ({ns} ns)"),
            None => number.to_string(),
        },
        Unit::Bytes => format!("\"{}\"", human(number)),
        Unit::Pcpu if number == u64::MAX => "none".to_owned(),
        Unit::Partition => {
            let name = usize::try_from(number).ok().and_then(|number| trace.partitions.get(number));
            name.map_or_else(|| number.to_string(), |name| format!("{number} ({name})"))
        }
        Unit::Number if is_sample && field.name == "row" => {
            let row = u32::try_from(number).ok().and_then(Row::from_id);
            row.map_or_else(|| number.to_string(), |row| format!("{number} ({})", row.name()))
        }
        _ => number.to_string(),
    }
}

/// A log frame.
pub(super) fn log_text(line: &LogLine, bytes: &[u8]) -> String {
    match line {
        LogLine::Text { level, text, place } => {
            let place = place.as_ref().map(|place| format!("  ({place})")).unwrap_or_default();
            format!("{:<5} {text}{place}", level.unwrap_or("print"))
        }
        LogLine::NoTable => format!("(strings not there) raw {}", hex(bytes)),
        LogLine::Malformed => format!("(does not fit its strings) raw {}", hex(bytes)),
    }
}

/// What a frame of an unknown kind has.
pub(super) fn unknown_text(kind: u8, arg: u32, a: u64, b: u64) -> String {
    format!("kind={kind} arg={arg:#x} a={a:#x} b={b:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown = [0, 999, 1000, 12_345, 999_999, 1_000_000, 3_400_000_000].map(short_duration);
        assert_eq!(shown, ["0 ns", "999 ns", "1.00 us", "12.3 us", "999 us", "1.00 ms", "3.40 s"]);
    }

    #[test]
    fn ticks_become_nanoseconds_without_overflow() {
        assert_eq!(nanoseconds(2596, 2_596_000_000), Some(1000));
        assert_eq!(nanoseconds(u64::MAX, 1), Some(u128::from(u64::MAX) * 1_000_000_000));
        assert_eq!(nanoseconds(1, 0), None);
    }
}
