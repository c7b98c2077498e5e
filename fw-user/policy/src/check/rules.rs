//! The `rules:` section.

use std::collections::HashMap;

use fw_common::abi::Proto;

use super::attributes;
use super::fields::{self, Fields};
use super::matches;
use super::services::Services;
use super::zones::{self, Zones};
use crate::diagnostic::{Diagnostic, Diagnostics, LineCounter, Span};
use crate::keys;
use crate::model::{Direction, Rule, RuleAction, Tags, ZoneIndex, ZoneKind};
use crate::names;
use crate::yaml::{Node, Value};

/// Most rules of a policy: a decision holds the number in 22 bits.
const MAX_RULES: usize = 1 << 20;
const ACTIONS: [(&str, RuleAction); 3] = [
    ("allow", RuleAction::Allow),
    ("deny", RuleAction::Deny),
    ("reject", RuleAction::Reject),
];

/// Reads the sections of all files. Rules with errors are left out, except that their names count.
pub(super) fn read(
    sections: &[&Node],
    zones: &Zones,
    services: &Services,
    findings: &mut Diagnostics,
) -> Vec<Rule> {
    let items: Vec<&Node> = sections
        .iter()
        .flat_map(|section| items(section, findings))
        .collect();
    let listed = |section: &&&Node| matches!(section.value, Value::List(_) | Value::Empty);
    if let Some(last) = sections
        .last()
        .filter(|_| items.is_empty() && sections.iter().all(|node| listed(&node)))
    {
        let message = "the list of rules is empty: every flow is denied";
        findings.push(
            Diagnostic::warning("no_rules", last.span, message)
                .help("this is a lock-down; add a rule for each flow that is wanted"),
        );
    }
    if let Some(first) = items.get(MAX_RULES) {
        let message = format!(
            "the policy has {} rules; at most {MAX_RULES} are enforced",
            items.len()
        );
        findings.push(Diagnostic::error("too_large", first.span, message));
        return Vec::new();
    }
    let mut reader = Reader {
        zones,
        services,
        names: HashMap::new(),
        ids: HashMap::new(),
        lines: LineCounter::default(),
    };
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let number = rules.len() as u32 + 1;
        rules.extend(reader.rule(item, number, findings));
    }
    rules
}

/// The rules of one section.
fn items<'n>(section: &'n Node, findings: &mut Diagnostics) -> &'n [Node] {
    match &section.value {
        Value::List(items) => return items,
        Value::Empty => {}
        _ => {
            let message = "`rules` is a list (`- { name: ..., allow: [...], from: ..., to: ... }`)";
            findings.push(fields::wrong_type(section, message, "a list"));
        }
    }
    &[]
}

struct Reader<'a> {
    zones: &'a Zones,
    services: &'a Services,
    names: HashMap<String, Span>,
    ids: HashMap<u32, String>,
    lines: LineCounter,
}

