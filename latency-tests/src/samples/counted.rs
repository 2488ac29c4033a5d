//! Rows of which the payload counted how often it saw each value.

use super::events::Events;
use partita_rows::Row;
use partita_rows::distribution::Part;
use partita_trace::event::Event;

/// Each value of the row, and how often it was seen.
pub(super) fn of_row(events: &Events, row: Row) -> Result<Vec<(u64, u64)>, String> {
    let marks = |part: Part| {
        events.all.iter().filter_map(move |(.., event)| match *event {
            Event::Mark { id, first, second } if id == part.mark(row) => Some((first, second)),
            _ => None,
        })
    };
    let values: Vec<(u64, u64)> = marks(Part::Value).collect();
    let Some((total, max)) = marks(Part::Whole).next() else {
        return Err(events.missing(row.name(), 0, 1));
    };
    let counted: u64 = values.iter().map(|(_, count)| count).sum();
    let largest = values.iter().map(|(value, _)| *value).max().unwrap_or(0);
    if (counted, largest) != (total, max) {
        return Err(format!(
            "{} has {total} samples of at most {max} ticks, but the values that are there are {counted}, of at most {largest}",
            row.name()
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::events::{Entry, events};
    use super::*;

    const ROW: Row = Row::TimerPeriodic200us;

    fn mark(part: Part, first: u64, second: u64) -> Entry {
        (0, 1000, Event::Mark { id: part.mark(ROW), first, second })
    }

    #[test]
    fn values_and_their_numbers_are_taken() {
        let all = vec![mark(Part::Value, 7, 1999), mark(Part::Value, 12, 1), mark(Part::Whole, 2000, 12)];
        assert_eq!(of_row(&events(all), ROW), Ok(vec![(7, 1999), (12, 1)]));
    }

    #[test]
    fn a_value_that_is_not_there_is_missed() {
        let all = vec![mark(Part::Value, 7, 1999), mark(Part::Whole, 2000, 12)];
        let expected = "timer.periodic_200us has 2000 samples of at most 12 ticks, but the values that are there are 1999, of \
                        at most 7";
        assert_eq!(of_row(&events(all), ROW).unwrap_err(), expected);
        assert!(of_row(&events(Vec::new()), ROW).unwrap_err().starts_with("0 of 1 samples of timer.periodic_200us"));
    }
}
