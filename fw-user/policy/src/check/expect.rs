//! The `expect:` section: the policy's own tests. They are read here and run by [`crate::run_expectations`].

use std::net::IpAddr;

use fw_common::abi::Reason;

use super::fields::{self, Fields};
use super::roles::Named;
use super::sections;
use super::zones::{self, Zones};
use crate::diagnostic::{Diagnostic, Diagnostics, LineCounter};
use crate::flow::{Endpoint, FlowSpec};
use crate::keys;
use crate::model::{Expectation, Rule, RuleAction, Tags, ZoneKind};
use crate::names;
use crate::yaml::{Node, Value};

/// Reads the sections of all files. The second value holds the roles that expectations name.
pub(super) fn read(
    sections: &[&Node],
    zones: &Zones,
    rules: &[Rule],
    findings: &mut Diagnostics,
) -> (Vec<Expectation>, Vec<Named>) {
    let mut reader = Reader {
        zones,
        rules,
        lines: LineCounter::default(),
        named: Vec::new(),
    };
    let mut read = Vec::new();
    for section in sections {
        match &section.value {
            Value::Empty => {}
            Value::List(items) => {
                for item in items {
                    read.extend(reader.expectation(item, findings));
                }
            }
            _ => {
                let message = "`expect` is a list (`- { flow: tcp a b:22, is: allow }`)";
                findings.push(fields::wrong_type(section, message, "a list"));
            }
        }
    }
    (read, reader.named)
}

struct Reader<'a> {
    zones: &'a Zones,
    rules: &'a [Rule],
    lines: LineCounter,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn expectation(&mut self, node: &Node, findings: &mut Diagnostics) -> Option<Expectation> {
        let fields = Fields::read(node, "an expectation", keys::EXPECTATION, findings)?;
        let flow = fields.require("flow", "an expectation", findings);
        let is = fields.require("is", "an expectation", findings);
        let flow = flow.and_then(|node| Some((flow_spec(node, self.zones, findings)?, node)));
        let is = is.and_then(|node| fields::word(node, &["allow", "deny", "reject"], findings));
        if let Some(span) = fields.key_span("out").filter(|_| !fields.has("in")) {
            findings.push(
                Diagnostic::error("missing_key", span, "`out` needs the key `in`")
                    .help("say by which port of the pair the packet comes in, or remove `out`"),
            );
        }
        let tags = fields.get("vlan").and_then(|node| tags(node, findings));
        let own_addresses = fields
            .get("self")
            .map_or_else(Vec::new, |node| own_addresses(node, findings));
        let rule = fields
            .get("rule")
            .and_then(|node| rule_name(node, self.rules, findings));
        let reason = fields.get("reason").and_then(|node| reason(node, findings));
        let [role, peer] = ["in", "out"].map(|key| self.role(&fields, key, reason.as_deref(), findings));
        let ((flow, flow_node), is) = (flow?, is?);
        let (text, _) = written(flow_node);
        Some(Expectation {
            flow,
            text: text.to_owned(),
            role,
            peer,
            tags,
            own_addresses,
            is: match is {
                "allow" => RuleAction::Allow,
                "reject" => RuleAction::Reject,
                _ => RuleAction::Deny,
            },
            rule,
            reason,
            line: self.lines.line(&findings.sources, node.span),
            span: flow_node.span,
        })
    }

    /// The role under a key, which is remembered.
    fn role(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        reason: Option<&str>,
        findings: &mut Diagnostics,
    ) -> Option<String> {
        let node = fields.get(key)?;
        let role = sections::role(node, findings)?;
        self.named.push(Named {
            role: role.clone(),
            span: node.span,
            unbound: reason == Some(Reason::PlaneMismatch.name()),
        });
        Some(role)
    }
}

fn written(node: &Node) -> (&str, bool) {
    match &node.value {
        Value::Text { text, plain } => (text, *plain),
        _ => ("", false),
    }
}

fn flow_spec(node: &Node, zones: &Zones, findings: &mut Diagnostics) -> Option<FlowSpec> {
    let text = fields::text(node, "a flow such as `tcp 10.0.0.1 10.0.0.2:22`", findings)?;
    let flow: FlowSpec = match text.parse() {
        Ok(flow) => flow,
        Err(error) => {
            findings.push(
                Diagnostic::error("bad_flow", node.span, format!("{error}"))
                    .label("expected `PROTOCOL SOURCE DESTINATION`, with a port behind tcp, udp and sctp destinations"),
            );
            return None;
        }
    };
    let mut known = true;
    for endpoint in [&flow.src, &flow.dst] {
        let Endpoint::Zone(name) = endpoint else { continue };
        match zones.get(name).map(|index| zones.list[index].kind) {
            None => findings.push(zones.unknown(name, node.span)),
            Some(ZoneKind::Any) => findings.push(
                Diagnostic::error("bad_flow", node.span, "`any` stands for no particular address")
                    .help("write an address, `outside`, or a zone of the policy"),
            ),
            Some(_) => continue,
        }
        known = false;
    }
    known.then_some(flow)
}

/// As a zone's VLAN, but 0 may be written for untagged.
fn tags(node: &Node, findings: &mut Diagnostics) -> Option<Tags> {
    match written(node) {
        ("0", true) => Some(Tags::NONE),
        _ => zones::tags(node, findings),
    }
}

fn own_addresses(node: &Node, findings: &mut Diagnostics) -> Vec<IpAddr> {
    let expected = "an address, or a list of addresses";
    let items = fields::list(node, expected, findings).unwrap_or(&[]);
    let mut addresses = Vec::new();
    for item in items {
        let Some(text) = fields::text(item, "an address", findings) else {
            continue;
        };
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => findings.push(
                Diagnostic::error("bad_address", item.span, format!("`{text}` is no address"))
                    .label("expected an address of the machine that the expectation means"),
            ),
        }
    }
    addresses
}

fn rule_name(node: &Node, rules: &[Rule], findings: &mut Diagnostics) -> Option<String> {
    let name = fields::text(node, "a rule's name", findings)?;
    // Rules with errors are not in the list; then the name may well be right.
    if findings.has_errors() || rules.iter().any(|rule| rule.name == name) {
        return Some(name.to_owned());
    }
    let item = Diagnostic::error("unknown_rule", node.span, format!("there is no rule `{name}`"))
        .label("expected a rule's name");
    findings.push(
        match names::nearest(name, rules.iter().map(|rule| rule.name.as_str())) {
            Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
            None => item.help("leave `rule` out where the default should decide"),
        },
    );
    None
}

fn reason(node: &Node, findings: &mut Diagnostics) -> Option<String> {
    let name = fields::text(node, "a reason's name", findings)?;
    if Reason::ALL.iter().any(|reason| reason.name() == name) {
        return Some(name.to_owned());
    }
    let item = Diagnostic::error(
        "unknown_reason",
        node.span,
        format!("there is no reason `{name}`"),
    )
    .label("expected a reason, such as `deny_default`");
    findings.push(
        match names::nearest(name, Reason::ALL.iter().map(|reason| reason.name())) {
            Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
            None => item.help("docs/reasons.md lists all reasons"),
        },
    );
    None
}
