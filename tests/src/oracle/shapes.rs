//! Random policies of the shapes that people write, as text, so that they take the same way as an operator's.

use std::fmt::Write as _;
use std::net::IpAddr;

use fastrand::Rng;
use ipnet::{Ipv4Net, Ipv6Net};

use super::{one_of, policies};

/// Parts of the address space that the exclusions of a policy never fill.
const WIDE: [&str; 4] = ["10.0.0.0/12", "10.112.0.0/12", "0.0.0.0/0", "\"fd00::/12\""];

/// A shape of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// A bit of everything, built-in zones, VLANs, `between`: small.
    Mixed,
    /// A handful of zones, some hundred rules of one service each.
    ManyRules,
    /// Dozens of zones that nest and overlap, rules between lists of them.
    Overlapping,
    /// Services of overlapping ranges over all ports.
    PortRanges,
    /// Services that look at source ports, alone and mixed with others.
    SourcePorts,
    /// Zones with holes, ranges of addresses, zones made of zones.
    Exclusions,
    /// As in a router: each rule with two prefixes of its own or wildcards, ports on both sides.
    AccessList,
}

/// A policy in the making, with the addresses of the machine that it is for.
struct Draft<'r> {
    random: &'r mut Rng,
    text: String,
    own: Vec<IpAddr>,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 7] = [
        Self::Mixed,
        Self::ManyRules,
        Self::Overlapping,
        Self::PortRanges,
        Self::SourcePorts,
        Self::Exclusions,
        Self::AccessList,
    ];

    /// The shape in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "a bit of everything",
            Self::ManyRules => "few zones, many rules",
            Self::Overlapping => "many overlapping zones",
            Self::PortRanges => "port ranges",
            Self::SourcePorts => "source ports",
            Self::Exclusions => "exclusions",
            Self::AccessList => "router access lists",
        }
    }

    /// A random policy of this shape and the addresses of the machine that it is for.
    #[must_use]
    pub fn policy(self, random: &mut Rng) -> (String, Vec<IpAddr>) {
        if self == Self::Mixed {
            return policies::policy(random);
        }
        let mut draft = Draft::new(random);
        match self {
            Self::Mixed => {}
            Self::ManyRules => draft.many_rules(),
            Self::Overlapping => draft.overlapping(),
            Self::PortRanges => draft.port_ranges(0),
            Self::SourcePorts => draft.port_ranges(70),
            Self::Exclusions => draft.exclusions(),
            Self::AccessList => draft.access_list(),
        }
        (draft.text, draft.own)
    }
}

