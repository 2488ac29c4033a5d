//! Numbers with units, for people.

use core::fmt::{Arguments, Display, Formatter, Result, Write};

use heapless::String;

/// Writes to a buffer first, so that the width and the alignment that a format string asks for hold.
fn pad(f: &mut Formatter<'_>, text: Arguments<'_>) -> Result {
    let mut buffer: String<32> = String::new();
    buffer.write_fmt(text)?;
    f.pad(&buffer)
}

/// A number of bytes: `512 B`, `2 MiB`, `1.5 GiB`. What is not exact has one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let bytes = u128::from(self.0);
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().zip((0u32..).step_by(10));
        for (unit, shift) in units {
            let one = 1u128 << shift;
            // Rounded before the unit is chosen: never `1024.0 KiB`.
            let tenths = (bytes * 10 + one / 2) >> shift;
            if tenths < 10_240 {
                return match bytes % one {
                    0 => pad(f, format_args!("{} {unit}", self.0 >> shift)),
                    _ => pad(f, format_args!("{}.{} {unit}", tenths as u64 / 10, tenths as u64 % 10)),
                };
            }
        }
        // Not reached: 64 bits end below 16 EiB.
        pad(f, format_args!("{} B", self.0))
    }
}

/// A count, with separators: `1,234,567`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut text: String<32> = String::new();
        let mut power = 1_000_000_000_000_000_000;
        while power > 0 {
            let group = self.0 / power % 1000;
            match (text.is_empty(), group) {
                (true, 0) if power > 1 => {}
                (true, _) => write!(text, "{group}")?,
                (false, _) => write!(text, ",{group:03}")?,
            }
            power /= 1000;
        }
        f.pad(&text)
    }
}

/// A number of TSC ticks, with separators: `1,234,567`. The heading says what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(pub u64);

impl Display for Ticks {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        Count(self.0).fmt(f)
    }
}

/// A time, in the unit that suits it: `120 ns`, `12.3 us`, `1.2 ms`, `3.4 s`; `?` if the frequency is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Micros {
    /// TSC ticks.
    pub ticks: u64,
    /// TSC frequency in kHz; 0 if it is not known.
    pub tsc_khz: u64,
}

impl Display for Micros {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (ticks, khz) = (u128::from(self.ticks), u128::from(self.tsc_khz));
        // Rounded, as numbers of a tenth of the unit, which is `scale` parts of a millisecond.
        let rounded = |scale: u128| (ticks * scale + khz / 2).checked_div(khz);
        let Some(nanoseconds) = rounded(1_000_000) else { return f.pad("?") };
        if nanoseconds < 1000 {
            return pad(f, format_args!("{} ns", nanoseconds as u64));
        }
        for (unit, scale) in [("us", 10_000), ("ms", 10)] {
            match rounded(scale) {
                Some(tenths) if tenths < 10_000 => {
                    let tenths = tenths as u64;
                    return pad(f, format_args!("{}.{} {unit}", tenths / 10, tenths % 10));
                }
                _ => {}
            }
        }
        let tenths = ((ticks + khz * 50) / (khz * 100).max(1)) as u64;
        pad(f, format_args!("{}.{} s", tenths / 10, tenths % 10))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_exact_or_have_one_decimal() {
        for (bytes, expected) in [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (4096, "4 KiB"),
            (1025, "1.0 KiB"),
            (2 << 20, "2 MiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1000 << 10, "1000 KiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), expected, "{bytes}");
        }
        assert_eq!(format!("{:>8}|{:<8}|", Size(512), Size(4096)), "   512 B|4 KiB   |");
    }

    #[test]
    fn counts_have_separators() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (1_000_000_000, "1,000,000,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(Count(count).to_string(), expected);
            assert_eq!(Ticks(count).to_string(), expected);
        }
        assert_eq!(format!("{:>6}", Count(1000)), " 1,000");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (ticks, tsc_khz, expected) in [
            (0, 2_000_000, "0 ns"),
            (240, 2_000_000, "120 ns"),
            (24_600, 2_000_000, "12.3 us"),
            (2_400_000, 2_000_000, "1.2 ms"),
            (6_800_000_000, 2_000_000, "3.4 s"),
            (9_999, 10_000_000, "1.0 us"),
            (999_949, 1_000_000, "999.9 us"),
            (999_950, 1_000_000, "1.0 ms"),
            (999_950_000, 1_000_000, "1.0 s"),
            (u64::MAX, 1, "18446744073709551.6 s"),
            (5, 0, "?"),
        ] {
            assert_eq!(Micros { ticks, tsc_khz }.to_string(), expected, "{ticks} at {tsc_khz} kHz");
        }
    }

    proptest! {
        #[test]
        fn a_size_says_what_it_is_to_a_twentieth_of_its_unit(bytes: u64, shift in 0u32..64) {
            let bytes = bytes >> shift;
            let text = Size(bytes).to_string();
            let (number, unit) = text.split_once(' ').unwrap();
            let power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter().position(|u| *u == unit).unwrap();
            let one = 1024f64.powi(power as i32);
            let error = (number.parse::<f64>().unwrap() * one - bytes as f64).abs();
            prop_assert!(error <= one * 0.0501, "{} is {}", bytes, text);
            prop_assert!(text.contains('.') || error == 0.0 || bytes > 1 << 53, "{} is {}", bytes, text);
            prop_assert!(number.parse::<f64>().unwrap() < 1024.0);
        }

        #[test]
        fn a_count_is_its_digits(count: u64, shift in 0u32..64) {
            let count = count >> shift;
            prop_assert_eq!(Count(count).to_string().replace(',', ""), count.to_string());
        }

        #[test]
        fn any_time_is_shown(ticks: u64, shift in 0u32..64, tsc_khz: u64) {
            let text = Micros { ticks: ticks >> shift, tsc_khz }.to_string();
            prop_assert!(text.ends_with('s') || text == "?", "{}", text);
        }
    }
}
