//! The kernel's command line as arguments in GRUB's language.

use super::IsoError;

/// The longest command line that the entry of Partita's programs takes, in bytes.
const LEN_MAX: usize = 1024;

/// `text` as arguments of GRUB's `multiboot2`, so that the kernel gets its words as they are, with one blank between two.
///
/// GRUB's parser splits the arguments, and `multiboot2` joins them again. Single quotes keep the parser from seeing anything
/// else in them. What `multiboot2` itself would put a backslash before cannot be passed.
///
/// # Errors
/// It is too long, or has a character that does not get there.
pub(super) fn quoted(text: &str) -> Result<String, IsoError> {
    if text.len() > LEN_MAX {
        return Err(IsoError::TooLong { len: text.len(), max: LEN_MAX });
    }
    let is_lost = |character: &char| character.is_control() || matches!(character, '\'' | '"' | '\\');
    if let Some(character) = text.chars().find(is_lost) {
        return Err(IsoError::Character { text: text.into(), character });
    }
    let words = text.split(' ').filter(|word| !word.is_empty());
    Ok(words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_means_something_to_grub_is_quoted() {
        let q = |text| quoted(text).unwrap();
        assert_eq!(q(""), "");
        assert_eq!(q("console"), "'console'");
        assert_eq!(q("  console   serial=com2,9600 "), "'console' 'serial=com2,9600'");
        assert_eq!(q("a=$b;c {d} #e"), "'a=$b;c' '{d}' '#e'");
    }

    #[test]
    fn what_cannot_be_passed_is_refused() {
        for character in ['\n', '\t', '\0', '"', '\'', '\\'] {
            let error = quoted(&format!("a{character}b")).unwrap_err().to_string();
            assert!(error.contains(&format!("{character:?}; leave it out")), "{error}");
        }
        assert!(quoted(&"x".repeat(LEN_MAX)).is_ok());
        let error = quoted(&"x".repeat(LEN_MAX + 1)).unwrap_err().to_string();
        assert!(error.contains("1025 bytes") && error.contains("1024"), "{error}");
    }

    proptest! {
        /// The parser of GRUB ends a quote at the next quote, and takes a blank outside for the end of a word.
        #[test]
        fn the_words_get_there(text in "[ -~é]{0,60}") {
            prop_assume!(!text.contains(['\'', '"', '\\']));
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let quoted = quoted(&text).unwrap();
            let parsed: Vec<&str> = quoted.split('\'').skip(1).step_by(2).collect();
            prop_assert_eq!(parsed, words);
            prop_assert!(quoted.split('\'').step_by(2).all(|between| between.trim().is_empty()));
        }
    }
}
