#![allow(dead_code, reason = "shared between tests, each of which uses a part")]
//! Random policies, the packets at their edges, and the definition of what a policy says of a packet.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use fw_policy::model::{DefaultAction, Direction, Policy, Rule, RuleAction, Tags, ZoneIndex, ZoneKind};
use fw_policy::{Flow, check};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A small generator of numbers (splitmix64, Steele and others 2014): tests need the same ones on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// Zones that every policy knows.
const BUILT_IN: [&str; 6] = ["self", "outside", "any", "metadata", "multicast", "link_local"];
/// This machine's addresses: one is in many random zones.
pub const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
];

/// The parts of a random policy, to be put together with rules of a test's own.
pub struct Parts {
    pub zones: Vec<(String, String)>,
    pub services: Vec<String>,
    pub rules: Vec<String>,
}

impl Parts {
    pub fn new(random: &mut Random) -> Self {
        let count = 3 + random.below(5);
        let zones = (0..count)
            .map(|number| (format!("z{number}"), zone(random)))
            .collect();
        let services: Vec<String> = (0..2).map(|_| services(random)).collect();
        let mut parts = Self {
            zones,
            services,
            rules: Vec::new(),
        };
        for number in 0..=random.below(8) {
            let rule = parts.rule(random, number);
            parts.rules.push(rule);
        }
        parts
    }

    fn rule(&self, random: &mut Random, number: usize) -> String {
        let action = *random.pick(&["allow", "allow", "allow", "deny", "reject"]);
        let more = match (action, random.below(8)) {
            ("allow", 0) => ", track: false",
            ("deny", 0) => ", audit: true",
            _ => "",
        };
        let what = match random.below(8) {
            0 => "all".to_owned(),
            1..4 => format!("[{}]", service(random)),
            _ => format!("[s{}]", random.below(self.services.len())),
        };
        if random.one_in(6) {
            let (a, b) = (self.zone(random), self.zone(random));
            return format!("{{ name: r{number}, {action}: {what}, between: [{a}, {b}]{more} }}");
        }
        let (from, to) = (self.ends(random), self.ends(random));
        format!("{{ name: r{number}, {action}: {what}, from: {from}, to: {to}{more} }}")
    }

    /// One more rule, under a name that no other has.
    pub fn extra_rule(&self, random: &mut Random) -> String {
        let number = 100 + random.below(1_000_000);
        self.rule(random, number)
    }

    pub fn zone(&self, random: &mut Random) -> String {
        random.pick(&self.zones).0.clone()
    }

    fn ends(&self, random: &mut Random) -> String {
        match random.below(10) {
            0..2 => (*random.pick(&BUILT_IN)).to_owned(),
            2..4 => format!("[{}, {}]", self.zone(random), random.pick(&BUILT_IN)),
            4..6 => format!("[{}, {}]", self.zone(random), self.zone(random)),
            _ => self.zone(random),
        }
    }

    /// The policy with these rules, and with `dynamic` a dynamic zone `quarantine`, which rules can name only by this.
    pub fn policy(&self, rules: &[String], dynamic: bool) -> Policy {
        let mut text = String::from("version: 1\nzones:\n");
        for (name, zone) in &self.zones {
            let _ = writeln!(text, "  {name}: {zone}");
        }
        // Dynamic zones are not yet read from text: an address that nothing else has stands in.
        text.push_str("  quarantine: [192.0.2.77]\nservices:\n");
        for (number, service) in self.services.iter().enumerate() {
            let _ = writeln!(text, "  s{number}: [{service}]");
        }
        text.push_str("rules:\n");
        for rule in rules {
            let _ = writeln!(text, "  - {rule}");
        }
        let (mut policy, _) =
            check(&text, "random.yaml").unwrap_or_else(|findings| panic!("{findings}\n{text}"));
        let quarantine = policy.zone("quarantine").expect("it was written");
        policy.set_members(quarantine, []);
        policy.zones[quarantine].dynamic = dynamic;
        policy
    }
}

fn zone(random: &mut Random) -> String {
    let prefixes: Vec<String> = (0..=random.below(3))
        .map(|_| format!("\"{}\"", prefix(random)))
        .collect();
    let vlan = if random.one_in(5) { ", vlan: 101" } else { "" };
    format!("{{ addresses: [{}]{vlan} }}", prefixes.join(", "))
}

/// A prefix of a small part of the address space, so that prefixes nest, repeat and touch.
fn prefix(random: &mut Random) -> IpNet {
    if random.one_in(3) {
        let word = *random.pick(&[0_u16, 1, 2, 0x8000]);
        let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, word);
        let length = *random.pick(&[0, 8, 64, 112, 127, 128]);
        Ipv6Net::new_assert(address, length).trunc().into()
    } else {
        let octets = [*random.pick(&[0, 1, 128]), *random.pick(&[0, 1, 2, 255])];
        let length = *random.pick(&[0, 8, 16, 20, 24, 31, 32]);
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, octets[0], octets[1]), length)
            .trunc()
            .into()
    }
}

fn services(random: &mut Random) -> String {
    let matches: Vec<String> = (0..=random.below(3)).map(|_| service(random)).collect();
    matches.join(", ")
}

