//! How long something lasts, as a command line writes it.

use jiff::{Span, SpanRelativeTo};

/// Reads a time such as `2s`, `90m`, `24h` or `7d` (a day has 24 hours), in milliseconds.
///
/// # Errors
/// A sentence about a word that is none.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    let error = || "no time: write one such as 2s, 90m, 24h or 7d".to_owned();
    let span: Span = text.parse().map_err(|_| error())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| error())?;
    let ms = u64::try_from(duration.as_millis()).ok().filter(|ms| *ms > 0);
    ms.ok_or_else(|| "a time must be longer than nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("2s", 2_000),
            ("500ms", 500),
            ("90m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(milliseconds(text), Ok(ms), "{text}");
        }
        for text in ["", "24", "soon", "0s", "-2h", "1 moon"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
    }
}
