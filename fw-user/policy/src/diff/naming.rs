//! Names for sets of addresses: zones, unions of zones, zones without others; prefixes where none fits.

use crate::model::Policy;
use crate::space::{Ranges, Space};

use super::set::{self, AddressPart};

/// Zones that a name may be made of.
const MOST_ZONES: usize = 6;
/// Prefixes that a name lists.
const MOST_PREFIXES: usize = 8;

/// The zones of a space with their names.
pub(super) struct Namer<'a> {
    space: &'a Space,
    /// No two hold the same; the larger ones first.
    zones: Vec<(String, &'a Ranges)>,
}

impl<'a> Namer<'a> {
    /// Zones that are the same in both policies have their name, others say which policy's they are.
    pub(super) fn new(space: &'a Space, policies: [&Policy; 2]) -> Self {
        let set_of = |side: usize, name: &str| {
            let zone = policies[side].zone(name)?;
            space.sides[side].zones[zone]
        };
        let mut zones: Vec<(String, &'a Ranges)> = Vec::new();
        for (side, word) in [(1, "new"), (0, "old")] {
            for (index, zone) in policies[side].zones.iter().enumerate() {
                let Some(set) = space.sides[side].zones[index] else {
                    continue;
                };
                let other = set_of(1 - side, &zone.name);
                let name = match other {
                    Some(other) if other != set => format!("{} ({word})", zone.name),
                    _ => zone.name.clone(),
                };
                let set = &space.sets[set as usize];
                if !zones.iter().any(|(_, known)| *known == set) {
                    zones.push((name, set));
                }
            }
        }
        zones.sort_by_key(|(_, set)| std::cmp::Reverse(set.count()));
        Self { space, zones }
    }

    /// The name of a set.
    pub(super) fn name(&self, set: &Ranges) -> String {
        if let Some(name) = self.by_zones(set) {
            return name;
        }
        // Sets of their own for each condition on zones whose members nobody knows.
        let mut texts = Vec::new();
        for (bases, conditions) in set::conditions(self.space, set) {
            let bases = Ranges::union(bases.into_iter().map(|base| (base, base)).collect());
            let all = self.space.addresses.in_any_set(&bases);
            let name = self.by_zones(&all).unwrap_or_else(|| self.pieces(&all));
            for (yes, no) in conditions {
                texts.push(format!("{name}{}", self.condition(yes, no)));
            }
        }
        texts.join(" + ")
    }

    fn condition(&self, yes: u32, no: u32) -> String {
        condition_text(&set::zones(self.space, yes), &set::zones(self.space, no))
    }

    /// The name of a set that zones make up.
    fn by_zones(&self, set: &Ranges) -> Option<String> {
        let all = self.space.addresses.all();
        if *set == all {
            return Some("any".to_owned());
        }
        if let Some(name) = self.union(set, MOST_ZONES) {
            return Some(name);
        }
        // The smallest zone around the set, without what is too much.
        let around = self.zones.iter().rev().filter(|(_, zone)| zone.contains_all(set));
        let around = around
            .map(|(name, zone)| (name.as_str(), *zone))
            .chain([("any", &all)]);
        around
            .take(3)
            .find_map(|(name, zone)| Some(format!("{name} except {}", self.union(&zone.minus(set), 3)?)))
    }

    /// A set as a union of zones.
    fn union(&self, set: &Ranges, most: usize) -> Option<String> {
        let (names, rest) = self.within(set, most);
        (rest.is_empty() && !names.is_empty()).then(|| names.join(" + "))
    }

    /// The largest zones within a set, and what they leave of it.
    fn within(&self, set: &Ranges, most: usize) -> (Vec<&str>, Ranges) {
        let mut rest = set.clone();
        let mut names = Vec::new();
        for (name, zone) in &self.zones {
            if names.len() == most || rest.is_empty() {
                break;
            }
            if set.contains_all(zone) && !zone.intersection(&rest).is_empty() {
                names.push(name.as_str());
                rest = rest.minus(zone);
            }
        }
        (names, rest)
    }

    /// Zones as far as they go, then prefixes.
    fn pieces(&self, set: &Ranges) -> String {
        let (names, rest) = self.within(set, MOST_ZONES);
        let mut texts: Vec<String> = names.into_iter().map(str::to_owned).collect();
        texts.push(parts_text(&set::parts(self.space, &rest)));
        texts.join(" + ")
    }
}

/// Addresses as prefixes, with the zones that they must or must not be in as well.
pub(super) fn parts_text(parts: &[AddressPart]) -> String {
    let texts = parts.iter().map(|part| {
        let shown = part.prefixes.iter().take(MOST_PREFIXES);
        let mut text: Vec<String> = shown.map(ToString::to_string).collect();
        let more = part.prefixes.len().saturating_sub(MOST_PREFIXES);
        if more > 0 {
            text.push(format!("{more} more prefixes"));
        }
        text.join(" + ") + &condition_text(&part.held_by, &part.not_held_by)
    });
    texts.collect::<Vec<_>>().join(" + ")
}

fn condition_text(held_by: &[String], not_held_by: &[String]) -> String {
    let part = |word: &str, names: &[String], between: &str| {
        if names.is_empty() {
            String::new()
        } else {
            format!(" {word} {}", names.join(between))
        }
    };
    part("in", held_by, " and ") + &part("not in", not_held_by, " or ")
}
