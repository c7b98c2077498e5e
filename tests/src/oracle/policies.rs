//! Random policies, as text, so that they take the same way as an operator's.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::one_of;

/// Zones that every policy knows.
const BUILT_IN: [&str; 6] = ["self", "outside", "any", "metadata", "multicast", "link_local"];

/// A random policy and the addresses of the machine that it is for. Zones overlap, share addresses between VLANs and
/// meet at their edges; rules shadow each other.
#[must_use]
pub fn policy(random: &mut Rng) -> (String, Vec<IpAddr>) {
    let own: Vec<IpAddr> = (0..random.usize(1..4))
        .flat_map(|_| [IpAddr::V4(v4(random)), IpAddr::V6(v6(random))])
        .collect();
    let zones = random.usize(2..9);
    let services = random.usize(1..4);
    let mut text = String::from("version: 1\nzones:\n");
    for zone in 0..zones {
        let vlan = if random.u8(..4) == 0 {
            format!(", vlan: {}", one_of(random, &[101, 102]))
        } else {
            String::new()
        };
        let prefixes: Vec<String> = (0..random.usize(1..5))
            .map(|_| format!("\"{}\"", prefix(random, &own)))
            .collect();
        line(
            &mut text,
            &format!("  z{zone}: {{ addresses: [{}]{vlan} }}", prefixes.join(", ")),
        );
    }
    // What is asked here is what the rules say; screens and floods have tests of their own.
    text.push_str("protect: { spoofed: skip, invalid: skip, syn_flood: { mode: skip } }\n");
    text.push_str("services:\n");
    for service in 0..services {
        let matches: Vec<String> = (0..random.usize(1..4)).map(|_| service_match(random)).collect();
        line(&mut text, &format!("  s{service}: [{}]", matches.join(", ")));
    }
    text.push_str("rules:\n");
    for rule in 0..random.usize(1..14) {
        line(&mut text, &rule_text(random, rule, zones, services));
    }
    (text, own)
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn rule_text(random: &mut Rng, number: usize, zones: usize, services: usize) -> String {
    let action = if random.u8(..100) < 55 { "allow" } else { "deny" };
    let what = match random.u8(..10) {
        0 => "all".to_owned(),
        1..6 => format!("[s{}]", random.usize(..services)),
        6 => format!("[s{}, {}]", random.usize(..services), service_match(random)),
        _ => format!("[{}]", service_match(random)),
    };
    let (a, b) = (ends(random, zones), ends(random, zones));
    let between = if random.u8(..6) == 0 {
        format!(
            "between: [z{}, z{}]",
            random.usize(..zones),
            random.usize(..zones)
        )
    } else {
        format!("from: {a}, to: {b}")
    };
    format!("  - {{ name: r{number}, {action}: {what}, {between} }}")
}

/// A zone, or a list of zones.
fn ends(random: &mut Rng, zones: usize) -> String {
    match random.u8(..10) {
        0..2 => (*one_of(random, &BUILT_IN)).to_owned(),
        2..4 => format!("[z{}, {}]", random.usize(..zones), one_of(random, &BUILT_IN)),
        4..6 => format!("[z{}, z{}]", random.usize(..zones), random.usize(..zones)),
        _ => format!("z{}", random.usize(..zones)),
    }
}

pub(super) fn service_match(random: &mut Rng) -> String {
    const PORTS: [u16; 9] = [1, 22, 80, 443, 988, 2049, 4791, 32768, 65534];
    let port = *one_of(random, &PORTS);
    let range = match random.u8(..3) {
        0 => format!("{port}-{}", port.saturating_add(random.u16(1..2000))),
        1 => format!("{port}-65535"),
        _ => format!("{port}"),
    };
    match random.u8(..10) {
        0..4 => format!("tcp/{range}"),
        4..7 => format!("udp/{range}"),
        7 => (*one_of(random, &["gre", "esp", "udp", "sctp"])).to_owned(),
        8 => "icmp/echo-request".to_owned(),
        _ => "icmpv6/echo-request".to_owned(),
    }
}

/// A prefix from a small part of the address space, so that prefixes nest, repeat and touch.
pub(super) fn prefix(random: &mut Rng, own: &[IpAddr]) -> IpNet {
    match random.u8(..12) {
        0 => {
            let address = *one_of(random, own);
            IpNet::new_assert(address, if address.is_ipv4() { 32 } else { 128 })
        }
        1..7 => {
            let length = *one_of(random, &[0, 4, 8, 9, 12, 15, 16, 17, 20, 24, 25, 28, 30, 31, 32]);
            Ipv4Net::new_assert(v4(random), length).trunc().into()
        }
        _ => {
            let length = *one_of(random, &[0, 7, 8, 16, 32, 48, 63, 64, 65, 72, 96, 127, 128]);
            Ipv6Net::new_assert(v6(random), length).trunc().into()
        }
    }
}

pub(super) fn v4(random: &mut Rng) -> Ipv4Addr {
    const OCTETS: [u8; 6] = [0, 1, 2, 127, 128, 255];
    let mut octets = [10, 0, 0, 0];
    for octet in &mut octets[1..] {
        *octet = *one_of(random, &OCTETS);
    }
    if random.u8(..8) == 0 {
        octets[0] = *one_of(random, &[9, 11, 169, 192, 223, 224, 255]);
    }
    octets.into()
}

pub(super) fn v6(random: &mut Rng) -> Ipv6Addr {
    const WORDS: [u16; 6] = [0, 0, 1, 0x7fff, 0x8000, 0xffff];
    let mut words = [0xfd00, 0, 0, 0, 0, 0, 0, 0];
    for word in &mut words[2..] {
        *word = *one_of(random, &WORDS);
    }
    if random.u8(..8) == 0 {
        words[0] = *one_of(random, &[0xfcff, 0xfd01, 0xfe80, 0xff02, 0x2001, 0xffff]);
    }
    words.into()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    #[test]
    fn the_parser_takes_every_policy() {
        for seed in 0..500 {
            let (text, _) = super::policy(&mut Rng::with_seed(seed));
            if let Err(findings) = fw_policy::check(&text, "random.yaml") {
                panic!("seed {seed}: {findings}\n{text}");
            }
        }
    }
}
