//! The `zones:` section.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{self, Fields};
use super::members::{self, Draft};
use super::planes;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::keys;
use crate::model::{Plane, Policy, Tags, Zone, ZoneIndex, ZoneKind};
use crate::names;
use crate::source::Loader;
use crate::yaml::{Key, Node, Value};

/// VLAN ids that a tag can carry (IEEE 802.1Q: 0 is a priority tag, 4095 is reserved).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// All zones, and their places by name.
pub(super) struct Zones {
    pub(super) list: Vec<Zone>,
    pub(super) planes: Vec<Plane>,
    /// How each zone of the policy is written, in the order of the list.
    pub(super) written: Vec<Written>,
    by_name: HashMap<String, ZoneIndex>,
    /// The zones that something refers to.
    used: RefCell<Vec<bool>>,
}

/// What warnings want to know about a zone of the policy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Its addresses are all in the policy itself: no files, no other zones.
    pub(super) plain: bool,
}

impl Zones {
    /// The zones of a checked policy.
    pub(super) fn of(policy: &Policy) -> Self {
        let named = policy.zones.iter().enumerate();
        Self {
            list: policy.zones.clone(),
            planes: policy.planes.clone(),
            written: Vec::new(),
            by_name: named.map(|(index, zone)| (zone.name.clone(), index)).collect(),
            used: RefCell::new(vec![true; policy.zones.len()]),
        }
    }

    /// Index of the zone with this name; it counts as used.
    pub(super) fn get(&self, name: &str) -> Option<ZoneIndex> {
        let index = self.by_name.get(name).copied()?;
        self.note_use(index);
        Some(index)
    }

    /// The zone is used: no warning is due.
    pub(super) fn note_use(&self, index: ZoneIndex) {
        self.used.borrow_mut()[index] = true;
    }

    /// Zones of the policy that nothing refers to.
    pub(super) fn unused(&self) -> Vec<ZoneIndex> {
        let used = self.used.borrow();
        (0..self.written.len()).filter(|index| !used[*index]).collect()
    }

    /// The finding for a name that no zone has.
    pub(super) fn unknown(&self, name: &str, span: Span) -> Diagnostic {
        unknown(name, span, self.list.iter().map(|zone| zone.name.as_str()))
    }
}

/// The finding for a name that none of these zones has.
pub(super) fn unknown<'a>(name: &str, span: Span, zones: impl Iterator<Item = &'a str>) -> Diagnostic {
    let item = Diagnostic::error("unknown_zone", span, format!("there is no zone `{name}`"));
    if name.parse::<IpNet>().is_ok() || name.parse::<IpAddr>().is_ok() {
        return item
            .label("expected a zone's name, found an address")
            .help("give the address a name under `zones:`, and use the name here");
    }
    let item = item.label("expected a zone's name");
    match names::nearest(name, zones) {
        Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
        None => item.help("define it under `zones:`"),
    }
}

/// Reads the sections of all files. Zones with errors are kept, so that rules can name them without a second error.
pub(super) fn read(sections: &[&Node], loader: &dyn Loader, findings: &mut Diagnostics) -> Zones {
    let mut list = Vec::new();
    let mut drafts = Vec::new();
    let mut bindings = planes::Bindings::default();
    let mut by_name = HashMap::new();
    let mut written = Vec::new();
    for section in sections {
        written.extend(pairs(section, findings));
    }
    for (key, node) in written {
        if !may_be_defined(key, &list, &by_name, findings) {
            continue;
        }
        let (zone, draft) = zone(key, node, &mut bindings, loader, findings);
        by_name.insert(key.text.clone(), list.len());
        list.push(zone);
        drafts.push(draft);
    }
    let mut used = vec![false; list.len()];
    members::resolve(&mut list, &drafts, &by_name, &mut used, findings);
    let planes = bindings.finish(&mut list);
    planes::refuse_overlaps(&list, &planes, findings);
    let written = drafts.iter().map(Draft::written).collect();
    list.extend(ZoneKind::BUILT_IN.into_iter().filter_map(built_in));
    used.resize(list.len(), true);
    let mut by_id: HashMap<u32, usize> = HashMap::new();
    for (index, zone) in list.iter().enumerate() {
        if let Some(first) = by_id.insert(zone.id, index) {
            findings.push(same_id("zones", &zone.name, &list[first].name, zone.span));
        }
    }
    let built_in = list.iter().enumerate().skip(by_name.len());
    by_name.extend(built_in.map(|(index, zone)| (zone.name.clone(), index)));
    Zones {
        list,
        planes,
        written,
        by_name,
        used: RefCell::new(used),
    }
}

