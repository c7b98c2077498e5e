//! Text to checked model. Every finding of a file is reported, not only the first.

mod addresses;
mod attributes;
mod doubts;
mod expect;
mod feeds;
mod fields;
mod include;
mod isolate;
mod limits;
mod matches;
mod members;
mod one_way;
mod planes;
mod protect;
mod realms;
mod roles;
mod rules;
mod sections;
mod select;
mod services;
mod units;
mod zones;

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::keys;
use crate::model::{Policy, bound_roles};
use crate::source::{LoadError, Loader, NoFiles, Sources};
use crate::yaml::{self, Key, Node, Value};

use fields::Fields;
pub use roles::unnamed_role;
use zones::Zones;

/// The version of the language.
const VERSION: &str = "1";

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

/// Loads a policy and checks it; see [`check_files`].
///
/// # Errors
/// [`PolicyError`]: the file cannot be read, or is no valid policy.
pub fn load(loader: &dyn Loader, path: &str) -> Result<(Policy, Diagnostics), PolicyError> {
    let text = loader.load(path)?;
    check_files(loader, &text, path).map_err(PolicyError::Check)
}

/// Checks the text of a policy that stands alone: other files that it names are not read, which is an error. `file` is its
/// name in messages. The second value holds the warnings.
///
/// # Errors
/// All findings, warnings included, if one of them is an error.
pub fn check(text: &str, file: &str) -> Result<(Policy, Diagnostics), Diagnostics> {
    check_files(&NoFiles, text, file)
}

/// Checks a policy's text. Files that it names (`include`, a zone's `file` and `directory`) come through the loader, by
/// paths relative to `file`. The second value holds the warnings.
///
/// # Errors
/// All findings, warnings included, if one of them is an error.
pub fn check_files(
    loader: &dyn Loader,
    text: &str,
    file: &str,
) -> Result<(Policy, Diagnostics), Diagnostics> {
    let mut findings = Diagnostics::new(file, text);
    let policy = include::read(text, loader, &mut findings).and_then(|files| {
        let policy = build(&files, loader, &mut findings);
        files.keep_certain(&mut findings);
        policy
    });
    // Of a policy with errors nothing can be proved, and rules that were left out would mislead.
    if let Some(policy) = policy.as_ref().filter(|_| !findings.has_errors()) {
        crate::isolate::report(policy, &mut findings);
        crate::lint::warn(policy, &mut findings);
    }
    findings.sort();
    match policy {
        Some(policy) if !findings.has_errors() => Ok((policy, findings)),
        _ => Err(findings),
    }
}

/// Adds the expectations of a file of tests, which has the key `expect` only, to a policy: [`crate::run_expectations`] runs
/// them with the policy's own. The value holds the warnings.
///
/// # Errors
/// All findings; then nothing is added.
pub fn add_tests(policy: &mut Policy, text: &str, file: &str) -> Result<Diagnostics, Diagnostics> {
    let mut findings = Diagnostics::of(&policy.sources);
    let number = findings.sources.add(file, text);
    let root = yaml::parse(text, number, &mut findings);
    let tests = root.and_then(|root| {
        let top = Fields::read(&root, "a file of tests", keys::TESTS, &mut findings)?;
        if top.has("version") {
            version(&top, "a file of tests", &mut findings);
        }
        let section = top.require("expect", "a file of tests", &mut findings)?;
        let zones = Zones::of(policy);
        let (tests, named) = expect::read(&[section], &zones, &policy.rules, &mut findings);
        let bound = bound_roles(&policy.planes, &policy.link);
        roles::warn(&named, &bound, &policy.expected_roles().collect(), &mut findings);
        Some(tests)
    });
    findings.sort();
    match tests {
        Some(tests) if !findings.has_errors() => {
            policy.sources = findings.sources.clone();
            policy.expectations.extend(tests);
            Ok(findings)
        }
        _ => Err(findings),
    }
}

/// Warnings about rules whose `until` has passed at `now_unix_s`. [`check`] has no clock, so this is a question of its own.
#[must_use]
pub fn ended_rules(policy: &Policy, now_unix_s: i64) -> Diagnostics {
    let mut findings = Diagnostics::of(&policy.sources);
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

/// The sections of one name in all files, in the order of [`include::read`].
fn sections<'n>(files: &[Fields<'n>], key: &str) -> Vec<&'n Node> {
    files.iter().filter_map(|file| file.get(key)).collect()
}

