//! Claims, numbered one after the other, and the part of a test in which the guest must not be left.

use partita_rt::{claim, rdtsc, trace};
use partita_trace::Event;

/// Marks around the part in which there must be no exit; both carry a number that the test knows.
const BEGIN_MARK: u32 = 500;
const END_MARK: u32 = 501;

/// Claims of one test.
#[derive(Debug)]
pub(crate) struct Claims {
    next: u32,
}

impl Claims {
    /// A list whose first claim has this number.
    pub(crate) const fn from(first: u32) -> Self {
        Self { next: first }
    }

    /// Claims that something has the value that it must have.
    pub(crate) fn equal(&mut self, text: &str, found: u64, expected: u64) {
        self.about(text, found == expected, found, expected);
    }

    /// Claims that `holds`, about two values.
    pub(crate) fn about(&mut self, text: &str, holds: bool, left: u64, right: u64) {
        claim(self.next, holds, text, left, right);
        self.next += 1;
    }
}

/// Does something so many times, between two marks in the trace.
pub(crate) fn between_marks(times: u64, mut act: impl FnMut()) {
    let mark = |id| trace::record(rdtsc(), Event::Mark { id, first: times, second: 0 });
    mark(BEGIN_MARK);
    for _ in 0..times {
        act();
    }
    mark(END_MARK);
}
