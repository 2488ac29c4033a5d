//! A list of claims, numbered one after the other.

use partita_rt::claim;

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

    /// Claims that `holds`.
    pub(crate) fn holds(&mut self, text: &str, holds: bool) {
        self.about(text, holds, holds.into(), 1);
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
