//! The part of a trace around one moment, and what happened in it: exits and IPIs, by reason.

use super::decode::KindFilter;
use super::load::Trace;
use super::merge::{Item, merged};
use super::text::{kind_name, nanoseconds, plain_table, short_duration};
use comfy_table::Table;
use partita_trace::event::{Event, Unit, Value};
use partita_trace::snapshot::{Body, Frame};
use std::collections::BTreeMap;
use std::str::FromStr;

/// A duration, or a time since the time-stamp counter was 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// In ticks of the time-stamp counter.
    Ticks(u64),
    /// In nanoseconds.
    Nanoseconds(u64),
}

/// A moment in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This time.
    At(Extent),
    /// The first frame of this kind.
    First(KindFilter),
    /// The last frame of this kind.
    Last(KindFilter),
    /// The frame of this kind that took longest.
    Worst(KindFilter),
}

/// Why a moment, or a duration, is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// A duration cannot be read.
    #[error("{0:?} is no time; write ticks, as decode's first column has them, or a number with ns, us, ms or s")]
    Extent(String),
    /// A kind of frame is not known.
    #[error("{0}")]
    Kind(String),
    /// There is no frequency.
    #[error("the trace does not tell the frequency of its clock; give the time in ticks, without a unit")]
    NoFrequency,
    /// There is no such frame.
    #[error("the trace has no frame of the kind {0:?}; decode without --around shows what it has")]
    NoFrame(&'static str),
    /// Frames of this kind have no duration.
    #[error("frames of the kind {0:?} have no duration; use first: or last:")]
    NoDuration(&'static str),
}

impl FromStr for Extent {
    type Err = MomentError;

    /// A number of ticks, or a number with `ns`, `us`, `ms` or `s`; `_` may be between digits.
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let bad = || MomentError::Extent(text.to_owned());
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(digits_end).ok_or_else(bad)?;
        let number: u64 = digits.replace('_', "").parse().map_err(|_| bad())?;
        let factor = match unit {
            "" => return Ok(Self::Ticks(number)),
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            _ => return Err(bad()),
        };
        number.checked_mul(factor).map(Self::Nanoseconds).ok_or_else(bad)
    }
}

impl Extent {
    /// It in ticks, rounded down.
    fn ticks(self, tsc_hz: Option<u64>) -> Result<u64, MomentError> {
        match self {
            Self::Ticks(ticks) => Ok(ticks),
            Self::Nanoseconds(ns) => {
                let hz = tsc_hz.filter(|hz| *hz > 0).ok_or(MomentError::NoFrequency)?;
                Ok(u64::try_from(u128::from(ns) * u128::from(hz) / 1_000_000_000).unwrap_or(u64::MAX))
            }
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    /// A time, or `first:KIND`, `last:KIND`, `worst:KIND` with the name of a kind of frame.
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let Some((which, kind)) = text.split_once(':') else { return text.parse().map(Self::At) };
        let kind = || kind.parse().map_err(|error: super::UnknownKind| MomentError::Kind(error.to_string()));
        match which {
            "first" => kind().map(Self::First),
            "last" => kind().map(Self::Last),
            "worst" => kind().map(Self::Worst),
            _ => Err(MomentError::Kind(format!(
                "{which:?} is none of first, last and worst; write first:KIND for instance"
            ))),
        }
    }
}

/// A part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The moment in the middle, in ticks.
    pub centre: u64,
    /// The first tick.
    pub from: u64,
    /// The last tick.
    pub to: u64,
}

impl Window {
    /// The part of `trace` around `moment`, reaching so far before and behind it.
    ///
    /// # Errors
    /// The trace has no such moment, or its clock has no known frequency and a time is not in ticks.
    pub fn around(trace: &Trace, moment: Moment, within: Extent) -> Result<Self, MomentError> {
        let centre = match moment {
            Moment::At(time) => time.ticks(trace.tsc_hz)?,
            Moment::First(kind) => find(trace, kind, |_| Some(0))?,
            Moment::Last(kind) => find(trace, kind, |frame| Some(frame.tsc))?,
            Moment::Worst(kind) => find(trace, kind, |frame| duration(&frame.body))?,
        };
        let reach = within.ticks(trace.tsc_hz)?;
        Ok(Self { centre, from: centre.saturating_sub(reach), to: centre.saturating_add(reach) })
    }

