//! How many classes of packets there are between two sides, and packets that stand for them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::ProveError;
use crate::flow::Flow;
use crate::isolate::lets_through;
use crate::model::{Isolation, Policy};
use crate::space::{Ranges, Scope, Slab, Space, SpaceError, WITH_MESSAGES, WITH_PORTS, protocol, universe};

/// What was looked at. A class of packets is a class of sources, one of destinations, and a part of the services that the
/// rules tell apart; all packets of a class meet the same rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// VLAN tags that the policy names, none included; other tags are denied before the rules.
    pub realms: usize,
    /// Classes of addresses of the left side, over all realms and both families.
    pub left: u64,
    /// Classes of addresses of the right side.
    pub right: u64,
    /// Rules that can match something between the sides, over both directions.
    pub rules: usize,
    /// Classes of packets from one side to the other, in both directions.
    pub packets: u128,
}

/// A packet that stands for its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The packet.
    pub flow: Flow,
    /// Number of the rule that decides; 0: the default.
    pub rule: u32,
    /// The rule lets it through.
    pub passes: bool,
}

/// Counts the classes.
pub(super) fn classes(policy: &Policy, isolation: &Isolation, scope: &Scope) -> Result<Classes, ProveError> {
    let mut out = Classes {
        realms: policy.realms().len(),
        ..Classes::default()
    };
    let mut rules = BTreeSet::new();
    for (space, [left, right]) in spaces(policy, isolation, scope)? {
        out.left += left.count();
        out.right += right.count();
        for (src, dst) in [(&left, &right), (&right, &left)] {
            let grid = Grid::new(&space, src, dst, &mut rules);
            out.packets += grid.count();
        }
    }
    out.rules = rules.len();
    Ok(out)
}

/// A packet for each class, or for `most` classes spread evenly over all of them. Second: how many classes there are.
/// Packets that cannot be made (of protocols that are headers of IPv6, or of the other family's ICMP) are left out.
///
/// # Errors
/// [`ProveError`]: there is too much to look at.
pub fn samples(
    policy: &Policy,
    isolation: &Isolation,
    scope: &Scope,
    most: usize,
) -> Result<(Vec<Sample>, u128), ProveError> {
    let spaces = spaces(policy, isolation, scope)?;
    let mut grids = Vec::new();
    for (space, [left, right]) in &spaces {
        for (src, dst) in [(left, right), (right, left)] {
            grids.push((space, Grid::new(space, src, dst, &mut BTreeSet::new())));
        }
    }
    let total: u128 = grids.iter().map(|(_, grid)| grid.count()).sum();
    let wanted = total.min(most as u128);
    let mut out = Vec::new();
    let (mut at, mut before) = (0, 0_u128);
    for number in 0..wanted {
        let place = number * total / wanted;
        while let Some((_, grid)) = grids.get(at).filter(|(_, grid)| before + grid.count() <= place) {
            before += grid.count();
            at += 1;
        }
        if let Some((space, grid)) = grids.get(at) {
            out.extend(grid.sample(policy, space, place - before));
        }
    }
    Ok((out, total))
}

/// The spaces in which both sides have addresses, with the sides.
fn spaces(
    policy: &Policy,
    isolation: &Isolation,
    scope: &Scope,
) -> Result<Vec<(Space, [Ranges; 2])>, SpaceError> {
    let also: Vec<_> = isolation.left.iter().chain(&isolation.right).copied().collect();
    let mut out = Vec::new();
    for tags in policy.realms() {
        for ipv4 in [true, false] {
            let space = Space::new(&[policy], (tags, ipv4), scope, &also, false)?;
            let side = &space.sides[0];
            let sides = [&isolation.left, &isolation.right].map(|zones| side.union(&space, zones));
            if sides.iter().all(|side| !side.is_empty()) {
                out.push((space, sides));
            }
        }
    }
    Ok(out)
}

/// All classes of packets from one set of address classes to another.
struct Grid {
    sources: Vec<u32>,
    destinations: Vec<u32>,
    /// Groups of protocols that the rules do not tell apart: their places, and where their classes of source ports and of
    /// selectors begin.
    services: Vec<(Vec<u32>, Vec<u32>, Vec<u32>)>,
}

