//! The definition of the model, and how tables are compared with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::{ClassFlags, Decision, Ip4, Ip6, PairEntry, Reason, SetHeader, checksum};
use fw_common::classify::{
    Address, Classified, Search, Service, Walk, allowed_protocols, classify, realm_record,
};
use fw_policy::model::{DefaultAction, Direction, Rule, RuleAction, Tags, ZoneKind};
use fw_policy::{Choice, Environment, Options, Policy, Representation, TableSet, check, compile_with};

/// A packet, as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub tags: Tags,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub selector: u16,
    pub source_port: u16,
}

/// An address, and what the model says of it.
pub struct Place {
    pub address: IpAddr,
    pub zones: Vec<usize>,
    pub best: usize,
}

impl Place {
    pub fn new(policy: &Policy, environment: &Environment, tags: Tags, address: IpAddr) -> Self {
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

fn fits(direction: &Direction, src: &[usize], dst: &[usize]) -> bool {
    direction.from.iter().any(|zone| src.contains(zone)) && direction.to.iter().any(|zone| dst.contains(zone))
}

/// The number of the rule that decides, by the definition in `fw_policy::model`.
pub fn defined(policy: &Policy, src: &[usize], dst: &[usize], packet: Packet) -> u32 {
    let first = policy.rules.iter().find(|rule| {
        rule.serves(packet.proto, packet.selector, packet.source_port)
            && rule.directions.iter().any(|direction| fits(direction, src, dst))
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

pub fn looked_up(tables: &TableSet, packet: Packet) -> Result<(Decision, Classified), Reason> {
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
    compare_protocols(policy, tables, (src, dst), packet, number);
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

/// What is said of early fragments: never less than the rules, and nothing where no rule lets the protocol through.
fn compare_protocols(
    policy: &Policy,
    tables: &TableSet,
    (src, dst): (&Place, &Place),
    packet: Packet,
    number: u32,
) {
    let bit = PairEntry::proto_bit(packet.proto);
    let lines = tables.lines.as_slice();
    let realm = realm_record(lines, (packet.tags.outer, packet.tags.inner)).expect("a realm of the policy");
    let mut walk = Walk::default();
    let mut class = |address: IpAddr| match address {
        IpAddr::V4(v4) => Ip4(v4.into()).class(lines, realm, &mut walk),
        IpAddr::V6(v6) => Ip6::from_bits(v6.into()).class(lines, realm, &mut walk),
    };
    let classes = (class(packet.src), class(packet.dst));
    let allowed = allowed_protocols(lines, classes, PairEntry::ANY, &mut Search::default());
    assert_eq!(
        allowed & bit,
        allowed_protocols(lines, classes, bit, &mut Search::default())
    );
    let passes = |rule: &Rule| rule.action == RuleAction::Allow || rule.audit;
    let rule = policy.rules.iter().find(|rule| rule.number == number);
    if rule.is_some_and(passes) {
        assert_ne!(allowed & bit, 0, "{packet:?}\n{}", policy.text);
    }
    let some = policy.rules.iter().filter(|rule| passes(rule)).any(|rule| {
        let of_protocol = rule.services.iter().any(|service| {
            service
                .proto
                .is_none_or(|proto| PairEntry::proto_bit(proto) == bit)
        });
        of_protocol
            && rule
                .directions
                .iter()
                .any(|direction| fits(direction, &src.zones, &dst.zones))
    });
    assert!(some || allowed & bit == 0, "{packet:?}\n{}", policy.text);
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

/// Protocols, selectors and source ports at both sides of every border.
fn services(policy: &Policy) -> Vec<(u8, u16, u16)> {
    let mut all = vec![
        (6, 0, 1),
        (6, u16::MAX, 0),
        (17, 53, 50_000),
        (1, 0x800, 0),
        (58, 0x8000, 0),
        (0, 0, 0),
        (255, 0, 0),
        (132, 9, u16::MAX),
    ];
    for found in policy.rules.iter().flat_map(|rule| &rule.services) {
        let proto = found.proto.unwrap_or(99);
        let beside = |lo: u16, hi: u16| [lo, hi, lo.wrapping_sub(1), hi.wrapping_add(1)];
        let sources = if found.any_source_port() {
            vec![40_000]
        } else {
            beside(found.src_lo, found.src_hi).to_vec()
        };
        for selector in beside(found.lo, found.hi) {
            all.extend(sources.iter().map(|source| (proto, selector, *source)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Compiles into both representations, and as the compiler chooses.
pub fn compiled(policy: &Policy, environment: &Environment) -> Vec<TableSet> {
    let only = |representation| Choice::Only(representation);
    let choices = [
        only(Representation::Pairs),
        only(Representation::Vectors),
        Choice::Auto,
    ];
    let compiled = choices.into_iter().map(|choice| {
        let options = Options {
            choice,
            ..Options::default()
        };
        compile_with(policy, environment, options).expect("the policy is small")
    });
    compiled.collect()
}

/// Compares both representations at every combination of edges, thinned out to about `budget` packets for each VLAN and
/// family.
pub fn compare_everywhere(policy: &Policy, environment: &Environment, budget: usize) {
    let tables = compiled(policy, environment);
    assert_eq!(tables[0].stats.representation, Representation::Pairs);
    assert_eq!(tables[1].stats.representation, Representation::Vectors);
    let [pairs, vectors] = [&tables[0], &tables[1]];
    compare_set(policy, environment, pairs, budget);
    compare_set(policy, environment, vectors, budget);
    let auto = &tables[2];
    assert!(auto.lines == pairs.lines || auto.lines == vectors.lines);
}

/// Compares one set so.
pub fn compare_set(policy: &Policy, environment: &Environment, tables: &TableSet, budget: usize) {
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
                let (at, (proto, selector, source_port)) =
                    (at / services.len(), services[at % services.len()]);
                let (src, dst) = (&places[at / places.len()], &places[at % places.len()]);
                let packet = Packet {
                    tags,
                    src: src.address,
                    dst: dst.address,
                    proto,
                    selector,
                    source_port: Service::of(proto, selector, source_port).source_port,
                };
                compare(policy, tables, src, dst, packet);
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
        assert_eq!(looked_up(tables, packet), Err(Reason::UnknownRealm));
    }
}

pub fn read(text: &str) -> Policy {
    check(text, "test.yaml")
        .unwrap_or_else(|findings| panic!("{findings}\n{text}"))
        .0
}

pub fn environment(own: &[&str]) -> Environment {
    let own_addresses = own.iter().map(|text| text.parse().expect("an address")).collect();
    Environment {
        own_addresses,
        generation: 7,
        ..Environment::sample()
    }
}
