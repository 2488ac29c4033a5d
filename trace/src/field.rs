//! The fields of events: how they become bits, and how they are shown.

use crate::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PcpuStateName, PolicyKind, StopCause};

/// What a field's number means, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Number,
    /// Better read in hexadecimal: an address, a register, an MSR.
    Hex,
    /// A duration in ticks of the TSC.
    Ticks,
    /// A point in time: a value of the TSC.
    Tsc,
    /// Bytes.
    Bytes,
    /// Number of a pCPU.
    Pcpu,
    /// Number of a partition.
    Partition,
    /// A name from an enumeration, or yes and no.
    Name,
}

/// The value of a field, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, in the field's unit.
    Number(u64),
    /// A name.
    Name(&'static str),
}

/// One field of an event, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the table.
    pub name: &'static str,
    /// What its number means.
    pub unit: Unit,
    /// Its value.
    pub value: Value,
}

/// A type that can be a field.
pub(crate) trait FieldType: Sized + Copy {
    fn to_bits(self) -> u64;
    fn from_bits(bits: u64) -> Option<Self>;
    fn value(self) -> Value;
}

macro_rules! number_fields {
    ($($type:ty),+) => { $(impl FieldType for $type {
        #[inline(always)]
        fn to_bits(self) -> u64 { u64::from(self) }
        #[inline(always)]
        fn from_bits(bits: u64) -> Option<Self> { Self::try_from(bits).ok() }
        fn value(self) -> Value { Value::Number(u64::from(self)) }
    })+ };
}
number_fields!(u8, u16, u32, u64);

impl FieldType for bool {
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> Option<Self> {
        Some(bits != 0)
    }
    fn value(self) -> Value {
        Value::Name(if self { "yes" } else { "no" })
    }
}

macro_rules! name_fields {
    ($($type:ty),+) => { $(impl FieldType for $type {
        #[inline(always)]
        fn to_bits(self) -> u64 { self as u64 }
        #[inline(always)]
        fn from_bits(bits: u64) -> Option<Self> { Self::from_raw(u8::try_from(bits).ok()?) }
        fn value(self) -> Value { Value::Name(self.name()) }
    })+ };
}
name_fields!(ExitReason, StopCause, IcrRefusal, KickKind, PolicyKind, InterruptMode, PcpuStateName);

/// The lowest `width` bits, 1 to 64 of them.
const fn low_bits(width: u32) -> u64 {
    u64::MAX >> (u64::BITS - width)
}

/// The bits `low..low + width` of a word, in place, for a field's value. A value too wide is cut. With constant places
/// this is a mask and a shift, and nothing at all for a field of 64 bits.
#[inline(always)]
pub(crate) const fn put(low: u32, width: u32, bits: u64) -> u64 {
    (bits & low_bits(width)) << low
}

/// The reverse of [`put`].
#[inline(always)]
pub(crate) const fn get(low: u32, width: u32, word: u64) -> u64 {
    (word >> low) & low_bits(width)
}

/// The fields' places, (low, width) each, lie within the lowest `bits` bits of a word and apart from each other.
pub(crate) const fn are_apart(places: &[(u32, u32)], bits: u32) -> bool {
    let (mut taken, mut i) = (0, 0);
    while i < places.len() {
        let (low, width) = places[i];
        if width == 0 || low + width > bits || taken & put(low, width, u64::MAX) != 0 {
            return false;
        }
        taken |= put(low, width, u64::MAX);
        i += 1;
    }
    true
}
