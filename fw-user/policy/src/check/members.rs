//! What a zone holds: its own addresses, those of files, those of other zones, without what it excludes.

use std::collections::HashMap;

use super::addresses;
use super::feeds;
use super::fields::{self, Fields};
use super::zones::{self, Written};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::{Tags, Zone, ZoneIndex, ZoneKind};
use crate::names;
use crate::ranges::{Range, Ranges};
use crate::source::Loader;
use crate::yaml::{Node, Value};

/// Keys of a zone that give it addresses.
const SOURCES: [&str; 5] = ["addresses", "zones", "file", "directory", "dynamic"];
/// Keys that a dynamic zone has no use for.
const NOT_DYNAMIC: [&str; 7] = [
    "addresses",
    "exclude",
    "zones",
    "file",
    "directory",
    "plane",
    "ports",
];

/// A zone whose references to other zones are not followed yet.
#[derive(Default)]
pub(super) struct Draft<'n> {
    /// Addresses written or read from files.
    own: Ranges,
    /// Zones whose addresses it holds too.
    zones: Vec<(&'n str, Span)>,
    /// Addresses that it does not hold.
    without: Vec<(Range, Span)>,
    /// Zones whose addresses it does not hold.
    without_zones: Vec<(&'n str, Span)>,
    /// Where the exclusions stand.
    exclude: Option<Span>,
    /// Where `vlan` stands.
    vlan: Option<Span>,
    /// Some addresses come from files.
    from_files: bool,
}

/// The finding for a zone without addresses.
pub(super) fn no_addresses(span: Span) -> Diagnostic {
    Diagnostic::error("empty_zone", span, "the zone holds no address")
        .label("expected at least one prefix, address or range")
        .help("remove the zone and the rules that name it; a zone that is filled at run time has `dynamic: true`")
}

impl<'n> Draft<'n> {
    /// Reads a zone's short form: addresses only.
    pub(super) fn short(&mut self, node: &'n Node, findings: &mut Diagnostics) {
        let items =
            fields::list(node, "a list of prefixes, addresses or ranges", findings).unwrap_or_default();
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            findings.push(no_addresses(node.span));
        }
        for item in items {
            if let Some(range) = addresses::read(item, findings) {
                self.own.push(range);
            }
        }
    }

    /// Reads the keys of a zone's long form that say what it holds.
    pub(super) fn read(
        &mut self,
        fields: &Fields<'n>,
        zone: &Zone,
        loader: &dyn Loader,
        findings: &mut Diagnostics,
    ) {
        if zone.dynamic {
            refuse_in_dynamic(fields, findings);
            return;
        }
        if !SOURCES[..4].iter().any(|key| fields.has(key)) {
            let misspelt = SOURCES.iter().any(|key| fields.is_misspelt(key));
            // A wrong word for `dynamic` was reported; `false` says nothing.
            let unclear = fields
                .get("dynamic")
                .is_some_and(|node| !matches!(&node.value, Value::Text { text, .. } if text == "false"));
            if !misspelt && !unclear && !fields.has_not_enforced() {
                missing(fields, zone, findings);
            }
            return;
        }
        if let Some(node) = fields.get("addresses") {
            self.short(node, findings);
        }
        if let Some(node) = fields.get("file") {
            feeds::files(node, loader, &mut self.own, findings);
            self.from_files = true;
        }
        if let Some(node) = fields.get("directory") {
            feeds::directory(node, loader, &mut self.own, findings);
            self.from_files = true;
        }
        if let Some(node) = fields.get("zones") {
            self.zones(node, findings);
        }
        if let Some(node) = fields.get("exclude") {
            self.exclude = Some(node.span);
            self.exclusions(node, findings);
        }
        self.vlan = fields.key_span("vlan");
    }

    fn zones(&mut self, node: &'n Node, findings: &mut Diagnostics) {
        let items = fields::list(node, "a zone or a list of zones", findings).unwrap_or_default();
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            findings.push(no_addresses(node.span));
        }
        for item in items {
            if let Some(name) = fields::text(item, "a zone's name", findings) {
                self.zones.push((name, item.span));
            }
        }
    }

    /// An exclusion is an address, a prefix, a range, or a zone's name.
    fn exclusions(&mut self, node: &'n Node, findings: &mut Diagnostics) {
        let expected = "an address, a prefix, a range or a zone, or a list of them";
        for item in fields::list(node, expected, findings).unwrap_or_default() {
            let Some(text) = fields::text(item, expected, findings) else {
                continue;
            };
            match addresses::parse(text) {
                Ok(range) => self.without.push((range, item.span)),
                Err(_) if names::is_name(text) => self.without_zones.push((text, item.span)),
                Err(bad) => findings.push(bad.finding(item.span)),
            }
        }
    }

    /// What warnings want to know.
    pub(super) fn written(&self) -> Written {
        Written {
            plain: self.zones.is_empty() && !self.from_files,
        }
    }
}

