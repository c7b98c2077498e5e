//! The `zones:` section.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{self, Fields};
use super::planes;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::{Plane, Tags, Zone, ZoneIndex, ZoneKind};
use crate::names;
use crate::yaml::{Key, Node, Value};

/// VLAN ids that a tag can carry (IEEE 802.1Q: 0 is a priority tag, 4095 is reserved).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Keys of a zone's long form.
const KEYS: &[&str] = &[
    "addresses",
    "dynamic",
    "vlan",
    "plane",
    "ports",
    "lifeline",
    "labels",
];

/// All zones, and their places by name.
pub(super) struct Zones {
    pub(super) list: Vec<Zone>,
    pub(super) planes: Vec<Plane>,
    by_name: HashMap<String, ZoneIndex>,
}

impl Zones {
    /// Index of the zone with this name.
    pub(super) fn get(&self, name: &str) -> Option<ZoneIndex> {
        self.by_name.get(name).copied()
    }

    /// The finding for a name that no zone has.
    pub(super) fn unknown(&self, name: &str, span: Span) -> Diagnostic {
        let item = Diagnostic::error("unknown_zone", span, format!("there is no zone `{name}`"));
        if name.parse::<IpNet>().is_ok() || name.parse::<IpAddr>().is_ok() {
            return item
                .label("expected a zone's name, found an address")
                .help("give the address a name under `zones:`, and use the name here");
        }
        match names::nearest(name, self.list.iter().map(|zone| zone.name.as_str())) {
            Some(nearest) => item
                .label("expected a zone's name")
                .help(format!("did you mean `{nearest}`?")),
            None => item
                .label("expected a zone's name")
                .help("define it under `zones:`"),
        }
    }
}

/// Reads the section. Zones with errors are kept, so that rules can name them without a second error.
pub(super) fn read(section: Option<&Node>, findings: &mut Diagnostics) -> Zones {
    let mut list = Vec::new();
    let mut bindings = planes::Bindings::default();
    match section.map(|node| (node, &node.value)) {
        None | Some((_, Value::Empty)) => {}
        Some((_, Value::Map(pairs))) => {
            list.extend(
                pairs
                    .iter()
                    .filter_map(|pair| zone(pair, &mut bindings, findings)),
            );
        }
        Some((node, _)) => findings.push(fields::wrong_type(
            node,
            "`zones` is a mapping of names to addresses (`name: { addresses: [10.0.0.0/8] }`)",
            "a mapping",
        )),
    }
    let planes = bindings.finish(&mut list);
    planes::refuse_overlaps(&list, &planes, findings);
    list.extend(ZoneKind::BUILT_IN.into_iter().filter_map(built_in));
    let mut by_id: HashMap<u32, usize> = HashMap::new();
    for (index, zone) in list.iter().enumerate() {
        if let Some(first) = by_id.insert(zone.id, index) {
            findings.push(same_id("zones", &zone.name, &list[first].name, zone.span));
        }
    }
    let by_name = list
        .iter()
        .enumerate()
        .map(|(index, zone)| (zone.name.clone(), index))
        .collect();
    Zones {
        list,
        planes,
        by_name,
    }
}

/// The finding for two names with one stable id.
pub(super) fn same_id(kind: &str, name: &str, other: &str, span: Span) -> Diagnostic {
    let message =
        format!("the {kind} `{name}` and `{other}` have the same stable id, which is made from the name");
    Diagnostic::error("same_id", span, message).help("rename one of the two")
}

fn built_in(kind: ZoneKind) -> Option<Zone> {
    let name = kind.name()?;
    Some(Zone {
        name: name.to_owned(),
        id: names::stable_id("zone", name),
        kind,
        vlan: 0,
        inner_vlan: 0,
        plane: 0,
        lifeline: false,
        labels: BTreeMap::new(),
        dynamic: false,
        prefixes: kind
            .prefixes()
            .iter()
            .filter_map(|prefix| prefix.parse().ok())
            .collect(),
        span: Span::default(),
    })
}

fn zone(
    (key, node): &(Key, Node),
    bindings: &mut planes::Bindings,
    findings: &mut Diagnostics,
) -> Option<Zone> {
    if ZoneKind::BUILT_IN
        .iter()
        .any(|kind| kind.name() == Some(key.text.as_str()))
    {
        findings.push(
            Diagnostic::error(
                "built_in_zone",
                key.span,
                format!("`{}` is a built-in zone", key.text),
            )
            .label("expected a name of your own")
            .help("take another name; rules can use the built-in zone as it is"),
        );
        return None;
    }
    // A bad name is reported, and the zone kept: rules that use it are not to be blamed.
    fields::new_name(&key.text, true, key.span, "a zone", findings);
    let mut zone = Zone {
        name: key.text.clone(),
        id: names::stable_id("zone", &key.text),
        kind: ZoneKind::Named,
        vlan: 0,
        inner_vlan: 0,
        plane: 0,
        lifeline: false,
        labels: BTreeMap::new(),
        dynamic: false,
        prefixes: Vec::new(),
        span: key.span,
    };
    match &node.value {
        Value::Map(_) => {
            if let Some(fields) = Fields::read(node, "a zone", KEYS, findings) {
                long_form(&fields, &mut zone, findings);
                bindings.read(&zone.name, &fields, findings);
            }
        }
        _ => zone.prefixes = addresses(node, findings),
    }
    Some(zone)
}

