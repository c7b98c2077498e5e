//! Warnings about a policy as a whole: what is allowed, but is probably not what was meant.

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnet::IpNet;

use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Rule, RuleAction, Tags, ZoneIndex, ZoneKind};

/// Pairs of nested prefixes that are looked at; access lists of thousands of zones have more, and their overlaps surprise
/// nobody.
const MAX_PAIRS: usize = 1 << 18;

/// Adds the warnings. A policy with errors has none of them: what is broken looks unused.
pub(super) fn warn(zones: &Zones, rules: &[Rule], findings: &mut Diagnostics) {
    if rules.is_empty() || findings.has_errors() {
        return;
    }
    unused(zones, findings);
    wide(zones, rules, findings);
    overlaps(zones, findings);
}

/// Zones that nothing refers to. One with a plane is not among them: it binds its addresses to the plane's ports.
fn unused(zones: &Zones, findings: &mut Diagnostics) {
    for zone in zones.unused().into_iter().map(|index| &zones.list[index]) {
        if zone.plane == 0 {
            let message = format!("no rule uses the zone `{}`", zone.name);
            findings.push(Diagnostic::warning("unused_zone", zone.span, message).help(
                "remove it, or use it; its addresses belong to no other zone, so they are not `outside`",
            ));
        }
    }
}

/// Rules that allow from everywhere to everywhere, and rules with `any` where those of like names have zones.
fn wide(zones: &Zones, rules: &[Rule], findings: &mut Diagnostics) {
    let any = |list: &[ZoneIndex]| list.iter().any(|zone| zones.list[*zone].kind == ZoneKind::Any);
    let mut families: HashMap<&str, Vec<(&Rule, [bool; 2])>> = HashMap::new();
    for rule in rules.iter().filter(|rule| rule.action == RuleAction::Allow) {
        let ends = rule.directions.iter().map(|way| [any(&way.from), any(&way.to)]);
        let both = ends.fold([false; 2], |all, way| [all[0] || way[0], all[1] || way[1]]);
        if both == [true, true] {
            let message = format!("the rule `{}` allows from everywhere to everywhere", rule.name);
            findings.push(
                Diagnostic::warning("any_any", rule.span, message)
                    .label("`any` on both sides")
                    .help(
                        "name the zones that need it; `self` is this machine, `outside` is who is in no zone",
                    ),
            );
        } else {
            families.entry(stem(&rule.name)).or_default().push((rule, both));
        }
    }
    for family in families.values().filter(|family| family.len() > 2) {
        for (side, key) in ["from", "to"].iter().enumerate() {
            let mut wide = family.iter().filter(|(_, any)| any[side]);
            if let (Some((rule, _)), None) = (wide.next(), wide.next()) {
                let others = family.iter().find(|(other, _)| other.number != rule.number);
                findings.push(wider(rule, key, others.map(|(other, _)| *other)));
            }
        }
    }
}

fn wider(rule: &Rule, key: &str, sibling: Option<&Rule>) -> Diagnostic {
    let message = format!(
        "the rule `{}` has `{key}: any`, which no other rule of its family has",
        rule.name
    );
    let item = Diagnostic::warning("wider_rule", rule.span, message)
        .label("wider than its siblings")
        .help("name the zones, or give the rule a name of another kind");
    match sibling {
        Some(sibling) => item.also(sibling.span, "a sibling"),
        None => item,
    }
}

/// What rules of one family have in common: the name without its last part or its number.
fn stem(name: &str) -> &str {
    let short = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match short.rsplit_once(['_', '-']) {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => short,
    }
}

/// Zones of which each holds a part of the other's addresses, or that are the same, in a way that surprises.
fn overlaps(zones: &Zones, findings: &mut Diagnostics) {
    let mut realms: BTreeMap<Tags, Vec<(IpNet, ZoneIndex)>> = BTreeMap::new();
    for (index, written) in zones.written.iter().enumerate() {
        let zone = &zones.list[index];
        if written.plain || !zone.labels.is_empty() {
            let held = zone.prefixes.iter().map(|net| (*net, index));
            realms.entry(zone.tags()).or_default().extend(held);
        }
    }
    for held in realms.values_mut() {
        for ((outer, inner), common) in common_sizes(held) {
            findings.items.extend(surprise(zones, outer, inner, common));
        }
    }
}

/// How many addresses two zones have in common, for all that have some; the smaller index first.
fn common_sizes(held: &mut [(IpNet, ZoneIndex)]) -> BTreeMap<(ZoneIndex, ZoneIndex), u128> {
    // Sorted so, what holds a prefix stands before it.
    held.sort_by_key(|(net, _)| (net.network(), net.prefix_len()));
    let mut common: BTreeMap<(ZoneIndex, ZoneIndex), u128> = BTreeMap::new();
    let mut around: Vec<&(IpNet, ZoneIndex)> = Vec::new();
    let mut pairs = 0;
    for own in held.iter() {
        while around.last().is_some_and(|outer| !outer.0.contains(&own.0)) {
            around.pop();
        }
        pairs += around.len();
        if pairs > MAX_PAIRS {
            return BTreeMap::new();
        }
        for outer in &around {
            let key = (outer.1.min(own.1), outer.1.max(own.1));
            let size = common.entry(key).or_default();
            *size = size.saturating_add(size_of(&own.0));
        }
        around.push(own);
    }
    common
}

/// Addresses of a prefix.
fn size_of(net: &IpNet) -> u128 {
    let bits = net.max_prefix_len() - net.prefix_len();
    1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
}

fn surprise(zones: &Zones, first: ZoneIndex, second: ZoneIndex, common: u128) -> Option<Diagnostic> {
    let (a, b) = (&zones.list[first], &zones.list[second]);
    let size = |prefixes: &[IpNet]| {
        prefixes
            .iter()
            .fold(0_u128, |sum, net| sum.saturating_add(size_of(net)))
    };
    let (whole_a, whole_b) = (size(&a.prefixes) == common, size(&b.prefixes) == common);
    let plain = zones.written[first].plain && zones.written[second].plain;
    let labels: HashSet<&str> = a
        .labels
        .iter()
        .filter(|(key, value)| b.labels.get(*key).is_some_and(|other| other != *value))
        .map(|(key, _)| key.as_str())
        .collect();
    let both = format!("`{}` and `{}`", a.name, b.name);
    let item = |code, message: String| {
        Diagnostic::warning(code, b.span, message)
            .label("this zone...")
            .also(a.span, "... and this one")
    };
    if let Some(label) = labels.into_iter().min() {
        let message = format!("the zones {both} have addresses in common, but another `{label}` each");
        return Some(item("zones_overlap", message)
            .help("rules that choose by the label meet these addresses for both values; take them out of one: `exclude: [...]`"));
    }
    if plain && whole_a && whole_b {
        let message = format!("the zones {both} hold the same addresses");
        return Some(item("same_addresses", message).help("keep one of them: in every packet both match"));
    }
    let one_plane = (a.plane == 0) != (b.plane == 0);
    (plain && one_plane && !whole_a && !whole_b).then(|| {
        let message = format!("the zones {both} overlap in part, and only one of them has a plane");
        item("zones_overlap", message).help(
            "the common addresses have the plane, the others of the zone have none; split the zone in two",
        )
    })
}