fn service(random: &mut Random) -> String {
    let port = *random.pick(&[1, 22, 80, 443, 4791]);
    let range = match random.below(3) {
        0 => format!("{port}-{}", port + 1 + random.below(500)),
        1 => format!("{port}-65535"),
        _ => format!("{port}"),
    };
    match random.below(10) {
        0..4 => format!("tcp/{range}"),
        4..7 => format!("udp/{range}"),
        7 => (*random.pick(&["gre", "esp", "udp", "sctp", "tcp"])).to_owned(),
        8 => "icmp".to_owned(),
        _ => "icmpv6/echo-request".to_owned(),
    }
}

/// Addresses at the edges of a policy's zones.
pub fn addresses(policy: &Policy) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = OWN.to_vec();
    for prefix in policy.zones.iter().flat_map(|zone| &zone.prefixes) {
        let (first, last) = (prefix.network(), prefix.broadcast());
        out.extend([first, last]);
        out.extend(moved(first, false));
        out.extend(moved(last, true));
    }
    out.sort_unstable();
    out.dedup();
    out
}

fn moved(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let bits = u32::from(v4);
            let next = if up {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            next.map(|bits| Ipv4Addr::from(bits).into())
        }
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            let next = if up {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            next.map(|bits| Ipv6Addr::from(bits).into())
        }
    }
}

/// Protocol, source port and selector at the edges of a policy's rules.
pub fn service_points(policy: &Policy) -> Vec<(u8, Option<u16>, u16)> {
    let mut out = vec![
        (1, None, 0x800),
        (58, None, 0x8000),
        (47, None, 0),
        (50, None, 0),
        (103, None, 0),
    ];
    let mut ports = vec![0, 1, u16::MAX];
    for service in policy.rules.iter().flat_map(|rule| &rule.services) {
        for port in [service.lo, service.hi, service.src_lo, service.src_hi] {
            ports.extend([port.saturating_sub(1), port, port.saturating_add(1)]);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    for proto in [6, 17, 132] {
        out.extend(ports.iter().map(|port| (proto, Some(40_000), *port)));
    }
    out
}

/// A random packet at the edges.
pub fn packet(
    random: &mut Random,
    policy: &Policy,
    addresses: &[IpAddr],
    services: &[(u8, Option<u16>, u16)],
) -> Flow {
    let src = *random.pick(addresses);
    // Sorted, IPv4 first.
    let (v4, v6) = addresses.split_at(addresses.partition_point(IpAddr::is_ipv4));
    let same = if src.is_ipv4() { v4 } else { v6 };
    let (proto, sport, selector) = *random.pick(services);
    let realms: Vec<Tags> = policy.realms().into_iter().collect();
    let tags = *random.pick(&realms);
    Flow {
        vlan: tags.outer,
        inner_vlan: tags.inner,
        src,
        dst: *random.pick(same),
        proto,
        sport,
        selector,
    }
}

/// What a policy says of packets, by the definition in [`fw_policy::model`].
pub struct Oracle<'p> {
    pub policy: &'p Policy,
    own: &'p [IpAddr],
    /// Zones of the addresses that were asked about.
    known: RefCell<HashMap<(Tags, IpAddr), Rc<[ZoneIndex]>>>,
}

impl<'p> Oracle<'p> {
    pub fn new(policy: &'p Policy, own: &'p [IpAddr]) -> Self {
        Self {
            policy,
            own,
            known: RefCell::default(),
        }
    }

    fn zones(&self, tags: Tags, address: IpAddr) -> Rc<[ZoneIndex]> {
        let mut known = self.known.borrow_mut();
        let zones = || self.policy.zones_of(tags, address, self.own).into();
        Rc::clone(known.entry((tags, address)).or_insert_with(zones))
    }

    /// The first rule that matches.
    pub fn decide(&self, flow: &Flow) -> Option<&'p Rule> {
        if !self.policy.realms().contains(&flow.tags()) {
            return None;
        }
        let (src, dst) = (
            self.zones(flow.tags(), flow.src),
            self.zones(flow.tags(), flow.dst),
        );
        let common = |zones: &[ZoneIndex], held: &[ZoneIndex]| zones.iter().any(|zone| held.contains(zone));
        let goes = |direction: &Direction| common(&direction.from, &src) && common(&direction.to, &dst);
        let serves = |rule: &Rule| rule.serves(flow.proto, flow.selector, flow.source_port());
        let mut rules = self.policy.rules.iter();
        rules.find(|rule| rule.directions.iter().any(goes) && serves(rule))
    }

    /// What happens to a packet that would open a flow.
    pub fn action(&self, flow: &Flow) -> RuleAction {
        match self.decide(flow) {
            Some(rule) if rule.audit => return RuleAction::Allow,
            Some(rule) => return rule.action,
            None if !self.policy.realms().contains(&flow.tags()) => return RuleAction::Deny,
            None => {}
        }
        let outside = self
            .policy
            .built_in(ZoneKind::Outside)
            .expect("every policy has it");
        let strange = self.zones(flow.tags(), flow.src).contains(&outside);
        let default = if strange {
            self.policy.default.outside
        } else {
            self.policy.default.inside
        };
        match default {
            DefaultAction::Drop => RuleAction::Deny,
            DefaultAction::Reject => RuleAction::Reject,
        }
    }

    /// True if one of these zones holds an address.
    pub fn within(&self, zones: &[ZoneIndex], tags: Tags, address: IpAddr) -> bool {
        self.zones(tags, address).iter().any(|zone| zones.contains(zone))
    }
}

/// Index of `any`.
pub fn any(policy: &Policy) -> ZoneIndex {
    policy.built_in(ZoneKind::Any).expect("every policy has it")
}
