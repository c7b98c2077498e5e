//! Diagnostics: what is wrong in a policy, where, and how to mend it.

use std::collections::HashMap;
use std::fmt;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level as Title, Renderer, Snippet, renderer::DecorStyle,
};
use serde::Serialize;

use crate::source::Sources;

/// Findings that are printed; `--json` has all.
const MAX_RENDERED: usize = 100;

/// A range of bytes in a file of the policy, the end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// Number of the file in [`Sources`]; 0 is the policy itself.
    pub file: u32,
    /// First byte.
    pub start: usize,
    /// Byte behind the last.
    pub end: usize,
}

impl Span {
    /// The bytes of the policy itself from `start` up to `end`, which is not included.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { file: 0, start, end }
    }

    /// The place where the span begins.
    #[must_use]
    pub const fn begin(self) -> Self {
        Self {
            end: self.start,
            ..self
        }
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

/// Codes of all warnings; docs/policy.md explains each.
pub const WARNINGS: &[&str] = &[
    "any_any",
    "exclude",
    "isolation_of_self",
    "looked_through",
    "no_common_vlan",
    "no_flow",
    "no_rules",
    "not_looked_at",
    "one_way",
    "rule_ended",
    "same_addresses",
    "shadowed_rule",
    "small_burst",
    "unknown_role",
    "unused_service",
    "unused_zone",
    "wider_rule",
    "zones_overlap",
];

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

    /// A warning; its code is one of [`WARNINGS`].
    #[must_use]
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::error(code, span, message).lowered(code)
    }

    /// The finding as a warning with a code of its own.
    #[must_use]
    pub(crate) fn lowered(self, code: &'static str) -> Self {
        debug_assert!(WARNINGS.contains(&code), "`{code}` is in no list of warnings");
        Self {
            level: Level::Warning,
            code,
            ..self
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

/// All findings of a policy, with what is needed to print them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Name of the policy's file.
    pub file: String,
    /// The files that the findings lie in.
    pub sources: Sources,
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
    /// Other places that matter.
    pub related: Vec<Related>,
}

/// Another place of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Name of the file.
    pub file: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// What it has to do with the finding.
    pub message: String,
}

impl Diagnostics {
    /// No findings yet in a policy of one file.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self::of(&Sources::new(file, text))
    }

    /// No findings yet in these files.
    #[must_use]
    pub fn of(sources: &Sources) -> Self {
        Self {
            file: sources.name(Span::default()).to_owned(),
            sources: sources.clone(),
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
        let mut indexes = Indexes {
            sources: &self.sources,
            by_file: HashMap::new(),
        };
        self.items.iter().map(|item| report(&mut indexes, item)).collect()
    }

    fn render_one(&self, renderer: &Renderer, item: &Diagnostic) -> String {
        let title = match item.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let mut files = vec![item.span.file];
        for (span, _) in &item.also {
            if !files.contains(&span.file) {
                files.push(span.file);
            }
        }
        let title = title.primary_title(item.message.as_str()).id(item.code);
        let snippets = files.into_iter().map(|file| self.snippet(item, file));
        let mut group = Group::with_title(title).elements(snippets);
        if let Some(help) = &item.help {
            group = group.element(Title::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// What the finding says about one file. Only the lines from the first place to the last are handed on: a policy may
    /// have a hundred thousand others.
    fn snippet<'a>(&'a self, item: &'a Diagnostic, file: u32) -> Snippet<'a, Annotation<'a>> {
        let text = self.sources.text(Span { file, ..item.span });
        let here = |span: &Span| span.file == file;
        let spans = std::iter::once(&item.span).chain(item.also.iter().map(|(span, _)| span));
        let (mut start, mut end) = (text.len(), 0);
        for range in spans.filter(|span| here(span)).map(|span| clamp(text, *span)) {
            start = start.min(range.start);
            end = end.max(range.end);
        }
        let first = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = end.max(start);
        let rest = text[end..].split('\n').next().unwrap_or("");
        let last = end + rest.trim_end_matches('\r').len();
        let local = |span: Span| {
            let range = clamp(text, span);
            range.start - first..range.end - first
        };
        let line = breaks(&text.as_bytes()[..first]) + 1;
        let mut snippet = Snippet::source(&text[first..last])
            .line_start(line)
            .path(self.sources.name(Span { file, ..item.span }));
        if here(&item.span) {
            let primary = AnnotationKind::Primary.span(local(item.span));
            snippet = snippet.annotation(primary.label(item.label.as_str()));
        }
        for (span, note) in item.also.iter().filter(|(span, _)| here(span)) {
            snippet = snippet.annotation(AnnotationKind::Context.span(local(*span)).label(note.as_str()));
        }
        snippet
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

fn report(indexes: &mut Indexes<'_>, item: &Diagnostic) -> Report {
    let (line, column) = indexes.place(item.span, item.span.start);
    let (end_line, end_column) = indexes.place(item.span, item.span.end);
    let related = item.also.iter().map(|(span, note)| {
        let (line, column) = indexes.place(*span, span.start);
        Related {
            file: indexes.sources.name(*span).to_owned(),
            line,
            column,
            message: note.clone(),
        }
    });
    Report {
        related: related.collect(),
        file: indexes.sources.name(item.span).to_owned(),
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

/// Where the lines of all files begin.
struct Indexes<'s> {
    sources: &'s Sources,
    by_file: HashMap<u32, LineIndex<'s>>,
}

impl Indexes<'_> {
    /// Line and column of a byte in the file of a span.
    fn place(&mut self, span: Span, byte: usize) -> (usize, usize) {
        let text = self.sources.text(span);
        let index = self
            .by_file
            .entry(span.file)
            .or_insert_with(|| LineIndex::new(text));
        index.place(byte)
    }
}

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

/// Line breaks in a text.
pub(crate) fn breaks(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

/// Line numbers of places that come in order, file by file.
#[derive(Default)]
pub(crate) struct LineCounter {
    file: u32,
    byte: usize,
    breaks: usize,
}

impl LineCounter {
    /// The line where a span begins, from 1.
    pub(crate) fn line(&mut self, sources: &Sources, span: Span) -> usize {
        if span.file != self.file || span.start < self.byte {
            *self = Self {
                file: span.file,
                ..Self::default()
            };
        }
        let text = sources.text(span).as_bytes();
        let end = span.start.min(text.len());
        let between = text.get(self.byte..end).unwrap_or_default();
        self.breaks += breaks(between);
        self.byte = end;
        self.breaks + 1
    }
}

/// The span as a range that lies in the text, on character borders. The end of the text is that of its last line.
fn clamp(text: &str, span: Span) -> std::ops::Range<usize> {
    if span.start >= text.len() {
        let end = text.trim_end_matches(['\n', '\r']).len();
        return end..end;
    }
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end.min(text.len()));
    start..end.max(start)
}
