//! What an instruction is to give, and whether the hypervisor has to count it.

use crate::gates::{GP, NOTHING, UD};
use crate::tally::Tally;

/// What an instruction is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// #UD, counted as refused.
    Hidden,
    /// The same, but in 32-bit code of long mode, where the CPU gives #UD by itself.
    HiddenButCompatible,
    /// #GP, counted as refused.
    Refused,
    /// Nothing, counted as refused.
    Ignored,
    /// Nothing, counted as a refused IPI.
    NoIpi,
    /// This exception, without the hypervisor.
    Exception(u64),
    /// An exception, whichever the CPU has for it.
    Fault,
    /// Nothing.
    Nothing,
    /// No exception, and this in EAX.
    Eax(u32),
    /// What the CPU likes.
    Any,
    /// It is not tried.
    LeftOut,
}

impl Gives {
    /// Notes what was caught, and what was in RAX then.
    pub(super) fn note(self, tally: &mut Tally, name: core::fmt::Arguments<'_>, caught: u64, rax: u64) {
        tally.tries += 1;
        tally.faults += u64::from(caught != NOTHING);
        tally.accesses += u64::from(matches!(self, Self::Hidden | Self::Refused | Self::Ignored));
        tally.ipis += u64::from(self == Self::NoIpi);
        let is_right = match self {
            Self::Hidden => caught == UD,
            Self::Refused => caught == GP,
            Self::Exception(vector) => caught == vector,
            Self::Fault => caught != NOTHING,
            Self::Nothing | Self::Ignored | Self::NoIpi => caught == NOTHING,
            Self::Eax(value) => caught == NOTHING && rax as u32 == value,
            Self::Any => true,
            Self::LeftOut | Self::HiddenButCompatible => false,
        };
        tally.check(is_right, format_args!("{name}: exception {caught}, RAX {rax:#x}, it should give {self:?}"));
    }
}
