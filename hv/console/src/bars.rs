//! Histograms as bars of `#`.

use core::fmt::{self, Display, Formatter, Write};

use crate::COLUMNS_MAX;
use crate::table::{Column, Table};
use crate::units::Count;

/// Columns of a number: 99,999,999,999 fits.
const NUMBER_COLUMNS: usize = 14;
/// Columns of the longest bar.
const BAR_COLUMNS: usize = COLUMNS_MAX - 3 * (NUMBER_COLUMNS + 2);

const TABLE: Table<4> = Table::new([
    Column::right("FROM", NUMBER_COLUMNS),
    Column::right("TO", NUMBER_COLUMNS),
    Column::right("COUNT", NUMBER_COLUMNS),
    Column::left("", BAR_COLUMNS),
]);

/// Writes headings, and for each bucket (lowest value, highest value, count) a line with a bar, which is full at
/// `count_max`. A count that is not 0 has a bar of one `#` at least.
///
/// # Errors
/// Those of `out`.
pub fn write_bars<C: Into<u64>>(
    out: &mut impl Write,
    buckets: impl IntoIterator<Item = (u64, u64, C)>,
    count_max: u64,
) -> fmt::Result {
    TABLE.head(out)?;
    for (low, high, count) in buckets {
        let count = count.into();
        let (low, high, bar) = (Short(low), Short(high), Bar { count, count_max });
        TABLE.row(
            out,
            [format_args!("{low}"), format_args!("{high}"), format_args!("{}", Short(count)), format_args!("{bar}")],
        )?;
    }
    Ok(())
}

/// A count that takes [`NUMBER_COLUMNS`] at most: cut to thousands of millions (G) or to millions of them (T) if it must
/// be, as the highest value of a last bucket is.
struct Short(u64);

impl Display for Short {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..100_000_000_000 => Count(self.0).fmt(f),
            large @ ..100_000_000_000_000 => write!(f, "{} G", Count(large / 1_000_000_000)),
            huge => write!(f, "{} T", Count(huge / 1_000_000_000_000)),
        }
    }
}

struct Bar {
    count: u64,
    count_max: u64,
}

impl Display for Bar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let length = (u128::from(self.count) * BAR_COLUMNS as u128).div_ceil(u128::from(self.count_max.max(1)));
        let length = usize::try_from(length).unwrap_or(BAR_COLUMNS).min(BAR_COLUMNS);
        write!(f, "{:#<length$}", "")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bars(buckets: &[(u64, u64, u64)], count_max: u64) -> String {
        let mut out = String::new();
        write_bars(&mut out, buckets.iter().copied(), count_max).unwrap();
        out
    }

    #[test]
    fn a_histogram_reads_well() {
        let lines = bars(&[(96, 127, 1), (128, 159, 1_000_000), (160, u64::MAX, 500_000), (1, 2, 0)], 1_000_000);
        let expected = [
            "          FROM              TO           COUNT".to_owned(),
            "            96             127               1  #".to_owned(),
            format!("           128             159       1,000,000  {}", "#".repeat(BAR_COLUMNS)),
            format!("           160    18,446,744 T         500,000  {}", "#".repeat(BAR_COLUMNS / 2)),
            "             1               2               0".to_owned(),
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn large_numbers_are_cut_where_they_no_longer_fit() {
        let shown = |n| Short(n).to_string();
        assert_eq!(shown(99_999_999_999), "99,999,999,999");
        assert_eq!(shown(100_000_000_000), "100 G");
        assert_eq!(shown(99_999_999_999_999), "99,999 G");
        assert_eq!(shown(100_000_000_000_000), "100 T");
    }

    proptest! {
        #[test]
        fn any_histogram_fits_and_no_number_is_cut(
            buckets: Vec<(u64, u64, u64)>,
            count_max: u64,
        ) {
            let out = bars(&buckets, count_max);
            prop_assert_eq!(out.lines().count(), buckets.len() + 1);
            for (line, (_, _, count)) in out.lines().skip(1).zip(buckets) {
                prop_assert!(line.len() <= COLUMNS_MAX && !line.contains('~'), "{}", line);
                prop_assert_eq!(line.contains('#'), count != 0);
            }
        }
    }
}
