//! Zones without a VLAN, as the other side of a rule sees them. `from: gateway, to: tenant_a`, where only `tenant_a` has a
//! VLAN, means packets with its tag: a router has brought the gateway's traffic there. A zone lies in one realm, so the rule
//! gets a second zone, `gateway@101`, with the same addresses in that realm. A rule that denies something from or to `any`
//! means every realm: what it keeps out must not come in with a tag.

use std::collections::{BTreeMap, BTreeSet};

use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Isolation, Rule, RuleAction, Tags, Zone, ZoneIndex, ZoneKind};
use crate::names;
use crate::ranges::{Range, Ranges};

/// The zones that are seen elsewhere, and where.
pub(super) struct Seen {
    /// Zones of the policy; the new ones stand behind them.
    named: usize,
    /// New zones in their order: the zone, and the realm where it is seen.
    copies: BTreeMap<(ZoneIndex, Tags), ZoneIndex>,
}

impl Seen {
    /// Adds the zones that the rules need, and names them in the rules.
    pub(super) fn new(zones: &mut Zones, rules: &mut [Rule], findings: &mut Diagnostics) -> Self {
        let list = &zones.list;
        let mut wanted: BTreeSet<(ZoneIndex, Tags)> = BTreeSet::new();
        for rule in rules.iter() {
            for way in &rule.directions {
                wanted.extend(seen(list, &way.from, &realms(list, rule, &way.to)));
                wanted.extend(seen(list, &way.to, &realms(list, rule, &way.from)));
            }
        }
        let named = zones.written.len();
        let numbered = wanted.into_iter().enumerate();
        let this = Self {
            named,
            copies: numbered.map(|(place, copy)| (copy, named + place)).collect(),
        };
        if this.copies.is_empty() {
            return this;
        }
        let added: Vec<Zone> = this
            .copies
            .keys()
            .map(|(zone, tags)| copy(list, *zone, *tags))
            .collect();
        for rule in rules {
            let ways = rule.directions.iter().map(|way| {
                let of = |side: &[ZoneIndex]| realms(list, rule, side);
                (
                    this.with_copies(&way.from, &of(&way.to)),
                    this.with_copies(&way.to, &of(&way.from)),
                )
            });
            let ways: Vec<_> = ways.collect();
            for (way, (from, to)) in rule.directions.iter_mut().zip(ways) {
                (way.from, way.to) = (from, to);
            }
        }
        warn(list, &added, findings);
        zones.list.splice(named..named, added);
        this
    }

    /// Names the new zones wherever the zones themselves are named.
    pub(super) fn isolations(&self, isolations: &mut [Isolation]) {
        for isolation in isolations {
            self.everywhere(&mut isolation.left);
            self.everywhere(&mut isolation.right);
        }
    }

    /// Adds to a list of zones all that they are seen as.
    pub(super) fn everywhere(&self, list: &mut Vec<ZoneIndex>) {
        let all: BTreeSet<Tags> = self.copies.keys().map(|(_, tags)| *tags).collect();
        *list = self.with_copies(list, &all);
    }

    /// The zones, at their places behind the new ones, with what they are seen as in these realms. Sorted.
    fn with_copies(&self, list: &[ZoneIndex], realms: &BTreeSet<Tags>) -> Vec<ZoneIndex> {
        let moved = |zone: ZoneIndex| {
            if zone < self.named {
                zone
            } else {
                zone + self.copies.len()
            }
        };
        let copies = list.iter().flat_map(|zone| {
            realms
                .iter()
                .filter_map(|tags| self.copies.get(&(*zone, *tags)).copied())
        });
        let all: BTreeSet<ZoneIndex> = list.iter().map(|zone| moved(*zone)).chain(copies).collect();
        all.into_iter().collect()
    }
}

/// The realms of the tagged zones in a list.
fn tags_of(zones: &[Zone], list: &[ZoneIndex]) -> BTreeSet<Tags> {
    let tags = list.iter().map(|zone| zones[*zone].tags());
    tags.filter(|tags| *tags != Tags::NONE).collect()
}

/// The realms in which a rule sees what stands on the side across from `other`.
fn realms(zones: &[Zone], rule: &Rule, other: &[ZoneIndex]) -> BTreeSet<Tags> {
    let any = other.iter().any(|zone| zones[*zone].kind == ZoneKind::Any);
    if any && rule.action != RuleAction::Allow {
        let all: Vec<ZoneIndex> = (0..zones.len()).collect();
        return tags_of(zones, &all);
    }
    tags_of(zones, other)
}

/// Untagged zones of one side, each in these realms.
fn seen(zones: &[Zone], side: &[ZoneIndex], realms: &BTreeSet<Tags>) -> Vec<(ZoneIndex, Tags)> {
    let untagged = side.iter().filter(|zone| {
        let zone = &zones[**zone];
        zone.kind == ZoneKind::Named && zone.tags() == Tags::NONE
    });
    untagged
        .flat_map(|zone| realms.iter().map(|tags| (*zone, *tags)))
        .collect()
}

fn copy(zones: &[Zone], index: ZoneIndex, tags: Tags) -> Zone {
    let zone = &zones[index];
    // No zone can be named so: `@` is not among the characters of names.
    let name = format!("{}@{tags}", zone.name);
    Zone {
        id: names::stable_id("zone", &name),
        name,
        vlan: tags.outer,
        inner_vlan: tags.inner,
        seen_of: Some(index),
        ..zone.clone()
    }
}

/// Warns where the addresses that a zone is seen with belong to a zone of that VLAN too: its machines could pass for others.
fn warn(list: &[Zone], added: &[Zone], findings: &mut Diagnostics) {
    for copy in added {
        let own: Ranges = copy.prefixes.iter().map(|net| Range::from(*net)).collect();
        let here = list
            .iter()
            .filter(|zone| zone.kind == ZoneKind::Named && zone.tags() == copy.tags());
        for zone in here {
            if zone.prefixes.iter().any(|net| own.meets((*net).into())) {
                let message = format!(
                    "in VLAN {} the addresses of `{}` and of `{}` overlap",
                    copy.tags(),
                    zone.name,
                    copy.name.split('@').next().unwrap_or(&copy.name)
                );
                findings.push(
                    Diagnostic::warning("zones_overlap", zone.span, message)
                        .label("a machine here with such an address passes for the other zone")
                        .also(copy.span, "a rule with a zone of that VLAN names this one")
                        .help("take the common addresses out of one of the two: `exclude: [...]`"),
                );
            }
        }
    }
}
