//! Bytes to text.

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// The text of a file that was read as bytes. `file` is its name in messages.
///
/// # Errors
/// A finding with the place of the first byte that is no UTF-8.
pub fn decode(bytes: Vec<u8>, file: &str) -> Result<String, Diagnostics> {
    let (start, bytes) = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => (error.utf8_error().valid_up_to(), error.into_bytes()),
    };
    // Up to the first wrong byte, which is shown as U+FFFD, this is the file as it is.
    let lossy = String::from_utf8_lossy(&bytes);
    let span = Span::new(start, start + char::REPLACEMENT_CHARACTER.len_utf8());
    let message = format!(
        "the file is not UTF-8: its byte {}, {:#04x}, is no part of a character there",
        start + 1,
        bytes.get(start).copied().unwrap_or_default()
    );
    let mut findings = Diagnostics::new(file, &lossy);
    findings.push(
        Diagnostic::error("not_utf8", span, message)
            .label("expected UTF-8")
            .help(help(&bytes, file)),
    );
    Err(findings)
}

fn help(bytes: &[u8], file: &str) -> String {
    // UTF-16 begins with U+FEFF, in one of two orders of bytes.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return format!("it begins as UTF-16 does; convert it: `iconv -f UTF-16 -t UTF-8 {file}`");
    }
    if bytes.contains(&0) {
        return "it holds bytes that no text has; is it another file?".to_owned();
    }
    format!(
        "save it as UTF-8, or convert it: `iconv -f WINDOWS-1252 -t UTF-8 {file}` if it comes from an editor of western Europe"
    )
}
