//! `include:`: a policy in several files. What a file includes comes before its own zones, services and rules.

use super::feeds;
use super::fields;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::source::{Loader, beside};
use crate::yaml::{self, Node, Value};

/// Longest chain of files that include each other. A path may name one file in many ways (`a/../a/x`), so a cycle of
/// names is not the only one.
const MAX_CHAIN: usize = 16;
/// Most files of a policy.
const MAX_FILES: usize = 256;

/// The files of a policy.
pub(super) struct Files {
    /// Included files come before those that include them, the policy itself last.
    pub(super) roots: Vec<Node>,
    /// False if some included file is missing, because it cannot be read or is no YAML: what it defines is not known.
    pub(super) whole: bool,
}

/// Codes of findings that may be wrong while an included file is missing: it may define what is not found, or use what looks unused.
const NEED_ALL_FILES: [&str; 7] = [
    "no_rules",
    "unknown_label",
    "unknown_plane",
    "unknown_rule",
    "unknown_service",
    "unknown_zone",
    "unused_service",
];

impl Files {
    /// Takes out the findings that may be wrong because a file is missing: its error is enough.
    pub(super) fn keep_certain(&self, findings: &mut Diagnostics) {
        if !self.whole {
            findings.items.retain(|item| !NEED_ALL_FILES.contains(&item.code));
        }
    }
}

/// Parses the policy and all that it includes. `None` if the policy itself is no YAML; `findings` says why, and what is wrong
/// with included files.
pub(super) fn read(text: &str, loader: &dyn Loader, findings: &mut Diagnostics) -> Option<Files> {
    let mut reader = Reader {
        loader,
        roots: Vec::new(),
        open: vec![Open {
            name: findings.file.clone(),
            named: Span::default(),
        }],
        read: Vec::new(),
        whole: true,
        findings,
    };
    reader.file(text, 0).then_some(Files {
        whole: reader.whole,
        roots: reader.roots,
    })
}

/// A file whose includes are being read.
struct Open {
    name: String,
    /// Where another file names it.
    named: Span,
}

struct Reader<'a> {
    loader: &'a dyn Loader,
    roots: Vec<Node>,
    open: Vec<Open>,
    /// Files that are read, and where they are named.
    read: Vec<(String, Span)>,
    whole: bool,
    findings: &'a mut Diagnostics,
}

impl Reader<'_> {
    /// Reads a file and what it includes. False if it is no YAML.
    fn file(&mut self, text: &str, file: u32) -> bool {
        let Some(root) = yaml::parse(text, file, self.findings) else {
            return false;
        };
        if let Value::Map(pairs) = &root.value
            && let Some((_, node)) = pairs.iter().find(|(key, _)| key.text == "include")
        {
            for item in fields::list(node, "the path of a file", self.findings).unwrap_or_default() {
                self.include(item);
            }
        }
        self.roots.push(root);
        true
    }

    fn include(&mut self, node: &Node) {
        let Some(text) = fields::text(node, "the path of a file", self.findings) else {
            return;
        };
        let path = beside(self.findings.sources.name(node.span), text);
        if let Some(item) = self.refused(&path, node.span) {
            self.findings.push(item);
            return;
        }
        self.read.push((path.clone(), node.span));
        match self.loader.load(&path) {
            Err(error) => {
                self.whole = false;
                self.findings.push(
                    feeds::unreadable(node, &error).help("paths are relative to the file that names them"),
                );
            }
            Ok(text) => {
                let file = self.findings.sources.add(&path, &text);
                self.open.push(Open {
                    name: path,
                    named: node.span,
                });
                self.whole &= self.file(&text, file);
                self.open.pop();
            }
        }
    }

    /// Why the file is not to be read.
    fn refused(&self, path: &str, span: Span) -> Option<Diagnostic> {
        if let Some(place) = self.open.iter().position(|open| open.name == path) {
            let chain: Vec<&str> = self.open[place..].iter().map(|open| open.name.as_str()).collect();
            let message = format!("{path} includes itself: {} -> {path}", chain.join(" -> "));
            let item = Diagnostic::error("include_cycle", span, message).help("remove one of the includes");
            return Some(match self.open.get(place + 1) {
                Some(next) => item.also(next.named, "this include leads back to the first"),
                None => item,
            });
        }
        if self.open.len() == MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} files include each other in a row");
            let item = Diagnostic::error("include_cycle", span, message);
            return Some(
                item.help(
                    "if it is a cycle, remove one of the includes; else let the policy include them all",
                ),
            );
        }
        if let Some((_, first)) = self.read.iter().find(|(name, _)| name == path) {
            let item = Diagnostic::error("included_twice", span, format!("{path} is included twice"))
                .label("included again here")
                .also(*first, "first included here")
                .help("include it once: all files of a policy see all its zones and services");
            return Some(item);
        }
        (self.read.len() == MAX_FILES).then(|| {
            let message = format!("the policy includes more than {MAX_FILES} files");
            Diagnostic::error("too_large", span, message).help("join some of them")
        })
    }
}
