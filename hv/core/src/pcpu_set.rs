//! A set of pCPUs.

use crate::arch::PcpuId;

/// Most pCPUs of a machine.
pub const PCPUS_MAX: usize = 256;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = PCPUS_MAX.div_ceil(WORD_BITS);

/// A pCPU number that no set can hold, because it is not below [`PCPUS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcpuOutOfRange(pub PcpuId);

impl core::fmt::Display for PcpuOutOfRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} is out of range; name one below {PCPUS_MAX}", self.0)
    }
}

impl core::error::Error for PcpuOutOfRange {}

/// A set of pCPUs, each below [`PCPUS_MAX`]. It prints as ranges, such as `1-3,7`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PcpuSet {
    words: [u64; WORDS],
}

impl PcpuSet {
    /// The set without members.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The pCPUs from 0 to `count - 1`, and not more than [`PCPUS_MAX`] of them.
    pub const fn first(count: usize) -> Self {
        let mut words = [0; WORDS];
        let mut index = 0;
        while index < WORDS {
            let bits = count.saturating_sub(index * WORD_BITS);
            words[index] = if bits >= WORD_BITS { u64::MAX } else { (1 << bits) - 1 };
            index += 1;
        }
        Self { words }
    }

    /// The set of one pCPU.
    ///
    /// # Errors
    /// The number is not below [`PCPUS_MAX`].
    pub fn single(pcpu: PcpuId) -> Result<Self, PcpuOutOfRange> {
        Self::try_from_iter([pcpu])
    }

    /// The set of the given pCPUs.
    ///
    /// # Errors
    /// The first number that is not below [`PCPUS_MAX`].
    pub fn try_from_iter(pcpus: impl IntoIterator<Item = PcpuId>) -> Result<Self, PcpuOutOfRange> {
        let mut set = Self::EMPTY;
        for pcpu in pcpus {
            set.insert(pcpu)?;
        }
        Ok(set)
    }

    const fn bit(pcpu: PcpuId) -> u64 {
        1 << (pcpu.index() % WORD_BITS)
    }

    /// Adds a pCPU, which may be in the set already.
    ///
    /// # Errors
    /// The number is not below [`PCPUS_MAX`]; the set is as before.
    pub fn insert(&mut self, pcpu: PcpuId) -> Result<(), PcpuOutOfRange> {
        let word = self.words.get_mut(pcpu.index() / WORD_BITS).ok_or(PcpuOutOfRange(pcpu))?;
        *word |= Self::bit(pcpu);
        Ok(())
    }

    /// Takes a pCPU out; says whether it was in.
    pub fn remove(&mut self, pcpu: PcpuId) -> bool {
        let was_in = self.contains(pcpu);
        if let Some(word) = self.words.get_mut(pcpu.index() / WORD_BITS) {
            *word &= !Self::bit(pcpu);
        }
        was_in
    }

    /// Whether the pCPU is in the set.
    pub fn contains(&self, pcpu: PcpuId) -> bool {
        self.words.get(pcpu.index() / WORD_BITS).is_some_and(|word| word & Self::bit(pcpu) != 0)
    }

    /// The highest member.
    #[inline]
    pub fn last(&self) -> Option<PcpuId> {
        let (index, word) = self.words.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(PcpuId((index * WORD_BITS + word.ilog2() as usize) as u16))
    }

    /// How many pCPUs are in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no pCPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The pCPUs that are in this set or in the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The pCPUs that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The pCPUs of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// Whether all members of this set are in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    fn combine(&self, other: &Self, word: impl Fn(u64, u64) -> u64) -> Self {
        let mut set = *self;
        for (mine, theirs) in set.words.iter_mut().zip(other.words) {
            *mine = word(*mine, theirs);
        }
        set
    }

    /// The members below 64, a bit for each.
    #[inline(always)]
    pub fn low_word(&self) -> u64 {
        self.words.first().copied().unwrap_or(0)
    }

    /// The same, if there are no others.
    #[inline(always)]
    pub(crate) fn only_low_word(&self) -> Option<u64> {
        let [low, rest @ ..] = self.words;
        (rest.iter().fold(0, |all, word| all | word) == 0).then_some(low)
    }

    /// The members in ascending order.
    pub fn iter(&self) -> Iter {
        Iter { words: self.words, at: 0 }
    }
}

