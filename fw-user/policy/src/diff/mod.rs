//! What becomes allowed and what denied when one policy takes another's place: exact, as sets of flows.
//!
//! No set can be left out, because no two share a flow; and no two can be merged into one, because any two differ in more than
//! one of realms, sources, destinations and services. Packets that open flows are meant: what a rule with `track: false` lets
//! through the other way, and what runs already, follows from them.

mod align;
mod also;
mod cells;
mod merge;
mod naming;
mod set;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use cells::{Change, DEFAULT, Found, Rules};
use naming::Namer;
pub use set::{AddressPart, AddressSet, Family, FlowSet};

use crate::Environment;
use crate::explain::RuleRef;
use crate::model::{Policy, RuleAction, ServiceMatch, Tags};
use crate::space::{Scope, Space, SpaceError};

/// All differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Flows that could not be opened, and can be.
    pub allowed: Vec<FlowSet>,
    /// Flows that could be opened, and cannot be.
    pub denied: Vec<FlowSet>,
    /// Flows that are refused as before, but told so or not told so any more.
    pub answered: Vec<FlowSet>,
    /// What has changed beside the rules' decisions, in words: limits, deadlines, `track`, screens, ports.
    pub also: Vec<String>,
}

impl Diff {
    /// True if nothing has changed for any packet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.flows_are_the_same() && self.also.is_empty()
    }

    /// True if the rules decide the same of every flow.
    #[must_use]
    pub const fn flows_are_the_same(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty() && self.answered.is_empty()
    }
}

/// What changes on this machine as it is now: dynamic zones hold what the policies were given
/// ([`Policy::set_members`]).
///
/// # Errors
/// [`SpaceError`]: the policies are too unlike to be compared in the time allowed.
pub fn diff(old: &Policy, new: &Policy, environment: &Environment) -> Result<Diff, SpaceError> {
    diff_in(old, new, &Scope::now(environment))
}

/// As [`diff`], for other machines and members. Zones of one name whose members are not known hold the same in both policies.
///
/// # Errors
/// As [`diff`].
pub fn diff_in(old: &Policy, new: &Policy, scope: &Scope) -> Result<Diff, SpaceError> {
    let policies = [old, new];
    let mut sets = BTreeMap::new();
    let realms: BTreeSet<Tags> = old.realms().into_iter().chain(new.realms()).collect();
    for tags in realms {
        for family in [Family::Ipv4, Family::Ipv6] {
            let space = Space::new(&policies, (tags, family == Family::Ipv4), scope, &[], false)?;
            let namer = Namer::new(&space, policies);
            for (change, list) in cells::differences(&space, policies)?.into_values() {
                for found in list {
                    collect(&mut sets, &space, (family, &namer, change), &found);
                }
            }
        }
    }
    let mut diff = sorted(families(sets), policies);
    diff.also = also::changed(old, new);
    Ok(diff)
}

/// What two sets have in common that differ in realms only.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    change: (u8, u8),
    family: Family,
    source: Vec<AddressPart>,
    destination: Vec<AddressPart>,
    services: Vec<ServiceMatch>,
}

/// What they have not: their realms, rules, and names.
struct Rest {
    change: Change,
    tags: Vec<Tags>,
    rules: [Rules; 2],
    /// Of sources and destinations.
    names: [String; 2],
}

fn collect(
    sets: &mut BTreeMap<Key, Rest>,
    space: &Space,
    (family, namer, change): (Family, &Namer<'_>, Change),
    found: &Found,
) {
    let [source, destination] = [&found.src, &found.dst].map(|set| set::parts(space, set));
    let names = [&found.src, &found.dst].map(|set| namer.name(set));
    let plain = [&source, &destination].map(|parts| naming::parts_text(parts));
    let key = Key {
        change: (change.0 as u8, change.1 as u8),
        family,
        source,
        destination,
        services: set::matches(&found.services),
    };
    match sets.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(Rest {
                change,
                tags: vec![space.tags],
                rules: found.rules.clone(),
                names,
            });
        }
        Entry::Occupied(mut entry) => {
            let rest = entry.get_mut();
            rest.tags.push(space.tags);
            add_rules(&mut rest.rules, &found.rules);
            // The same addresses under two names: in each realm they are another zone's.
            for ((own, other), plain) in rest.names.iter_mut().zip(names).zip(plain) {
                if *own != other {
                    *own = plain;
                }
            }
        }
    }
}

fn add_rules(all: &mut [Rules; 2], more: &[Rules; 2]) {
    all.iter_mut().zip(more).for_each(|(all, more)| all.extend(more));
}

