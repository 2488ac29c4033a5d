//! What the payload measured.

use super::events::Events;
use partita_rows::Row;
use partita_trace::event::Event;

/// The samples of a row.
pub(super) fn of_row(events: &Events, row: Row, wanted: u32) -> Result<Vec<u64>, String> {
    Ok(with_times(events, row, wanted)?.into_iter().map(|(_, ticks)| ticks).collect())
}

/// The samples of a row, each after the time of its frame.
pub(super) fn with_times(events: &Events, row: Row, wanted: u32) -> Result<Vec<(u64, u64)>, String> {
    let mut samples: Vec<Option<(u64, u64)>> = vec![None; wanted as usize];
    for (_, tsc, event) in &events.all {
        let Event::Sample { row: id, ticks, index } = *event else { continue };
        if id != row.id() {
            continue;
        }
        match usize::try_from(index).ok().and_then(|index| samples.get_mut(index)) {
            Some(place @ None) => *place = Some((*tsc, ticks)),
            Some(Some(_)) => return Err(format!("sample {index} of {} is there twice", row.name())),
            None => return Err(format!("there is a sample {index} of {}, but only {wanted} are wanted", row.name())),
        }
    }
    let found: Vec<(u64, u64)> = samples.into_iter().flatten().collect();
    if found.len() == wanted as usize { Ok(found) } else { Err(events.missing(row.name(), found.len(), wanted)) }
}

#[cfg(test)]
mod tests {
    use super::super::events::{Entry, events};
    use super::*;

    fn sample(row: Row, index: u64) -> Entry {
        (0, 1000, Event::Sample { row: row.id(), ticks: 100 + index, index })
    }

    #[test]
    fn samples_of_the_payload_are_taken_by_their_index() {
        let row = Row::ExitCpuid;
        let all = vec![sample(row, 1), sample(Row::ExitIo, 0), sample(row, 0), sample(row, 2)];
        assert_eq!(of_row(&events(all.clone()), row, 3), Ok(vec![100, 101, 102]));
        let twice = [all.clone(), vec![sample(row, 1)]].concat();
        assert_eq!(of_row(&events(twice), row, 3).unwrap_err(), "sample 1 of exit.cpuid is there twice");
        assert!(of_row(&events(all), row, 2).unwrap_err().contains("only 2 are wanted"));
    }

    #[test]
    fn missing_samples_are_counted_and_explained() {
        let row = Row::ExitCpuid;
        let lost = Events { overwritten: 7, ..events(vec![sample(row, 1)]) };
        let expected = "1 of 2 samples of exit.cpuid are there; 7 frames were overwritten: ";
        assert!(of_row(&lost, row, 2).unwrap_err().starts_with(expected));
    }
}
