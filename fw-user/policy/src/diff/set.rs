//! Sets of flows for people and programs: addresses, services, what changes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fw_common::abi::Proto;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

use super::cells::ServiceSet;
use crate::explain::RuleRef;
use crate::flow::Flow;
use crate::model::{RuleAction, ServiceMatch, Tags};
use crate::names;
use crate::space::{Ranges, Space, ip, protocol, universe};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Flows whose fate differs: from every address of `source` to every address of `destination` of the same family, every
/// one of `services`, in every realm of `tags`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSet {
    /// VLAN tags of the realms.
    pub tags: Vec<Tags>,
    /// Families of the addresses.
    pub families: Vec<Family>,
    /// Who opens the flows.
    pub source: AddressSet,
    /// To whom.
    pub destination: AddressSet,
    /// Services: no two of the matches hold the same packet.
    pub services: Vec<ServiceMatch>,
    /// The services as a policy would write them.
    pub services_text: String,
    /// What happens to the flows by the old policy.
    pub before: RuleAction,
    /// What happens to them by the new one.
    pub after: RuleAction,
    /// Rules of the old policy that decide them; empty: its default alone.
    pub old_rules: Vec<RuleRef>,
    /// Rules of the new policy that decide them.
    pub new_rules: Vec<RuleRef>,
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AddressSet {
    /// Zones where the set is made of zones, otherwise prefixes.
    pub text: String,
    /// All of it, part by part.
    pub parts: Vec<AddressPart>,
}

/// Addresses, on a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AddressPart {
    /// The addresses, as few prefixes as possible, ascending.
    pub prefixes: Vec<IpNet>,
    /// Zones that must hold an address as well: dynamic ones, and `self` where no machine is meant.
    #[serde(rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// Zones that must not.
    #[serde(rename = "not_in", skip_serializing_if = "Vec::is_empty")]
    pub not_held_by: Vec<String>,
}

impl AddressSet {
    /// True if the set has the address; `held` says whether a zone of which the policy does not say it holds it.
    pub fn contains(&self, address: IpAddr, held: impl Fn(&str) -> bool) -> bool {
        self.parts.iter().any(|part| {
            let yes = part.held_by.iter().all(|zone| held(zone));
            let no = part.not_held_by.iter().any(|zone| held(zone));
            // Sorted, and none within another.
            let behind = part.prefixes.partition_point(|net| net.network() <= address);
            yes && !no && behind > 0 && part.prefixes[behind - 1].contains(&address)
        })
    }
}

impl FlowSet {
    /// True if the flow is one of the set. `source_held` and `destination_held`: as of [`AddressSet::contains`].
    pub fn contains(
        &self,
        flow: &Flow,
        source_held: impl Fn(&str) -> bool,
        destination_held: impl Fn(&str) -> bool,
    ) -> bool {
        let served = self
            .services
            .iter()
            .any(|service| service.holds(flow.proto, flow.selector, flow.source_port()));
        served
            && self.tags.contains(&flow.tags())
            && self.source.contains(flow.src, source_held)
            && self.destination.contains(flow.dst, destination_held)
    }
}

/// The addresses of classes, by the unknown zones that matter for them.
pub(super) fn parts(space: &Space, set: &Ranges) -> Vec<AddressPart> {
    let mut out: Vec<AddressPart> = Vec::new();
    for (bases, conditions) in conditions(space, set) {
        let spans = space
            .addresses
            .spans()
            .filter(|(_, base)| bases.binary_search(base).is_ok());
        let prefixes = prefixes(space.ipv4, spans.map(|(span, _)| span));
        for (yes, no) in conditions {
            out.push(AddressPart {
                prefixes: prefixes.clone(),
                held_by: zones(space, yes),
                not_held_by: zones(space, no),
            });
        }
    }
    out.sort_unstable();
    out
}

/// Bases with the same conditions, and these: unknown zones that must hold an address too, and zones that must not.
pub(super) fn conditions(space: &Space, set: &Ranges) -> Vec<(Vec<u32>, Vec<(u32, u32)>)> {
    let mut by_base: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for class in set.iter() {
        let (base, held) = space.addresses.parts(class);
        by_base.entry(base).or_default().push(held);
    }
    let mut by_sets: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
    for (base, held) in by_base {
        by_sets.entry(held).or_default().push(base);
    }
    let zones = space.unknown.len() as u32;
    let groups = by_sets.into_iter();
    groups.map(|(sets, bases)| (bases, cubes(&sets, zones))).collect()
}

/// Sets of unknown zones as conditions: bits that must be set, bits that must not. Zones that make no difference are in neither.
fn cubes(sets: &[u32], zones: u32) -> Vec<(u32, u32)> {
    let has = |set: u32| sets.binary_search(&set).is_ok();
    let matters = (0..zones).filter(|bit| sets.iter().any(|set| !has(set ^ (1 << bit))));
    let mask = matters.fold(0, |mask, bit| mask | 1 << bit);
    let mut kept: Vec<u32> = sets.iter().map(|set| set & mask).collect();
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|set| (set, mask & !set)).collect()
}