    /// Whether a frame lies in it. An exit lasts from its time on, as long as it took.
    pub fn has(&self, frame: &Frame) -> bool {
        let end = match frame.body {
            Body::Event(Event::Exit { ticks, .. }) => frame.tsc.saturating_add(ticks),
            _ => frame.tsc,
        };
        frame.tsc <= self.to && end >= self.from
    }
}

/// The time of the frame of this kind that is first among those of which most is to be said.
fn find(trace: &Trace, kind: KindFilter, rank: impl Fn(&Frame) -> Option<u64>) -> Result<u64, MomentError> {
    let mut is_there = false;
    let mut best: Option<(u64, u64)> = None;
    for item in merged(trace) {
        let Item::Frame { frame, .. } = item else { continue };
        if !kind.is(&frame.body) {
            continue;
        }
        is_there = true;
        if let Some(rank) = rank(&frame)
            && best.is_none_or(|(highest, _)| rank > highest)
        {
            best = Some((rank, frame.tsc));
        }
    }
    match best {
        Some((_, tsc)) => Ok(tsc),
        None if is_there => Err(MomentError::NoDuration(kind.name())),
        None => Err(MomentError::NoFrame(kind.name())),
    }
}

/// How long what a frame tells of took, in ticks; `None` if it does not say.
fn duration(body: &Body) -> Option<u64> {
    let Body::Event(event) = body else { return None };
    let mut sum: Option<u64> = None;
    event.for_each_field(|field| {
        if let (Unit::Ticks, Value::Number(ticks)) = (field.unit, field.value) {
            sum = Some(sum.unwrap_or(0).saturating_add(ticks));
        }
    });
    sum
}

/// How often something happened on a pCPU in a [`Window`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowCount {
    /// Its pCPU.
    pub pcpu: u16,
    /// The kind of frame.
    pub kind: &'static str,
    /// The reason of an exit, the vector or the cause of an IPI.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// The longest, in ticks, of those that have a duration.
    pub longest: Option<u64>,
}

