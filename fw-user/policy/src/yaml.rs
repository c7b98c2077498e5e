//! YAML text to a tree whose every key and value knows its place. A small part of YAML: one document of mappings,
//! lists and texts. Anchors, aliases and tags are refused, so no text can be larger than it looks.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// Largest text, bytes.
const MAX_TEXT: usize = 16 << 20;
/// Deepest nesting; the language itself needs 5 levels.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Empty,
    /// A text; `plain` if it has no quotes.
    Text { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) text: String,
}

impl Node {
    /// For messages: "found ...".
    pub(crate) const fn found(&self) -> &'static str {
        match self.value {
            Value::Empty => "nothing",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Parses the text of a file. `None` if it is not YAML of this kind; `findings` says why.
pub(crate) fn parse(text: &str, file: u32, findings: &mut Diagnostics) -> Option<Node> {
    let whole = Span {
        file,
        start: 0,
        end: 0,
    };
    if text.len() > MAX_TEXT {
        let message = format!("the policy has {} bytes; at most {MAX_TEXT} are read", text.len());
        findings.push(Diagnostic::error("too_large", whole, message));
        return None;
    }
    let mut tree = Tree {
        text,
        places: Places::new(text, file),
        findings,
        open: Vec::new(),
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        let taken = event
            .map_err(|error| Box::new(tree.syntax(&error)))
            .and_then(|(event, span)| {
                let span = tree.places.span(span.start, span.end);
                tree.take(event, span)
            });
        if let Err(item) = taken {
            tree.findings.push(*item);
            return None;
        }
    }
    let end = Span {
        start: text.len(),
        end: text.len(),
        ..whole
    };
    Some(tree.root.unwrap_or(Node {
        span: end,
        value: Value::Empty,
    }))
}

/// Turns the parser's character numbers into bytes.
struct Places {
    /// Byte of each character, and the end; empty if the text is ASCII, where both are the same.
    bytes: Vec<usize>,
    len: usize,
    file: u32,
}

impl Places {
    fn new(text: &str, file: u32) -> Self {
        let bytes = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices()
                .map(|(byte, _)| byte)
                .chain([text.len()])
                .collect()
        };
        Self {
            bytes,
            len: text.len(),
            file,
        }
    }

    fn byte(&self, marker: Marker) -> usize {
        if self.bytes.is_empty() {
            marker.index().min(self.len)
        } else {
            self.bytes.get(marker.index()).copied().unwrap_or(self.len)
        }
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        Span {
            file: self.file,
            start: self.byte(start),
            end: self.byte(end),
        }
    }
}

/// Ends the reading where the text is not YAML of this kind.
type Refusable = Result<(), Box<Diagnostic>>;

/// A list or mapping whose end has not come yet.
struct Open {
    start: usize,
    /// End of the last child.
    end: usize,
    value: Value,
    /// What a mapping has read last.
    key: Pending,
    /// Where each key of a mapping stands, once there are so many that looking through them would be slow.
    seen: HashMap<String, Span>,
}

/// Keys of a mapping that are looked through one by one.
const FEW: usize = 16;

/// Where a key stands already.
fn earlier(pairs: &[(Key, Node)], seen: &mut HashMap<String, Span>, key: &Key) -> Option<Span> {
    if pairs.len() < FEW {
        let mut keys = pairs.iter().map(|(own, _)| own);
        return keys.find(|own| own.text == key.text).map(|own| own.span);
    }
    if seen.is_empty() {
        seen.extend(pairs.iter().map(|(own, _)| (own.text.clone(), own.span)));
    }
    if let Some(first) = seen.get(&key.text) {
        return Some(*first);
    }
    seen.insert(key.text.clone(), key.span);
    None
}

/// The key of a mapping that waits for its value.
enum Pending {
    /// None: a key comes next.
    None,
    /// This one.
    Key(Key),
    /// One that was refused; its value is left out.
    Refused,
}

struct Tree<'f> {
    text: &'f str,
    places: Places,
    findings: &'f mut Diagnostics,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Refusable {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(span),
            Event::Alias(_) => Err(no_anchor(span)),
            Event::Scalar(text, style, anchor, tag) => {
                plain_value(anchor, tag.is_some(), span)?;
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Empty
                } else {
                    Value::Text {
                        text: text.into_owned(),
                        plain,
                    }
                };
                self.add(Node { span, value })
            }
            Event::SequenceStart(anchor, tag) => {
                plain_value(anchor, tag.is_some(), span)?;
                self.push(span, Value::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                plain_value(anchor, tag.is_some(), span)?;
                self.push(span, Value::Map(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    // A block ends without a sign of its own, somewhere on a later line.
                    let sign = self
                        .text
                        .as_bytes()
                        .get(span.start)
                        .is_some_and(|byte| b"]}".contains(byte));
                    let end = if sign { span.start + 1 } else { open.end };
                    self.add(Node {
                        span: Span {
                            start: open.start,
                            end: end.max(open.start),
                            ..span
                        },
                        value: open.value,
                    })
                }
                None => Ok(()),
            },
        }
    }

    fn document(&mut self, span: Span) -> Refusable {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let item = syntax(
            span,
            "a policy is one YAML document, and here a second one begins",
        );
        Err(Box::new(item.help(
            "remove the line `---` and what follows, or put it in a file of its own",
        )))
    }

    fn push(&mut self, span: Span, value: Value) -> Refusable {
        if self.open.len() == MAX_DEPTH {
            let item = syntax(span, "lists and mappings are nested too deeply");
            return Err(Box::new(
                item.label(format!("at most {MAX_DEPTH} levels are read")),
            ));
        }
        self.open.push(Open {
            start: span.start,
            end: span.end,
            value,
            key: Pending::None,
            seen: HashMap::new(),
        });
        Ok(())
    }

    /// Adds a complete node to the innermost open list or mapping.
    fn add(&mut self, node: Node) -> Refusable {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.end = node.span.end;
        match &mut open.value {
            Value::List(items) => items.push(node),
            Value::Map(pairs) => match std::mem::replace(&mut open.key, Pending::None) {
                Pending::Key(key) => pairs.push((key, node)),
                Pending::Refused => {}
                Pending::None => {
                    let key = key(node)?;
                    open.key = match earlier(pairs, &mut open.seen, &key) {
                        Some(first) => {
                            self.findings.push(duplicate(&key, first));
                            Pending::Refused
                        }
                        None => Pending::Key(key),
                    };
                }
            },
            Value::Empty | Value::Text { .. } => {}
        }
        Ok(())
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let text = self.text;
        let start = self.places.byte(*error.marker());
        let end = start + text[start..].chars().next().map_or(0, char::len_utf8);
        let before = text[..start].rsplit('\n').next().unwrap_or("");
        let line = before.to_owned() + text[start..].split('\n').next().unwrap_or("");
        let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        let help = if indent.contains('\t') {
            "indent with spaces; YAML takes no tabs there"
        } else {
            "check the indentation and the brackets above; texts that hold any of `: # [ ] { } , & *` need quotes, \
                 such as \"fd00::/8\""
        };
        let message = format!("the policy is not valid YAML: {}", error.info());
        let span = Span {
            file: self.places.file,
            start,
            end,
        };
        syntax(span, &message).help(help)
    }
}

