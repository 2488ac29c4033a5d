//! The report as text.

use super::{AROUND_MS, Measurement, Report, Worst, latest};
use crate::run_info::ClockName;
use crate::trace::{DecodeOptions, Decoder, Extent, Moment, Trace, Window, counts};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter, Write};

/// Most frames that are shown around the worst wake-up.
const FRAMES_MAX: usize = 40;
/// Width of a column of numbers.
const COLUMN: usize = 11;

/// Frames, and exits and IPIs by pCPU and reason, around a time.
pub(super) fn around(trace: &Trace, tsc: u64, ms: u64) -> anyhow::Result<String> {
    let window = Window::around(trace, Moment::At(Extent::Ticks(tsc)), Extent::Nanoseconds(ms * 1_000_000))?;
    let counts = counts(trace, &window);
    if counts.is_empty() {
        return Ok("The hypervisor recorded no exit and no IPI.\n".to_owned());
    }
    let mut text = String::new();
    for count in &counts {
        let longest = count.longest.map(|ticks| format!(", the longest of {ticks} ticks")).unwrap_or_default();
        writeln!(text, "  pCPU {}: {} {} {}{longest}", count.pcpu, count.count, count.kind, count.reason)?;
    }
    let mut frames = Vec::new();
    let options = DecodeOptions { limit: Some(FRAMES_MAX), window: Some(window), ..DecodeOptions::default() };
    Decoder::new(trace).write_frames(&mut frames, &options)?;
    text.push_str(&String::from_utf8_lossy(&frames));
    Ok(text)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let beside = self.beside.as_deref();
        writeln!(
            f,
            "cyclictest in {}{}",
            self.partition,
            beside.map(|name| format!(", beside {name}")).unwrap_or_default()
        )?;
        self.write_histogram(f)?;
        self.write_exits(f)?;
        self.write_worst(f)?;
        self.write_difference(f)
    }
}

impl Report {
    fn title(&self, measurement: &Measurement) -> String {
        match (&self.beside, measurement.name) {
            (Some(beside), "beside") => format!("while {beside} works"),
            (Some(beside), _) => format!("while {beside} idles"),
            (None, name) => name.to_owned(),
        }
    }

    fn write_histogram(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWake-ups by how late they came:")?;
        write!(f, "{:>COLUMN$}", "")?;
        for measurement in &self.measurements {
            write!(f, "  {:>width$}", self.title(measurement), width = COLUMN * measurement.figures.threads())?;
        }
        write!(f, "\n{:>COLUMN$}", "us")?;
        for measurement in &self.measurements {
            write!(f, "  ")?;
            (0..measurement.figures.threads())
                .try_for_each(|thread| write!(f, "{:>COLUMN$}", format!("vCPU {thread}")))?;
        }
        let rows: BTreeSet<u64> =
            self.measurements.iter().flat_map(|measurement| measurement.figures.rows.keys().copied()).collect();
        for us in rows {
            let empty = Vec::new();
            self.write_row(f, &us.to_string(), |measurement| measurement.figures.rows.get(&us).unwrap_or(&empty))?;
        }
        self.write_row(f, "later", |measurement| &measurement.figures.overflows)?;
        self.write_row(f, "min", |measurement| &measurement.figures.min)?;
        self.write_row(f, "avg", |measurement| &measurement.figures.avg)?;
        self.write_row(f, "max", |measurement| &measurement.figures.max)?;
        writeln!(f)
    }

    fn write_row<'m>(
        &'m self,
        f: &mut Formatter<'_>,
        head: &str,
        values: impl Fn(&'m Measurement) -> &'m Vec<u64>,
    ) -> fmt::Result
    where
        Self: 'm,
    {
        write!(f, "\n{head:>COLUMN$}")?;
        for measurement in &self.measurements {
            write!(f, "  ")?;
            let values = values(measurement);
            for thread in 0..measurement.figures.threads() {
                match values.get(thread) {
                    Some(0) | None => write!(f, "{:>COLUMN$}", "-")?,
                    Some(value) => write!(f, "{value:>COLUMN$}")?,
                }
            }
        }
        Ok(())
    }

    fn write_exits(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nExits of {} meanwhile, cyclictest's start and end included:", self.partition)?;
        let reasons: BTreeSet<_> = self.measurements.iter().flat_map(|m| m.exits.keys().copied()).collect();
        for reason in reasons {
            write!(f, "{:>20}", reason.name())?;
            for measurement in &self.measurements {
                let count = measurement.exits.get(&reason).copied().unwrap_or(0);
                write!(f, "  {count:>width$}", width = COLUMN * 2)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_worst(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for measurement in &self.measurements {
            let title = self.title(measurement);
            let Some(worst) = &measurement.worst else {
                writeln!(f, "\nNo wake-up {title} was later than a microsecond.")?;
                continue;
            };
            writeln!(
                f,
                "\nThe worst wake-up {title}: {} us late, vCPU {} on pCPU {}, at {} ticks (to within {} ns).",
                worst.wake_up.late_us,
                worst.wake_up.thread,
                worst.pcpu,
                worst.tsc,
                self.relation.error_ns + 1000,
            )?;
            self.write_late_exits(f, worst)?;
        }
        let Some(worst) = latest(&self.measurements) else { return Ok(()) };
        writeln!(f, "\nWithin {AROUND_MS} ms of the last of these:\n{}", self.around.trim_end())?;
        let dir = self.dir.display();
        writeln!(f, "More: cargo partita trace decode {dir} --around {} --within {AROUND_MS}ms", worst.tsc)
    }

    fn write_late_exits(&self, f: &mut Formatter<'_>, worst: &Worst) -> fmt::Result {
        let name = &self.partition;
        if worst.exits_while_late.is_empty() {
            return writeln!(f, "None of the pCPUs of {name} left the guest meanwhile, to within that.");
        }
        writeln!(f, "Exits on all pCPUs of {name} meanwhile, to within that: {} ns in all.", worst.exits_ns())?;
        for exit in &worst.exits_while_late {
            let reason = exit.reason.name();
            writeln!(f, "  pCPU {}: {reason} at {} ticks, {} ns", exit.pcpu, exit.tsc, exit.ns)?;
        }
        Ok(())
    }

    /// What the neighbour adds, and whose it is.
    fn write_difference(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [alone, beside] = self.measurements.as_slice() else { return Ok(()) };
        let (idle, busy) = (alone.figures.longest(), beside.figures.longest());
        writeln!(f, "\nThe longest latency: {idle} us while the neighbour idles, {busy} us while it works.")?;
        let name = &self.partition;
        let took = beside.worst.as_ref().map_or(0, Worst::exits_ns);
        match self.clock {
            Some(ClockName::Icount) => writeln!(
                f,
                "Of that, the hypervisor's exits, on all pCPUs of {name}, took at most {took} ns. The rest is the guest's own path, and the emulator's: under \
                 icount one clock\ncounts the instructions of all pCPUs, which run one after the other, so that a pCPU is \
                 late by the slices of the others."
            ),
            _ => writeln!(
                f,
                "Of that, the hypervisor's exits, on all pCPUs of {name}, took at most {took} ns. The rest is the guest's own path, and the host's: without \
                 --icount the\nemulator's threads wait for the host's CPUs."
            ),
        }
    }
}
