//! Why a valid policy cannot be compiled, and what of it takes the most.

use std::cmp::Reverse;

use thiserror::Error;

use super::address::Cut;
use super::lines::Section;
use crate::model::{Policy, ZoneKind};

/// Contributors that a message names.
const NAMED: usize = 3;

/// Why a valid policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Too much memory.
    #[error(
        "the compiled policy needs more than {limit_mib} MiB; the {part} take most of it ({part_mib} MiB when compiling \
         stopped). {help}{most}"
    )]
    TooLarge {
        /// The limit.
        limit_mib: u64,
        /// The largest part.
        part: &'static str,
        /// Its size so far.
        part_mib: u64,
        /// How to make it smaller.
        help: &'static str,
        /// What contributes most: a sentence with a space in front, or nothing.
        most: String,
    },
    /// A table's numbers are used up.
    #[error(
        "the policy tells {count} {what} apart; at most {limit} fit into the tables. Merge zones, ports or rules{most}"
    )]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are, at least.
        count: usize,
        /// How many there may be.
        limit: usize,
        /// What contributes most, as above.
        most: String,
    },
    /// Generation 0 means "no policy".
    #[error("generation 0 means that there is no policy; the first policy has generation 1")]
    Generation,
    /// More roles than a port's number can hold.
    #[error("the machine has {0} port roles; at most 31 are supported")]
    Roles(usize),
}

impl CompileError {
    /// True if another representation may do where this one failed.
    pub(super) const fn is_size(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::TooMany { .. })
    }

    /// The error with the names of the zones or rules that contribute most.
    pub(super) fn with_contributors(mut self, policy: &Policy, cut: Option<&Cut>) -> Self {
        let (part, most) = match &mut self {
            Self::TooLarge { part, most, .. } => (*part, most),
            Self::TooMany { what, most, .. } => (*what, most),
            _ => return self,
        };
        let listed =
            if part == Section::Ipv4.name() || part == Section::Ipv6.name() || part == "IPv6 intervals" {
                by_prefixes(policy)
            } else if part == Section::Classes.name() || part == Section::Pairs.name() {
                by_classes(policy, cut)
            } else {
                by_ports(policy)
            };
        if !listed.is_empty() {
            *most = format!(". The most of it comes from {}", listed.join(", "));
        }
        self
    }
}

/// The zones with the most prefixes.
fn by_prefixes(policy: &Policy) -> Vec<String> {
    let zones = policy.zones.iter().filter(|zone| zone.kind == ZoneKind::Named);
    largest(zones.map(|zone| (zone.prefixes.len(), zone.name.as_str())))
        .map(|(count, name)| format!("the zone `{name}` ({count} prefixes)"))
        .collect()
}

/// The zones whose addresses fall apart into the most classes, because others overlap them.
fn by_classes(policy: &Policy, cut: Option<&Cut>) -> Vec<String> {
    let Some(cut) = cut else {
        return by_prefixes(policy);
    };
    let mut counts = vec![0_usize; policy.zones.len()];
    for class in cut.classes.iter() {
        cut.classes
            .sets
            .iter(class.zones)
            .for_each(|zone| counts[zone] += 1);
    }
    let zones = policy.zones.iter().zip(counts);
    let named = zones.filter(|(zone, _)| zone.kind == ZoneKind::Named);
    largest(named.map(|(zone, count)| (count, zone.name.as_str())))
        .map(|(count, name)| format!("the zone `{name}` ({count} overlaps with others)"))
        .collect()
}

/// The rules with the most ranges of ports between the most zones.
fn by_ports(policy: &Policy) -> Vec<String> {
    let parts = policy.rules.iter().map(|rule| {
        let ends = rule
            .directions
            .iter()
            .map(|direction| direction.from.len() * direction.to.len());
        (rule.services.len() * ends.sum::<usize>(), rule.name.as_str())
    });
    largest(parts)
        .map(|(count, name)| format!("the rule `{name}` ({count} services between pairs of zones)"))
        .collect()
}

/// The largest few, the first of equal ones first.
fn largest<'p>(parts: impl Iterator<Item = (usize, &'p str)>) -> impl Iterator<Item = (usize, &'p str)> {
    let mut parts: Vec<_> = parts.filter(|(count, _)| *count > 0).collect();
    parts.sort_by_key(|(count, _)| Reverse(*count));
    parts.into_iter().take(NAMED)
}
