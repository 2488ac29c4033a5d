//! A list of claims, numbered one after the other.

use partita_rt::claim;

/// Claims about one entry.
#[derive(Debug)]
pub(crate) struct Claims {
    next: u32,
    /// Whether Partita promises more than the format's specification asks for.
    pub(crate) is_partition: bool,
}

impl Claims {
    /// A list whose first claim has this number.
    pub(crate) const fn from(first: u32, is_partition: bool) -> Self {
        Self { next: first, is_partition }
    }

    /// Claims that `holds`.
    pub(crate) fn holds(&mut self, text: &str, holds: bool) {
        self.about(text, holds, holds.into(), 1);
    }

    /// Claims that something has the value that it must have.
    pub(crate) fn equal(&mut self, text: &str, found: u64, expected: u64) {
        self.about(text, found == expected, found, expected);
    }

    /// The same of what only Partita promises.
    pub(crate) fn equal_here(&mut self, text: &str, found: u64, expected: u64) {
        if self.is_partition {
            self.equal(text, found, expected);
        }
    }

    fn about(&mut self, text: &str, holds: bool, left: u64, right: u64) {
        claim(self.next, holds, text, left, right);
        self.next += 1;
    }
}
