//! The frames of a trace as lines.

use super::load::Trace;
use super::logs::LogTables;
use super::merge::{Item, merged};
use super::text::{columns, event_text, heading, kind_name, log_text, unknown_text};
use super::{Window, around, summary, text};
use partita_trace::Event;
use partita_trace::snapshot::{Body, Frame, SlotDamage};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::str::FromStr;

/// Shows only frames of one kind: an event's name, `log` or `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindFilter(&'static str);

/// There is no such kind of frame.
#[derive(Debug, thiserror::Error)]
#[error("there is no kind of frame {name:?}; there are: {}", KindFilter::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownKind {
    /// What was asked for.
    pub name: String,
}

impl KindFilter {
    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Event::KINDS.iter().map(|(_, name)| *name).chain(["log", "unknown"])
    }
}

impl FromStr for KindFilter {
    type Err = UnknownKind;

    /// Spaces, dashes and underscores are the same.
    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let wanted = name.to_ascii_lowercase().replace(['-', '_'], " ");
        Self::names().find(|known| *known == wanted).map(Self).ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}

/// What to show of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// At most so many frames, the first ones.
    pub limit: Option<usize>,
    /// At most so many frames, the last ones.
    pub tail: Option<usize>,
    /// Only frames that this pCPU wrote, in the hypervisor or in a guest.
    pub pcpu: Option<u16>,
    /// Only frames of these kinds; of all if empty.
    pub kinds: Vec<KindFilter>,
    /// Only frames in this part; behind them it is said which exits and IPIs are in it.
    pub window: Option<Window>,
}

impl DecodeOptions {
    fn wants(&self, trace: &Trace, region: usize, frame: &Frame) -> bool {
        let pcpu = || trace.regions.get(region).and_then(|region| region.owner.pcpu(frame.ring));
        let kind = kind_name(&frame.body);
        (self.pcpu.is_none() || self.pcpu == pcpu())
            && self.window.is_none_or(|window| window.has(frame))
            && (self.kinds.is_empty() || self.kinds.iter().any(|filter| filter.0 == kind))
    }
}

/// Writes a trace as text.
pub struct Decoder<'a> {
    trace: &'a Trace,
    tables: LogTables,
    /// The name of each ring of each region.
    ring_names: Vec<Vec<String>>,
}

impl<'a> Decoder<'a> {
    /// A decoder of this trace.
    pub fn new(trace: &'a Trace) -> Self {
        let names = |region: &super::TraceRegion| {
            region.dump.rings.iter().map(|ring| region.owner.ring_name(ring.ring)).collect()
        };
        let ring_names = trace.regions.iter().map(names).collect();
        Self { trace, tables: LogTables::new(&trace.elf_dir), ring_names }
    }

    /// Writes everything: the frames, what became of all frames, and what is damaged.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, out: &mut dyn Write, options: &DecodeOptions) -> io::Result<()> {
        self.write_frames(out, options)?;
        if let Some(window) = &options.window {
            let (lines, table) = around::report(self.trace, window);
            writeln!(out)?;
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            table.iter().try_for_each(|table| writeln!(out, "{}", table.trim_fmt()))?;
        }
        writeln!(out, "\n{}", summary(self.trace).trim_fmt())?;
        for note in self.trace.notes.iter().chain(self.tables.problems()) {
            writeln!(out, "note: {note}")?;
        }
        if self.trace.is_whole() {
            return writeln!(out, "The trace is whole.");
        }
        writeln!(out, "The trace is damaged:")?;
        self.trace.damage.iter().try_for_each(|damage| writeln!(out, "  {damage}"))
    }

    /// Writes the frames.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_frames(&mut self, out: &mut dyn Write, options: &DecodeOptions) -> io::Result<()> {
        writeln!(out, "{}", heading(self.trace))?;
        let trace = self.trace;
        let shown = |item: &Item| match item {
            Item::Frame { region, frame } => options.wants(trace, *region, frame),
            // When a gap was is not known; all are told at the end.
            Item::Gap { .. } => options.window.is_none(),
        };
        let items = merged(trace).filter(shown);
        if let Some(tail) = options.tail {
            let mut last = VecDeque::new();
            for item in items {
                if last.len() >= tail {
                    last.pop_front();
                }
                if tail > 0 {
                    last.push_back(item);
                }
            }
            return last.iter().try_for_each(|item| self.write_item(out, item));
        }
        let mut left = options.limit.unwrap_or(usize::MAX);
        for item in items {
            if matches!(item, Item::Frame { .. }) {
                let Some(less) = left.checked_sub(1) else { break };
                left = less;
            }
            self.write_item(out, &item)?;
        }
        Ok(())
    }

    fn write_item(&mut self, out: &mut dyn Write, item: &Item) -> io::Result<()> {
        match item {
            Item::Frame { region, frame } => {
                let what = self.what(*region, &frame.body);
                writeln!(out, "{}  {what}", columns(self.trace, frame, self.origin(*region, frame.ring)))
            }
            Item::Gap { region, damage: SlotDamage { ring, slots, offset } } => {
                let origin = self.origin(*region, *ring);
                let last = slots.end.saturating_sub(1);
                writeln!(
                    out,
                    "-- {origin}: damaged, slots {} to {last} from offset {offset:#x} of the ring on --",
                    slots.start
                )
            }
        }
    }

    fn origin(&self, region: usize, ring: u16) -> &str {
        self.ring_names.get(region).and_then(|names| names.get(usize::from(ring))).map_or("?", String::as_str)
    }

    fn what(&mut self, region: usize, body: &Body) -> String {
        match body {
            Body::Event(event) => event_text(self.trace, event),
            Body::Unknown { kind, arg, a, b } => unknown_text(*kind, *arg, *a, *b),
            Body::Log(bytes) => match self.trace.regions.get(region) {
                Some(region) => log_text(&self.tables.decode(&region.dump.header.spec.build_id, bytes), bytes),
                None => text::log_text(&super::LogLine::NoTable, bytes),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_name() {
        for name in ["icr forward", "ICR-forward", "icr_forward"] {
            assert_eq!(name.parse::<KindFilter>().unwrap(), KindFilter("icr forward"));
        }
        assert_eq!("log".parse::<KindFilter>().unwrap(), KindFilter("log"));
        let error = "fly".parse::<KindFilter>().unwrap_err().to_string();
        assert!(error.contains("\"fly\"") && error.contains("smp call served") && error.contains("log"), "{error}");
    }
}
