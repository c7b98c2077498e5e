//! Certificates: what was asked, what was looked at, what was assumed, and the answer.

mod sample;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::Environment;
use crate::compile::{CompileError, compile};
use crate::diagnostic::Span;
use crate::explain::RuleRef;
use crate::isolate::{self, Fault, Violation};
use crate::model::{Fragments, Isolation, Policy, ZoneIndex, ZoneKind};
use crate::names;
use crate::space::{Scope, SpaceError};
pub use sample::{Classes, Sample, samples};

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProveError {
    /// Nothing has this name.
    #[error(
        "there is no {kind} `{name}` in the policy{help}; write a zone's name, plane:NAME or label:KEY=VALUE"
    )]
    Unknown {
        /// Zone, plane, label or rule.
        kind: &'static str,
        /// As it was written.
        name: String,
        /// What may have been meant; empty if nothing is near.
        help: String,
    },
    /// A rule that was to be left out does not exist.
    #[error("there is no rule `{name}` in the policy{help}")]
    Rule {
        /// As it was written.
        name: String,
        /// What may have been meant.
        help: String,
    },
    /// The policy cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The question is too large.
    #[error(transparent)]
    Space(#[from] SpaceError),
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No flow can be opened from one side to the other, in either direction.
    Proved,
    /// Some can; each counter-example is a packet that does it.
    Refuted,
    /// It is not known.
    Unproved,
}

/// A proof that two sides are apart, or that they are not.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// The form of this document.
    pub version: u32,
    /// The policy's file.
    pub policy: String,
    /// [`Policy::hash`], hexadecimal.
    pub policy_sha256: String,
    /// SHA-256 of the compiled tables with generation 1 and the time of the machine's start 0: the same for every
    /// generation of the same tables.
    pub tables_sha256: String,
    /// What was asked.
    pub statement: Statement,
    /// Rules that may cross.
    pub exceptions: Vec<RuleRef>,
    /// What the answer stands on beside the rules, a sentence each.
    pub assumptions: Vec<String>,
    /// What was looked at.
    pub classes: Classes,
    /// The answer.
    pub verdict: Verdict,
    /// What is wrong, if anything is: at most one for each rule and direction.
    pub counter_examples: Vec<Violation>,
}

/// Two sides between which no flow may be opened, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// One side.
    pub left: Subject,
    /// The other.
    pub right: Subject,
}

/// A side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// As it was asked.
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
}

/// An isolation from texts: each side is a zone, `plane:NAME`, `label:KEY` or `label:KEY=VALUE`; `except` names rules.
///
/// # Errors
/// [`ProveError`]: there is no such zone, plane, label or rule.
pub fn isolation(
    policy: &Policy,
    left: &str,
    right: &str,
    except: &[String],
) -> Result<Isolation, ProveError> {
    let mut places = Vec::with_capacity(except.len());
    for name in except {
        let place = policy.rules.iter().position(|rule| rule.name == *name);
        places.push(place.ok_or_else(|| ProveError::Rule {
            name: name.clone(),
            help: near(name, policy.rules.iter().map(|rule| rule.name.as_str())),
        })?);
    }
    places.sort_unstable();
    places.dedup();
    Ok(Isolation {
        left_name: left.to_owned(),
        right_name: right.to_owned(),
        left: subject(policy, left)?,
        right: subject(policy, right)?,
        except: places,
        line: 0,
        span: Span::default(),
    })
}

fn near<'a>(name: &str, among: impl IntoIterator<Item = &'a str>) -> String {
    names::nearest(name, among).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"))
}

/// The zones that a text means, in every VLAN where rules see them.
fn subject(policy: &Policy, text: &str) -> Result<Vec<ZoneIndex>, ProveError> {
    let mut found = named(policy, text)?;
    let seen = policy.zones.iter().enumerate();
    let seen = seen.filter(|(_, zone)| zone.seen_of.is_some_and(|of| found.contains(&of)));
    let seen: Vec<ZoneIndex> = seen.map(|(index, _)| index).collect();
    found.extend(seen);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn named(policy: &Policy, text: &str) -> Result<Vec<ZoneIndex>, ProveError> {
    let unknown = |kind, name: &str, help| ProveError::Unknown {
        kind,
        name: name.to_owned(),
        help,
    };
    let zones = policy.zones.iter().enumerate();
    if let Some(name) = text.strip_prefix("plane:") {
        let planes = || policy.planes.iter().map(|plane| plane.name.as_str());
        let place = planes().position(|plane| plane == name);
        let number = place.ok_or_else(|| unknown("plane", name, near(name, planes())))? as u32 + 1;
        return Ok(zones
            .filter(|(_, zone)| zone.plane == number)
            .map(|(index, _)| index)
            .collect());
    }
    if let Some(label) = text.strip_prefix("label:") {
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label, None),
        };
        let has = |own: &String| value.is_none_or(|value| own == value);
        let found: Vec<ZoneIndex> = zones
            .filter(|(_, zone)| zone.labels.get(key).is_some_and(has))
            .map(|(index, _)| index)
            .collect();
        return if found.is_empty() {
            Err(unknown("label", label, String::new()))
        } else {
            Ok(found)
        };
    }
    let names = || policy.zones.iter().map(|zone| zone.name.as_str());
    let zone = policy.zone(text);
    let zone = zone.ok_or_else(|| unknown("zone", text, near(text, names())))?;
    Ok(vec![zone])
}

