//! From a flow as it is written to addresses: zones stand for one of their addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::Environment;
use crate::flow::{Endpoint, Flow, FlowError, FlowSpec};
use crate::model::{Policy, Tags, Zone, ZoneIndex, ZoneKind};

/// Addresses of `outside` are looked for among this many candidates at most.
const MAX_CANDIDATES: usize = 512;

/// Why a flow has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// No such zone.
    #[error("there is no zone `{0}`; write an address or the name of a zone of the policy")]
    UnknownZone(String),
    /// `any`, or a zone without an address of the family.
    #[error("the zone `{zone}` has no {family} address that could stand for it; write an address")]
    NoAddress {
        /// The zone.
        zone: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The ends have no family in common.
    #[error("`{0}` and `{1}` have no address family in common")]
    Families(String, String),
    /// The ends are in different VLANs.
    #[error("`{0}` and `{1}` are in different VLANs; say which tag the packet has (`vlan`)")]
    Vlans(String, String),
    /// The flow itself.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

/// Puts addresses and numbers into a flow. `tags` are the packet's; where they are not known they are those of the flow's
/// zones, or none.
///
/// # Errors
/// [`ResolveError`]: a zone is unknown or has no address that fits.
pub fn resolve(
    policy: &Policy,
    environment: &Environment,
    flow: &FlowSpec,
    tags: Option<Tags>,
) -> Result<Flow, ResolveError> {
    let (src, dst) = (End::new(policy, &flow.src)?, End::new(policy, &flow.dst)?);
    let Tags { outer, inner } = match tags {
        Some(tags) => tags,
        None => common_tags(policy, &src, &dst)?,
    };
    let both = |ipv4: bool| {
        let src = src.address(policy, environment, ipv4, None)?;
        // A packet from an address to itself is none that anybody means; a zone of one address has no other.
        let other = dst.address(policy, environment, ipv4, Some(src));
        Some((
            src,
            other.or_else(|| dst.address(policy, environment, ipv4, None))?,
        ))
    };
    let Some((src, dst)) = both(true).or_else(|| both(false)) else {
        return Err(no_address(policy, environment, &src, &dst));
    };
    let (proto, selector) = flow.service(src.is_ipv4())?;
    Ok(Flow {
        vlan: outer,
        inner_vlan: inner,
        src,
        dst,
        proto,
        sport: flow.sport,
        selector,
    })
}

/// An end of a flow, its zone found.
enum End {
    Address(IpAddr),
    Zone(ZoneIndex),
}

impl End {
    fn new(policy: &Policy, endpoint: &Endpoint) -> Result<Self, ResolveError> {
        match endpoint {
            Endpoint::Address(address) => Ok(Self::Address(*address)),
            Endpoint::Zone(name) => policy
                .zone(name)
                .map(Self::Zone)
                .ok_or_else(|| ResolveError::UnknownZone(name.clone())),
        }
    }

    fn name(&self, policy: &Policy) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Zone(zone) => policy.zones[*zone].name.clone(),
        }
    }

    /// The realm that the end belongs to; built-in zones and addresses belong to none in particular.
    fn tags(&self, policy: &Policy) -> Option<Tags> {
        match self {
            Self::Zone(zone) if policy.zones[*zone].kind == ZoneKind::Named => {
                Some(policy.zones[*zone].tags())
            }
            _ => None,
        }
    }

    /// True if a rule sees this zone in that realm.
    fn is_seen_in(&self, policy: &Policy, tags: Tags) -> bool {
        let Self::Zone(zone) = self else { return false };
        let mut seen = policy.zones.iter().filter(|seen| seen.seen_of == Some(*zone));
        seen.any(|seen| seen.tags() == tags)
    }

    /// An address of the family that stands for the end; of a zone another one than `taken`.
    fn address(
        &self,
        policy: &Policy,
        environment: &Environment,
        ipv4: bool,
        taken: Option<IpAddr>,
    ) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address).filter(|address| address.is_ipv4() == ipv4),
            Self::Zone(zone) => representative(policy, environment, *zone, (ipv4, taken)),
        }
    }
}