fn key(node: Node) -> Result<Key, Box<Diagnostic>> {
    let found = node.found();
    let Value::Text { text, .. } = node.value else {
        let item = syntax(node.span, "a key must be a word");
        return Err(Box::new(item.label(format!("expected a key, found {found}"))));
    };
    Ok(Key {
        span: node.span,
        text,
    })
}

fn duplicate(key: &Key, first: Span) -> Diagnostic {
    Diagnostic::error(
        "duplicate_key",
        key.span,
        format!("the key `{}` stands here twice", key.text),
    )
    .label("given again")
    .also(first, "first given here")
    .help("keep one of the two")
}

fn plain_value(anchor: usize, tag: bool, span: Span) -> Refusable {
    match (anchor, tag) {
        (0, false) => Ok(()),
        (0, true) => {
            let item = syntax(span, "YAML tags (`!name`) are not part of the language");
            Err(Box::new(item.help("remove the tag")))
        }
        _ => Err(no_anchor(span)),
    }
}

fn no_anchor(span: Span) -> Box<Diagnostic> {
    let item = syntax(
        span,
        "YAML anchors and aliases (`&name`, `*name`) are not part of the language",
    );
    Box::new(item.help("give the list a name as a zone or a service, and use the name"))
}

fn syntax(span: Span, message: &str) -> Diagnostic {
    Diagnostic::error("syntax", span, message)
}
