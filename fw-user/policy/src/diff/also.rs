//! What differs between two policies beside the rules' decisions on flows that are opened.

use std::fmt::Debug;

use crate::explain::attributes;
use crate::model::{Policy, Rule, Zone};

/// One line for each thing that has changed and that no set of flows shows.
pub(super) fn changed(old: &Policy, new: &Policy) -> Vec<String> {
    let rules = new.rules.iter().filter_map(|rule| {
        let before = old.rules.iter().find(|before| before.name == rule.name)?;
        attributes_changed(before, rule)
    });
    let zones = new.zones.iter().filter_map(|zone| {
        let before = old.zones.iter().find(|before| before.name == zone.name)?;
        places_changed((old, before), (new, zone))
    });
    let sections = [
        section("link", &old.link, &new.link),
        section("tcp", &old.tcp, &new.tcp),
        section("fragments", &old.fragments, &new.fragments),
        section("protect", &old.protect, &new.protect),
    ];
    rules.chain(zones).chain(sections.into_iter().flatten()).collect()
}

fn attributes_changed(before: &Rule, after: &Rule) -> Option<String> {
    let [was, is] = [before, after].map(|rule| {
        let words = attributes(rule);
        if words.is_empty() {
            "nothing more".to_owned()
        } else {
            words.join(", ")
        }
    });
    (was != is).then(|| format!("rule `{}`: {is} (before: {was})", after.name))
}

/// Where a zone is expected: a plane and the roles of its ports.
fn places_changed((old, before): (&Policy, &Zone), (new, after): (&Policy, &Zone)) -> Option<String> {
    let plane = |policy: &Policy, zone: &Zone| {
        let place = (zone.plane as usize).checked_sub(1)?;
        policy.planes.get(place).map(|plane| format!("{plane:?}"))
    };
    let differs = plane(old, before) != plane(new, after);
    differs.then(|| {
        format!(
            "zone `{}`: the plane or the ports where it is expected",
            after.name
        )
    })
}

/// These sections have a readable form of their own, which is compared: two that read the same do the same.
fn section(name: &str, old: &impl Debug, new: &impl Debug) -> Option<String> {
    (format!("{old:?}") != format!("{new:?}")).then(|| format!("section `{name}`"))
}
