//! The files that a policy was read from, and how they are read.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::diagnostic::{Span, breaks};
use crate::model::Rule;

/// Where texts come from. The crate itself reads no files.
pub trait Loader {
    /// The text of the file with this path.
    ///
    /// # Errors
    /// A [`LoadError`] if there is no such text.
    fn load(&self, path: &str) -> Result<String, LoadError>;

    /// Paths of the regular files in a directory, sorted by name.
    ///
    /// # Errors
    /// A [`LoadError`] if there is no such directory, or if this loader knows none.
    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        Err(LoadError {
            path: directory.to_owned(),
            cause: "directories are not read here".to_owned(),
        })
    }
}

/// A file or directory that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read {path}: {cause}")]
pub struct LoadError {
    /// The file or directory.
    pub path: String,
    /// Why, as the system says it.
    pub cause: String,
}

/// Reads nothing: for texts that stand alone.
pub(crate) struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        Err(LoadError {
            path: path.to_owned(),
            cause: "other files are not read here".to_owned(),
        })
    }
}

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name: the path by which it was loaded.
    pub name: String,
    /// Its text as it was read.
    pub text: Arc<str>,
    /// It is a zone's list of addresses, no policy.
    pub list: bool,
}

/// Without the text, which may have a million lines.
impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({} bytes)", self.name, self.text.len())
    }
}

/// The files of a policy: the policy itself, what it includes, and the files of its zones. Cheap to clone.
///
/// They are a [`Loader`] themselves, so that a policy can be kept, sent elsewhere and checked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// A policy of one file.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        Self {
            list: vec![Source {
                name: name.to_owned(),
                text: text.into(),
                list: false,
            }],
        }
    }

    /// Adds a file; gives its number for [`Span::file`].
    pub fn add(&mut self, name: &str, text: &str) -> u32 {
        self.push(name, text, false)
    }

    /// Adds a zone's list of addresses, as [`Self::add`].
    pub fn add_list(&mut self, name: &str, text: &str) -> u32 {
        self.push(name, text, true)
    }

    fn push(&mut self, name: &str, text: &str, list: bool) -> u32 {
        self.list.push(Source {
            name: name.to_owned(),
            text: text.into(),
            list,
        });
        self.list.len() as u32 - 1
    }

    /// The files in the order in which they were read, the policy itself first.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.list.iter()
    }

    /// Name of the file that a span lies in; empty if there is no such file.
    #[must_use]
    pub fn name(&self, span: Span) -> &str {
        self.get(span.file).map_or("", |source| &source.name)
    }

    /// Text of the file that a span lies in; empty if there is no such file.
    #[must_use]
    pub fn text(&self, span: Span) -> &str {
        self.get(span.file).map_or("", |source| &source.text)
    }

    /// Line of the first byte of a span, from 1.
    #[must_use]
    pub fn line(&self, span: Span) -> usize {
        let text = self.text(span).as_bytes();
        breaks(&text[..span.start.min(text.len())]) + 1
    }

    /// Where `rule` stands, for a reader who looks at `from`: `line 12` of the same file, `site/base.yaml:12` of another.
    pub(crate) fn place(&self, rule: &Rule, from: Span) -> String {
        if rule.span.file == from.file {
            format!("line {}", rule.line)
        } else {
            format!("{}:{}", self.name(rule.span), rule.line)
        }
    }

    pub(crate) fn get(&self, file: u32) -> Option<&Source> {
        self.list.get(file as usize)
    }
}

impl Loader for Sources {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        let source = self.list.iter().find(|source| source.name == path);
        source
            .map(|source| source.text.as_ref().to_owned())
            .ok_or_else(|| LoadError {
                path: path.to_owned(),
                cause: "it was not kept with the policy".to_owned(),
            })
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        let inside = |name: &&str| {
            let rest = name.strip_prefix(directory.trim_end_matches('/'));
            rest.and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| !rest.contains('/'))
        };
        let names = self.list.iter().map(|source| source.name.as_str());
        let mut found: Vec<String> = names.filter(inside).map(str::to_owned).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// The path by which a file is loaded that `from` names as `path`: relative to the directory of `from`, unless it is
/// absolute.
pub(crate) fn beside(from: &str, path: &str) -> String {
    match from.rsplit_once('/') {
        _ if path.starts_with('/') => path.to_owned(),
        Some((directory, _)) => format!("{directory}/{}", path.trim_start_matches("./")),
        None => path.trim_start_matches("./").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Loader as _, Sources, beside};
    use crate::diagnostic::Span;

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        for (from, path, expected) in [
            ("policy.yaml", "feeds/a.txt", "feeds/a.txt"),
            ("policy.yaml", "./a.txt", "a.txt"),
            ("site/policy.yaml", "a.txt", "site/a.txt"),
            ("site/policy.yaml", "../a.txt", "site/../a.txt"),
            ("/etc/dpufw/policy.yaml", "a.txt", "/etc/dpufw/a.txt"),
            ("site/policy.yaml", "/srv/a.txt", "/srv/a.txt"),
            ("/policy.yaml", "a.txt", "/a.txt"),
        ] {
            assert_eq!(beside(from, path), expected, "{from} {path}");
        }
    }

    #[test]
    fn kept_files_can_be_read_again() {
        let mut sources = Sources::new("p/policy.yaml", "a\nb\n");
        let file = sources.add("p/feeds/x", "1\n2\n3\n");
        sources.add("p/feeds/deep/y", "");
        assert_eq!(sources.load("p/feeds/x").as_deref(), Ok("1\n2\n3\n"));
        assert!(sources.load("p/feeds/z").is_err());
        assert_eq!(sources.list("p/feeds/"), Ok(vec!["p/feeds/x".to_owned()]));
        let span = Span {
            file,
            start: 4,
            end: 5,
        };
        assert_eq!((sources.name(span), sources.line(span)), ("p/feeds/x", 3));
    }
}
