//! Sets of several chunks: the lines of the first one are read in place, those of the others are looked up.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use fw_common::abi::CHUNK_LINES;
use fw_common::abi::Reason::{DenyDefault, DenyRule, Established, Rule};
use fw_tests::packet::Packet;

use crate::case::{Case, Net};

/// Rules of one port each.
const RULES: u16 = 700;
/// Single addresses of each family.
const ADDRESSES: u32 = 12_000;

/// Zones that hold them, so that nodes of the address maps differ.
const ZONES: u32 = 40;

/// The port of a rule: every seventh.
const fn port(rule: u16) -> u16 {
    1000 + 7 * rule
}

/// An address far from its neighbours, so that each has nodes of its own. Odd ones only.
fn address(number: u32, ipv6: bool) -> IpAddr {
    let scattered = (number.wrapping_mul(2_654_435_761) >> 10) | 1;
    if ipv6 {
        let words = [
            0xfd00,
            0x64,
            (scattered >> 16) as u16,
            scattered as u16,
            0,
            0,
            0,
            1,
        ];
        Ipv6Addr::from(words).into()
    } else {
        Ipv4Addr::from(0x0a40_0000 | scattered).into()
    }
}

/// The last bit changed: in no zone.
fn beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) ^ 1).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) ^ 1).into(),
    }
}

fn text(addresses: u32) -> String {
    let mut text = String::from(
        "version: 1\nzones:\n  clients: { addresses: [10.1.0.0/16, \"fd00:1::/64\"] }\n  servers: { addresses: [10.2.0.0/16, \
         \"fd00:2::/64\"] }\n",
    );
    if addresses > 0 {
        for zone in 0..ZONES {
            writeln!(text, "  many-{zone}:\n    addresses:").expect("a string takes all");
            for number in (zone..addresses).step_by(ZONES as usize) {
                let (four, six) = (address(number, false), address(number, true));
                writeln!(text, "      - {four}/32\n      - \"{six}/128\"").expect("a string takes all");
            }
        }
    }
    text += "rules:\n";
    if addresses > 0 {
        let zones: Vec<String> = (0..ZONES).map(|zone| format!("many-{zone}")).collect();
        let from = zones.join(", ");
        writeln!(
            text,
            "  - {{ name: many, allow: [udp/99], from: [{from}], to: servers }}"
        )
        .expect("a string takes all");
    }
    for rule in 0..RULES {
        let (action, port) = (if rule % 3 == 0 { "deny" } else { "allow" }, port(rule));
        writeln!(
            text,
            "  - {{ name: rule-{rule}, {action}: [udp/{port}], from: clients, to: servers }}"
        )
        .expect("a string takes all");
    }
    text
}

static RULES_ONLY: LazyLock<String> = LazyLock::new(|| text(0));
static WITH_ADDRESSES: LazyLock<String> = LazyLock::new(|| text(ADDRESSES));

/// Every few rules: the port of each and the next one; and addresses with those beside them.
pub fn cases(net: &Net) -> Vec<Case> {
    let udp = |from: IpAddr, port: u16| Packet::udp((from, 5000), (net.server, port));
    let rules = |case: Case| {
        (0..RULES).step_by(41).fold(case, |case, rule| {
            let allowed = rule % 3 != 0;
            let case = case
                .outer(udp(net.client, port(rule)), if allowed { Rule } else { DenyRule })
                .outer(udp(net.client, port(rule) + 1), DenyDefault);
            if allowed {
                case.outer(udp(net.client, port(rule)), Established)
            } else {
                case
            }
        })
    };
    let addresses = |case: Case| {
        (0..ADDRESSES).step_by(431).fold(case, |case, number| {
            let from = address(number, net.ipv6());
            case.outer(udp(from, 99), Rule)
                .outer(udp(from, port(1)), DenyDefault)
                .outer(udp(beside(from), 99), DenyDefault)
        })
    };
    vec![
        rules(Case::new("decisions in the second chunk").apply(&RULES_ONLY)),
        addresses(rules(
            Case::new("address maps that the first chunk has no room for").apply(&WITH_ADDRESSES),
        )),
    ]
}

/// The cases are about what they say: the first set has two chunks, and in the second one address maps lie behind the rules.
pub fn check_sizes(lines: impl Fn(&str) -> Result<usize>) -> Result<()> {
    let (rules, addresses) = (lines(&RULES_ONLY)?, lines(&WITH_ADDRESSES)?);
    ensure!(
        rules > CHUNK_LINES as usize && addresses > rules + 1000,
        "{rules} and {addresses} lines"
    );
    Ok(())
}
