//! Numbers as people write them.

/// Why a word is no number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    /// It has another form.
    Form,
    /// It has the form, and is too large.
    TooLarge,
}

/// Reads decimal digits, or hexadecimal ones after `0x` or `0X`; `_` may stand after the first digit.
pub(super) fn number(word: &str) -> Result<u64, NumberError> {
    let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((word, 10), |digits| (digits, 16));
    if digits.is_empty() || digits.starts_with('_') {
        return Err(NumberError::Form);
    }
    // All characters are looked at, so that what is both too large and misspelt is called misspelt.
    let mut value = Some(0u64);
    for character in digits.chars().filter(|&character| character != '_') {
        let digit = character.to_digit(radix).ok_or(NumberError::Form)?;
        value = value.and_then(|value| value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit)));
    }
    value.ok_or(NumberError::TooLarge)
}