/// The members of a [`PcpuSet`] in ascending order, as they were when it was made.
#[derive(Clone, Debug)]
pub struct Iter {
    words: [u64; WORDS],
    at: usize,
}

impl Iterator for Iter {
    type Item = PcpuId;

    #[inline]
    fn next(&mut self) -> Option<PcpuId> {
        while let Some(word) = self.words.get_mut(self.at) {
            if *word != 0 {
                let bit = word.trailing_zeros() as usize;
                *word &= *word - 1;
                return Some(PcpuId((self.at * WORD_BITS + bit) as u16));
            }
            self.at += 1;
        }
        None
    }
}

impl IntoIterator for &PcpuSet {
    type Item = PcpuId;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl core::fmt::Display for PcpuSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut members = self.iter().map(|pcpu| pcpu.0).peekable();
        let mut separator = "";
        while let Some(from) = members.next() {
            let mut to = from;
            while let Some(next) = members.next_if(|next| *next == to + 1) {
                to = next;
            }
            match to - from {
                0 => write!(f, "{separator}{from}")?,
                _ => write!(f, "{separator}{from}-{to}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl core::fmt::Debug for PcpuSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PcpuSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(numbers: &[u16]) -> PcpuSet {
        PcpuSet::try_from_iter(numbers.iter().copied().map(PcpuId)).unwrap()
    }

    #[test]
    fn it_prints_as_ranges() {
        assert_eq!(set(&[7, 1, 2, 3]).to_string(), "1-3,7");
        assert_eq!(set(&[0, 63, 64, 65, 255]).to_string(), "0,63-65,255");
        assert_eq!(PcpuSet::EMPTY.to_string(), "none");
    }

    #[test]
    fn a_number_beyond_the_capacity_is_refused_and_never_a_member() {
        let beyond = PcpuId(PCPUS_MAX as u16);
        let mut full = PcpuSet::first(PCPUS_MAX + 1);
        assert_eq!(full.insert(beyond), Err(PcpuOutOfRange(beyond)));
        assert_eq!(full.len(), PCPUS_MAX);
        assert!(!full.contains(beyond) && !full.remove(beyond));
    }

    #[test]
    fn the_first_pcpus_are_those_below_the_count() {
        for count in [0, 1, 63, 64, 65, 128, 255, 256] {
            let expected: Vec<u16> = (0..count).collect();
            assert_eq!(PcpuSet::first(count as usize), set(&expected));
        }
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_numbers(
            a in proptest::collection::btree_set(0u16..256, 0..40),
            b in proptest::collection::btree_set(0u16..256, 0..40),
            taken in 0u16..256,
        ) {
            let of = |numbers: &BTreeSet<u16>| set(&numbers.iter().copied().collect::<Vec<_>>());
            let back = |set: PcpuSet| set.iter().map(|pcpu| pcpu.0).collect::<BTreeSet<u16>>();
            let (x, y) = (of(&a), of(&b));
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(back(x), a.clone());
            prop_assert_eq!(x.low_word(), a.range(..64).map(|number| 1 << number).sum::<u64>());
            prop_assert_eq!(x.last().map(|pcpu| pcpu.0), a.last().copied());
            prop_assert_eq!(back(x.union(&y)), &a | &b);
            prop_assert_eq!(back(x.intersection(&y)), &a & &b);
            prop_assert_eq!(back(x.difference(&y)), &a - &b);
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            let mut left = x;
            prop_assert_eq!(left.remove(PcpuId(taken)), a.contains(&taken));
            prop_assert!(!left.contains(PcpuId(taken)));
        }
    }
}
