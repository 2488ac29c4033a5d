//! Sizes and addresses in a system file: `"64 MiB"`, `"0x20_0000"`, `"4096"` or a plain integer, in bytes.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// What a size looks like, for error messages.
const EXPECTING: &str = "a size in bytes such as \"64 MiB\", \"256 KiB\", \"0x200000\" or 4096";

/// A number of bytes, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl Size {
    /// Reads a number with an optional unit (`B`, `KiB`, `MiB`, `GiB`).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bad = || format!("{text:?} is not a size; write {EXPECTING}");
        let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => (hex, 16),
            None => (text, 10),
        };
        let is_digit = |c: char| c.is_digit(radix) || c == '_';
        // A hexadecimal number takes its unit after a blank only: `0x10B` is a number.
        let split = digits.find(|c| !is_digit(c)).unwrap_or(digits.len());
        let (number, unit) = digits.split_at(split);
        if radix == 16 && !unit.is_empty() && !unit.starts_with(' ') {
            return Err(bad());
        }
        let number = u64::from_str_radix(&number.replace('_', ""), radix).map_err(|_| bad())?;
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "k" | "K" | "kB" | "KB" | "M" | "MB" | "G" | "GB" => {
                return Err(format!("{text:?} has an ambiguous unit; write KiB, MiB or GiB"));
            }
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("{text:?} does not fit into 64 bits"))
    }
}

/// A number of bytes as people write it: in the largest unit that divides it.
pub fn human(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTING)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value).map(Size).map_err(|_| E::custom(format!("{value} is negative; write {EXPECTING}")))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_and_radices_are_read() {
        for (text, bytes) in [
            ("64 MiB", 64 << 20),
            ("2MiB", 2 << 20),
            ("0x200000", 2 << 20),
            ("0x20_0000", 2 << 20),
            ("0x40 KiB", 64 << 10),
            ("1 GiB", 1 << 30),
            ("4096", 4096),
            ("12 B", 12),
            ("0x10B", 0x10B),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "MiB", "1.5 MiB", "-1", "64 MB", "64 Mi", "0x", "0x10KiB", "99999999999 GiB", "1 2"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_for_people_reads_back(bytes in any::<u64>(), shift in 0u32..40) {
            let bytes = bytes >> shift << (shift / 2);
            let written = human(bytes).replace(" bytes", "");
            prop_assert_eq!(Size::parse(&written), Ok(Size(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = Size::parse(&text);
        }
    }
}
