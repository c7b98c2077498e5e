//! Planes of zones, the ports that they are bound to, and labels.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::fields::{self, Fields};
use super::sections;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Plane, Tags, Zone};
use crate::yaml::{Node, Value};

/// Planes that a policy can have: a class record holds the number in 5 bits, 0 for none.
const MAX_PLANES: usize = 31;

/// The planes that zones name, and their ports.
#[derive(Default)]
pub(super) struct Bindings {
    /// Roles by plane.
    roles: BTreeMap<String, BTreeSet<String>>,
    /// Planes by zone.
    of_zone: BTreeMap<String, String>,
}

impl Bindings {
    /// Reads `plane` and `ports` of a zone.
    pub(super) fn read(&mut self, zone: &str, fields: &Fields<'_>, findings: &mut Diagnostics) {
        let ports = fields.get("ports").and_then(|node| roles(node, findings));
        let Some(node) = fields.get("plane") else {
            if let Some(span) = fields.key_span("ports") {
                findings.push(
                    Diagnostic::error("ports", span, "`ports` binds a plane, and the zone has none")
                        .label("`plane` is missing")
                        .help("add `plane: NAME`: all zones of one plane share its ports"),
                );
            }
            return;
        };
        let Some(text) = fields::text(node, "a plane's name", findings) else {
            return;
        };
        let plain = matches!(node.value, Value::Text { plain: true, .. });
        if !fields::new_name(text, plain, node.span, "a plane", findings) {
            return;
        }
        self.of_zone.insert(zone.to_owned(), text.to_owned());
        self.roles
            .entry(text.to_owned())
            .or_default()
            .extend(ports.unwrap_or_default());
        if self.roles.len() == MAX_PLANES + 1 {
            let message = format!("the policy has more than {MAX_PLANES} planes");
            findings.push(
                Diagnostic::error("too_large", node.span, message)
                    .label("one too many")
                    .help("give zones that use the same ports one plane"),
            );
        }
    }

    /// Numbers the planes by name and writes the numbers into the zones.
    pub(super) fn finish(self, zones: &mut [Zone]) -> Vec<Plane> {
        let planes: Vec<Plane> = self
            .roles
            .into_iter()
            .map(|(name, roles)| Plane {
                name,
                roles: roles.into_iter().collect(),
            })
            .collect();
        for zone in zones {
            let plane = self.of_zone.get(&zone.name);
            let number = plane.and_then(|name| planes.iter().position(|plane| plane.name == *name));
            zone.plane = number.map_or(0, |number| number as u32 + 1);
        }
        planes
    }
}

fn roles(node: &Node, findings: &mut Diagnostics) -> Option<Vec<String>> {
    let items = fields::list(node, "a role or a list of roles", findings)?;
    if items.is_empty() {
        findings.push(
            Diagnostic::error("empty_list", node.span, "`ports` names no role")
                .label("expected at least one role of a port, such as [rail]")
                .help("leave `ports` out where any port will do"),
        );
    }
    Some(
        items
            .iter()
            .filter_map(|item| sections::role(item, findings))
            .collect(),
    )
}

/// Reads labels: a mapping of names to texts.
pub(super) fn labels(node: &Node, findings: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let Value::Map(pairs) = &node.value else {
        findings.push(fields::wrong_type(
            node,
            "labels are a mapping of names to texts (`{ tenant: a }`)",
            "a mapping",
        ));
        return None;
    };
    let mut labels = BTreeMap::new();
    for (key, value) in pairs {
        let named = fields::new_name(&key.text, true, key.span, "a label", findings);
        if let (true, Some(text)) = (named, fields::text(value, "a label's value", findings)) {
            labels.insert(key.text.clone(), text.to_owned());
        }
    }
    Some(labels)
}

/// A prefix of a zone that has a plane.
struct Held {
    net: IpNet,
    zone: usize,
}

/// Reports addresses that lie in zones of two planes: they would belong to both, and to neither's ports.
pub(super) fn refuse_overlaps(zones: &[Zone], planes: &[Plane], findings: &mut Diagnostics) {
    let mut realms: BTreeMap<Tags, Vec<Held>> = BTreeMap::new();
    for (zone, own) in zones.iter().enumerate().filter(|(_, zone)| zone.plane != 0) {
        let held = own.prefixes.iter().map(|net| Held { net: *net, zone });
        realms.entry(own.tags()).or_default().extend(held);
    }
    let mut reported = BTreeSet::new();
    for held in realms.values_mut() {
        // Prefixes either lie in each other or apart: sorted by address, then the shorter first, what holds a prefix stands
        // before it.
        held.sort_by_key(|held| (held.net.network(), held.net.prefix_len()));
        let mut around: Vec<&Held> = Vec::new();
        for own in &*held {
            while around.last().is_some_and(|outer| !outer.net.contains(&own.net)) {
                around.pop();
            }
            let other = around
                .iter()
                .rev()
                .find(|outer| zones[outer.zone].plane != zones[own.zone].plane);
            if let Some(other) = other
                && reported.insert((other.zone.min(own.zone), other.zone.max(own.zone)))
            {
                findings.push(two_planes(zones, planes, own, other));
            }
            // Zones that share a prefix and a plane say the same; without them at most 129 lengths of 31 planes lie around.
            let same =
                |outer: &&Held| outer.net == own.net && zones[outer.zone].plane == zones[own.zone].plane;
            if !around.iter().any(same) {
                around.push(own);
            }
        }
    }
}

fn two_planes(zones: &[Zone], planes: &[Plane], own: &Held, other: &Held) -> Diagnostic {
    let name = |held: &Held| {
        let zone = &zones[held.zone];
        let plane = planes.get((zone.plane as usize).wrapping_sub(1));
        (zone, plane.map_or("", |plane| plane.name.as_str()))
    };
    let ((zone, plane), (other_zone, other_plane)) = (name(own), name(other));
    let message = format!(
        "the addresses {} are in zones of two planes: `{}` ({plane}) and `{}` ({other_plane})",
        own.net, zone.name, other_zone.name
    );
    Diagnostic::error("two_planes", zone.span, message)
        .label("this zone...")
        .also(other_zone.span, "... and this one")
        .help("give both zones one plane, or take the addresses out of one of them")
}
