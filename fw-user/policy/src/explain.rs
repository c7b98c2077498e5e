//! Why a flow is decided as it is. The decision comes from the compiled tables, by the look-up that the kernel uses; why
//! the rules before it did not match comes from the model.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use fw_common::abi::{Ip4, Ip6, LinkFlags, Proto, Reason, SetHeader};
use fw_common::classify::{Classified, classify, realm_record};
use fw_common::wire;
use serde::Serialize;

use crate::compile::TableSet;
use crate::flow::{Flow, FlowSpec};
use crate::model::{Policy, RouterAdvertisement, Rule, RuleAction, ZoneIndex};
use crate::resolve::{ResolveError, resolve};
use crate::{Environment, names};

/// Rules that the text lists; `--json` has all.
const MAX_LISTED: usize = 20;

/// How a flow is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The flow, zones replaced by addresses.
    pub flow: Flow,
    /// Allow or deny.
    pub verdict: RuleAction,
    /// Machine name of the reason.
    pub reason: &'static str,
    /// The reason as a sentence.
    pub sentence: &'static str,
    /// The rule that decides; `None`: the default, or no rule was asked.
    pub rule: Option<RuleRef>,
    /// The zones that hold the source, the most specific one first.
    pub source_zones: Vec<String>,
    /// The zones that hold the destination, the most specific one first.
    pub destination_zones: Vec<String>,
    /// The rules before it, and why each did not match.
    pub skipped: Vec<Skipped>,
    /// Something that the answer leaves out.
    pub note: Option<&'static str>,
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Name.
    pub name: String,
    /// Stable id.
    pub id: u32,
    /// The policy's file.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
}

/// A rule that did not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The rule.
    pub rule: RuleRef,
    /// The first of its conditions that does not hold.
    pub why: Mismatch,
}

/// Why a rule did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// The source is in none of the rule's zones.
    Source,
    /// The destination is in none of them.
    Destination,
    /// Protocol or port are others.
    Service,
}

impl RuleRef {
    fn new(policy: &Policy, rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            id: rule.id,
            file: policy.file.clone(),
            line: rule.line,
        }
    }
}

/// Explains a flow. `vlan` and `role` are the packet's tag and its port's role, where they are known. `tables` must be
/// compiled from `policy` and `environment`.
///
/// # Errors
/// [`ResolveError`]: the flow names a zone that stands for no address.
pub fn explain(
    policy: &Policy,
    tables: &TableSet,
    environment: &Environment,
    flow: &FlowSpec,
    vlan: Option<u16>,
    role: Option<&str>,
) -> Result<Explanation, ResolveError> {
    let flow = resolve(policy, environment, flow, vlan)?;
    let own = environment.own_addresses.as_slice();
    let (reason, number) = judge(policy, tables, &flow, role);
    let rule = number
        .checked_sub(1)
        .and_then(|place| policy.rules.get(place as usize));
    let zones = [flow.src, flow.dst].map(|address| policy.zones_of(flow.vlan, address, own));
    // Where no rule was asked, none was passed over.
    let asked = matches!(reason, Reason::Rule | Reason::DenyRule | Reason::DenyDefault);
    let before = rule.map_or(policy.rules.len(), |rule| rule.number as usize - 1);
    let before = if asked { &policy.rules[..before] } else { &[] };
    let skipped = before.iter().filter_map(|rule| {
        let why = mismatch(rule, &zones, &flow)?;
        Some(Skipped {
            rule: RuleRef::new(policy, rule),
            why,
        })
    });
    let dhcp =
        policy.link.dhcp_client && flow.proto == Proto::UDP && matches!(flow.selector, 67 | 68 | 546 | 547);
    Ok(Explanation {
        flow,
        verdict: if reason.allows() {
            RuleAction::Allow
        } else {
            RuleAction::Deny
        },
        reason: reason.name(),
        sentence: reason.sentence(),
        rule: rule.map(|rule| RuleRef::new(policy, rule)),
        source_zones: zone_names(policy, &flow, flow.src, own),
        destination_zones: zone_names(policy, &flow, flow.dst, own),
        skipped: skipped.collect(),
        note: dhcp.then_some("DHCP as a client passes by the link section, before the rules"),
    })
}

/// Reason and rule number, in the order of the packet path.
fn judge(policy: &Policy, tables: &TableSet, flow: &Flow, role: Option<&str>) -> (Reason, u32) {
    if let Some(reason) = never_opens(flow) {
        return (reason, 0);
    }
    let lines = tables.lines.as_slice();
    let realm = match realm_record(lines, flow.vlan) {
        Ok(realm) => realm,
        Err(reason) => return (reason, 0),
    };
    if let Some(reason) = link(policy, tables, flow, role) {
        return (reason, 0);
    }
    let mut out = Classified::default();
    let service = (flow.proto, flow.selector);
    let decision = match (flow.src, flow.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => classify(
            lines,
            realm,
            (Ip4(src.into()), Ip4(dst.into())),
            service,
            &mut out,
        ),
        (src, dst) => classify(lines, realm, (ip6(src), ip6(dst)), service, &mut out),
    };
    match decision {
        Err(reason) => (reason, 0),
        Ok(decision) if decision.allows() => (Reason::Rule, decision.rule()),
        Ok(decision) if decision.rule() == 0 => (Reason::DenyDefault, 0),
        Ok(decision) => (Reason::DenyRule, decision.rule()),
    }
}

fn ip6(address: IpAddr) -> Ip6 {
    match address {
        IpAddr::V6(v6) => Ip6::from_bits(v6.into()),
        IpAddr::V4(v4) => Ip6::from_bits(v4.to_ipv6_mapped().into()),
    }
}

