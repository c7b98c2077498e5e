//! Addresses of a zone that stand in files of their own: one prefix, address or range a line, `#` before comments.

use super::addresses;
use super::fields;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::ranges::Ranges;
use crate::source::{LoadError, Loader, beside};
use crate::yaml::Node;

/// Errors of one file that are reported; a file of the wrong kind has one in every line.
const MAX_ERRORS: usize = 20;

/// Reads `file:`, a path or a list of paths.
pub(super) fn files(node: &Node, loader: &dyn Loader, ranges: &mut Ranges, findings: &mut Diagnostics) {
    for item in fields::list(node, "the path of a file", findings).unwrap_or_default() {
        if let Some(path) = path(item, findings) {
            file(item, &path, loader, ranges, findings);
        }
    }
}

/// Reads `directory:`: every regular file in it, in the order of their names.
pub(super) fn directory(node: &Node, loader: &dyn Loader, ranges: &mut Ranges, findings: &mut Diagnostics) {
    let Some(path) = path(node, findings) else { return };
    match loader.list(&path) {
        Err(error) => findings.push(unreadable(node, &error)),
        Ok(files) => {
            for path in files {
                file(node, &path, loader, ranges, findings);
            }
        }
    }
}

/// The path to load: relative to the file that names it.
fn path(node: &Node, findings: &mut Diagnostics) -> Option<String> {
    let text = fields::text(node, "the path of a file", findings)?;
    if text.is_empty() {
        findings.push(Diagnostic::error("cannot_read", node.span, "the path is empty"));
        return None;
    }
    Some(beside(findings.sources.name(node.span), text))
}

/// The finding for what cannot be read.
pub(super) fn unreadable(node: &Node, error: &LoadError) -> Diagnostic {
    Diagnostic::error("cannot_read", node.span, format!("cannot read {}", error.path))
        .label(error.cause.clone())
        .help("paths are relative to the file that names them; `file` takes files, `directory` one directory")
}

fn file(node: &Node, path: &str, loader: &dyn Loader, ranges: &mut Ranges, findings: &mut Diagnostics) {
    let text = match loader.load(path) {
        Ok(text) => text,
        Err(error) => {
            findings.push(unreadable(node, &error));
            return;
        }
    };
    let file = findings.sources.add_list(path, &text);
    lines(&text, file, ranges, findings);
}

fn lines(text: &str, file: u32, ranges: &mut Ranges, findings: &mut Diagnostics) {
    let (mut start, mut errors) = (0, 0_usize);
    // Some editors begin a text with U+FEFF.
    let marked = text.len() - text.trim_start_matches('\u{feff}').len();
    for line in text.split_inclusive('\n') {
        let from = if start == 0 { marked } else { 0 };
        let entry = line[from..].split('#').next().unwrap_or("");
        let trimmed = entry.trim_ascii();
        if !trimmed.is_empty() {
            match addresses::parse(trimmed) {
                Ok(range) => ranges.push(range),
                Err(_) if errors >= MAX_ERRORS => errors += 1,
                Err(mut bad) => {
                    errors += 1;
                    if trimmed.contains([' ', '\t', ',', ';']) {
                        bad.help = Some("write one prefix, address or range a line".to_owned());
                    }
                    let begin = start + from + (entry.len() - entry.trim_ascii_start().len());
                    let span = Span {
                        file,
                        start: begin,
                        end: begin + trimmed.len(),
                    };
                    findings.push(bad.finding(span));
                }
            }
        }
        start += line.len();
    }
    if errors > MAX_ERRORS {
        let end = Span {
            file,
            start: text.len(),
            end: text.len(),
        };
        let message = format!("{} more lines of this file are no addresses", errors - MAX_ERRORS);
        findings.push(
            Diagnostic::error("bad_prefix", end, message)
                .help("a zone's file has one prefix, address or range a line, and `#` before comments"),
        );
    }
}
