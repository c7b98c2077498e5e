//! Mappings, texts and lists of the YAML tree, read against what is expected at their place.

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::names;
use crate::yaml::{Key, Node, Value};

/// A mapping whose keys are all known.
pub(super) struct Fields<'n> {
    pub(super) span: Span,
    pairs: &'n [(Key, Node)],
    /// Known keys that an unknown one probably means.
    misspelt: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Reads `node` as a mapping and reports every key that is not among `keys`. `what` names it in messages.
    pub(super) fn read(
        node: &'n Node,
        what: &str,
        keys: &'static [&'static str],
        findings: &mut Diagnostics,
    ) -> Option<Self> {
        Self::read_with(node, what, keys, |_| None, findings)
    }

    /// As [`Fields::read`]; `special` may know more of an unknown key.
    pub(super) fn read_with(
        node: &'n Node,
        what: &str,
        keys: &'static [&'static str],
        special: impl Fn(&Key) -> Option<Diagnostic>,
        findings: &mut Diagnostics,
    ) -> Option<Self> {
        let Value::Map(pairs) = &node.value else {
            findings.push(wrong_type(
                node,
                &format!("{what} is a mapping (`key: value`)"),
                "a mapping",
            ));
            return None;
        };
        let mut misspelt = Vec::new();
        for (key, _) in pairs.iter().filter(|(key, _)| !keys.contains(&key.text.as_str())) {
            findings.push(special(key).unwrap_or_else(|| unknown_key(key, what, keys)));
            misspelt.extend(names::nearest(&key.text, keys.iter().copied()));
        }
        Some(Self {
            span: node.span,
            pairs,
            misspelt,
        })
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.pairs
            .iter()
            .find(|(own, _)| own.text == key)
            .map(|(_, node)| node)
    }

    /// Where the key stands.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.pairs
            .iter()
            .find(|(own, _)| own.text == key)
            .map(|(own, _)| own.span)
    }

    /// True if the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// True if an unknown key, which was reported, probably means this one.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
    }

    /// True if a key of the language is there that this version does not enforce; it was reported.
    pub(super) fn has_not_enforced(&self) -> bool {
        let mut keys = self.pairs.iter().map(|(key, _)| key.text.as_str());
        keys.any(|key| names::NOT_ENFORCED.contains(&key))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, what: &str, findings: &mut Diagnostics) -> Option<&'n Node> {
        let node = self.get(key);
        // One mistake, one error.
        if node.is_none() && !self.is_misspelt(key) {
            let place = self.span.begin();
            findings.push(
                Diagnostic::error("missing_key", place, format!("{what} needs the key `{key}`"))
                    .label(format!("`{key}` is missing")),
            );
        }
        node
    }
}

/// Reads `node` as a text.
pub(super) fn text<'n>(node: &'n Node, expected: &str, findings: &mut Diagnostics) -> Option<&'n str> {
    let Value::Text { text, .. } = &node.value else {
        findings.push(wrong_type(node, &format!("{expected} must stand here"), expected));
        return None;
    };
    Some(text)
}

/// Reads `node` as a list; a single text or mapping is a list of one.
pub(super) fn list<'n>(node: &'n Node, expected: &str, findings: &mut Diagnostics) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Text { .. } | Value::Map(_) => Some(std::slice::from_ref(node)),
        Value::Empty => {
            findings.push(wrong_type(node, &format!("{expected} must stand here"), expected));
            None
        }
    }
}

/// Reads `node` as one of some words.
pub(super) fn word(node: &Node, words: &[&'static str], findings: &mut Diagnostics) -> Option<&'static str> {
    let expected = one_of(words);
    let text = text(node, &expected, findings)?;
    if let Some(word) = words.iter().find(|word| **word == text) {
        return Some(word);
    }
    let mut item = Diagnostic::error("unknown_word", node.span, format!("`{text}` is not known here"))
        .label(format!("expected {expected}"));
    if names::NOT_ENFORCED.contains(&text) {
        item = not_enforced(text, node.span);
    } else if is_yaml_word(node) {
        item = item.help("YAML tools turn this word into a boolean, so the language has none of them");
    } else if let Some(nearest) = names::nearest(text, words.iter().copied()) {
        item = item.help(format!("did you mean `{nearest}`?"));
    }
    findings.push(item);
    None
}

/// Reads `true` or `false`.
pub(super) fn truth(node: &Node, findings: &mut Diagnostics) -> Option<bool> {
    let expected = "`true` or `false`";
    let text = text(node, expected, findings)?;
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => {
            let item = Diagnostic::error("unknown_word", node.span, format!("`{text}` is not known here"))
                .label(format!("expected {expected}"));
            findings.push(match text.to_lowercase().as_str() {
                "yes" | "on" | "true" => item.help("write `true`"),
                "no" | "off" | "false" => item.help("write `false`"),
                _ => item,
            });
            None
        }
    }
}

/// Reads a name that is defined here.
pub(super) fn new_name(text: &str, plain: bool, span: Span, what: &str, findings: &mut Diagnostics) -> bool {
    if plain && names::YAML_WORDS.contains(&text.to_lowercase().as_str()) {
        findings.push(
            Diagnostic::error(
                "yaml_boolean",
                span,
                format!("`{text}` cannot be the name of {what}"),
            )
            .help("YAML tools turn this word into a boolean or into nothing; take another name"),
        );
        return false;
    }
    if names::is_name(text) {
        return true;
    }
    let mended: String = text
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(names::MAX_NAME)
        .collect();
    let mut item = Diagnostic::error("bad_name", span, format!("`{text}` cannot be the name of {what}"))
        .label(format!(
            "expected 1 to {} of the characters a-z, 0-9, _ and -",
            names::MAX_NAME
        ));
    if names::is_name(&mended) {
        item = item.help(format!("write `{mended}`"));
    }
    findings.push(item);
    false
}

/// True if the node is a word that YAML tools turn into a boolean or into nothing.
pub(super) fn is_yaml_word(node: &Node) -> bool {
    matches!(&node.value, Value::Text { text, plain: true }
        if names::YAML_WORDS.contains(&text.to_lowercase().as_str()))
}

/// The finding for a value of the wrong kind.
pub(super) fn wrong_type(node: &Node, message: &str, expected: &str) -> Diagnostic {
    Diagnostic::error("wrong_type", node.span, message)
        .label(format!("expected {expected}, found {}", node.found()))
}

/// The finding for a part of the language that this version does not enforce.
pub(super) fn not_enforced(key: &str, span: Span) -> Diagnostic {
    Diagnostic::error("not_enforced", span, format!("`{key}` is not enforced by this version")).help(
        "remove it, or keep what it belongs to out of the policy until a version enforces it; dpufw never accepts \
         a promise that it does not keep",
    )
}

/// "`a`, `b` or `c`".
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

fn unknown_key(key: &Key, what: &str, keys: &[&str]) -> Diagnostic {
    if names::NOT_ENFORCED.contains(&key.text.as_str()) {
        return not_enforced(&key.text, key.span);
    }
    let item = Diagnostic::error(
        "unknown_key",
        key.span,
        format!("{what} has no key `{}`", key.text),
    )
    .label(format!("expected {}", one_of(keys)));
    match names::nearest(&key.text, keys.iter().copied()) {
        Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
        None => item,
    }
}
