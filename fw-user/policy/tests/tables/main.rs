//! The compiled tables against the definition of the model: every decision, zone and flag, at the edges of random
//! policies and of policies that were written to be awkward, in both representations.

mod access;
mod oracle;
mod random;
mod readdress;

use std::fmt::Write as _;

use fw_common::abi::{LinkFlags, SetHeader};
use fw_policy::{Environment, compile};

use oracle::{compare_everywhere, environment, read};

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