fn common_tags(policy: &Policy, src: &End, dst: &End) -> Result<Tags, ResolveError> {
    match (src.tags(policy), dst.tags(policy)) {
        (Some(Tags::NONE), Some(tags)) if src.is_seen_in(policy, tags) => Ok(tags),
        (Some(tags), Some(Tags::NONE)) if dst.is_seen_in(policy, tags) => Ok(tags),
        (Some(a), Some(b)) if a != b => Err(ResolveError::Vlans(src.name(policy), dst.name(policy))),
        (Some(tags), _) | (None, Some(tags)) => Ok(tags),
        (None, None) => Ok(Tags::NONE),
    }
}

fn no_address(policy: &Policy, environment: &Environment, src: &End, dst: &End) -> ResolveError {
    let has = |end: &End, ipv4| end.address(policy, environment, ipv4, None).is_some();
    for (end, other) in [(src, dst), (dst, src)] {
        for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            if has(other, ipv4) && !has(other, !ipv4) && !has(end, ipv4) && !has(end, !ipv4) {
                return ResolveError::NoAddress {
                    zone: end.name(policy),
                    family,
                };
            }
        }
    }
    for end in [src, dst] {
        if !has(end, true) && !has(end, false) {
            return ResolveError::NoAddress {
                zone: end.name(policy),
                family: "IPv4 or IPv6",
            };
        }
    }
    ResolveError::Families(src.name(policy), dst.name(policy))
}

/// An address that stands for a zone: preferably one whose most specific zone it is.
fn representative(
    policy: &Policy,
    environment: &Environment,
    zone: ZoneIndex,
    (ipv4, taken): (bool, Option<IpAddr>),
) -> Option<IpAddr> {
    let own = environment.own_addresses.as_slice();
    let wanted = &policy.zones[zone];
    let mut candidates = candidates(policy, wanted, own, ipv4);
    candidates.retain(|address| Some(*address) != taken);
    let tags = wanted.tags();
    let best = candidates
        .iter()
        .find(|address| policy.most_specific(tags, **address, own) == Some(zone));
    let any = || {
        candidates
            .iter()
            .find(|address| policy.zones_of(tags, **address, own).contains(&zone))
    };
    best.or_else(any).copied()
}

fn candidates(policy: &Policy, wanted: &Zone, own: &[IpAddr], ipv4: bool) -> Vec<IpAddr> {
    let family = |address: &IpAddr| address.is_ipv4() == ipv4;
    match wanted.kind {
        ZoneKind::Any => Vec::new(),
        ZoneKind::SelfMachine => own.iter().copied().filter(family).collect(),
        ZoneKind::Outside => {
            // Documentation addresses first: RFC 5737, RFC 3849.
            let documentation = ["198.51.100.1", "203.0.113.1", "2001:db8:ffff::1"];
            let documentation = documentation.iter().filter_map(|text| text.parse().ok());
            let holes = policy
                .zones
                .iter()
                .flat_map(|zone| &zone.prefixes)
                .filter_map(behind);
            documentation
                .chain(holes)
                .filter(family)
                .take(MAX_CANDIDATES)
                .collect()
        }
        _ => {
            let own = wanted.prefixes.iter().flat_map(hosts);
            // Where a smaller zone takes the first addresses: those behind it.
            let holes = policy
                .zones
                .iter()
                .flat_map(|zone| &zone.prefixes)
                .filter_map(behind);
            let holes = holes.filter(|address| wanted.prefixes.iter().any(|net| net.contains(address)));
            own.chain(holes).filter(family).take(MAX_CANDIDATES).collect()
        }
    }
}

/// The addresses of the first two hosts, and the network's own.
fn hosts(net: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let network = net.network();
    let first = next(network).filter(|first| net.contains(first));
    let second = first.and_then(next).filter(|second| net.contains(second));
    [first, second, Some(network)].into_iter().flatten()
}

/// The address behind a prefix.
fn behind(net: &IpNet) -> Option<IpAddr> {
    next(net.broadcast())
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
