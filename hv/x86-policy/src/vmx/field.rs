//! The fields of a VMCS, by their encodings (SDM vol. 3 section 25.11, appendix B).
//!
//! A [`Field`] knows the width of its values by its type, so that what is written to it fits. A CPU has only those fields
//! whose controls it offers: VMREAD and VMWRITE fail for the others.

mod table;

use core::fmt::{Display, Formatter, Result};
use core::marker::PhantomData;

pub use table::*;

/// How wide a field is, bits 14:13 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits.
    Bits64,
    /// 32 bits.
    Bits32,
    /// As wide as a register: 64 bits on every CPU with 64-bit mode.
    Natural,
}

/// What a field is for, bits 11:10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the hypervisor asks for.
    Control,
    /// What it is told. Not written on all CPUs.
    ReadOnly,
    /// The guest's state, saved and loaded.
    Guest,
    /// The hypervisor's state, loaded at each exit.
    Host,
}

/// The type of a field's values. VMREAD and VMWRITE move 64 bits always.
pub trait Value: Copy + Into<u64> {
    /// What VMREAD left; bits beyond the field's width are clear (SDM vol. 3 section 31.3, "VMREAD").
    fn from_u64(value: u64) -> Self;
}

impl Value for u16 {
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value as Self
    }
}

impl Value for u32 {
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value as Self
    }
}

impl Value for u64 {
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value
    }
}

/// A field with values of type `T`: `u16`, `u32`, or `u64` for both 64-bit and natural-width ones.
#[derive(Debug)]
pub struct Field<T> {
    untyped: AnyField,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Field<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> Field<T> {
    const fn new(encoding: u32, name: &'static str) -> Self {
        Self { untyped: AnyField { encoding, name }, value: PhantomData }
    }

    /// The operand of VMREAD and VMWRITE.
    #[inline(always)]
    pub const fn encoding(self) -> u32 {
        self.untyped.encoding
    }

    /// The field without the type of its values.
    #[inline]
    pub const fn any(self) -> AnyField {
        self.untyped
    }
}

impl<T> Display for Field<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.untyped.fmt(f)
    }
}

/// A field without the type of its values: for lists, dumps and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnyField {
    encoding: u32,
    name: &'static str,
}

impl AnyField {
    /// The operand of VMREAD.
    #[inline]
    pub const fn encoding(self) -> u32 {
        self.encoding
    }

    /// The SDM's name.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// How wide it is.
    pub const fn width(self) -> Width {
        match self.encoding >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    /// What it is for.
    pub const fn kind(self) -> Kind {
        match self.encoding >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::ReadOnly,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }

    /// Its index, bits 9:1 of the encoding, at most what IA32_VMX_VMCS_ENUM says that this CPU has.
    pub const fn index(self) -> u32 {
        self.encoding >> 1 & 0x1FF
    }
}

impl Display for AnyField {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.pad(self.name)
    }
}

/// The field with this encoding, if it is known. Not for the exit path.
pub fn by_encoding(encoding: u32) -> Option<AnyField> {
    ALL.iter().copied().find(|field| field.encoding == encoding)
}

/// The four fields of a guest's segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// Selector.
    pub selector: Field<u16>,
    /// Base.
    pub base: Field<u64>,
    /// Limit, in bytes.
    pub limit: Field<u32>,
    /// Access rights (SDM vol. 3 table 25-2).
    pub access_rights: Field<u32>,
}

macro_rules! segments {
    ($($name:ident: $selector:ident, $base:ident, $limit:ident, $access_rights:ident;)+) => {
        $(
            #[doc = concat!("The fields of the guest's ", stringify!($name), ".")]
            pub const $name: SegmentFields =
                SegmentFields { selector: $selector, base: $base, limit: $limit, access_rights: $access_rights };
        )+
    };
}

/// The guest's segment registers, each with its four fields.
pub mod segment {
    use super::*;

    segments! {
        ES: GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS;
        CS: GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS;
        SS: GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS;
        DS: GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS;
        FS: GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS;
        GS: GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS;
        LDTR: GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS;
        TR: GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS;
    }
}
