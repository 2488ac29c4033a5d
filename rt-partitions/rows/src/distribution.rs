//! Rows of more samples than a trace keeps: how often each value was seen.
//!
//! The payload writes a mark for each value, and one for the whole; the values are exact, however many samples there are.

use crate::Row;

/// Marks of values: the number of the row is added. `first` is the value in ticks, `second` how often it was seen.
const VALUE_MARKS: u32 = 0x1_0000;
/// Marks of whole rows: likewise. `first` is the number of samples, `second` the largest.
const WHOLE_MARKS: u32 = 0x2_0000;

/// What a mark says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A value and how often it was seen.
    Value,
    /// The number of samples, and the largest.
    Whole,
}

impl Part {
    /// The number of the mark.
    pub const fn mark(self, row: Row) -> u32 {
        match self {
            Self::Value => VALUE_MARKS + row.id(),
            Self::Whole => WHOLE_MARKS + row.id(),
        }
    }
}

/// Mark of when a group's measuring began; in group `quiet` `first` is the longest turn that is no gap, in ticks.
pub const BEGIN_MARK: u32 = 0x3_0000;
/// Mark of when it ended: `first` = ticks of a second.
pub const END_MARK: u32 = 0x3_0001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_are_apart() {
        let parts = [Part::Value, Part::Whole];
        let all = Row::ALL.iter().flat_map(|row| parts.map(|part| part.mark(*row)));
        let mut all: Vec<u32> = all.chain([BEGIN_MARK, END_MARK]).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() == count && all.iter().all(|mark| *mark < 1 << 24));
    }
}