/// Exits and IPIs in a window, by pCPU and reason: those that the hypervisor has recorded.
pub fn counts(trace: &Trace, window: &Window) -> Vec<WindowCount> {
    let mut counts: BTreeMap<(u16, &'static str, String), (u64, Option<u64>)> = BTreeMap::new();
    for item in merged(trace) {
        let Item::Frame { region, frame } = item else { continue };
        let owner = trace.regions.get(region).map(|region| &region.owner);
        let (Some(super::Owner::Hypervisor), Body::Event(event)) = (owner, &frame.body) else { continue };
        let Some(reason) = reason(event).filter(|_| window.has(&frame)) else { continue };
        let (count, longest) = counts.entry((frame.ring, event.name(), reason)).or_default();
        *count += 1;
        *longest = (*longest).max(duration(&frame.body));
    }
    let count = |((pcpu, kind, reason), (count, longest))| WindowCount { pcpu, kind, reason, count, longest };
    counts.into_iter().map(count).collect()
}

/// What tells an exit or an IPI apart; `None` for anything else.
fn reason(event: &Event) -> Option<String> {
    Some(match event {
        Event::Exit { reason, .. } => reason.name().to_owned(),
        Event::IcrForward { vector, .. } | Event::GuestSipi { vector, .. } => format!("vector {vector:#04x}"),
        Event::IcrRefused { cause, .. } => cause.name().to_owned(),
        Event::SmpCallServed { kind, .. } => format!("kick by {}", kind.name()),
        Event::GuestNmi { .. } | Event::GuestInit { .. } | Event::NmiInjected { .. } => String::new(),
        _ => return None,
    })
}

/// What a window is, and what happened in it, as lines and a table.
pub(super) fn report(trace: &Trace, window: &Window) -> (Vec<String>, Option<Table>) {
    let Window { centre, from, to } = *window;
    let at = |ticks: u64| {
        let ns = trace.tsc_hz.and_then(|hz| nanoseconds(ticks, hz)).map(|ns| format!(" ({ns} ns)"));
        format!("{ticks}{}", ns.unwrap_or_default())
    };
    let mut lines = vec![format!("From {} to {}, around {}:", at(from), at(to), at(centre))];
    for region in &trace.regions {
        for ring in &region.dump.rings {
            let first = ring.frames().map(|frame| frame.tsc).next();
            // Frames before the first one are only gone if there were any.
            if ring.summary().0.overwritten > 0 && first.is_none_or(|first| first > from) {
                let name = region.owner.ring_name(ring.ring);
                let since = first.map_or_else(|| "has no frame left".to_owned(), |first| format!("begins at {first}"));
                lines.push(format!("note: the ring of {name} {since}; what it had of the time before is overwritten"));
            }
        }
    }
    let counts = counts(trace, window);
    if counts.is_empty() {
        lines.push("The hypervisor recorded no exit and no IPI.".to_owned());
        return (lines, None);
    }
    let mut table = plain_table(&["where", "event", "reason", "count", "longest"], 3);
    for WindowCount { pcpu, kind, reason, count, longest } in counts {
        let longest = longest.map(|ticks| match trace.tsc_hz.and_then(|hz| nanoseconds(ticks, hz)) {
            Some(ns) => format!("{ticks} ({})", short_duration(ns)),
            None => ticks.to_string(),
        });
        table.add_row([
            format!("pCPU {pcpu}"),
            kind.to_owned(),
            reason,
            count.to_string(),
            longest.unwrap_or_default(),
        ]);
    }
    (lines, Some(table))
}

impl KindFilter {
    fn is(self, body: &Body) -> bool {
        kind_name(body) == self.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ticks_or_have_a_unit() {
        let time = |text: &str| text.parse::<Extent>();
        assert_eq!(time("12_345"), Ok(Extent::Ticks(12_345)));
        assert_eq!(time("3ns"), Ok(Extent::Nanoseconds(3)));
        assert_eq!(time("2ms"), Ok(Extent::Nanoseconds(2_000_000)));
        assert_eq!(time("1s"), Ok(Extent::Nanoseconds(1_000_000_000)));
        for bad in ["", "ms", "1h", "-1", "1 ms", "1.5ms", "ü", "_", "99999999999s", "99999999999999999999"] {
            assert_eq!(time(bad), Err(MomentError::Extent(bad.into())), "{bad:?}");
        }
        assert_eq!(Extent::Nanoseconds(1500).ticks(Some(2_000_000_000)), Ok(3000));
        assert_eq!(Extent::Nanoseconds(1500).ticks(None), Err(MomentError::NoFrequency));
        assert_eq!(Extent::Ticks(5).ticks(None), Ok(5));
    }

    #[test]
    fn moments_are_times_or_frames() {
        let kind = |name: &str| name.parse::<KindFilter>().unwrap();
        assert_eq!("5us".parse(), Ok(Moment::At(Extent::Nanoseconds(5000))));
        assert_eq!("worst:icr-forward".parse(), Ok(Moment::Worst(kind("icr forward"))));
        assert_eq!("first:mark".parse(), Ok(Moment::First(kind("mark"))));
        assert_eq!("last:log".parse(), Ok(Moment::Last(kind("log"))));
        let error = |text: &str| text.parse::<Moment>().unwrap_err().to_string();
        assert!(error("worst:fly").contains("no kind of frame \"fly\""));
        assert!(error("next:exit").contains("none of first, last and worst"));
        assert!(error("exit").contains("is no time"));
    }

    #[test]
    fn an_exit_counts_as_long_as_it_lasts() {
        let window = Window { centre: 100, from: 90, to: 110 };
        let exit = |tsc, ticks| Frame {
            tsc,
            ring: 0,
            seq: 0,
            body: Body::Event(Event::Exit {
                reason: partita_trace::names::ExitReason::Cpuid,
                detail16: 0,
                ticks,
                detail: 0,
            }),
        };
        let has = |tsc, ticks| window.has(&exit(tsc, ticks));
        assert_eq!([has(80, 9), has(80, 10), has(110, 5), has(111, 5), has(0, 1000)], [false, true, true, false, true]);
        let mark = |tsc| Frame { body: Body::Log(Vec::new()), ..exit(tsc, 0) };
        assert_eq!([89, 90, 110, 111].map(|tsc| window.has(&mark(tsc))), [false, true, true, false]);
    }
}