/// What reads the same for both families is said once.
fn families(sets: BTreeMap<Key, Rest>) -> Vec<(Key, Rest, Vec<Family>)> {
    type Reading = ((u8, u8), Vec<Tags>, [String; 2], Vec<ServiceMatch>);
    let mut places: BTreeMap<Reading, usize> = BTreeMap::new();
    let mut out: Vec<(Key, Rest, Vec<Family>)> = Vec::new();
    for (key, rest) in sets {
        let reading = (
            key.change,
            rest.tags.clone(),
            rest.names.clone(),
            key.services.clone(),
        );
        match places.get(&reading) {
            Some(place) if !out[*place].2.contains(&key.family) => {
                let (first, first_rest, families) = &mut out[*place];
                families.push(key.family);
                first.source.extend(key.source);
                first.destination.extend(key.destination);
                add_rules(&mut first_rest.rules, &rest.rules);
            }
            _ => {
                places.insert(reading, out.len());
                let family = key.family;
                out.push((key, rest, vec![family]));
            }
        }
    }
    out
}

fn sorted(sets: Vec<(Key, Rest, Vec<Family>)>, policies: [&Policy; 2]) -> Diff {
    let mut diff = Diff::default();
    for (key, rest, families) in sets {
        let (before, after) = rest.change;
        let [old_rules, new_rules] = [0, 1].map(|side| {
            let policy = policies[side];
            let places = rest.rules[side].iter().filter(|place| **place != DEFAULT);
            let rules = places.map(|place| RuleRef::new(policy, &policy.rules[*place as usize]));
            rules.collect()
        });
        let list = match (before, after) {
            (_, RuleAction::Allow) => &mut diff.allowed,
            (RuleAction::Allow, _) => &mut diff.denied,
            _ => &mut diff.answered,
        };
        let [source, destination] = rest.names;
        list.push(FlowSet {
            tags: rest.tags,
            families,
            source: AddressSet {
                text: source,
                parts: key.source,
            },
            destination: AddressSet {
                text: destination,
                parts: key.destination,
            },
            services_text: set::services_text(&key.services),
            services: key.services,
            before,
            after,
            old_rules,
            new_rules,
        });
    }
    for list in [&mut diff.allowed, &mut diff.denied, &mut diff.answered] {
        // In the order of the rules that bring the change.
        list.sort_by_key(|set| {
            let line = |rules: &[RuleRef]| rules.first().map_or(usize::MAX, |rule| rule.line);
            (line(&set.new_rules), line(&set.old_rules), set.tags.clone())
        });
    }
    diff
}

/// For people: one line for each set.
impl fmt::Display for Diff {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(out, "no difference: every flow meets the same fate");
        }
        if self.flows_are_the_same() {
            writeln!(out, "the rules decide the same of every flow that is opened")?;
        }
        for (word, list) in [
            ("becomes allowed", &self.allowed),
            ("becomes denied", &self.denied),
            ("is refused otherwise", &self.answered),
        ] {
            if list.is_empty() {
                continue;
            }
            writeln!(out, "{word}:")?;
            for set in list {
                writeln!(out, "  {set}")?;
            }
        }
        if !self.also.is_empty() {
            writeln!(out, "has changed besides:")?;
            for line in &self.also {
                writeln!(out, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// One line: `gpu -> storage: tcp/22 (deny: default => allow: ssh, new.yaml:12)`.
impl fmt::Display for FlowSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} -> {}: {}",
            self.source.text, self.destination.text, self.services_text
        )?;
        match self.families.as_slice() {
            [Family::Ipv4] => write!(out, ", IPv4")?,
            [Family::Ipv6] => write!(out, ", IPv6")?,
            _ => {}
        }
        if self.tags.as_slice() != [Tags::NONE] {
            let tags: Vec<String> = self.tags.iter().map(|tags| tags.in_words()).collect();
            write!(out, ", {}", tags.join(", "))?;
        }
        let rules = |rules: &[RuleRef]| -> String {
            let names = rules
                .iter()
                .take(4)
                .map(|rule| format!("{}, {}", rule.name, rule.place()));
            let mut names: Vec<String> = names.collect();
            if rules.len() > 4 {
                names.push(format!("and {} more", rules.len() - 4));
            }
            if names.is_empty() {
                names.push("default".to_owned());
            }
            names.join("; ")
        };
        write!(
            out,
            "  ({}: {} => {}: {})",
            self.before.name(),
            rules(&self.old_rules),
            self.after.name(),
            rules(&self.new_rules)
        )
    }
}