/// ICMP messages that open no flow, whatever the rules say.
fn never_opens(flow: &Flow) -> Option<Reason> {
    let icmp = flow.proto == Proto::ICMP || flow.proto == Proto::ICMPV6;
    if !icmp || is_link(flow) {
        return None;
    }
    let kind = flow.selector >> 8;
    if kind == u16::from(names::echo_request(flow.proto)) {
        None
    } else if wire::icmp_error(flow.proto, flow.selector) {
        Some(Reason::IcmpUnrelated)
    } else if (flow.proto == Proto::ICMP && kind == 0) || (flow.proto == Proto::ICMPV6 && kind == 129) {
        Some(Reason::IcmpNoFlow)
    } else if flow.proto == Proto::ICMP && kind == 5 {
        Some(Reason::DenyRedirect)
    } else {
        Some(Reason::IcmpType)
    }
}

fn is_link(flow: &Flow) -> bool {
    flow.proto == Proto::IGMP || (flow.proto == Proto::ICMPV6 && wire::icmpv6_is_link(flow.selector))
}

/// What the link section says of IGMP, MLD and neighbour discovery.
fn link(policy: &Policy, tables: &TableSet, flow: &Flow, role: Option<&str>) -> Option<Reason> {
    if !is_link(flow) {
        return None;
    }
    let header = SetHeader::from_lines(tables.lines.first()?, tables.lines.get(1)?);
    let choose = |flag: u32, allow, deny| if header.link & flag != 0 { allow } else { deny };
    Some(match (flow.proto, flow.selector >> 8) {
        (Proto::ICMPV6, 135 | 136) => choose(LinkFlags::ND, Reason::LinkNd, Reason::DenyNd),
        (Proto::ICMPV6, 137) => Reason::DenyRedirect,
        (Proto::ICMPV6, kind @ (133 | 134)) => match &policy.link.router_advertisement {
            RouterAdvertisement::Roles(_) if kind == 133 => Reason::LinkRa,
            RouterAdvertisement::Roles(roles) if roles.iter().any(|own| Some(own.as_str()) == role) => {
                Reason::LinkRa
            }
            _ => Reason::DenyRa,
        },
        _ => choose(LinkFlags::MULTICAST, Reason::LinkMulticast, Reason::DenyMulticast),
    })
}

/// The first condition of a rule that does not hold; `None` if the rule matches.
fn mismatch(rule: &Rule, [src, dst]: &[Vec<ZoneIndex>; 2], flow: &Flow) -> Option<Mismatch> {
    let common = |zones: &[ZoneIndex], held: &[ZoneIndex]| zones.iter().any(|zone| held.contains(zone));
    let mut from = rule
        .directions
        .iter()
        .filter(|direction| common(&direction.from, src))
        .peekable();
    if from.peek().is_none() {
        return Some(Mismatch::Source);
    }
    if !from.any(|direction| common(&direction.to, dst)) {
        return Some(Mismatch::Destination);
    }
    (!rule.serves(flow.proto, flow.selector)).then_some(Mismatch::Service)
}

fn zone_names(policy: &Policy, flow: &Flow, address: IpAddr, own: &[IpAddr]) -> Vec<String> {
    let best = policy.most_specific(flow.vlan, address, own);
    let mut zones = policy.zones_of(flow.vlan, address, own);
    zones.sort_by_key(|zone| Some(*zone) != best);
    zones
        .into_iter()
        .map(|zone| policy.zones[zone].name.clone())
        .collect()
}

/// The explanation for people.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", flow_line(&self.flow))?;
        writeln!(out, "  source       {}", self.source_zones.join(", "))?;
        writeln!(out, "  destination  {}", self.destination_zones.join(", "))?;
        match (&self.rule, self.verdict) {
            (Some(rule), verdict) => {
                writeln!(
                    out,
                    "  {} by rule `{}` ({}:{})",
                    past(verdict),
                    rule.name,
                    rule.file,
                    rule.line
                )?;
            }
            (None, verdict) => writeln!(out, "  {}: {} {}", past(verdict), self.reason, self.sentence)?,
        }
        if let Some(note) = self.note {
            writeln!(out, "  note: {note}")?;
        }
        // With many rules, those that fit both addresses are the ones that a reader asks about.
        let many = self.skipped.len() > MAX_LISTED;
        let near = |skipped: &&Skipped| !many || skipped.why == Mismatch::Service;
        let listed: Vec<&Skipped> = self.skipped.iter().filter(near).take(MAX_LISTED).collect();
        for Skipped { rule, why } in &listed {
            let why = match why {
                Mismatch::Source => "another source",
                Mismatch::Destination => "another destination",
                Mismatch::Service => "another service",
            };
            writeln!(out, "  not `{}` (line {}): {why}", rule.name, rule.line)?;
        }
        match self.skipped.len() - listed.len() {
            0 => Ok(()),
            more => writeln!(out, "  and {more} rules more before it did not match"),
        }
    }
}

const fn past(verdict: RuleAction) -> &'static str {
    match verdict {
        RuleAction::Allow => "allowed",
        RuleAction::Deny => "denied",
    }
}

fn flow_line(flow: &Flow) -> String {
    let mut line = format!(
        "{} {} -> {}",
        names::protocol_name(flow.proto),
        flow.src,
        flow.dst
    );
    // Writing to a String cannot fail.
    let _ = match flow.proto {
        Proto::TCP | Proto::UDP | Proto::SCTP => write!(line, " port {}", flow.selector),
        Proto::ICMP | Proto::ICMPV6 => {
            write!(line, " type {} code {}", flow.selector >> 8, flow.selector & 0xff)
        }
        _ => Ok(()),
    };
    if flow.vlan != 0 {
        let _ = write!(line, ", VLAN {}", flow.vlan);
    }
    line
}
