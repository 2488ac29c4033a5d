//! How a line names partitions and vCPUs.

use core::fmt::{Display, Formatter, Result};

use super::number::number;

/// A partition by name or number: letters, digits, `-`, `_` and `.`, not beginning with `.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionName<'a> {
    text: &'a str,
}

impl<'a> PartitionName<'a> {
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!text.is_empty() && !text.starts_with('.') && text.chars().all(is_fit)).then_some(Self { text })
    }

    /// As it was typed.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The number that it may also be.
    pub fn number(&self) -> Option<u16> {
        number(self.text).ok()?.try_into().ok()
    }

    /// The number of the partition that is meant, in the order of `names`: the one with this name, else the one with
    /// this number.
    pub fn resolve<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Option<usize> {
        let mut partitions = 0;
        for name in names {
            if name.as_ref() == self.text {
                return Some(partitions);
            }
            partitions += 1;
        }
        self.number().map(usize::from).filter(|&number| number < partitions)
    }
}

impl Display for PartitionName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.pad(self.text)
    }
}

/// A vCPU of a partition: `rt0.1`, or `0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuName<'a> {
    /// Its partition.
    pub partition: PartitionName<'a>,
    /// Its number in the partition.
    pub vcpu: u16,
}

impl<'a> VcpuName<'a> {
    pub(super) fn new(text: &'a str) -> Option<Self> {
        // A partition's name may have dots, a vCPU's number has none.
        let (partition, vcpu) = text.rsplit_once('.')?;
        Some(Self { partition: PartitionName::new(partition)?, vcpu: number(vcpu).ok()?.try_into().ok()? })
    }
}

impl Display for VcpuName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}.{}", self.partition, self.vcpu)
    }
}
