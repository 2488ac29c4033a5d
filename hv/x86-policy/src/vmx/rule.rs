//! Rules of VM entry, and how a broken one is reported.

use core::fmt;

use super::field::{AnyField, Field};

/// A rule that a VMCS breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The field that is not as it has to be.
    pub field: AnyField,
    /// Its value.
    pub value: u64,
    /// The bits of it that break the rule, if it is about bits; else 0.
    pub bits: u64,
    /// What is demanded.
    pub rule: &'static str,
    /// Where the SDM does so, in vol. 3.
    pub section: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:#x}: {}", self.field, self.value, self.rule)?;
        if self.bits != 0 {
            write!(f, ", {:#x} are not", self.bits)?;
        }
        write!(f, " (SDM vol. 3 section {})", self.section)
    }
}

impl core::error::Error for Broken {}

/// Nothing, or the rule that is broken.
pub(super) type Checked = Result<(), Broken>;

/// A section of the SDM whose rules are checked.
#[derive(Clone, Copy)]
pub(super) struct Section(pub(super) &'static str);

impl Section {
    /// Demands that something holds for a field.
    pub(super) fn demand<T: Into<u64>>(self, holds: bool, field: Field<T>, value: T, rule: &'static str) -> Checked {
        if holds { Ok(()) } else { Err(self.broken(field, value, 0, rule)) }
    }

    /// Demands that bits, which are wrong if they are set, are all clear.
    pub(super) fn none<T: Into<u64>>(self, wrong: u64, field: Field<T>, value: T, rule: &'static str) -> Checked {
        if wrong == 0 { Ok(()) } else { Err(self.broken(field, value, wrong, rule)) }
    }

    fn broken<T: Into<u64>>(self, field: Field<T>, value: T, bits: u64, rule: &'static str) -> Broken {
        Broken { field: field.any(), value: value.into(), bits, rule, section: self.0 }
    }
}

/// Whether each byte of a value for PAT is a memory type.
pub(super) fn has_memory_types(pat: u64) -> bool {
    pat.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7))
}

pub(super) const MEMORY_TYPES: &str = "each byte has to be a memory type: 0, 1, 4, 5, 6 or 7";
pub(super) const CANONICAL: &str = "the address has to be canonical";
pub(super) const BEYOND_PHYSICAL: &str = "bits beyond the CPU's physical addresses have to be clear";
pub(super) const RESERVED: &str = "reserved bits have to be clear";
pub(super) const FIXED_TO_1: &str = "bits that are fixed to 1 in VMX operation have to be set";
pub(super) const FIXED_TO_0: &str = "bits that are fixed to 0 in VMX operation have to be clear";
