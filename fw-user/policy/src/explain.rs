//! Why a flow is decided as it is. The decision comes from the compiled tables, by the look-up that the kernel uses; why
//! the rules before it did not match comes from the model.

mod judge;
mod text;

pub(crate) use text::attributes;

use std::net::IpAddr;

use fw_common::abi::{Proto, Reason};
use serde::Serialize;

use crate::Environment;
use crate::compile::TableSet;
use crate::flow::{Flow, FlowSpec};
use crate::model::{Policy, Rule, RuleAction, Tags, ZoneIndex};
use crate::resolve::{ResolveError, resolve};

/// How a flow is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The flow, zones replaced by addresses.
    pub flow: Flow,
    /// Allow, deny or reject. A rule with `audit: true` allows.
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
    /// What else the deciding rule says: limits, `log`, `until` and the like, as the policy writes them.
    pub attributes: Vec<String>,
    /// Something that the answer leaves out.
    pub note: Option<&'static str>,
}

/// A question: a flow, and how its first packet comes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The flow.
    pub flow: &'a FlowSpec,
    /// The packet's VLAN tags; `None`: those of the flow's zones, or none.
    pub tags: Option<Tags>,
    /// Role of the port that it comes in by; a packet of this machine: that it leaves by.
    pub role: Option<&'a str>,
    /// Mode `inline`: role of the pair's other port; `None`: mode `host`.
    pub peer: Option<&'a str>,
    /// Mode `inline`: the port that it comes in by is on the side of the guarded machine. Where nobody knows: false.
    pub guarded: bool,
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
    pub(crate) fn new(policy: &Policy, rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            id: rule.id,
            file: policy.sources.name(rule.span).to_owned(),
            line: rule.line,
        }
    }

    /// Where the rule stands, as editors and compilers write it: `policy.yaml:12`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Explains a flow. `vlan` and `role` are the packet's tag and its port's role, where they are known. As [`ask`].
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
    let asked = Asked {
        flow,
        tags: vlan.map(Tags::from),
        role,
        peer: None,
        guarded: false,
    };
    ask(policy, tables, environment, &asked)
}

/// Explains a flow. `tables` must be compiled from `policy` and `environment`. Limits, floods and `until` are taken as not
/// reached: they are a matter of time (for `until` see [`Explanation::at`]).
///
/// # Errors
/// [`ResolveError`]: the flow names a zone that stands for no address.
pub fn ask(
    policy: &Policy,
    tables: &TableSet,
    environment: &Environment,
    asked: &Asked<'_>,
) -> Result<Explanation, ResolveError> {
    let flow = resolve(policy, environment, asked.flow, asked.tags)?;
    let own = environment.own_addresses.as_slice();
    let found = judge::judge(policy, tables, &flow, own, asked);
    let rule = found
        .rule
        .checked_sub(1)
        .and_then(|place| policy.rules.get(place as usize));
    let zones = [flow.src, flow.dst].map(|address| policy.zones_of(flow.tags(), address, own));
    let before = rule.map_or(policy.rules.len(), |rule| rule.number as usize - 1);
    // Where no rule was asked, none was passed over; nor where the opposite direction's rule decides.
    let asked_rules = rules_decide(found.reason) && !found.reversed;
    let before = if asked_rules { &policy.rules[..before] } else { &[] };
    let skipped = before.iter().filter_map(|rule| {
        let why = mismatch(rule, &zones, &flow)?;
        Some(Skipped {
            rule: RuleRef::new(policy, rule),
            why,
        })
    });
    Ok(Explanation {
        flow,
        verdict: verdict(found.reason),
        reason: found.reason.name(),
        sentence: found.reason.sentence(),
        rule: rule.map(|rule| RuleRef::new(policy, rule)),
        source_zones: zone_names(policy, &flow, flow.src, own),
        destination_zones: zone_names(policy, &flow, flow.dst, own),
        skipped: skipped.collect(),
        attributes: rule.map_or_else(Vec::new, text::attributes),
        note: note(policy, &flow, &found),
    })
}

impl Explanation {
    /// The explanation at a point in time (seconds since 1970, UTC): what the deciding rule lets through is denied once its
    /// `until` has passed, and no later rule is asked.
    #[must_use]
    pub fn at(mut self, policy: &Policy, now_unix_s: i64) -> Self {
        let id = self.rule.as_ref().map(|rule| rule.id);
        let until = policy
            .rules
            .iter()
            .find(|rule| Some(rule.id) == id)
            .and_then(|rule| rule.until);
        if self.verdict == RuleAction::Allow && until.is_some_and(|until| until <= now_unix_s) {
            let reason = Reason::RuleExpired;
            (self.verdict, self.reason, self.sentence) = (RuleAction::Deny, reason.name(), reason.sentence());
        }
        self
    }
}

const fn rules_decide(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Rule
            | Reason::Untracked
            | Reason::Audit
            | Reason::DenyRule
            | Reason::DenyDefault
            | Reason::RejectRule
            | Reason::RejectDefault
    )
}

const fn verdict(reason: Reason) -> RuleAction {
    match reason {
        Reason::RejectRule | Reason::RejectDefault => RuleAction::Reject,
        reason if reason.allows() => RuleAction::Allow,
        _ => RuleAction::Deny,
    }
}

/// What a reader should know beside the answer.
fn note(policy: &Policy, flow: &Flow, found: &judge::Found) -> Option<&'static str> {
    let dhcp = policy.link.dhcp_client
        && flow.proto == Proto::UDP
        && matches!(flow.selector, 67 | 68 | 546 | 547)
        && found.reason != Reason::LinkDhcp;
    if found.reversed {
        Some("the rule has `track: false`, so the packets of its answering side pass as well")
    } else if flow.proto == Proto::AH {
        Some(
            "no packet is judged as ah: the packet path looks through authentication headers; ask for the protocol behind \
             them",
        )
    } else {
        dhcp.then_some(
            "of DHCP the link section passes requests of this machine or the guarded side to everybody (from port 68, IPv6: 546) \
             and answers of the network (from port 67, IPv6: to a link-local address); this packet is neither, so the rules \
             decide",
        )
    }
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
    (!rule.serves(flow.proto, flow.selector, flow.source_port())).then_some(Mismatch::Service)
}

fn zone_names(policy: &Policy, flow: &Flow, address: IpAddr, own: &[IpAddr]) -> Vec<String> {
    let best = policy.most_specific(flow.tags(), address, own);
    let mut zones = policy.zones_of(flow.tags(), address, own);
    zones.sort_by_key(|zone| Some(*zone) != best);
    zones
        .into_iter()
        .map(|zone| policy.zones[zone].name.clone())
        .collect()
}
