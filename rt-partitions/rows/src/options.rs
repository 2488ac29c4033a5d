//! The command line of a payload: words of the form `key=value`, in any order, each key at most once.

use core::fmt;
use core::ops::RangeInclusive;

/// A command line, read key by key. What nobody asked for is an error at the end.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    line: &'a str,
}

/// What is wrong with a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError<'a> {
    /// A word without `=`.
    NoValue {
        /// The word.
        word: &'a str,
    },
    /// A key that the payload does not have.
    UnknownKey {
        /// The key.
        key: &'a str,
        /// Those that it has.
        known: &'a [&'a str],
    },
    /// A key that is there more than once.
    Repeated {
        /// The key.
        key: &'a str,
    },
    /// A value that is no number in the range.
    NotInRange {
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a str,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A value that is none of the choices.
    NoSuchChoice {
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a str,
        /// Prints the choices.
        choices: Choices<'a>,
    },
}

/// Words to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices<'a>(&'a [&'a str]);

impl fmt::Display for Choices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            write!(f, "{}{word}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue { word } => write!(f, "the option \"{word}\" has no value; write {word}=VALUE"),
            Self::UnknownKey { key, known } => {
                write!(f, "there is no option \"{key}\"; there are: {}", Choices(known))
            }
            Self::Repeated { key } => write!(f, "the option \"{key}\" is there twice; leave one out"),
            Self::NotInRange { key, value, min, max } => {
                write!(f, "{key}={value}: the value is not a number from {min} to {max}")
            }
            Self::NoSuchChoice { key, value, choices } => {
                write!(f, "{key}={value}: there is no such choice; there are: {choices}")
            }
        }
    }
}

impl<'a> Options<'a> {
    /// Takes a command line whose keys are all among `known`.
    ///
    /// # Errors
    /// A word that is no `key=value`, an unknown key, a key that is there twice.
    pub fn new(line: &'a str, known: &'a [&'a str]) -> Result<Self, OptionError<'a>> {
        for (index, word) in line.split_ascii_whitespace().enumerate() {
            let Some((key, _)) = word.split_once('=') else {
                return Err(OptionError::NoValue { word });
            };
            if !known.contains(&key) {
                return Err(OptionError::UnknownKey { key, known });
            }
            if pairs(line).take(index).any(|(earlier, _)| earlier == key) {
                return Err(OptionError::Repeated { key });
            }
        }
        Ok(Self { line })
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        pairs(self.line).find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The number after `key`, or `default`.
    ///
    /// # Errors
    /// It is no decimal number, or out of the range.
    pub fn number(&self, key: &'a str, default: u64, range: RangeInclusive<u64>) -> Result<u64, OptionError<'a>> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let (min, max) = (*range.start(), *range.end());
        let not_in_range = OptionError::NotInRange { key, value, min, max };
        value.parse().ok().filter(|number| range.contains(number)).ok_or(not_in_range)
    }

    /// The place of the value of `key` among `choices`, or `default`.
    ///
    /// # Errors
    /// It is none of the choices.
    pub fn choice(&self, key: &'a str, default: usize, choices: &'a [&'a str]) -> Result<usize, OptionError<'a>> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let no_such_choice = OptionError::NoSuchChoice { key, value, choices: Choices(choices) };
        choices.iter().position(|choice| *choice == value).ok_or(no_such_choice)
    }

    /// The value of `key`, which is 0 or 1, or `default`.
    ///
    /// # Errors
    /// It is anything else.
    pub fn flag(&self, key: &'a str, default: bool) -> Result<bool, OptionError<'a>> {
        self.number(key, default.into(), 0..=1).map(|number| number == 1)
    }
}

fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_ascii_whitespace().filter_map(|word| word.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[&str] = &["group", "samples", "pause"];

    fn options(line: &str) -> Result<Options<'_>, OptionError<'_>> {
        Options::new(line, KNOWN)
    }

    #[test]
    fn values_are_found_in_any_order() {
        let options = options(" samples=7  group=ipi").unwrap();
        assert_eq!(options.number("samples", 1, 1..=10), Ok(7));
        assert_eq!(options.choice("group", 0, &["exit", "ipi"]), Ok(1));
        assert_eq!(options.flag("pause", true), Ok(true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("verbose", "the option \"verbose\" has no value; write verbose=VALUE"),
            ("x=1", "there is no option \"x\"; there are: group, samples, pause"),
            ("pause=1 pause=0", "the option \"pause\" is there twice; leave one out"),
        ];
        for (line, text) in wrong {
            assert_eq!(options(line).unwrap_err().to_string(), text);
        }
        for value in ["0", "11", "", "-1", "99999999999999999999", "1x"] {
            let line = format!("samples={value}");
            let error = options(&line).unwrap().number("samples", 1, 1..=10).unwrap_err().to_string();
            assert_eq!(error, format!("samples={value}: the value is not a number from 1 to 10"));
        }
        let error = options("group=no").unwrap().choice("group", 0, &["exit", "ipi"]).unwrap_err().to_string();
        assert_eq!(error, "group=no: there is no such choice; there are: exit, ipi");
        assert!(options("pause=2").unwrap().flag("pause", false).is_err());
    }

    proptest! {
        #[test]
        fn no_line_is_taken_that_has_a_stray_word(line in ".{0,40}") {
            let good = line.split_ascii_whitespace().all(|w| w.split_once('=').is_some_and(|(k, _)| KNOWN.contains(&k)));
            if options(&line).is_ok() {
                prop_assert!(good, "{line:?}");
            }
        }

        #[test]
        fn a_number_reads_back(number: u64) {
            let line = format!("pause=1 samples={number}");
            prop_assert_eq!(options(&line).unwrap().number("samples", 0, 0..=u64::MAX), Ok(number));
        }
    }
}