fn missing(fields: &Fields<'_>, zone: &Zone, findings: &mut Diagnostics) {
    findings.push(
        Diagnostic::error(
            "missing_key",
            fields.span.begin(),
            format!("the zone `{}` needs the key `addresses`", zone.name),
        )
        .label("`addresses` is missing")
        .help(format!("or one of {}", fields::one_of(&SOURCES[1..]))),
    );
}

fn refuse_in_dynamic(fields: &Fields<'_>, findings: &mut Diagnostics) {
    for key in NOT_DYNAMIC {
        let Some(span) = fields.key_span(key) else {
            continue;
        };
        let help = if matches!(key, "plane" | "ports") {
            "its members keep the plane of the other zones that hold them; remove the key"
        } else {
            "its members come and go with `dpufw zone add` and `dpufw zone remove`; remove the key, or `dynamic`"
        };
        let message = format!("a dynamic zone has no `{key}`");
        findings.push(Diagnostic::error("misplaced", span, message).help(help));
    }
}

/// Longest chain of zones that are made of each other; keeps the recursion, and with it the stack, small.
const MAX_CHAIN: usize = 32;

/// Follows the references of all zones, and writes what each holds into it. `used` learns which zones others are made of.
pub(super) fn resolve(
    list: &mut [Zone],
    drafts: &[Draft<'_>],
    by_name: &HashMap<String, ZoneIndex>,
    used: &mut [bool],
    findings: &mut Diagnostics,
) {
    let mut resolver = Resolver {
        list,
        drafts,
        by_name,
        used,
        states: drafts.iter().map(|_| State::Waiting).collect(),
        findings,
    };
    for index in 0..drafts.len() {
        resolver.zone(index, 0);
    }
}

enum State {
    Waiting,
    /// A reference to it now is a cycle.
    Resolving,
    Done(Ranges),
}

struct Resolver<'a, 'n> {
    list: &'a mut [Zone],
    drafts: &'a [Draft<'n>],
    by_name: &'a HashMap<String, ZoneIndex>,
    used: &'a mut [bool],
    states: Vec<State>,
    findings: &'a mut Diagnostics,
}

impl Resolver<'_, '_> {
    fn zone(&mut self, index: ZoneIndex, chain: usize) {
        if !matches!(self.states[index], State::Waiting) {
            return;
        }
        self.states[index] = State::Resolving;
        let draft = &self.drafts[index];
        let mut ranges = draft.own.clone();
        let mut whole = true;
        for (name, span) in &draft.zones {
            match self.other(index, name, *span, chain) {
                Some(other) => ranges.extend(self.ranges(other)),
                None => whole = false,
            }
        }
        ranges.merge();
        let full = !ranges.is_empty();
        whole &= self.exclude(index, &mut ranges, chain);
        self.list[index].prefixes = ranges.prefixes();
        if full && whole && ranges.is_empty() {
            let item = no_addresses(draft.exclude.unwrap_or(self.list[index].span));
            self.findings.push(item.label("its exclusions leave nothing"));
        }
        self.states[index] = State::Done(ranges);
    }

    fn ranges(&self, index: ZoneIndex) -> &Ranges {
        static EMPTY: Ranges = Ranges::NONE;
        match &self.states[index] {
            State::Done(ranges) => ranges,
            State::Waiting | State::Resolving => &EMPTY,
        }
    }

