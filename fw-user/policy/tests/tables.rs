//! The compiled tables against the definition of the model: every decision, zone and flag, at the edges of random
//! policies and of policies that were written to be awkward.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::{ClassFlags, Decision, Ip4, Ip6, LinkFlags, PairEntry, Reason, SetHeader, checksum};
use fw_common::classify::{Classified, Search, Service, allowed_protocols, classify, realm_record};
use fw_policy::model::{DefaultAction, RuleAction, Tags, ZoneKind};
use fw_policy::{Environment, Policy, TableSet, check, compile};
use proptest::prelude::*;

/// A packet, as the tables see it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    tags: Tags,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    selector: u16,
    source_port: u16,
}

/// An address, and what the model says of it.
struct Place {
    address: IpAddr,
    zones: Vec<usize>,
    best: usize,
}

impl Place {
    fn new(policy: &Policy, environment: &Environment, tags: Tags, address: IpAddr) -> Self {
        let own = environment.own_addresses.as_slice();
        let best = policy
            .most_specific(tags, address, own)
            .expect("`outside` holds the rest");
        Self {
            address,
            zones: policy.zones_of(tags, address, own),
            best,
        }
    }
}

/// The number of the rule that decides, by the definition in `fw_policy::model`.
fn defined(policy: &Policy, src: &[usize], dst: &[usize], packet: Packet) -> u32 {
    let first = policy.rules.iter().find(|rule| {
        rule.serves(packet.proto, packet.selector, packet.source_port)
            && rule.directions.iter().any(|direction| {
                direction.from.iter().any(|zone| src.contains(zone))
                    && direction.to.iter().any(|zone| dst.contains(zone))
            })
    });
    first.map_or(0, |rule| rule.number)
}

/// What happens to a packet from there that no rule matches, by the definition of the default section.
fn default(policy: &Policy, src: &Place) -> RuleAction {
    let outside = src
        .zones
        .iter()
        .any(|zone| policy.zones[*zone].kind == ZoneKind::Outside);
    let side = if outside {
        policy.default.outside
    } else {
        policy.default.inside
    };
    match side {
        DefaultAction::Drop => RuleAction::Deny,
        DefaultAction::Reject => RuleAction::Reject,
    }
}

fn looked_up(tables: &TableSet, packet: Packet) -> Result<(Decision, Classified), Reason> {
    let lines = tables.lines.as_slice();
    let realm = realm_record(lines, (packet.tags.outer, packet.tags.inner))?;
    let mut out = Classified::default();
    let service = Service::of(packet.proto, packet.selector, packet.source_port);
    let decision = match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => classify(
            lines,
            realm,
            (Ip4(src.into()), Ip4(dst.into())),
            service,
            &mut out,
        )?,
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [src, dst] = [src, dst].map(|address| Ip6::from_bits(address.into()));
            classify(lines, realm, (src, dst), service, &mut out)?
        }
        _ => panic!("a packet has addresses of one family"),
    };
    Ok((decision, out))
}

/// Compares tables and definition for one packet.
fn compare(policy: &Policy, tables: &TableSet, src: &Place, dst: &Place, packet: Packet) {
    let (decision, classified) = looked_up(tables, packet).expect("the set is whole");
    let number = defined(policy, &src.zones, &dst.zones, packet);
    assert_eq!(decision.rule(), number, "{packet:?}\n{}", policy.text);
    let rule = policy.rules.iter().find(|rule| rule.number == number);
    let action = rule.map_or_else(|| default(policy, src), |rule| rule.action);
    assert_eq!(
        (decision.allows(), decision.rejects()),
        (action == RuleAction::Allow, action == RuleAction::Reject),
        "{packet:?}\n{}",
        policy.text
    );
    if decision.allows() || rule.is_some_and(|rule| rule.audit) {
        assert_ne!(
            classified.pair & PairEntry::proto_bit(packet.proto),
            0,
            "{packet:?}"
        );
    }
    assert_eq!(classified.rule_id, rule.map_or(0, |rule| rule.id));
    for (record, Place { address, zones, best }) in [(classified.src, src), (classified.dst, dst)] {
        let name = &policy.zones[*best].name;
        assert_eq!(
            record.zone, policy.zones[*best].id,
            "{address}: {name}\n{}",
            policy.text
        );
        let holds = |kind| zones.iter().any(|zone| policy.zones[*zone].kind == kind);
        let flag = |bit| record.flags & bit != 0;
        assert_eq!(flag(ClassFlags::OWN), holds(ZoneKind::SelfMachine), "{address}");
        assert_eq!(
            flag(ClassFlags::MULTICAST),
            holds(ZoneKind::Multicast),
            "{address}"
        );
        assert_eq!(
            flag(ClassFlags::LINK_LOCAL),
            holds(ZoneKind::LinkLocal),
            "{address}"
        );
        assert_eq!(flag(ClassFlags::OUTSIDE), holds(ZoneKind::Outside), "{address}");
        let lifeline = zones.iter().any(|zone| policy.zones[*zone].lifeline);
        assert_eq!(flag(ClassFlags::LIFELINE), lifeline, "{address}");
        let exempt = zones.iter().any(|zone| policy.protect.exempt.contains(zone));
        assert_eq!(flag(ClassFlags::EXEMPT), exempt, "{address}");
        let plane = zones.iter().map(|zone| policy.zones[*zone].plane).max();
        assert_eq!(Some(ClassFlags::plane(record.flags)), plane, "{address}");
    }
}