fn long_form(fields: &Fields<'_>, zone: &mut Zone, findings: &mut Diagnostics) {
    // What fills a zone otherwise is refused already; a missing key would be a second error for one mistake.
    let other = ["file", "include"].iter().any(|key| fields.has(key));
    if other && !fields.has("addresses") {
        return;
    }
    zone.dynamic = fields
        .get("dynamic")
        .and_then(|node| fields::truth(node, findings))
        == Some(true);
    if !zone.dynamic
        && let Some(node) = fields.require("addresses", &format!("the zone `{}`", zone.name), findings)
    {
        zone.prefixes = addresses(node, findings);
    }
    if let Some(node) = fields.get("vlan") {
        let tags = tags(node, findings).unwrap_or_default();
        (zone.vlan, zone.inner_vlan) = (tags.outer, tags.inner);
    }
    if let Some(node) = fields.get("lifeline") {
        zone.lifeline = fields::truth(node, findings).unwrap_or(false);
    }
    if let Some(node) = fields.get("labels") {
        zone.labels = planes::labels(node, findings).unwrap_or_default();
    }
}

/// Reads a VLAN id, or a list of two: the outer and the inner tag.
pub(super) fn tags(node: &Node, findings: &mut Diagnostics) -> Option<Tags> {
    let Value::List(items) = &node.value else {
        return vlan(node, findings).map(Tags::from);
    };
    match items.as_slice() {
        [outer, inner] => {
            let (outer, inner) = (vlan(outer, findings), vlan(inner, findings));
            Some(Tags {
                outer: outer?,
                inner: inner?,
            })
        }
        [only] => vlan(only, findings).map(Tags::from),
        _ => {
            findings.push(
                Diagnostic::error(
                    "bad_vlan",
                    node.span,
                    format!("a frame has no {} tags", items.len()),
                )
                .label("expected a VLAN id, or two such as [100, 7], the outer tag first"),
            );
            None
        }
    }
}

/// Reads a VLAN id.
fn vlan(node: &Node, findings: &mut Diagnostics) -> Option<u16> {
    let expected = "a number from 1 to 4094";
    let text = fields::text(node, expected, findings)?;
    match text.parse() {
        Ok(vlan) if VLANS.contains(&vlan) => Some(vlan),
        _ => {
            findings.push(
                Diagnostic::error("bad_vlan", node.span, format!("`{text}` is no VLAN id"))
                    .label(format!("expected {expected}"))
                    .help("leave `vlan` out for untagged traffic"),
            );
            None
        }
    }
}

fn addresses(node: &Node, findings: &mut Diagnostics) -> Vec<IpNet> {
    let Some(items) = fields::list(node, "a list of prefixes or addresses", findings) else {
        return Vec::new();
    };
    if items.is_empty() {
        findings.push(
            Diagnostic::error("empty_zone", node.span, "the zone holds no address")
                .label("expected at least one prefix or address")
                .help("remove the zone and the rules that name it"),
        );
    }
    let mut prefixes: Vec<IpNet> = items.iter().filter_map(|item| prefix(item, findings)).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

fn prefix(node: &Node, findings: &mut Diagnostics) -> Option<IpNet> {
    let text = fields::text(node, "a prefix or an address", findings)?;
    match parse_prefix(text) {
        Ok(prefix) => Some(prefix),
        Err((message, help)) => {
            let item = Diagnostic::error("bad_prefix", node.span, message)
                .label("expected a prefix such as 10.0.0.0/8 or fd00::/8, or an address");
            findings.push(match help {
                Some(help) => item.help(help),
                None => item,
            });
            None
        }
    }
}

/// A prefix, or an address as the prefix of full length; else a message and a suggestion.
fn parse_prefix(text: &str) -> Result<IpNet, (String, Option<String>)> {
    let (head, length) = match text.split_once('/') {
        Some((head, length)) => (head, Some(length)),
        None => (text, None),
    };
    let Ok(address) = head.parse::<IpAddr>() else {
        return Err(no_address(text, head));
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let help = format!("write {v4}: mapped addresses never stand in packets");
        return Err((
            format!("`{text}` is an IPv4 address in IPv6 notation"),
            Some(help),
        ));
    }
    let full: u8 = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else {
        return Ok(IpNet::from(address));
    };
    let number = length
        .parse::<u8>()
        .ok()
        .filter(|number| *number <= full && !length.starts_with('+'));
    let Some(net) = number.and_then(|number| IpNet::new(address, number).ok()) else {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        return Err((
            format!("`/{length}` is no length of an {family} prefix; it is at most /{full}"),
            None,
        ));
    };
    if net.trunc() != net {
        let message = format!("`{text}` has bits set behind its length");
        return Err((
            message,
            Some(format!(
                "write {} for the network, or {address} for the one address",
                net.trunc()
            )),
        ));
    }
    Ok(net)
}

fn no_address(text: &str, head: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = head.split('.').collect();
    let numbers = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let help = match parts.len() {
        _ if !numbers => None,
        1..=3 => Some(format!(
            "an IPv4 address has four numbers, such as {}",
            padded(&parts)
        )),
        4 => Some("each of the four numbers is at most 255, without leading zeros".to_owned()),
        _ => Some("an IPv4 address has four numbers".to_owned()),
    };
    (format!("`{text}` is no prefix and no address"), help)
}

fn padded(parts: &[&str]) -> String {
    let zeros = std::iter::repeat_n("0", 4 - parts.len());
    parts.iter().copied().chain(zeros).collect::<Vec<_>>().join(".")
}