/// The zones of one section.
fn pairs<'n>(section: &'n Node, findings: &mut Diagnostics) -> &'n [(Key, Node)] {
    match &section.value {
        Value::Map(pairs) => return pairs,
        Value::Empty => {}
        _ => findings.push(fields::wrong_type(
            section,
            "`zones` is a mapping of names to addresses (`name: { addresses: [10.0.0.0/8] }`)",
            "a mapping",
        )),
    }
    &[]
}

/// The finding for two names with one stable id.
pub(super) fn same_id(kind: &str, name: &str, other: &str, span: Span) -> Diagnostic {
    let message =
        format!("the {kind} `{name}` and `{other}` have the same stable id, which is made from the name");
    Diagnostic::error("same_id", span, message).help("rename one of the two")
}

fn built_in(kind: ZoneKind) -> Option<Zone> {
    let name = kind.name()?;
    let prefixes = kind.prefixes().iter().filter_map(|prefix| prefix.parse().ok());
    Some(Zone {
        kind,
        prefixes: prefixes.collect(),
        ..empty(name, Span::default())
    })
}

/// A named zone without addresses.
fn empty(name: &str, span: Span) -> Zone {
    Zone {
        name: name.to_owned(),
        id: names::stable_id("zone", name),
        kind: ZoneKind::Named,
        vlan: 0,
        inner_vlan: 0,
        plane: 0,
        lifeline: false,
        labels: BTreeMap::new(),
        dynamic: false,
        seen_of: None,
        prefixes: Vec::new(),
        span,
    }
}

/// Refuses names that are taken. A bad name is reported, and the zone kept: rules that use it are not to be blamed.
fn may_be_defined(
    key: &Key,
    list: &[Zone],
    by_name: &HashMap<String, ZoneIndex>,
    findings: &mut Diagnostics,
) -> bool {
    let mut names = ZoneKind::BUILT_IN.iter().filter_map(|kind| kind.name());
    if names.any(|name| name == key.text) {
        let message = format!("`{}` is a built-in zone", key.text);
        findings.push(
            Diagnostic::error("built_in_zone", key.span, message)
                .label("expected a name of your own")
                .help("take another name; rules can use the built-in zone as it is"),
        );
        return false;
    }
    // Within one file a name that stands twice is a key that stands twice.
    if let Some(first) = by_name.get(&key.text) {
        let message = format!("two files define the zone `{}`", key.text);
        findings.push(
            Diagnostic::error("duplicate_zone", key.span, message)
                .label("defined again here")
                .also(list[*first].span, "first defined here")
                .help("rename one of the two, or join their addresses in one place"),
        );
        return false;
    }
    fields::new_name(&key.text, true, key.span, "a zone", findings);
    true
}

/// Reads a zone: its short form is a list of addresses.
fn zone<'n>(
    key: &Key,
    node: &'n Node,
    bindings: &mut planes::Bindings,
    loader: &dyn Loader,
    findings: &mut Diagnostics,
) -> (Zone, Draft<'n>) {
    let mut zone = empty(&key.text, key.span);
    let mut draft = Draft::default();
    match &node.value {
        Value::Map(_) => {
            if let Some(fields) = Fields::read(node, "a zone", keys::ZONE, findings) {
                bindings.read(&zone.name, &fields, findings);
                attributes(&mut zone, &fields, findings);
                draft.read(&fields, &zone, loader, findings);
            }
        }
        Value::Empty => findings.push(members::no_addresses(node.span)),
        _ => draft.short(node, findings),
    }
    (zone, draft)
}

/// What a zone says beside its addresses and its plane.
fn attributes(zone: &mut Zone, fields: &Fields<'_>, findings: &mut Diagnostics) {
    if let Some(node) = fields.get("vlan") {
        let tags = tags(node, findings).unwrap_or_default();
        (zone.vlan, zone.inner_vlan) = (tags.outer, tags.inner);
    }
    if let Some(node) = fields.get("lifeline") {
        zone.lifeline = fields::truth(node, findings).unwrap_or(false);
    }
    if let Some(node) = fields.get("dynamic") {
        zone.dynamic = fields::truth(node, findings).unwrap_or(false);
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
