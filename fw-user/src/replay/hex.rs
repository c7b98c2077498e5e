//! Frames as hexadecimal text.

use super::CaptureError;

/// A frame in hexadecimal digits; blanks, colons and line ends may stand anywhere between bytes.
///
/// # Errors
/// [`CaptureError::Hex`] with the first character that does not belong there.
pub fn from_hex(text: &str) -> Result<Vec<u8>, CaptureError> {
    let mut digits = Vec::with_capacity(text.len());
    for (place, character) in text.chars().enumerate() {
        match character.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if character.is_whitespace() || character == ':' => {}
            None => {
                return Err(CaptureError::Hex(format!(
                    "`{character}` (character {}) is no hexadecimal digit; a frame is written `02 00 00 00 00 01 ...`, without \
                     offsets and without text beside it",
                    place + 1
                )));
            }
        }
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CaptureError::Hex(format!(
            "{} hexadecimal digits make no whole bytes; two digits are one",
            digits.len()
        )));
    }
    if pairs.is_empty() {
        return Err(CaptureError::Hex("there is no byte of a frame".to_owned()));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::from_hex;

    #[test]
    fn hexadecimal_text_becomes_bytes() {
        assert_eq!(from_hex("02:00 0aFf\n").unwrap(), [2, 0, 10, 255]);
        for (text, words) in [
            ("0", "whole bytes"),
            ("0x00", "`x` (character 2)"),
            (" \n", "no byte"),
        ] {
            let error = from_hex(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