/// Addresses at both sides of every border, and the ends of both spaces.
fn edges(policy: &Policy, environment: &Environment) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let mut all: Vec<IpAddr> = environment.own_addresses.clone();
    all.extend(
        [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(8, 8, 8, 8),
        ]
        .map(IpAddr::from),
    );
    all.extend(
        [
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::from(u128::MAX),
        ]
        .map(IpAddr::from),
    );
    for prefix in policy.zones.iter().flat_map(|zone| &zone.prefixes) {
        all.extend([prefix.network(), prefix.broadcast()]);
    }
    let beside = |address: &IpAddr| match address {
        IpAddr::V4(v4) => {
            let bits = u32::from(*v4);
            [bits.wrapping_sub(1), bits.wrapping_add(1)].map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let bits = u128::from(*v6);
            [bits.wrapping_sub(1), bits.wrapping_add(1)].map(|bits| IpAddr::V6(bits.into()))
        }
    };
    let more: Vec<IpAddr> = all.iter().flat_map(beside).collect();
    all.extend(more);
    all.sort_unstable();
    all.dedup();
    all.into_iter().partition(IpAddr::is_ipv4)
}

/// Protocols and selectors at both sides of every border.
fn services(policy: &Policy) -> Vec<(u8, u16)> {
    let mut all = vec![
        (6, 0),
        (6, u16::MAX),
        (17, 53),
        (1, 0x800),
        (58, 0x8000),
        (0, 0),
        (255, 0),
        (132, 9),
    ];
    for found in policy.rules.iter().flat_map(|rule| &rule.services) {
        let proto = found.proto.unwrap_or(99);
        all.extend(
            [
                found.lo,
                found.hi,
                found.lo.wrapping_sub(1),
                found.hi.wrapping_add(1),
            ]
            .map(|at| (proto, at)),
        );
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Compares at every combination of edges, thinned out to about `budget` packets for each VLAN and family.
fn compare_everywhere(policy: &Policy, environment: &Environment, budget: usize) {
    let tables = compile(policy, environment).expect("the policy is small");
    let header = SetHeader::from_lines(&tables.lines[0], &tables.lines[1]);
    let sum = u64::from(header.checksum_hi) << 32 | u64::from(header.checksum_lo);
    assert_eq!(
        (sum, header.lines as usize),
        (checksum(&tables.lines), tables.lines.len())
    );
    let (v4, v6) = edges(policy, environment);
    let services = services(policy);
    for tags in policy.realms() {
        for family in [&v4, &v6] {
            let places: Vec<Place> = family
                .iter()
                .map(|address| Place::new(policy, environment, tags, *address))
                .collect();
            let total = places.len() * places.len() * services.len();
            let step = (total / budget).max(1) | 1;
            for at in (0..total).step_by(step) {
                let (at, (proto, selector)) = (at / services.len(), services[at % services.len()]);
                let (src, dst) = (&places[at / places.len()], &places[at % places.len()]);
                let packet = Packet {
                    tags,
                    src: src.address,
                    dst: dst.address,
                    proto,
                    selector,
                    source_port: 0,
                };
                compare(policy, &tables, src, dst, packet);
            }
        }
    }
    for (outer, inner) in [(77, 0), (5, 78), (77, 5)] {
        let packet = Packet {
            tags: Tags { outer, inner },
            src: v4[0],
            dst: v4[0],
            proto: 6,
            selector: 22,
            source_port: 0,
        };
        assert_eq!(looked_up(&tables, packet), Err(Reason::UnknownRealm));
    }
}

fn read(text: &str) -> Policy {
    check(text, "test.yaml")
        .unwrap_or_else(|findings| panic!("{findings}\n{text}"))
        .0
}

fn environment(own: &[&str]) -> Environment {
    let own_addresses = own.iter().map(|text| text.parse().expect("an address")).collect();
    Environment {
        own_addresses,
        generation: 7,
        ..Environment::sample()
    }
}

#[test]
fn overlapping_zones_in_vlans() {
    let policy = read(
        r#"
version: 1
zones:
  wide:   [10.0.0.0/8, "fd00::/16"]
  narrow: [10.1.0.0/16, 10.1.2.3, "fd00:1::/32", "fd00:1::1", "fd00:1:0:0:8000::/65"]
  ends:   [0.0.0.0, 255.255.255.255, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
  all:    [0.0.0.0/0, "::/0"]
  a:      { addresses: [192.168.0.0/16, "fd00:a::/64"], vlan: 101 }
  b:      { addresses: [192.168.0.0/16, "fd00:a::/64"], vlan: 102 }
services: { low: [tcp/1-1023, udp/1-1023], web: [http, https, low] }
rules:
  - { name: r1, deny: [tcp/23], from: any, to: any }
  - { name: r2, allow: [web, ping], between: [wide, narrow] }
  - { name: r3, allow: all, from: a, to: a }
  - { name: r4, deny: all, from: [a, b], to: multicast }
  - { name: r5, allow: [tcp/65535, proto/255, icmp/3/4], from: ends, to: [all, self] }
  - { name: r6, allow: [esp, sctp/9], from: outside, to: [self, metadata, link_local] }
  - { name: r7, allow: [udp], from: self, to: outside }
  - { name: r8, deny: all, from: any, to: any }
"#,
    );
    compare_everywhere(
        &policy,
        &environment(&["10.1.2.4", "fd00:1::7", "192.168.0.1"]),
        60_000,
    );
}

#[test]
fn a_lock_down_denies_everything() {
    let policy = read("version: 1\nrules: []\n");
    compare_everywhere(&policy, &environment(&[]), 20_000);
    let tables = compile(&policy, &environment(&[])).expect("it is tiny");
    assert_eq!((tables.stats.pair_classes, tables.stats.service_classes), (1, 1));
}

#[test]
fn deep_trees_find_every_interval() {
    // 700 intervals make an IPv6 tree of four levels; every second prefix is longer than /64.
    let mut text = "version: 1\nzones:\n".to_owned();
    for zone in 0..3 {
        let _ = write!(text, "  z{zone}: [");
        for index in (zone..350).step_by(3) {
            let tail = if index % 2 == 0 {
                "::/48".to_owned()
            } else {
                format!("::{index:x}:0/112")
            };
            let _ = write!(
                text,
                "\"fd00:{index:x}:1{tail}\", 10.{}.{}.0/{}, ",
                index % 7,
                index % 256,
                24 + index % 2
            );
        }
        text += "]\n";
    }
    text += "rules:\n  - { name: a, allow: [ssh], from: z0, to: z1 }\n  - { name: b, deny: all, from: z1, to: [z2, z0] }\n";
    let policy = read(&text);
    compare_everywhere(&policy, &environment(&["fd00:5:1::5"]), 60_000);
}

#[test]
fn the_first_rule_wins_among_many_services() {
    // Ports of their own for most rules, so that each matches few of many service classes, and ranges across them.
    let mut text = "version: 1\nzones: { a: [10.0.0.0/8], b: [11.0.0.0/8] }\nrules:\n".to_owned();
    for rule in 0..80_u32 {
        let action = if rule % 3 == 0 { "deny" } else { "allow" };
        let ends = if rule % 4 == 0 {
            "from: any, to: any"
        } else {
            "between: [a, b]"
        };
        let port = 100 + rule * 7 % 40 * 3;
        let more = if rule % 9 == 8 { ", udp/50-300" } else { "" };
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, {action}: [tcp/{port}-{}{more}], {ends} }}",
            port + rule % 5
        );
    }
    let policy = read(&text);
    let tables = compile(&policy, &environment(&[])).expect("it is small");
    assert!(tables.stats.service_classes > 48, "{:?}", tables.stats);
    compare_everywhere(&policy, &environment(&[]), 60_000);
}

