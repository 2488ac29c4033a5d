//! The words of a line, read one by one as what a command wants them to be.

use core::str::SplitAsciiWhitespace;

use super::error::Problem;
use super::names::{PartitionName, VcpuName};
use super::number::{NumberError, number};

pub(super) struct Words<'a> {
    rest: SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { rest: line.split_ascii_whitespace() }
    }

    pub(super) fn optional(&mut self) -> Option<&'a str> {
        self.rest.next()
    }

    fn required(&mut self, what: &'static str) -> Result<&'a str, Problem<'a>> {
        self.optional().ok_or(Problem::Missing { what })
    }

    /// There is nothing more.
    pub(super) fn finish(mut self) -> Result<(), Problem<'a>> {
        self.optional().map_or(Ok(()), |word| Err(Problem::TooMuch { word }))
    }

    pub(super) fn pcpu(&mut self) -> Result<u16, Problem<'a>> {
        as_number(self.required("PCPU")?, "PCPU", 0, u16::MAX)
    }

    pub(super) fn optional_pcpu(&mut self) -> Result<Option<u16>, Problem<'a>> {
        self.optional().map(|word| as_number(word, "PCPU", 0, u16::MAX)).transpose()
    }

    pub(super) fn msr(&mut self) -> Result<u32, Problem<'a>> {
        as_number(self.required("MSR")?, "MSR", 0, u32::MAX)
    }

    pub(super) fn value(&mut self) -> Result<u64, Problem<'a>> {
        as_number(self.required("VALUE")?, "VALUE", 0, u64::MAX)
    }

    /// A count from 1 to `max`.
    pub(super) fn count(&mut self, what: &'static str, max: u32) -> Result<u32, Problem<'a>> {
        as_number(self.required(what)?, what, 1, max)
    }

    /// A count from 1 to `max`; 1 if it is not given.
    pub(super) fn optional_count(&mut self, what: &'static str, max: u32) -> Result<u32, Problem<'a>> {
        self.optional().map_or(Ok(1), |word| as_number(word, what, 1, max))
    }

    pub(super) fn partition(&mut self) -> Result<PartitionName<'a>, Problem<'a>> {
        let word = self.required("PARTITION")?;
        PartitionName::new(word).ok_or(Problem::NotAPartition { word })
    }

    pub(super) fn optional_partition(&mut self) -> Result<Option<PartitionName<'a>>, Problem<'a>> {
        let Some(word) = self.optional() else { return Ok(None) };
        PartitionName::new(word).map(Some).ok_or(Problem::NotAPartition { word })
    }

    pub(super) fn vcpu(&mut self) -> Result<VcpuName<'a>, Problem<'a>> {
        let word = self.required("VCPU")?;
        VcpuName::new(word).ok_or(Problem::NotAVcpu { word })
    }
}

fn as_number<'a, T>(word: &'a str, what: &'static str, min: T, max: T) -> Result<T, Problem<'a>>
where
    T: Copy + Into<u64> + TryFrom<u64> + PartialOrd,
{
    let out_of_range = Problem::OutOfRange { what, word, min: min.into(), max: max.into() };
    match number(word) {
        Ok(value) => T::try_from(value).ok().filter(|value| (min..=max).contains(value)).ok_or(out_of_range),
        Err(NumberError::TooLarge) => Err(out_of_range),
        Err(NumberError::Form) => Err(Problem::NotANumber { what, word }),
    }
}
