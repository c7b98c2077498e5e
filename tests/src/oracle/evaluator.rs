//! First match wins, said as plainly as possible.

use std::net::IpAddr;

use fw_policy::model::{Direction, Policy, RuleAction, Zone, ZoneKind};
use ipnet::IpNet;

/// A packet that would open a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// VLAN id; 0: untagged.
    pub vlan: u16,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; ICMP: type << 8 | code; 0 for protocols without either.
    pub selector: u16,
    /// Source port; 0 for protocols without ports.
    pub source_port: u16,
}

/// What the policy says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The policy does not name the VLAN.
    UnknownRealm,
    /// This rule, counted from 1, allows it.
    Allow(u32),
    /// This rule denies or rejects it.
    Deny(u32),
    /// No rule matches.
    Default,
}

/// What `policy` says of `question` on a machine with the addresses `own`.
#[must_use]
pub fn judge(policy: &Policy, own: &[IpAddr], question: &Question) -> Answer {
    let known = question.vlan == 0 || policy.zones.iter().any(|zone| zone.vlan == question.vlan);
    if !known {
        return Answer::UnknownRealm;
    }
    let src = zones_of(policy, own, question.vlan, question.src);
    let dst = zones_of(policy, own, question.vlan, question.dst);
    let goes = |direction: &Direction| {
        direction.from.iter().any(|zone| src[*zone]) && direction.to.iter().any(|zone| dst[*zone])
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let addresses_match = rule.directions.iter().any(goes);
        let service_matches = rule.services.iter().any(|service| {
            let protocol = service.proto.is_none() || service.proto == Some(question.proto);
            let port = service.src_lo <= question.source_port && question.source_port <= service.src_hi;
            protocol && port && service.lo <= question.selector && question.selector <= service.hi
        });
        if addresses_match && service_matches {
            let number = index as u32 + 1;
            return match rule.action {
                RuleAction::Allow => Answer::Allow(number),
                RuleAction::Deny | RuleAction::Reject => Answer::Deny(number),
            };
        }
    }
    Answer::Default
}

/// For each zone of the policy: does it hold the address?
fn zones_of(policy: &Policy, own: &[IpAddr], vlan: u16, address: IpAddr) -> Vec<bool> {
    let holds = |zone: &Zone| match zone.kind {
        ZoneKind::Any => true,
        ZoneKind::SelfMachine => own.contains(&address),
        ZoneKind::Named => zone.vlan == vlan && within(&zone.prefixes, address),
        ZoneKind::Metadata | ZoneKind::Multicast | ZoneKind::LinkLocal => within(&zone.prefixes, address),
        ZoneKind::Outside => false,
    };
    let mut held: Vec<bool> = policy.zones.iter().map(holds).collect();
    let zones = || policy.zones.iter().zip(&held);
    let inside = zones().any(|(zone, held)| *held && zone.kind != ZoneKind::Any);
    for (zone, held) in policy.zones.iter().zip(&mut held) {
        if zone.kind == ZoneKind::Outside {
            *held = !inside;
        }
    }
    held
}

fn within(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| match (prefix.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let host_bits = 32 - u32::from(prefix.prefix_len());
            u64::from(network.to_bits()) >> host_bits == u64::from(address.to_bits()) >> host_bits
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let host_bits = 128 - u32::from(prefix.prefix_len());
            network.to_bits().checked_shr(host_bits) == address.to_bits().checked_shr(host_bits)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_prefix_holds_its_edges_and_no_more() {
        let holds = |prefix: &str, address: &str| {
            within(
                &[prefix.parse().expect("a prefix")],
                address.parse().expect("an address"),
            )
        };
        assert!(holds("10.1.0.0/16", "10.1.0.0") && holds("10.1.0.0/16", "10.1.255.255"));
        assert!(!holds("10.1.0.0/16", "10.0.255.255") && !holds("10.1.0.0/16", "10.2.0.0"));
        assert!(
            holds("0.0.0.0/0", "255.255.255.255") && holds("::/0", "ffff::") && !holds("0.0.0.0/0", "::")
        );
        assert!(holds("fd00::/127", "fd00::1") && !holds("fd00::/127", "fd00::2"));
        assert!(holds("10.0.0.1/32", "10.0.0.1") && !holds("10.0.0.1/32", "10.0.0.0"));
    }
}