    /// Takes out what the zone excludes. False if that is not known.
    fn exclude(&mut self, index: ZoneIndex, ranges: &mut Ranges, chain: usize) -> bool {
        let draft = &self.drafts[index];
        let mut whole = true;
        let mut without = Ranges::default();
        for (range, span) in &draft.without {
            if !ranges.meets(*range) {
                self.findings.push(
                    Diagnostic::warning("exclude", *span, "the zone does not hold what is excluded here")
                        .help("remove the exclusion, or correct it"),
                );
            }
            without.push(*range);
        }
        for (name, span) in &draft.without_zones {
            match self.other(index, name, *span, chain) {
                Some(other) => without.extend(self.ranges(other)),
                None => whole = false,
            }
        }
        without.merge();
        ranges.subtract(&without);
        whole
    }

    /// The zone that is named, resolved; `None` if it cannot be a part.
    fn other(&mut self, index: ZoneIndex, name: &str, span: Span, chain: usize) -> Option<ZoneIndex> {
        let Some(&other) = self.by_name.get(name) else {
            let item = unknown(name, span, self.list);
            self.findings.push(item);
            return None;
        };
        self.used[other] = true;
        if matches!(self.states[other], State::Resolving) || chain == MAX_CHAIN {
            let message = if chain == MAX_CHAIN {
                "zones are made of each other too deeply".to_owned()
            } else {
                format!("the zone `{name}` is part of itself")
            };
            self.findings.push(
                Diagnostic::error("zone_cycle", span, message)
                    .also(self.list[other].span, "defined here")
                    .help("write the addresses instead of the name"),
            );
            return None;
        }
        if self.list[other].dynamic {
            let message = format!("the zone `{name}` is dynamic: its addresses are not known here");
            self.findings.push(
                Diagnostic::error("dynamic_part", span, message)
                    .also(self.list[other].span, "defined here")
                    .help(format!(
                        "name it beside the other zone where it is used: `from: [{}, {name}]`",
                        self.list[index].name
                    )),
            );
            return None;
        }
        self.zone(other, chain + 1);
        self.one_realm(index, other, span).then_some(other)
    }

    /// A zone lies in one realm, so all its parts must. Without a `vlan` of its own it is in that of its first part.
    fn one_realm(&mut self, index: ZoneIndex, other: ZoneIndex, span: Span) -> bool {
        let draft = &self.drafts[index];
        let part = self.list[other].tags();
        let first = draft.zones.first().is_some_and(|(_, first)| *first == span);
        if draft.vlan.is_none() && first && draft.own.is_empty() {
            (self.list[index].vlan, self.list[index].inner_vlan) = (part.outer, part.inner);
        }
        let own = self.list[index].tags();
        if own == part {
            return true;
        }
        let message = format!(
            "the zone `{}` is {}, and `{}` is {}",
            self.list[other].name,
            realm(part),
            self.list[index].name,
            realm(own)
        );
        self.findings.push(
            Diagnostic::error("zone_realms", span, message)
                .also(
                    self.list[index].span,
                    "a zone lies in one VLAN, and all its parts with it",
                )
                .help("make a zone for each VLAN, and name them together in rules"),
        );
        false
    }
}

fn realm(tags: Tags) -> String {
    match tags {
        Tags::NONE => "untagged".to_owned(),
        tags => format!("in VLAN {tags}"),
    }
}

/// The finding for a part that is no zone of the policy.
fn unknown(name: &str, span: Span, list: &[Zone]) -> Diagnostic {
    if ZoneKind::BUILT_IN.iter().any(|kind| kind.name() == Some(name)) {
        let message = format!("the built-in zone `{name}` cannot be a part of another");
        return Diagnostic::error("built_in_zone", span, message)
            .label("expected a zone of the policy")
            .help(format!(
                "name it beside the zone where it is used: `from: [..., {name}]`"
            ));
    }
    zones::unknown(name, span, list.iter().map(|zone| zone.name.as_str()))
}
