//! Random packets at the edges of a policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use fw_policy::model::{Policy, RuleAction, ServiceMatch, Zone, ZoneKind};
use ipnet::IpNet;

use super::evaluator::Question;
use super::{one_of, policies};

/// Protocols that the data plane judges by number alone, in IPv4 and IPv6: GRE, ESP, OSPF, an experiment.
const PORTLESS: [u8; 4] = [47, 50, 89, 103];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const SCTP: u8 = 132;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// A packet that one of the policy's rules is likely to be about, or only just not: addresses are the first, the last,
/// one within or one next to a prefix of its zones, ports lie at the ends of its services.
#[must_use]
pub fn question(random: &mut Rng, policy: &Policy, own: &[IpAddr]) -> Question {
    // A policy may hold no rule whose two ends share a family.
    (0..50)
        .find_map(|_| attempt(random, policy, own))
        .unwrap_or_else(|| Question {
            vlan: 0,
            src: policies::v4(random).into(),
            dst: policies::v4(random).into(),
            proto: TCP,
            selector: random.u16(..),
            source_port: random.u16(..),
        })
}

fn attempt(random: &mut Rng, policy: &Policy, own: &[IpAddr]) -> Option<Question> {
    // Denying rules are fewer; asked for nearly half of the time they get their share.
    let wanted = if random.u8(..100) < 42 {
        RuleAction::Deny
    } else {
        RuleAction::Allow
    };
    let candidates: Vec<_> = policy.rules.iter().filter(|rule| rule.action == wanted).collect();
    let rule = if candidates.is_empty() {
        one_of(random, &policy.rules)
    } else {
        *one_of(random, &candidates)
    };
    let direction = one_of(random, &rule.directions);
    let from = &policy.zones[*one_of(random, &direction.from)];
    let to = &policy.zones[*one_of(random, &direction.to)];
    let (src, dst) = (
        address(random, policy, own, from),
        address(random, policy, own, to),
    );
    if src.is_ipv4() != dst.is_ipv4() {
        return None;
    }
    let service = *one_of(random, &rule.services);
    let (proto, selector) = asked_service(random, service, src.is_ipv4());
    Some(Question {
        vlan: vlan(random, from, to),
        src,
        dst,
        proto,
        selector,
        source_port: source_port(random, service, proto),
    })
}

/// A source port at the edge of what the service wants, where the protocol has any.
fn source_port(random: &mut Rng, service: ServiceMatch, proto: u8) -> u16 {
    if !matches!(proto, TCP | UDP | SCTP) {
        return 0;
    }
    match random.u8(..16) {
        0 => service.src_lo.wrapping_sub(1),
        1 => service.src_hi.wrapping_add(1),
        2..5 => service.src_lo,
        5..8 => service.src_hi,
        _ => random.u16(service.src_lo..=service.src_hi),
    }
}

fn vlan(random: &mut Rng, from: &Zone, to: &Zone) -> u16 {
    match random.u8(..40) {
        0 => *one_of(random, &[0, 101, 102, 103, 4094]),
        1..20 if to.vlan != 0 => to.vlan,
        _ if from.vlan != 0 => from.vlan,
        _ => to.vlan,
    }
}

/// Mostly an address of the zone, at the edge of one of its prefixes.
fn address(random: &mut Rng, policy: &Policy, own: &[IpAddr], zone: &Zone) -> IpAddr {
    let elsewhere = one_of(random, &policy.zones);
    match zone.kind {
        ZoneKind::SelfMachine if random.u8(..8) != 0 => *one_of(random, own),
        ZoneKind::SelfMachine => near(random, &own.iter().copied().map(IpNet::from).collect::<Vec<_>>()),
        ZoneKind::Any | ZoneKind::Outside if random.bool() && !elsewhere.prefixes.is_empty() => {
            near(random, &elsewhere.prefixes)
        }
        ZoneKind::Any | ZoneKind::Outside if random.bool() => policies::v4(random).into(),
        ZoneKind::Any | ZoneKind::Outside => policies::v6(random).into(),
        _ => near(random, &zone.prefixes),
    }
}

/// An address at the edge of one of these prefixes: inside nine times of ten.
fn near(random: &mut Rng, prefixes: &[IpNet]) -> IpAddr {
    let inside = random.u8(..10) != 0;
    match one_of(random, prefixes) {
        IpNet::V4(prefix) => {
            let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
            Ipv4Addr::from_bits(match (inside, random.u8(..3)) {
                (true, 0) => first,
                (true, 1) => last,
                (true, _) => random.u32(first..=last),
                (false, 0) => first.wrapping_sub(1),
                (false, _) => last.wrapping_add(1),
            })
            .into()
        }
        IpNet::V6(prefix) => {
            let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
            Ipv6Addr::from_bits(match (inside, random.u8(..3)) {
                (true, 0) => first,
                (true, 1) => last,
                (true, _) => random.u128(first..=last),
                (false, 0) => first.wrapping_sub(1),
                (false, _) => last.wrapping_add(1),
            })
            .into()
        }
    }
}

/// Protocol and selector at the edge of this service.
fn asked_service(random: &mut Rng, service: ServiceMatch, ipv4: bool) -> (u8, u16) {
    let echo = if ipv4 { (ICMP, 8 << 8) } else { (ICMPV6, 128 << 8) };
    let port = match random.u8(..16) {
        0 => service.lo.wrapping_sub(1),
        1 => service.hi.wrapping_add(1),
        2..6 => service.lo,
        6..10 => service.hi,
        _ => random.u16(service.lo..=service.hi),
    };
    match service.proto {
        // One time of sixteen the same number of another protocol.
        Some(TCP) => (if random.u8(..16) == 0 { UDP } else { TCP }, port),
        Some(UDP) => (if random.u8(..16) == 0 { TCP } else { UDP }, port),
        Some(ICMP | ICMPV6) => echo,
        Some(SCTP) => (SCTP, port),
        Some(proto) if random.u8(..8) != 0 => (proto, 0),
        Some(_) | None => match random.u8(..4) {
            0 => (*one_of(random, &PORTLESS), 0),
            1 => echo,
            2 => (UDP, port),
            _ => (TCP, port),
        },
    }
}
