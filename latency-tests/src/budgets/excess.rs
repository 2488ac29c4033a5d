//! What is not within its budget, and what a budget could come down to.

use crate::figures::Unit;
use std::fmt;

/// A row that is not within its budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excess {
    /// A sample takes too long.
    Max {
        /// The row.
        row: String,
        /// Its longest sample.
        value: u64,
        /// What that may be.
        budget: u64,
        /// What both are in.
        unit: Unit,
    },
    /// The median is too long.
    Median {
        /// The row.
        row: String,
        /// Its median.
        value: u64,
        /// What that may be.
        budget: u64,
        /// What both are in.
        unit: Unit,
    },
    /// The median is too large a multiple of another row's.
    Ratio {
        /// The row.
        row: String,
        /// Its median in ticks.
        value: u64,
        /// The other row.
        of: String,
        /// The median of that in ticks.
        of_value: u64,
        /// What the ratio may be, in thousandths.
        budget: u32,
    },
    /// The median is too large a multiple of the same row's on another machine.
    Against {
        /// The row.
        row: String,
        /// Its median in ticks.
        value: u64,
        /// The other machine, as results name it.
        machine: String,
        /// The median there in ticks.
        there: u64,
        /// What the ratio may be, in thousandths.
        budget: u32,
    },
    /// The figures are not those of the bare machine.
    NotAsBare {
        /// The row.
        row: String,
        /// Least, median, 99th percentile and most in ticks.
        partita: [u64; 4],
        /// The same of the bare machine.
        bare: Option<[u64; 4]>,
    },
}

impl Excess {
    /// The row.
    pub fn row(&self) -> &str {
        match self {
            Self::Max { row, .. }
            | Self::Median { row, .. }
            | Self::Ratio { row, .. }
            | Self::Against { row, .. }
            | Self::NotAsBare { row, .. } => row,
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |value: u64, of: u64| value as f64 / of as f64;
        match self {
            Self::Max { row, value, budget, unit } => {
                write!(f, "{row}: a sample took {value} {}, the budget is {budget}", unit.name())
            }
            Self::Median { row, value, budget, unit } => {
                write!(f, "{row}: the median is {value} {}, the budget is {budget}", unit.name())
            }
            Self::Ratio { row, value, of, of_value, budget } => write!(
                f,
                "{row}: the median is {value} ticks, {:.3} times the {of_value} of {of}, the budget is {:.3} times",
                times(*value, *of_value),
                f64::from(*budget) / 1000.0
            ),
            Self::Against { row, value, machine, there, budget } => write!(
                f,
                "{row}: the median is {value} ticks, {:.3} times the {there} on {machine}, the budget is {:.3} times",
                times(*value, *there),
                f64::from(*budget) / 1000.0
            ),
            Self::NotAsBare { row, partita, bare: Some(bare) } => write!(
                f,
                "{row}: min, median, p99, max are {partita:?} ticks, the budget is {bare:?}, as on the bare machine"
            ),
            Self::NotAsBare { row, bare: None, .. } => {
                write!(f, "{row}: the budget is the bare machine's figures, but there are none")
            }
        }
    }
}

/// A budget that is further above what was measured than the machine's clock can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// The table of the budget: `max` or `median`.
    pub table: &'static str,
    /// The row.
    pub row: String,
    /// What was measured, in ticks.
    pub value: u64,
    /// What it may be.
    pub budget: u64,
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, row, value, budget } = self;
        write!(f, "{row}: the {table} is {value} ticks, the budget of {budget} can go down to {value}")
    }
}
