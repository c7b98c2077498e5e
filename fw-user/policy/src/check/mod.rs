//! Text to checked model. Every finding of a file is reported, not only the first.

mod attributes;
mod expect;
mod fields;
mod limits;
mod matches;
mod planes;
mod protect;
mod rules;
mod sections;
mod select;
mod services;
mod units;
mod zones;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::Policy;
use crate::{isolate, lint, yaml};

use fields::Fields;

/// The version of the language.
const VERSION: &str = "1";
const SECTIONS: &[&str] = &[
    "version",
    "zones",
    "services",
    "link",
    "tcp",
    "fragments",
    "protect",
    "rules",
    "default",
    "expect",
];

/// Where the text of a policy comes from. The crate itself reads no files.
pub trait Loader {
    /// The text of the file with this path.
    ///
    /// # Errors
    /// A [`LoadError`] if there is no such text.
    fn load(&self, path: &str) -> Result<String, LoadError>;
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read {path}: {cause}")]
pub struct LoadError {
    /// The file.
    pub path: String,
    /// Why, as the system says it.
    pub cause: String,
}

/// Why [`load`] gave no policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The file could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is no valid policy.
    #[error("{0}")]
    Check(Diagnostics),
}

/// Loads a policy and checks it; see [`check`].
///
/// # Errors
/// [`PolicyError`]: the file cannot be read, or is no valid policy.
pub fn load(loader: &dyn Loader, path: &str) -> Result<(Policy, Diagnostics), PolicyError> {
    let text = loader.load(path)?;
    check(&text, path).map_err(PolicyError::Check)
}

/// Checks a policy's text. `file` is its name in messages. The second value holds the warnings.
///
/// # Errors
/// All findings, warnings included, if one of them is an error.
pub fn check(text: &str, file: &str) -> Result<(Policy, Diagnostics), Diagnostics> {
    let mut findings = Diagnostics::new(file, text);
    let policy = yaml::parse(text, &mut findings).and_then(|root| build(&root, &mut findings));
    // Of a policy with errors nothing can be proved, and rules that were left out would mislead.
    if let Some(policy) = policy.as_ref().filter(|_| !findings.has_errors()) {
        isolate::report(policy, &mut findings);
        lint::warn(policy, &mut findings);
    }
    findings.sort();
    match policy {
        Some(policy) if !findings.has_errors() => Ok((policy, findings)),
        _ => Err(findings),
    }
}

/// Warnings about rules whose `until` has passed at `now_unix_s`. [`check`] has no clock, so this is a question of its own.
#[must_use]
pub fn ended_rules(policy: &Policy, now_unix_s: i64) -> Diagnostics {
    let mut findings = Diagnostics::new(&policy.file, &policy.text);
    for rule in &policy.rules {
        if rule.until.is_some_and(|until| until <= now_unix_s) {
            let message = format!("the rule `{}` has ended: its `until` has passed", rule.name);
            findings.push(
                Diagnostic::warning("rule_ended", rule.span, message)
                    .help("remove it, or write a later time; what it matches is dropped now"),
            );
        }
    }
    findings
}

/// The whole file. `None` only if nothing can be made of it; errors may stand in `findings` in either case.
fn build(root: &yaml::Node, findings: &mut Diagnostics) -> Option<Policy> {
    if matches!(root.value, yaml::Value::Empty) {
        findings.push(
            Diagnostic::error("empty", root.span, "the policy is empty")
                .help("begin with `version: 1`, then `zones:` and `rules:`"),
        );
        return None;
    }
    let top = Fields::read(root, "a policy", SECTIONS, findings)?;
    version(&top, findings);
    let zones = zones::read(top.get("zones"), findings);
    let services = services::read(top.get("services"), findings);
    let rules = rules::read(top.get("rules"), &zones, &services, findings);
    if !top.has("rules") {
        findings.push(
            Diagnostic::error(
                "missing_key",
                Span::new(root.span.start, root.span.start),
                "the policy has no `rules`",
            )
            .help("add `rules:` with a list of rules; an empty list (`rules: []`) denies everything"),
        );
    }
    services.warn_unused(&rules, findings);
    let expectations = expect::read(top.get("expect"), &zones, &rules, findings);
    let protect = protect::read(top.get("protect"), &zones, findings);
    Some(Policy {
        file: findings.file.clone(),
        text: findings.text.clone(),
        hash: Sha256::digest(findings.text.as_bytes()).into(),
        zones: zones.list,
        planes: zones.planes,
        services: services.list,
        link: sections::link(top.get("link"), findings),
        tcp: protect::tcp(top.get("tcp"), findings),
        fragments: protect::fragments(top.get("fragments"), findings),
        protect,
        rules,
        default: sections::default(top.get("default"), findings),
        isolations: Vec::new(),
        expectations,
    })
}

fn version(top: &Fields<'_>, findings: &mut Diagnostics) {
    let Some(node) = top.require("version", "a policy", findings) else {
        return;
    };
    match &node.value {
        yaml::Value::Text { text, plain: true } if text == VERSION => {}
        _ => findings.push(
            Diagnostic::error(
                "version",
                node.span,
                "this is not a version of the policy language that dpufw knows",
            )
            .label("expected 1")
            .help("write `version: 1`"),
        ),
    }
}