#[test]
fn ids_do_not_depend_on_order_and_equal_policies_make_equal_tables() {
    let (a, b) = (
        "  - { name: a, allow: [ssh], from: x, to: y }\n",
        "  - { name: b, deny: all, from: y, to: x }\n",
    );
    let zones = ["  x: [10.0.0.0/8]\n", "  y: [11.0.0.0/8]\n"];
    let one = read(&format!(
        "version: 1\nzones:\n{}{}rules:\n{a}{b}",
        zones[0], zones[1]
    ));
    let two = read(&format!(
        "version: 1\nzones:\n{}{}rules:\n{b}{a}",
        zones[1], zones[0]
    ));
    for rule in &one.rules {
        assert!(
            two.rules
                .iter()
                .any(|other| (&other.name, other.id) == (&rule.name, rule.id))
        );
    }
    for zone in &one.zones {
        assert!(
            two.zones
                .iter()
                .any(|other| (&other.name, other.id) == (&zone.name, zone.id))
        );
    }
    let sets = [(); 2].map(|()| compile(&one, &Environment::sample()).expect("it is tiny").lines);
    assert_eq!(sets[0], sets[1]);
}

#[test]
fn what_is_too_large_is_named() {
    let mut text = "version: 1\nzones:\n".to_owned();
    for zone in 0..64 {
        let _ = writeln!(text, "  z{zone}: [10.{zone}.0.0/16]");
    }
    text += "rules:\n";
    for zone in 0..64 {
        let _ = writeln!(
            text,
            "  - {{ name: r{zone}, allow: [tcp/{}], from: z{zone}, to: any }}",
            zone + 1
        );
    }
    let policy = read(&text);
    let error = fw_policy::compile_within(&policy, &Environment::sample(), 300 << 10)
        .expect_err("300 KiB are too few");
    assert!(error.to_string().contains("IPv4 address maps"), "{error}");
    compile(&policy, &Environment::sample()).expect("512 MiB are enough");
    let environment = Environment {
        generation: 0,
        ..Environment::sample()
    };
    assert!(compile(&policy, &environment).is_err());
}

