//! Why the hypervisor stopped a partition, in words: written once by the pCPU that saw it, read by the housekeeping core.

use core::fmt;

use heapless::String;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Most bytes of an explanation.
pub const LEN: usize = 240;
const WORDS: usize = LEN / 8;

/// What is written of an explanation; what does not fit is cut off.
#[derive(Debug, Default)]
pub struct Words(String<LEN>);

impl Words {
    /// What has been written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.0.push(char).is_err() {
                break;
            }
        }
        Ok(())
    }
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// It is there from here on; what is more is its length.
const THERE: u32 = 2;

/// The place for a partition's explanation, empty at first.
///
/// The first to give one wins, until it is forgotten. It belongs to a cause and its detail: of several pCPUs that stop their
/// partition at the same time another may win there.
#[derive(Debug)]
pub struct Explanation {
    state: AtomicU32,
    cause: AtomicU32,
    detail: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Explanation {
    fn default() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            cause: AtomicU32::new(0),
            detail: AtomicU64::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Explanation {
    /// Gives the explanation of a stop. To be done before the stop. `false` if there is one already.
    pub fn give(&self, cause: u16, detail: u64, words: &Words) -> bool {
        if self.state.compare_exchange(FREE, TAKEN, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.cause.store(cause.into(), Ordering::Relaxed);
        self.detail.store(detail, Ordering::Relaxed);
        let text = words.as_str().as_bytes();
        for (place, bytes) in self.words.iter().zip(text.chunks(8)) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(bytes) {
                *to = *from;
            }
            place.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        // Release: who sees that it is there sees all of it.
        self.state.store(THERE + text.len() as u32, Ordering::Release);
        true
    }

    /// The explanation of this stop, the first time it is asked for. Only for the housekeeping core.
    pub fn take(&self, cause: u16, detail: u64) -> Option<String<LEN>> {
        let len = self.state.load(Ordering::Acquire).checked_sub(THERE)? as usize;
        if self.cause.load(Ordering::Relaxed) != cause.into() || self.detail.load(Ordering::Relaxed) != detail {
            return None;
        }
        let bytes = self.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        let text = bytes.take(len).collect::<heapless::Vec<u8, LEN>>();
        self.state.store(TAKEN, Ordering::Relaxed);
        String::from_utf8(text).ok()
    }

    /// Makes room for the next one. Only while none of the partition's pCPUs runs its guest.
    pub fn forget(&self) {
        // Release and the order to start, which is read by acquire: whoever gives the next one finds it free.
        self.state.store(FREE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Words {
        let mut words = Words::default();
        words.write_str(text).unwrap();
        words
    }

    #[test]
    fn the_first_one_is_told_once_and_for_its_own_stop_only() {
        let place = Explanation::default();
        assert_eq!(place.take(7, 1), None);
        assert!(place.give(7, 0x1234, &words("guest CR0 is 0")));
        assert!(!place.give(8, 1, &words("late")));
        assert_eq!((place.take(8, 1), place.take(7, 1)), (None, None));
        assert_eq!(place.take(7, 0x1234).as_deref(), Some("guest CR0 is 0"));
        assert_eq!(place.take(7, 0x1234), None);
        assert!(!place.give(8, 1, &words("late")), "until it is forgotten");
        place.forget();
        assert_eq!(place.take(7, 0x1234), None);
        assert!(place.give(8, 1, &words("next")));
        assert_eq!(place.take(8, 1).as_deref(), Some("next"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_fits_arrives(text in "\\PC{0,300}") {
            let place = Explanation::default();
            prop_assert!(place.give(1, 2, &words(&text)));
            let told = place.take(1, 2).unwrap();
            prop_assert!(text.starts_with(told.as_str()));
            // A character has 4 bytes at most.
            prop_assert!(told.len() == text.len() || told.len() > LEN - 4);
        }
    }
}
