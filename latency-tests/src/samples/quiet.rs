//! What a guest saw that polled the time while nobody asked it for anything, and what the trace says of its pCPU meanwhile.

use super::events::Events;
use partita_rows::Row;
use partita_rows::distribution::{BEGIN_MARK, END_MARK};
use partita_trace::event::Event;
use partita_trace::names::ExitReason;

/// The time in which a guest measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Ticks of a second.
    second: u64,
}

impl Span {
    /// That between the payload's marks.
    pub(super) fn of(payload: &Events) -> Result<Self, String> {
        let mark = |wanted| {
            payload.all.iter().find_map(|(_, tsc, event)| match *event {
                Event::Mark { id, first, .. } if id == wanted => Some((*tsc, first)),
                _ => None,
            })
        };
        let (begin, end) = mark(BEGIN_MARK).zip(mark(END_MARK)).ok_or("its payload did not mark when it measured")?;
        Ok(Self { begin: begin.0, end: end.0, second: end.1 })
    }
}

/// A gap that the guest saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    end: u64,
    ticks: u64,
}

impl Gap {
    fn holds(&self, time: u64) -> bool {
        self.end.saturating_sub(self.ticks) < time && time <= self.end
    }
}

/// When a pCPU left its guest, and for how long.
type Exit = (u64, u64);

/// The samples of a row of group `quiet`; there may be none. `pcpu` is that of the guest. Where time `is_exact` the guest must have seen
/// each exit: elsewhere its own loop may once have been as slow.
pub(super) fn of_row(
    payload: &Events,
    hypervisor: &Events,
    pcpu: u16,
    row: Row,
    is_exact: bool,
) -> Result<Vec<u64>, String> {
    let span = Span::of(payload)?;
    if let lost @ 1.. = hypervisor.overwritten_in(pcpu) {
        return Err(format!("{lost} frames of pCPU {pcpu} were overwritten: a larger ring (trace.ring) would help"));
    }
    let exits = exits(hypervisor, pcpu, span)?;
    let gaps = payload.all.iter().filter_map(|(_, end, event)| match *event {
        Event::Sample { row, ticks, .. } if row == Row::QuietGaps.id() => Some(Gap { end: *end, ticks }),
        _ => None,
    });
    let gaps: Vec<Gap> = gaps.collect();
    if let Some((time, ticks)) = exits.iter().find(|exit| is_exact && !gaps.iter().any(|gap| gap.holds(exit.0))) {
        return Err(format!("the exit of {ticks} ticks at {time} made no gap: the guest does not look closely enough"));
    }
    let has_exit = |gap: &&Gap| exits.iter().any(|exit| gap.holds(exit.0));
    match row {
        Row::QuietGaps => Ok(gaps.iter().filter(has_exit).map(|gap| gap.ticks).collect()),
        Row::QuietGapsOutside => Ok(gaps.iter().filter(|gap| !has_exit(gap)).map(|gap| gap.ticks).collect()),
        _ if span.end.saturating_sub(span.begin) < span.second => {
            Err(format!("the guest polled for {} ticks only, less than a second", span.end.saturating_sub(span.begin)))
        }
        _ => {
            let until = span.begin.saturating_add(span.second);
            Ok(vec![exits.iter().filter(|exit| exit.0 <= until).map(|exit| exit.1).sum()])
        }
    }
}

/// The exits while the guest measured, none of which it asked for.
fn exits(hypervisor: &Events, pcpu: u16, span: Span) -> Result<Vec<Exit>, String> {
    let exits = hypervisor.of_ring(pcpu).filter_map(|(_, tsc, event)| match *event {
        Event::Exit { reason, ticks, .. } if (span.begin..=span.end).contains(tsc) => Some((*tsc, ticks, reason)),
        _ => None,
    });
    let of_none = |(time, ticks, reason)| match reason {
        ExitReason::Kick | ExitReason::Interrupt | ExitReason::Other => Ok((time, ticks)),
        own => {
            Err(format!("the guest, which was to poll only, had an exit at {time} that was its own: {}", own.name()))
        }
    };
    exits.map(of_none).collect()
}

#[cfg(test)]
mod tests {
    use super::super::events::{Entry, events};
    use super::*;

