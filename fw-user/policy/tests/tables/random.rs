//! Random policies: few zones that overlap, many kinds of rules, source ports.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_policy::{Environment, Policy};
use proptest::prelude::*;

use crate::oracle::{compare_everywhere, read};

/// A prefix in a small part of the space, so that many overlap.
pub fn prefix() -> impl Strategy<Value = String> {
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

pub fn policy_text() -> impl Strategy<Value = String> {
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

/// Ranges of source ports: rule and service (they wrap), ends.
pub type Ports = Vec<(usize, usize, u16, u16)>;

pub fn ports() -> impl Strategy<Value = Ports> {
    let port = || prop_oneof![0..6_u16, 1_020..1_028_u16, 65_533..=u16::MAX];
    prop::collection::vec((0..10_usize, 0..4_usize, port(), port()), 0..6)
}

/// Gives services of rules ranges of source ports, where their protocol has ports.
pub fn with_source_ports(mut policy: Policy, ports: &Ports) -> Policy {
    for (rule, service, a, b) in ports {
        let count = policy.rules.len().max(1);
        let Some(rule) = policy.rules.get_mut(rule % count) else {
            break;
        };
        let count = rule.services.len();
        let service = &mut rule.services[service % count];
        if matches!(service.proto, None | Some(6 | 17 | 132)) {
            (service.src_lo, service.src_hi) = (*a.min(b), *a.max(b));
        }
    }
    policy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn tables_decide_as_defined(text in policy_text(), own in prop::collection::vec(any::<u8>(), 0..3), ports in ports()) {
        let own_addresses = own.iter().flat_map(|byte| {
            let byte = byte & 7;
            [IpAddr::from([10, 0, 0, byte]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(byte)])]
        });
        let environment = Environment { own_addresses: own_addresses.collect(), ..Environment::sample() };
        compare_everywhere(&with_source_ports(read(&text), &ports), &environment, 800);
    }
}