#[test]
fn the_link_section_is_in_the_header() {
    let text =
        "version: 1\nrules: []\nlink: { allow: [arp], dhcp: client, router_advertisement: [uplink, x] }\n";
    let roles = ["host", "uplink"].map(String::from).to_vec();
    let environment = Environment {
        roles,
        ..Environment::sample()
    };
    let tables = compile(&read(text), &environment).expect("it is tiny");
    let header = SetHeader::from_lines(&tables.lines[0], &tables.lines[1]);
    assert_eq!(header.link, LinkFlags::ARP | LinkFlags::DHCP_CLIENT);
    assert_eq!(
        (header.ra_roles, tables.stats.unknown_roles),
        (0b10, vec!["x".to_owned()])
    );
    let tables = compile(&read("version: 1\nrules: []\n"), &environment).expect("it is tiny");
    let header = SetHeader::from_lines(&tables.lines[0], &tables.lines[1]);
    assert_eq!(
        header.link,
        LinkFlags::ARP | LinkFlags::ND | LinkFlags::LLDP | LinkFlags::LACP
    );
}

/// A prefix in a small part of the space, so that many overlap.
fn prefix() -> impl Strategy<Value = String> {
    let v4 = (any::<u32>(), prop_oneof![0..=32_u8, 12..=20_u8, Just(32)]).prop_map(|(bits, length)| {
        let address = Ipv4Addr::from((bits & 0x0003_f307) | 0x0a00_0000);
        ipnet::IpNet::new(address.into(), length)
            .expect("at most 32")
            .trunc()
            .to_string()
    });
    let v6 = (any::<u128>(), prop_oneof![0..=128_u8, 60..=70_u8, Just(128)]).prop_map(|(bits, length)| {
        let kept = bits & 0x0000_0003_0000_0000_8000_0000_0000_0007;
        let address = Ipv6Addr::from(kept | 0xfd00 << 112);
        ipnet::IpNet::new(address.into(), length)
            .expect("at most 128")
            .trunc()
            .to_string()
    });
    prop_oneof![v4, v6].prop_map(|text| format!("\"{text}\""))
}