/// All files, the policy itself last. `None` only if nothing can be made of it; errors may stand in `findings` in either
/// case.
fn build(read: &include::Files, loader: &dyn Loader, findings: &mut Diagnostics) -> Option<Policy> {
    let files = tops(&read.roots, findings)?;
    let top = files.last()?;
    let mut zones = zones::read(&sections(&files, "zones"), loader, findings);
    let services = services::read(&sections(&files, "services"), findings);
    let mut rules = rules::read(&sections(&files, "rules"), &zones, &services, findings);
    if read.whole && files.iter().all(|file| !file.has("rules")) {
        findings.push(
            Diagnostic::error("missing_key", top.span.begin(), "the policy has no `rules`")
                .help("add `rules:` with a list of rules; an empty list (`rules: []`) denies everything"),
        );
    }
    services.warn_unused(&rules, findings);
    let mut isolations = isolate::read(&sections(&files, "isolate"), &zones, &rules, findings);
    let link = sections::link(top.get("link"), findings);
    let (expectations, named) = expect::read(&sections(&files, "expect"), &zones, &rules, findings);
    roles::warn(
        &named,
        &bound_roles(&zones.planes, &link),
        &BTreeSet::new(),
        findings,
    );
    let mut protect = protect::read(top.get("protect"), &zones, findings);
    doubts::warn(&zones, &rules, findings);
    one_way::warn(&zones, &rules, findings);
    let seen = realms::Seen::new(&mut zones, &mut rules, findings);
    seen.isolations(&mut isolations);
    seen.everywhere(&mut protect.exempt);
    Some(Policy {
        file: findings.file.clone(),
        text: findings.sources.text(Span::default()).to_owned(),
        hash: hash(&findings.sources),
        sources: findings.sources.clone(),
        zones: zones.list,
        planes: zones.planes,
        services: services.list,
        link,
        tcp: protect::tcp(top.get("tcp"), findings),
        fragments: protect::fragments(top.get("fragments"), findings),
        protect,
        rules,
        default: sections::default(top.get("default"), findings),
        isolations,
        expectations,
    })
}

/// The keys of every file. `None` if the policy itself is no mapping.
fn tops<'n>(roots: &'n [Node], findings: &mut Diagnostics) -> Option<Vec<Fields<'n>>> {
    let (root, included) = roots.split_last()?;
    if matches!(root.value, Value::Empty) {
        findings.push(
            Diagnostic::error("empty", root.span, "the policy is empty")
                .help("begin with `version: 1`, then `zones:` and `rules:`"),
        );
        return None;
    }
    let mut files = Vec::with_capacity(roots.len());
    for part in included {
        let Some(fields) = Fields::read_with(part, "an included file", keys::INCLUDED, not_here, findings)
        else {
            continue;
        };
        version(&fields, "an included file", findings);
        files.push(fields);
    }
    let top = Fields::read(root, "a policy", keys::POLICY, findings)?;
    version(&top, "a policy", findings);
    files.push(top);
    Some(files)
}

/// The finding for a section that an included file cannot have.
fn not_here(key: &Key) -> Option<Diagnostic> {
    keys::POLICY.contains(&key.text.as_str()).then(|| {
        let message = format!("an included file has no `{}`", key.text);
        Diagnostic::error("misplaced", key.span, message)
            .help("move the section into the policy itself: there is one for all files")
    })
}

/// SHA-256 of the policy's text; of a policy in several files, of the SHA-256 of each.
fn hash(sources: &Sources) -> [u8; 32] {
    let texts: Vec<[u8; 32]> = sources
        .iter()
        .map(|source| Sha256::digest(source.text.as_bytes()).into())
        .collect();
    match texts.as_slice() {
        [only] => *only,
        texts => Sha256::digest(texts.concat()).into(),
    }
}

fn version(top: &Fields<'_>, what: &str, findings: &mut Diagnostics) {
    let Some(node) = top.require("version", what, findings) else {
        return;
    };
    match &node.value {
        Value::Text { text, plain: true } if text == VERSION => {}
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