impl Grid {
    /// `rules` takes the places of the rules that can match something there.
    fn new(space: &Space, src: &Ranges, dst: &Ranges, rules: &mut BTreeSet<u32>) -> Self {
        let mut pieces = BTreeSet::new();
        for piece in universe(false) {
            let target: Slab<'_> = space.slab_of(src, dst, &piece);
            for flow_box in space.sides[0]
                .boxes
                .iter()
                .filter(|other| space.meets(other, &target))
            {
                rules.insert(flow_box.rule);
                pieces.insert(flow_box.piece);
            }
        }
        Self {
            sources: src.iter().collect(),
            destinations: dst.iter().collect(),
            services: services(space, &pieces),
        }
    }

    fn count(&self) -> u128 {
        let services = self.services.iter();
        let services: u128 = services
            .map(|(_, ports, selectors)| ports.len() as u128 * selectors.len() as u128)
            .sum();
        self.sources.len() as u128 * self.destinations.len() as u128 * services
    }

    /// The packet of a class by its number; `None` if it cannot be made.
    fn sample(&self, policy: &Policy, space: &Space, number: u128) -> Option<Sample> {
        let split = |number: u128, by: usize| (number / by as u128, (number % by as u128) as usize);
        let (number, src) = split(number, self.sources.len());
        let (mut number, dst) = split(number, self.destinations.len());
        for (protos, ports, selectors) in &self.services {
            let own = ports.len() as u128 * selectors.len() as u128;
            if number >= own {
                number -= own;
                continue;
            }
            let (port, selector) = split(number, selectors.len());
            let proto = protos.iter().find(|place| sendable(space.ipv4, **place))?;
            let (src, dst) = (self.sources[src], self.destinations[dst]);
            let point = [src, dst, *proto, ports[port as usize], selectors[selector]];
            if space.addresses.one_address(src, dst) {
                return None;
            }
            let rule = space
                .decide(0, &point)
                .map(|flow_box| &policy.rules[flow_box.rule as usize]);
            return Some(Sample {
                flow: space.flow(point),
                rule: rule.map_or(0, |rule| rule.number),
                passes: rule.is_some_and(lets_through),
            });
        }
        None
    }
}

/// True if a packet of the protocol can be made: not of what is a header of IPv6 (RFC 8200, RFC 4302), nor of the other
/// family's ICMP.
fn sendable(ipv4: bool, place: u32) -> bool {
    match protocol(place) {
        0 | 43 | 44 | 51 | 59 | 60 | 135 | 139 | 140 | 253 | 254 => false,
        1 => ipv4,
        58 => !ipv4,
        _ => true,
    }
}

/// The services that these pieces tell apart, within all packets that can open a flow.
fn services(space: &Space, pieces: &BTreeSet<u32>) -> Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| &space.pieces[*piece as usize])
        .collect();
    let mut out: Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> = Vec::new();
    for part in universe(false) {
        let mut groups: Vec<(Vec<usize>, Vec<u32>)> = Vec::new();
        for place in part.protos.iter() {
            let holds = |index: &usize| pieces[*index].protos.iter().any(|own| own == place);
            let held: Vec<usize> = (0..pieces.len()).filter(holds).collect();
            match groups.iter_mut().find(|(own, _)| *own == held) {
                Some((_, places)) => places.push(place),
                None => groups.push((held, vec![place])),
            }
        }
        for (held, places) in groups {
            let held = || held.iter().map(|index| pieces[*index]);
            let with_ports = places[0] <= WITH_PORTS.1;
            let messages = (WITH_MESSAGES.0..=WITH_MESSAGES.1).contains(&places[0]);
            let sources = cuts(&part.sources, held().map(|piece| &piece.sources), with_ports);
            let selectors = cuts(
                &part.selectors,
                held().map(|piece| &piece.selectors),
                with_ports && !messages,
            );
            out.push((places, sources, selectors));
        }
    }
    out
}

/// Where the classes of an axis begin. `ports`: a class that begins with port 0 is shown by port 1, if that is in it too.
fn cuts<'a>(within: &Ranges, sets: impl Iterator<Item = &'a Ranges>, ports: bool) -> Vec<u32> {
    let mut starts: BTreeSet<u32> = within.as_slice().iter().map(|range| range.0).collect();
    for (first, last) in sets.flat_map(|set| set.intersection(within).as_slice().to_vec()) {
        starts.insert(first);
        let behind = Ranges::of(last, last.saturating_add(1)).intersection(within);
        starts.extend(behind.iter().filter(|number| *number > last));
    }
    if ports && starts.contains(&0) && !starts.contains(&1) {
        starts.remove(&0);
        starts.insert(1);
    }
    starts.into_iter().collect()
}
