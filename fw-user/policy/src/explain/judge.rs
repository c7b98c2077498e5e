//! The decision, in the order of the packet path.

use std::net::IpAddr;

use fw_common::abi::{
    Decision, Features, Ip4, Ip6, LinkFlags, ProtectMode, Proto, Reason, RuleFlags, Screen, SetHeader,
};
use fw_common::classify::{Classified, Service, classify, features, realm_record};
use fw_common::wire;

use super::Asked;
use crate::compile::TableSet;
use crate::flow::Flow;
use crate::model::{Policy, RouterAdvertisement};
use crate::{names, planes};

/// What is decided.
pub(super) struct Found {
    pub(super) reason: Reason,
    /// Number of the rule that decides; 0: none.
    pub(super) rule: u32,
    /// The rule was found for the opposite direction.
    pub(super) reversed: bool,
}

impl Found {
    const fn new(reason: Reason, rule: u32) -> Self {
        Self {
            reason,
            rule,
            reversed: false,
        }
    }
}

/// Reason and rule number.
pub(super) fn judge(
    policy: &Policy,
    tables: &TableSet,
    flow: &Flow,
    own: &[IpAddr],
    asked: &Asked<'_>,
) -> Found {
    let lines = tables.lines.as_slice();
    let untracked = features(lines) & Features::UNTRACKED != 0;
    let stray = never_opens(flow);
    if let Some(reason) = stray.filter(|reason| !untracked || *reason != Reason::IcmpNoFlow) {
        return Found::new(reason, 0);
    }
    let realm = match realm_record(lines, (flow.vlan, flow.inner_vlan)) {
        Ok(realm) => realm,
        Err(reason) => return Found::new(reason, 0),
    };
    if let Some(reason) = link(policy, tables, flow, asked.role) {
        return Found::new(reason, 0);
    }
    if policy.link.dhcp_client && dhcp(flow, own, asked) {
        return Found::new(Reason::LinkDhcp, 0);
    }
    let service = Service::of(flow.proto, flow.selector, flow.source_port());
    let (decision, flags) = match look_up(tables, realm, (flow.src, flow.dst), service) {
        Ok(found) => found,
        Err(reason) => return Found::new(reason, 0),
    };
    if let Some(reason) = screened(policy, flow, own, asked) {
        return Found::new(reason, 0);
    }
    if decision.allows() && flags & RuleFlags::UNTRACKED != 0 {
        return Found::new(Reason::Untracked, decision.rule());
    }
    let audited = flags & RuleFlags::AUDIT != 0;
    // A deny of the packet's own direction is never beaten by the other one.
    if untracked
        && !decision.allows()
        && !audited
        && decision.rule() == 0
        && let Some(rule) = answers_untracked(tables, realm, flow)
    {
        return Found {
            reason: Reason::Untracked,
            rule,
            reversed: true,
        };
    }
    if let Some(reason) = stray {
        return Found::new(reason, 0);
    }
    let reason = match (decision.allows(), decision.rejects(), decision.rule()) {
        (true, ..) => Reason::Rule,
        _ if audited => Reason::Audit,
        (_, false, 0) => Reason::DenyDefault,
        (_, true, 0) => Reason::RejectDefault,
        (_, false, _) => Reason::DenyRule,
        (_, true, _) => Reason::RejectRule,
    };
    Found::new(reason, decision.rule())
}

/// The decision for a direction, and [`RuleFlags`] of its rule.
fn look_up(
    tables: &TableSet,
    realm: u32,
    (src, dst): (IpAddr, IpAddr),
    service: Service,
) -> Result<(Decision, u32), Reason> {
    let lines = tables.lines.as_slice();
    let mut out = Classified::default();
    let decision = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ends = (Ip4(src.into()), Ip4(dst.into()));
            classify(lines, realm, ends, service, &mut out)
        }
        (src, dst) => classify(lines, realm, (ip6(src), ip6(dst)), service, &mut out),
    };
    Ok((decision?, out.rule_flags))
}

/// The rule with `track: false` whose answer this packet can be. Without a source port nobody knows; protocols without ports
/// show nothing that tells an answer ([`fw_common::pipeline`], `open.rs`).
fn answers_untracked(tables: &TableSet, realm: u32, flow: &Flow) -> Option<u32> {
    let selector = match flow.proto {
        Proto::UDP | Proto::SCTP => flow.sport?,
        proto @ (Proto::ICMP | Proto::ICMPV6) => {
            let request = u16::from(names::echo_request(proto));
            // Who asks for an echo does not answer one.
            if flow.selector >> 8 == request {
                return None;
            }
            request << 8
        }
        // Of TCP a flow is shown by its SYN, which is no answer.
        _ => return None,
    };
    // The port that it goes to is where the other side's packets come from.
    let service = Service::of(flow.proto, selector, flow.selector);
    let (decision, flags) = look_up(tables, realm, (flow.dst, flow.src), service).ok()?;
    (decision.allows() && flags & RuleFlags::UNTRACKED != 0).then(|| decision.rule())
}

/// The screens that need nothing but addresses and ports, where they drop.
fn screened(policy: &Policy, flow: &Flow, own: &[IpAddr], asked: &Asked<'_>) -> Option<Reason> {
    let screens = [
        (Screen::Land, flow.src == flow.dst),
        (Screen::ImpossibleSource, impossible(flow.src)),
        (Screen::PlaneMismatch, planes::mismatch(policy, flow, own, asked)),
    ];
    let drops = |screen: Screen| policy.protect.screens[screen as usize] == ProtectMode::Drop;
    let struck = screens
        .iter()
        .find(|(screen, strikes)| *strikes && drops(*screen));
    struck.and_then(|(screen, _)| Reason::from_number(screen.reason() as u8))
}

/// DHCP of a client, as the packet path tells it ([`fw_common::pipeline`], `link.rs`): requests to everybody from this machine
/// or the guarded one, answers from the network.
fn dhcp(flow: &Flow, own: &[IpAddr], asked: &Asked<'_>) -> bool {
    if flow.proto != Proto::UDP {
        return false;
    }
    let guarded = asked.guarded && asked.peer.is_some();
    let from_network = !flow.leaves(own) && !guarded;
    let (ports, to_all, from_server) = match flow.dst {
        IpAddr::V4(dst) => ((68, 67), dst.is_broadcast(), flow.source_port() == 67),
        IpAddr::V6(dst) => ((546, 547), dst.is_multicast(), dst.is_unicast_link_local()),
    };
    if from_network {
        flow.selector == ports.0 && from_server
    } else {
        (flow.source_port(), flow.selector) == ports && to_all
    }
}

/// Sources that no host can have: IPv4 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 240.0.0.0/4 (RFC 6890 section 2.2.2, RFC
/// 1122 section 3.2.1.3); IPv6 ::, `::1`, `ff00::/8` and mapped IPv4 addresses (RFC 4291 section 2.5 and 2.7).
fn impossible(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()
        }
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
