//! What a misspelt word may have been meant to be.

/// Longest word that is compared, in bytes: a longer one is no misspelling.
const WORD_MAX: usize = 16;

/// The name nearest to `word`: one that begins with it, or else one of which not more than half is misspelt; the first
/// of several.
pub(super) fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let most = word.len() / 2;
    let prefix = |name: &str| word.len() >= 2 && name.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word));
    names
        .filter_map(|name| if prefix(name) { Some((0, name)) } else { Some((distance(word, name)?, name)) })
        .filter(|&(distance, _)| distance <= most)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many bytes have to be added, removed or replaced to make one word the other (Levenshtein), upper case being as
/// good as lower case. None for words that are too long.
fn distance(a: &str, b: &str) -> Option<usize> {
    // Distances of the part of `a` seen so far to each beginning of `b`, the empty one being `first`.
    let mut row = [0; WORD_MAX];
    let row = row.get_mut(..b.len())?;
    if a.len() > WORD_MAX {
        return None;
    }
    row.iter_mut().zip(1..).for_each(|(cell, length)| *cell = length);
    let mut first = 0;
    for x in a.bytes() {
        let (mut above_left, mut left) = (first, first + 1);
        first += 1;
        for (cell, y) in row.iter_mut().zip(b.bytes()) {
            let replaced = above_left + usize::from(!x.eq_ignore_ascii_case(&y));
            above_left = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    Some(row.last().copied().unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, expected) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("", "", 0),
            ("STOP", "stop", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), Some(expected), "{a} {b}");
        }
        assert_eq!(distance("a", &"b".repeat(WORD_MAX + 1)), None);
        assert_eq!(distance(&"b".repeat(WORD_MAX + 1), "a"), None);
    }
}