pub(super) fn zones(space: &Space, bits: u32) -> Vec<String> {
    let names = space.unknown.iter().enumerate();
    names
        .filter(|(bit, _)| bits >> bit & 1 != 0)
        .map(|(_, name)| name.clone())
        .collect()
}

/// Spans in order as prefixes; neighbours are joined first.
fn prefixes(ipv4: bool, spans: impl Iterator<Item = (u128, u128)>) -> Vec<IpNet> {
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (first, last) in spans {
        match joined.last_mut() {
            Some(end) if end.1 + 1 == first => end.1 = last,
            _ => joined.push((first, last)),
        }
    }
    let nets = joined.into_iter().flat_map(|(first, last)| {
        let nets: Box<dyn Iterator<Item = IpNet>> = match (ip(ipv4, first), ip(ipv4, last)) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Box::new(Ipv4Subnets::new(first, last, 0).map(IpNet::V4))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Box::new(Ipv6Subnets::new(first, last, 0).map(IpNet::V6))
            }
            // Both ends are of the space's family.
            _ => Box::new(std::iter::empty()),
        };
        nets
    });
    nets.collect()
}

/// Services as matches; the service `all` where they are everything.
pub(super) fn matches(set: &ServiceSet) -> Vec<ServiceMatch> {
    if is_everything(set) {
        return vec![ServiceMatch::ALL];
    }
    let mut out = Vec::new();
    for (protos, ports) in set {
        for proto in protos.iter().map(protocol) {
            for ((src_lo, src_hi), selectors) in ports {
                out.extend(selectors.as_slice().iter().map(|(lo, hi)| {
                    let plain = !matches!(
                        proto,
                        Proto::TCP | Proto::UDP | Proto::SCTP | Proto::ICMP | Proto::ICMPV6
                    );
                    let with_ports = matches!(proto, Proto::TCP | Proto::UDP | Proto::SCTP);
                    ServiceMatch {
                        proto: Some(proto),
                        src_lo: *src_lo as u16,
                        src_hi: if with_ports { *src_hi as u16 } else { u16::MAX },
                        lo: *lo as u16,
                        hi: if plain { u16::MAX } else { *hi as u16 },
                    }
                }));
            }
        }
    }
    out.sort_unstable();
    out
}

fn is_everything(set: &ServiceSet) -> bool {
    let all = universe(false);
    set.iter().map(|(protos, _)| protos.count()).sum::<u64>()
        == all.iter().map(|piece| piece.protos.count()).sum::<u64>()
        && all.iter().all(|piece| {
            set.iter().any(|(protos, ports)| {
                protos.contains_all(&piece.protos)
                    && ports.iter().all(|(range, selectors)| {
                        piece.sources.as_slice() == [*range] && *selectors == piece.selectors
                    })
            })
        })
}

/// Services as a policy would write them.
pub(super) fn services_text(services: &[ServiceMatch]) -> String {
    const LISTED: usize = 12;
    let mut texts: Vec<String> = services.iter().map(match_text).collect();
    let more = texts.len().saturating_sub(LISTED);
    if more > 1 {
        texts.truncate(LISTED);
        texts.push(format!("and {more} more"));
    }
    texts.join(", ")
}

fn match_text(found: &ServiceMatch) -> String {
    let Some(proto) = found.proto else {
        return names::ALL.to_owned();
    };
    let range = |lo: u16, hi: u16| {
        if lo == hi {
            lo.to_string()
        } else {
            format!("{lo}-{hi}")
        }
    };
    let name = names::protocol_name(proto);
    let mut text = match proto {
        Proto::ICMP | Proto::ICMPV6 if (found.lo, found.hi) == (found.lo & 0xff00, found.lo | 0xff) => {
            format!("{name}/echo-request")
        }
        Proto::ICMP | Proto::ICMPV6 => {
            let codes = range(found.lo & 0xff, found.hi & 0xff);
            format!("{name}/{}/{codes}", found.lo >> 8)
        }
        _ if (found.lo, found.hi) == (0, u16::MAX) => name.replace("protocol ", "proto/"),
        _ => format!("{name}/{}", range(found.lo, found.hi)),
    };
    if !found.any_source_port() {
        text += " from port ";
        text += &range(found.src_lo, found.src_hi);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::cubes;

    #[test]
    fn only_zones_that_matter_are_conditions() {
        assert_eq!(cubes(&[0, 1, 2, 3], 2), [(0, 0)]);
        assert_eq!(cubes(&[1, 3], 2), [(1, 0)]);
        assert_eq!(cubes(&[0, 2], 2), [(0, 1)]);
        assert_eq!(cubes(&[1, 2], 2), [(1, 2), (2, 1)]);
    }
}