/// Proves or refutes one isolation. `environment` is the machine that the tables are compiled for; `scope` says for which
/// machines the proof is to hold.
///
/// # Errors
/// [`ProveError`]: the policy cannot be compiled, or there is too much to look at.
pub fn prove(
    policy: &Policy,
    isolation: &Isolation,
    environment: &Environment,
    scope: &Scope,
) -> Result<Certificate, ProveError> {
    let mut asked = policy.clone();
    asked.isolations = vec![isolation.clone()];
    let counter_examples = isolate::violations_in(&asked, scope);
    let unproved = counter_examples
        .iter()
        .all(|violation| matches!(violation.fault, Fault::Unproved { .. }));
    let verdict = match (counter_examples.is_empty(), unproved) {
        (true, _) => Verdict::Proved,
        (false, true) => Verdict::Unproved,
        (false, false) => Verdict::Refuted,
    };
    let names = |zones: &[ZoneIndex]| {
        zones
            .iter()
            .map(|zone| policy.zones[*zone].name.clone())
            .collect()
    };
    let statement = Statement {
        left: Subject {
            name: isolation.left_name.clone(),
            zones: names(&isolation.left),
        },
        right: Subject {
            name: isolation.right_name.clone(),
            zones: names(&isolation.right),
        },
    };
    let except = isolation.except.iter().map(|place| &policy.rules[*place]);
    Ok(Certificate {
        version: 1,
        policy: policy.file.clone(),
        policy_sha256: policy.hash_hex(),
        tables_sha256: tables_hash(policy, environment)?,
        statement,
        exceptions: except.map(|rule| RuleRef::new(policy, rule)).collect(),
        assumptions: assumptions(policy, isolation, scope),
        classes: sample::classes(policy, isolation, scope)?,
        verdict,
        counter_examples,
    })
}

fn tables_hash(policy: &Policy, environment: &Environment) -> Result<String, CompileError> {
    use std::fmt::Write as _;
    let still = Environment {
        generation: 1,
        boot_unix_s: 0,
        ..environment.clone()
    };
    let tables = compile(policy, &still)?;
    let mut hash = Sha256::new();
    for line in &tables.lines {
        for word in line.w {
            hash.update(word.to_le_bytes());
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// What the answer stands on.
fn assumptions(policy: &Policy, isolation: &Isolation, scope: &Scope) -> Vec<String> {
    let mut out = vec![
        "only rules are counted on: screens, planes' ports, limits and deadlines can only let less pass".to_owned(),
        "link protocols (ARP, neighbour discovery, MLD, LLDP, LACP, DHCP as a client) pass by the link section, not by rules"
            .to_owned(),
        "replies and ICMP errors pass with the flow that they belong to; a flow that was opened under an earlier policy is \
         judged again by its next packet"
            .to_owned(),
        "a packet from an address to itself crosses nothing".to_owned(),
    ];
    let own = policy.built_in(ZoneKind::SelfMachine);
    out.push(match &scope.own_addresses {
        None => "self: the machine may have any addresses, those of other zones too".to_owned(),
        Some(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("self: the machine has the addresses {}", addresses.join(", "))
        }
    });
    let used = |zone: ZoneIndex| {
        let directions = policy.rules.iter().flat_map(|rule| &rule.directions);
        let mut lists = directions.flat_map(|direction| [&direction.from, &direction.to]);
        lists.any(|list| list.contains(&zone))
            || isolation.left.contains(&zone)
            || isolation.right.contains(&zone)
    };
    for (index, zone) in policy.zones.iter().enumerate() {
        if zone.dynamic && used(index) && Some(index) != own {
            out.push(if scope.any_members {
                format!(
                    "dynamic zone `{}`: it may hold any address, which is in its other zones as well",
                    zone.name
                )
            } else {
                format!(
                    "dynamic zone `{}`: it holds what it held when this was proved",
                    zone.name
                )
            });
        }
    }
    for rule in isolation
        .except
        .iter()
        .map(|place| &policy.rules[*place])
        .filter(|rule| !rule.track)
    {
        out.push(format!(
            "the excepted rule `{}` has `track: false`: packets of the answering side pass without a flow, from its service's \
             ports, where no other rule denies them",
            rule.name
        ));
    }
    if policy.fragments == Fragments::PassEarly && !isolation.except.is_empty() {
        out.push(
            "`fragments: pass_early`: later fragments pass where an excepted rule allows their protocol"
                .to_owned(),
        );
    }
    out
}