    fn mark(id: u32, time: u64, first: u64) -> Entry {
        (0, time, Event::Mark { id, first, second: 0 })
    }

    fn gap(end: u64, ticks: u64) -> Entry {
        (0, end, Event::Sample { row: Row::QuietGaps.id(), ticks, index: 0 })
    }

    fn exit(time: u64, ticks: u64, reason: ExitReason) -> Entry {
        (1, time, Event::Exit { reason, detail16: 0, ticks, detail: 0 })
    }

    /// Polls from 1,000 to 9,000, seconds of 5,000 ticks.
    fn of(row: Row, gaps: &[Entry], exits: &[Entry]) -> Result<Vec<u64>, String> {
        let marks = [mark(BEGIN_MARK, 1000, 24), mark(END_MARK, 9000, 5000)];
        of_row(&events([&marks, gaps].concat()), &events(exits.to_vec()), 1, row, true)
    }

    #[test]
    fn on_hardware_an_exit_may_be_too_short_to_be_seen() {
        let marks = [mark(BEGIN_MARK, 1000, 24), mark(END_MARK, 9000, 5000)];
        let payload = events([&marks[..], &[gap(4000, 90)]].concat());
        let of = |row, reason| of_row(&payload, &events(vec![exit(1950, 60, reason)]), 1, row, false);
        assert_eq!(of(Row::QuietGapsOutside, ExitReason::Kick), Ok(vec![90]));
        assert_eq!(of(Row::HousekeepingStolenPerS, ExitReason::Kick), Ok(vec![60]), "it is told all the same");
        assert!(of(Row::QuietGaps, ExitReason::Cpuid).is_err());
    }

    #[test]
    fn nothing_is_what_is_hoped_for() {
        // What came before and after does not count.
        let others = [exit(900, 70, ExitReason::Cpuid), exit(9100, 70, ExitReason::Hypercall)];
        assert_eq!(of(Row::QuietGaps, &[], &others), Ok(vec![]));
        assert_eq!(of(Row::QuietGapsOutside, &[], &others), Ok(vec![]));
        assert_eq!(of(Row::HousekeepingStolenPerS, &[], &others), Ok(vec![0]));
    }

    #[test]
    fn gaps_are_told_apart_by_the_exits_in_them() {
        let gaps = [gap(2000, 90), gap(6000, 3777), gap(7000, 120)];
        let exits = [exit(1950, 60, ExitReason::Kick), exit(6881, 80, ExitReason::Interrupt)];
        assert_eq!(of(Row::QuietGaps, &gaps, &exits), Ok(vec![90, 120]));
        assert_eq!(of(Row::QuietGapsOutside, &gaps, &exits), Ok(vec![3777]));
        assert_eq!(of(Row::HousekeepingStolenPerS, &gaps, &exits), Ok(vec![60]), "the second is over at 6,000");
        // Another pCPU's exits explain nothing.
        let elsewhere = (2, 3950, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 9, detail: 0 });
        assert_eq!(of(Row::QuietGaps, &gaps, &[elsewhere]), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = of(Row::QuietGaps, &[gap(4000, 90)], &[exit(1950, 60, ExitReason::Kick)]).unwrap_err();
        assert_eq!(error, "the exit of 60 ticks at 1950 made no gap: the guest does not look closely enough");
        let error = of(Row::QuietGaps, &[gap(2000, 90)], &[exit(1950, 60, ExitReason::Cpuid)]).unwrap_err();
        assert!(error.ends_with("had an exit at 1950 that was its own: cpuid"), "{error}");
        let short = events(vec![mark(BEGIN_MARK, 1000, 24), mark(END_MARK, 5999, 5000)]);
        let error = of_row(&short, &events(Vec::new()), 1, Row::HousekeepingStolenPerS, true).unwrap_err();
        assert!(error.contains("for 4999 ticks only"), "{error}");
        assert!(of_row(&events(Vec::new()), &short, 1, Row::QuietGaps, true).unwrap_err().contains("did not mark"));
        let lost = Events { lost: vec![(0, 3), (1, 9)], ..events(Vec::new()) };
        let error = of_row(&short, &lost, 1, Row::QuietGaps, true).unwrap_err();
        assert!(error.starts_with("9 frames of pCPU 1 were overwritten"), "{error}");
    }
}