impl<'r> Draft<'r> {
    fn new(random: &'r mut Rng) -> Self {
        let own = vec![policies::v4(random).into(), policies::v6(random).into()];
        // What is asked here is what the rules say; screens and floods have tests of their own.
        let text = "version: 1\nprotect: { spoofed: skip, invalid: skip, syn_flood: { mode: skip } }\n";
        Self {
            random,
            text: text.to_owned(),
            own,
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Zones `z0`, `z1`, ... of so many prefixes each.
    fn zones(&mut self, zones: usize, prefixes: std::ops::Range<usize>) {
        self.line("zones:");
        for zone in 0..zones {
            let list: Vec<String> = (0..self.random.usize(prefixes.clone()))
                .map(|_| format!("\"{}\"", policies::prefix(self.random, &self.own)))
                .collect();
            self.line(&format!("  z{zone}: {{ addresses: [{}] }}", list.join(", ")));
        }
    }

    /// Rule number `number`; what it serves and its two ends are given.
    fn rule(&mut self, number: usize, services: &str, from: &str, to: &str) {
        let action = if self.random.u8(..100) < 55 {
            "allow"
        } else {
            "deny"
        };
        self.line(&format!(
            "  - {{ name: r{number}, {action}: {services}, from: {from}, to: {to} }}"
        ));
    }

    fn zone(&mut self, zones: usize) -> String {
        format!("z{}", self.random.usize(..zones))
    }

    fn many_rules(&mut self) {
        let zones = self.random.usize(3..7);
        self.zones(zones, 2..5);
        self.line("rules:");
        for number in 0..self.random.usize(100..300) {
            let proto = if self.random.bool() { "tcp" } else { "udp" };
            let service = format!("[{proto}/{}]", self.random.u16(1..200));
            let (from, to) = (self.zone(zones), self.zone(zones));
            self.rule(number, &service, &from, &to);
        }
    }

    fn overlapping(&mut self) {
        let zones = self.random.usize(20..50);
        self.zones(zones, 1..4);
        self.line("rules:");
        for number in 0..self.random.usize(10..50) {
            let mut ends = || {
                let list: Vec<String> = (0..self.random.usize(1..4)).map(|_| self.zone(zones)).collect();
                format!("[{}]", list.join(", "))
            };
            let (from, to) = (ends(), ends());
            let service = format!("[{}]", policies::service_match(self.random));
            self.rule(number, &service, &from, &to);
        }
    }

    /// Of 100 matches `from_ports` look at the source port as well.
    fn port_ranges(&mut self, from_ports: u8) {
        let zones = self.random.usize(3..8);
        self.zones(zones, 1..4);
        self.line("services:");
        let services = self.random.usize(5..15);
        for service in 0..services {
            let list: Vec<String> = (0..self.random.usize(1..5))
                .map(|_| self.range(from_ports))
                .collect();
            self.line(&format!("  s{service}: [{}]", list.join(", ")));
        }
        self.line("rules:");
        for number in 0..self.random.usize(10..60) {
            let service = format!("[s{}, {}]", self.random.usize(..services), self.range(from_ports));
            let (from, to) = (self.zone(zones), self.zone(zones));
            self.rule(number, &service, &from, &to);
        }
    }

    /// A range of ports of TCP or UDP, anywhere and of any length; `from_ports` times of 100 from a range of source ports.
    fn range(&mut self, from_ports: u8) -> String {
        let proto = if self.random.bool() { "tcp" } else { "udp" };
        let (low, high) = self.ports();
        if self.random.u8(..100) < from_ports {
            let (first, last) = self.ports();
            format!("{proto}/{low}-{high} from {first}-{last}")
        } else {
            format!("{proto}/{low}-{high}")
        }
    }

    fn ports(&mut self) -> (u16, u16) {
        let (a, b) = (self.random.u16(1..), self.random.u16(1..));
        let length = *one_of(self.random, &[0, 1, 99, 1000, u16::MAX]);
        (a.min(b), a.max(b).min(a.min(b).saturating_add(length)))
    }

    fn exclusions(&mut self) {
        let zones = self.random.usize(4..10);
        self.line("zones:");
        for zone in 0..zones {
            let base = if zone >= 2 && self.random.u8(..3) == 0 {
                format!("zones: [z{}, z{}]", self.random.usize(..zone), zone - 1)
            } else {
                let mut list = vec![(*one_of(self.random, &WIDE)).to_owned()];
                list.extend((0..self.random.usize(0..3)).map(|_| self.addresses()));
                format!("addresses: [{}]", list.join(", "))
            };
            let holes: Vec<String> = (0..self.random.usize(1..6)).map(|_| self.hole()).collect();
            self.line(&format!(
                "  z{zone}: {{ {base}, exclude: [{}] }}",
                holes.join(", ")
            ));
        }
        self.line("rules:");
        for number in 0..self.random.usize(10..40) {
            let service = format!("[{}]", policies::service_match(self.random));
            let (from, to) = (self.zone(zones), self.zone(zones));
            self.rule(number, &service, &from, &to);
        }
    }

    /// A prefix, or a range of addresses.
    fn addresses(&mut self) -> String {
        if self.random.bool() {
            return format!("\"{}\"", policies::prefix(self.random, &self.own));
        }
        if self.random.bool() {
            let (a, b) = (policies::v4(self.random), policies::v4(self.random));
            format!("\"{}-{}\"", a.min(b), a.max(b))
        } else {
            let (a, b) = (policies::v6(self.random), policies::v6(self.random));
            format!("\"{}-{}\"", a.min(b), a.max(b))
        }
    }

    /// A prefix or a range at most as large as an IPv4 /16.
    fn hole(&mut self) -> String {
        let (v4, v6) = (policies::v4(self.random), policies::v6(self.random));
        match self.random.u8(..4) {
            0 => v4.to_string(),
            1 => {
                let last = v4.to_bits().saturating_add(self.random.u32(..1 << 16));
                format!("{v4}-{}", std::net::Ipv4Addr::from_bits(last))
            }
            2 => format!(
                "\"{}\"",
                Ipv6Net::new_assert(v6, self.random.u8(48..=128)).trunc()
            ),
            _ => Ipv4Net::new_assert(v4, self.random.u8(16..=32))
                .trunc()
                .to_string(),
        }
    }

    fn access_list(&mut self) {
        let rules = self.random.usize(20..100);
        // Two prefixes for each rule; some rules share them.
        self.zones(2 * rules, 1..2);
        self.line("rules:");
        for number in 0..rules {
            let mut end = |side: usize| match self.random.u8(..10) {
                0 => "any".to_owned(),
                1..3 => self.zone(2 * rules),
                _ => format!("z{}", 2 * number + side),
            };
            let (from, to) = (end(0), end(1));
            let service = match self.random.u8(..10) {
                0 => "all".to_owned(),
                1..3 => format!("[{}]", policies::service_match(self.random)),
                _ => format!("[{}]", self.range(40)),
            };
            self.rule(number, &service, &from, &to);
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::Shape;

    #[test]
    fn the_parser_takes_every_shape() {
        for seed in 0..100 {
            for shape in Shape::ALL {
                let (text, _) = shape.policy(&mut Rng::with_seed(seed));
                if let Err(findings) = fw_policy::check(&text, "random.yaml") {
                    panic!("{}, seed {seed}: {findings}\n{text}", shape.name());
                }
            }
        }
    }
}
