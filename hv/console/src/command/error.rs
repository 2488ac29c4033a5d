//! What is wrong with a line.

use core::fmt::{Display, Formatter, Result};

use super::quoted::Quoted;

/// Why a line is no command. It prints as one line: the thing, the value, the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError<'a> {
    /// The usage of the command, if there is that command.
    pub usage: Option<&'static str>,
    /// What is wrong.
    pub problem: Problem<'a>,
}

/// What is wrong, with which word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem<'a> {
    /// There is no such command.
    UnknownCommand {
        /// Its first word, or the one after `help`.
        word: &'a str,
        /// A command of which it may be a misspelling.
        nearest: Option<&'static str>,
    },
    /// The line ends too early.
    Missing {
        /// What is missing, as the usage calls it.
        what: &'static str,
    },
    /// The line goes on after its end.
    TooMuch {
        /// The first word too many.
        word: &'a str,
    },
    /// A word is not a number.
    NotANumber {
        /// What it is to be, as the usage calls it.
        what: &'static str,
        /// The word.
        word: &'a str,
    },
    /// A number is out of its range.
    OutOfRange {
        /// What it is to be, as the usage calls it.
        what: &'static str,
        /// The word.
        word: &'a str,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A word can be neither name nor number of a partition.
    NotAPartition {
        /// The word.
        word: &'a str,
    },
    /// A word can be no vCPU.
    NotAVcpu {
        /// The word.
        word: &'a str,
    },
}

impl Display for Problem<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Self::UnknownCommand { word, nearest } => {
                write!(f, "unknown command {}; ", Quoted(word))?;
                if let Some(nearest) = nearest {
                    write!(f, "did you mean {nearest}? ")?;
                }
                f.write_str("help lists all")
            }
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::TooMuch { word } => write!(f, "{} is too much", Quoted(word)),
            Self::NotANumber { what, word } => write!(f, "{what} {} is not a number", Quoted(word)),
            // Limits that are widths are known by their hexadecimal digits.
            Self::OutOfRange { what, word, min: 0, max } => write!(f, "{what} {} is above {max:#x}", Quoted(word)),
            Self::OutOfRange { what, word, min, max } => {
                write!(f, "{what} {} is not from {min} to {max}", Quoted(word))
            }
            Self::NotAPartition { word } => write!(f, "PARTITION {} is no name or number", Quoted(word)),
            Self::NotAVcpu { word } => write!(f, "VCPU {} is not PARTITION.NUMBER, as in rt0.1", Quoted(word)),
        }
    }
}

impl Display for ParseError<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match (self.problem, self.usage) {
            // The cure is not in the usage of `help`.
            (Problem::UnknownCommand { .. }, _) | (_, None) => self.problem.fmt(f),
            (_, Some(usage)) => {
                let command = usage.split_ascii_whitespace().next().unwrap_or(usage);
                write!(f, "{command}: {}; usage: {usage}", self.problem)
            }
        }
    }
}

impl core::error::Error for ParseError<'_> {}