fn service() -> impl Strategy<Value = String> {
    let range = (1..=6_u16, 0..=4_u16).prop_map(|(lo, more)| format!("tcp/{lo}-{}", lo + more));
    let high = (65530..=65535_u16).prop_map(|port| format!("udp/{port}"));
    let words = [
        "ssh",
        "all",
        "tcp",
        "ping",
        "esp",
        "proto/6",
        "icmp/3",
        "icmpv6/128/0",
        "udp/4791",
        "sctp/1-65535",
    ];
    prop_oneof![
        range,
        high,
        prop::sample::select(words.to_vec()).prop_map(String::from)
    ]
}

const ZONES: usize = 5;

fn zone_name() -> impl Strategy<Value = String> {
    let built_in = ["self", "outside", "any", "metadata", "multicast", "link_local"];
    prop_oneof![
        5 => (0..ZONES).prop_map(|zone| format!("z{zone}")),
        2 => prop::sample::select(built_in.to_vec()).prop_map(String::from),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let zones = || prop::collection::vec(zone_name(), 1..3).prop_map(|zones| zones.join(", "));
    let ends = prop_oneof![
        4 => (zones(), zones()).prop_map(|(from, to)| format!("from: [{from}], to: [{to}]")),
        1 => (zone_name(), zone_name()).prop_map(|(a, b)| format!("between: [{a}, {b}]")),
    ];
    let services = prop::collection::vec(service(), 1..4).prop_map(|services| services.join(", "));
    let action = prop_oneof![
        6 => Just(("allow", "")),
        2 => Just(("deny", "")),
        1 => Just(("reject", "")),
        1 => Just(("reject", ", audit: true")),
    ];
    (action, services, ends)
        .prop_map(|((action, more), services, ends)| format!("{action}: [{services}], {ends}{more}"))
}

fn policy_text() -> impl Strategy<Value = String> {
    let more = prop::sample::select(vec![
        "",
        "",
        ", vlan: 5",
        ", vlan: 4094",
        ", vlan: [5, 9]",
        ", vlan: [9, 5]",
        ", lifeline: true",
        ", labels: { k: v }",
    ]);
    let zones = prop::collection::vec((prop::collection::vec(prefix(), 1..5), more), ZONES);
    let tail = prop::sample::select(vec![
        "",
        "default: { inside: reject }\n",
        "default: { outside: reject }\nprotect: { exempt: [z0, z3] }\n",
        "default: { inside: reject, outside: reject }\n",
    ]);
    (zones, prop::collection::vec(rule(), 0..10), tail).prop_map(|(zones, rules, tail)| {
        // Zones that overlap have one plane or none.
        let mut text = format!("version: 1\n{tail}zones:\n");
        for (index, (prefixes, more)) in zones.iter().enumerate() {
            let plane = if index % 2 == 0 { ", plane: p" } else { "" };
            let _ = writeln!(
                text,
                "  z{index}: {{ addresses: [{}]{more}{plane} }}",
                prefixes.join(", ")
            );
        }
        text += if rules.is_empty() {
            "rules: []\n"
        } else {
            "rules:\n"
        };
        for (index, rule) in rules.iter().enumerate() {
            let _ = writeln!(text, "  - {{ name: r{index}, {rule} }}");
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn tables_decide_as_defined(text in policy_text(), own in prop::collection::vec(any::<u8>(), 0..3)) {
        let own_addresses = own.iter().flat_map(|byte| {
            let byte = byte & 7;
            [IpAddr::from([10, 0, 0, byte]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(byte)])]
        });
        let environment = Environment { own_addresses: own_addresses.collect(), ..Environment::sample() };
        compare_everywhere(&read(&text), &environment, 2_000);
    }
}
