//! Diagnostics: what is wrong in a policy, where, and how to mend it.

use std::fmt;

use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet, renderer::DecorStyle};
use serde::Serialize;

/// Findings that are printed; `--json` has all.
const MAX_RENDERED: usize = 100;

/// A range of bytes in a policy's text, the end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte behind the last.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` up to `end`, which is not included.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The policy cannot be used.
    Error,
    /// The policy can be used, but probably does not say what was meant.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// Machine name of the kind of finding, such as `unknown_key`. Stable.
    pub code: &'static str,
    /// A sentence: what is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What was expected there; may be empty.
    pub label: String,
    /// Other places that matter, each with a note.
    pub also: Vec<(Span, String)>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let (message, label) = (message.into(), String::new());
        Self {
            level: Level::Error,
            code,
            message,
            span,
            label,
            also: Vec::new(),
            help: None,
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// Says what was expected at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place.
    #[must_use]
    pub fn also(mut self, span: Span, note: impl Into<String>) -> Self {
        self.also.push((span, note.into()));
        self
    }
}

/// All findings of one file, with what is needed to print them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The findings, by place.
    pub items: Vec<Diagnostic>,
}

/// A finding for `--json`. Lines and columns count from 1, columns in characters; the end is not included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the file.
    pub file: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column of the end.
    pub end_column: usize,
    /// How bad it is.
    pub level: Level,
    /// Machine name of the kind of finding.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What was expected there; may be empty.
    pub label: String,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostics {
    /// No findings yet.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            items: Vec::new(),
        }
    }

    /// True if one of the findings is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.level == Level::Error)
    }

    /// The findings as rustc prints them, with colour codes if `color`. Empty if there are none.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let shown = self.items.iter().take(MAX_RENDERED);
        let mut texts: Vec<String> = shown.map(|item| self.render_one(&renderer, item)).collect();
        let more = self.items.len().saturating_sub(MAX_RENDERED);
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        texts.join("\n\n")
    }

    /// The findings for `--json`.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let index = LineIndex::new(&self.text);
        self.items.iter().map(|item| self.report(&index, item)).collect()
    }

    fn render_one(&self, renderer: &Renderer, item: &Diagnostic) -> String {
        let title = match item.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let clamp = |span: Span| clamp(&self.text, span);
        let primary = AnnotationKind::Primary
            .span(clamp(item.span))
            .label(item.label.as_str());
        let mut snippet = Snippet::source(self.text.as_str())
            .path(self.file.as_str())
            .annotation(primary);
        for (span, note) in &item.also {
            snippet = snippet.annotation(AnnotationKind::Context.span(clamp(*span)).label(note.as_str()));
        }
        let mut group = title
            .primary_title(item.message.as_str())
            .id(item.code)
            .element(snippet);
        if let Some(help) = &item.help {
            group = group.element(Title::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    fn report(&self, index: &LineIndex<'_>, item: &Diagnostic) -> Report {
        let (line, column) = index.place(item.span.start);
        let (end_line, end_column) = index.place(item.span.end);
        Report {
            file: self.file.clone(),
            line,
            column,
            end_line,
            end_column,
            level: item.level,
            code: item.code,
            message: item.message.clone(),
            label: item.label.clone(),
            help: item.help.clone(),
        }
    }

    pub(crate) fn push(&mut self, item: Diagnostic) {
        self.items.push(item);
    }

    pub(crate) fn sort(&mut self) {
        self.items.sort_by_key(|item| (item.span, item.level));
    }
}

/// As [`Diagnostics::render`], without colour.
impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Where the lines of a text begin.
struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn new(text: &'t str) -> Self {
        let behind = text.match_indices('\n').map(|(byte, _)| byte + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(behind).collect(),
        }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    fn place(&self, byte: usize) -> (usize, usize) {
        let byte = self.text.floor_char_boundary(byte.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        (line, self.text[start..byte].chars().count() + 1)
    }
}

/// Line numbers of places that come in order.
#[derive(Default)]
pub(crate) struct LineCounter {
    byte: usize,
    breaks: usize,
}

impl LineCounter {
    /// The line of a byte, from 1.
    pub(crate) fn line(&mut self, text: &str, byte: usize) -> usize {
        if byte < self.byte {
            *self = Self::default();
        }
        let end = byte.min(text.len());
        // Spans lie on character borders.
        self.breaks += text
            .get(self.byte..end)
            .map_or(0, |between| between.matches('\n').count());
        self.byte = end;
        self.breaks + 1
    }
}

/// The span as a range that lies in the text, on character borders.
fn clamp(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.min(text.len()));
    start..end.max(start)
}