impl Reader<'_> {
    fn rule(&mut self, node: &Node, number: u32, findings: &mut Diagnostics) -> Option<Rule> {
        let fields = Fields::read(node, "a rule", keys::RULE, findings)?;
        let name = self.name(&fields, findings);
        let action = action(&fields, findings);
        let directions = self.directions(&fields, findings);
        let services = action.map(|(_, node)| self.services.matches(node, findings));
        let named = name.as_ref().map_or("", |(name, _)| name.as_str());
        let attributes = action.map(|(action, _)| attributes::read(&fields, named, action, findings));
        let ((name, span), (action, _), directions, services) = (name?, action?, directions?, services?);
        let attributes = attributes?;
        let rule = Rule {
            number,
            id: names::stable_id("rule", &name),
            name,
            action,
            directions,
            services,
            limits: attributes.limits,
            log: attributes.log,
            audit: attributes.audit,
            track: attributes.track,
            until: attributes.until,
            line: self.lines.line(&findings.sources, node.span),
            span,
        };
        self.doubts(&rule, findings);
        Some(rule)
    }

    fn name(&mut self, fields: &Fields<'_>, findings: &mut Diagnostics) -> Option<(String, Span)> {
        let node = fields.require("name", "a rule", findings)?;
        let text = fields::text(node, "the rule's name", findings)?;
        let plain = matches!(node.value, Value::Text { plain: true, .. });
        if !fields::new_name(text, plain, node.span, "a rule", findings) {
            return None;
        }
        if let Some(first) = self.names.get(text) {
            findings.push(
                Diagnostic::error(
                    "duplicate_rule",
                    node.span,
                    format!("two rules have the name `{text}`"),
                )
                .label("used again here")
                .also(*first, "first used here")
                .help("rename one of the two: counters and logs know a rule by its name"),
            );
            return None;
        }
        self.names.insert(text.to_owned(), node.span);
        if let Some(other) = self.ids.insert(names::stable_id("rule", text), text.to_owned()) {
            findings.push(zones::same_id("rules", text, &other, node.span));
        }
        Some((text.to_owned(), node.span))
    }

    fn directions(&self, fields: &Fields<'_>, findings: &mut Diagnostics) -> Option<Vec<Direction>> {
        let Some(between) = fields.get("between") else {
            let from = fields.require("from", "a rule without `between`", findings);
            let to = fields.require("to", "a rule without `between`", findings);
            let from = from.and_then(|node| self.zones.read_list(node, findings));
            let to = to.and_then(|node| self.zones.read_list(node, findings));
            return Some(vec![Direction { from: from?, to: to? }]);
        };
        for key in ["from", "to"] {
            if let Some(span) = fields.key_span(key) {
                findings.push(
                    Diagnostic::error("between", span, format!("a rule with `between` has no `{key}`"))
                        .help("`between: [a, b]` means both ways; remove it, or remove `from` and `to`"),
                );
            }
        }
        self.between(between, findings)
    }

    fn between(&self, node: &Node, findings: &mut Diagnostics) -> Option<Vec<Direction>> {
        let Value::List(items) = &node.value else {
            findings.push(fields::wrong_type(
                node,
                "`between` is a list of two zones",
                "a list such as [a, b]",
            ));
            return None;
        };
        let [a, b] = items.as_slice() else {
            findings.push(
                Diagnostic::error(
                    "between",
                    node.span,
                    format!("`between` takes two zones, not {}", items.len()),
                )
                .label("expected two zones, such as [gpu, storage]")
                .help("for more zones write `from` and `to` with lists"),
            );
            return None;
        };
        let (a, b) = (
            self.zones.read_list(a, findings),
            self.zones.read_list(b, findings),
        );
        let (a, b) = (a?, b?);
        let mut directions = vec![Direction {
            from: a.clone(),
            to: b.clone(),
        }];
        if a != b {
            directions.push(Direction { from: b, to: a });
        }
        Some(directions)
    }

    /// Warns of a rule that can match nothing.
    fn doubts(&self, rule: &Rule, findings: &mut Diagnostics) {
        if !rule.services.is_empty() && !rule.services.iter().any(|found| matches::opens_flows(*found)) {
            findings.push(matches::never_opens(&rule.name, rule.span));
        }
        if rule.services.iter().any(|found| found.proto == Some(Proto::AH)) {
            findings.push(matches::looked_through(&rule.name, rule.span));
        }
        let met = rule.directions.iter().any(|direction| {
            direction
                .from
                .iter()
                .any(|from| direction.to.iter().any(|to| self.may_meet(*from, *to)))
        });
        if !met {
            let message = format!(
                "the rule `{}` matches nothing: its zones are in different VLANs",
                rule.name
            );
            findings.push(
                Diagnostic::warning("no_common_vlan", rule.span, message)
                    .help("a packet has one tag, which both of its zones must have"),
            );
        }
    }

    /// True if one VLAN has addresses of both zones: what has none is seen in that of the other, see [`super::realms`].
    fn may_meet(&self, from: ZoneIndex, to: ZoneIndex) -> bool {
        let (from, to) = (&self.zones.list[from], &self.zones.list[to]);
        let tags = [from.tags(), to.tags()];
        from.kind != ZoneKind::Named
            || to.kind != ZoneKind::Named
            || from.tags() == to.tags()
            || tags.contains(&Tags::NONE)
    }
}

/// Action and services of a rule.
fn action<'n>(fields: &Fields<'n>, findings: &mut Diagnostics) -> Option<(RuleAction, &'n Node)> {
    let mut found = ACTIONS.iter().filter(|(key, _)| fields.has(key));
    match (found.next(), found.next()) {
        (Some((key, action)), None) => Some((*action, fields.get(key)?)),
        (Some((first, _)), Some((second, _))) => {
            let [first, second] = [first, second].map(|key| fields.key_span(key).unwrap_or(fields.span));
            findings.push(
                Diagnostic::error(
                    "action",
                    second,
                    "a rule has one of `allow`, `deny` and `reject`, not more",
                )
                .label("the second one")
                .also(first, "the first one")
                .help("make two rules of it; the first that matches wins"),
            );
            None
        }
        // A misspelt key was reported as unknown.
        (None, _) if ACTIONS.iter().any(|(key, _)| fields.is_misspelt(key)) => None,
        (None, _) => {
            let place = fields.span.begin();
            findings.push(
                Diagnostic::error(
                    "action",
                    place,
                    "the rule has neither `allow` nor `deny` nor `reject`",
                )
                .label("expected exactly one of them")
                .help("write `allow: [ssh]` or `deny: all`"),
            );
            None
        }
    }
}
