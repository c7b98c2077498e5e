//! Zones, services and rules of one or two policies as sets and boxes of one realm and family.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{Addresses, Span};
use super::cover::{AXES, Slab};
use super::ranges::{Ranges, has, meet};
use super::service::{self, Piece};
use super::{Scope, SpaceError};
use crate::flow::Flow;
use crate::model::{Policy, Tags, Zone, ZoneIndex, ZoneKind};

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowBox {
    /// Place of the rule in its policy.
    pub(crate) rule: u32,
    /// Place in [`Space::sets`].
    pub(crate) src: u32,
    /// Place in [`Space::sets`].
    pub(crate) dst: u32,
    /// Place in [`Space::pieces`].
    pub(crate) piece: u32,
}

/// One policy in a space.
pub(crate) struct Side {
    /// The policy names the space's tags.
    pub(crate) known: bool,
    /// By zone: the set that it holds; `None`: it is used nowhere, or has nothing here.
    pub(crate) zones: Vec<Option<u32>>,
    /// Its rules' boxes, in the order of the rules.
    pub(crate) boxes: Vec<FlowBox>,
}

/// A realm and family.
pub(crate) struct Space {
    pub(crate) tags: Tags,
    pub(crate) ipv4: bool,
    pub(crate) addresses: Addresses,
    /// Names of the zones of which it is not known what they hold, in the order of their bits.
    pub(crate) unknown: Vec<String>,
    /// Sets of address classes, no two alike.
    pub(crate) sets: Vec<Ranges>,
    /// Boxes of services, no two alike.
    pub(crate) pieces: Vec<Piece>,
    /// One for each policy.
    pub(crate) sides: Vec<Side>,
}

impl Space {
    /// The space of these tags. `also`: zones to be told apart that no rule uses, by policy. `answers`: echo replies are
    /// packets.
    pub(crate) fn new(
        policies: &[&Policy],
        (tags, ipv4): (Tags, bool),
        scope: &Scope,
        also: &[ZoneIndex],
        answers: bool,
    ) -> Result<Self, SpaceError> {
        let found = Members::find(policies, (tags, ipv4), scope, also);
        let addresses = Addresses::new(ipv4, &found.spans, found.unknown.len() as u32)?;
        let mut space = Self {
            tags,
            ipv4,
            addresses,
            unknown: found.unknown.clone(),
            sets: Vec::new(),
            pieces: Vec::new(),
            sides: Vec::new(),
        };
        let mut maker = Maker {
            space: &mut space,
            sets: HashMap::new(),
            pieces: HashMap::new(),
        };
        for (policy, used) in policies.iter().zip(&found.sides) {
            let side = maker.side(policy, &found, used, answers);
            maker.space.sides.push(side);
        }
        Ok(space)
    }

    /// A box on all axes.
    pub(crate) fn slab(&self, flow_box: &FlowBox) -> Slab<'_> {
        self.slab_of(
            &self.sets[flow_box.src as usize],
            &self.sets[flow_box.dst as usize],
            &self.pieces[flow_box.piece as usize],
        )
    }

    /// Sets and a part of a service on all axes.
    #[expect(clippy::unused_self, reason = "the parts must be those of this space")]
    pub(crate) fn slab_of<'a>(&'a self, src: &'a Ranges, dst: &'a Ranges, piece: &'a Piece) -> Slab<'a> {
        [
            src.as_slice(),
            dst.as_slice(),
            piece.protos.as_slice(),
            piece.sources.as_slice(),
            piece.selectors.as_slice(),
        ]
    }

    /// True if a part of a rule and a slab have a point in common.
    pub(crate) fn meets(&self, flow_box: &FlowBox, slab: &Slab<'_>) -> bool {
        let own = self.slab(flow_box);
        // Services first: they are short.
        (0..AXES).rev().all(|axis| meet(own[axis], slab[axis]))
    }

    /// The box that decides a point.
    pub(crate) fn decide(&self, side: usize, point: &[u32; AXES]) -> Option<&FlowBox> {
        self.sides[side].boxes.iter().find(|flow_box| {
            let own = self.slab(flow_box);
            (0..AXES).rev().all(|axis| has(own[axis], point[axis]))
        })
    }

    /// A packet at a point. Where source and destination are of one class, they are two addresses if it has two.
    pub(crate) fn flow(&self, [src, dst, proto, source, selector]: [u32; AXES]) -> Flow {
        let (src_address, mut dst_address) = (self.addresses.example(src)[0], self.addresses.example(dst)[0]);
        if src_address == dst_address {
            dst_address = self.addresses.example(dst)[1];
        }
        Flow {
            vlan: self.tags.outer,
            inner_vlan: self.tags.inner,
            src: src_address,
            dst: dst_address,
            proto: service::protocol(proto),
            sport: (proto <= service::WITH_PORTS.1).then_some(source as u16),
            selector: selector as u16,
        }
    }

    /// Names of the unknown zones that must hold an address of a class.
    pub(crate) fn held(&self, class: u32) -> Vec<String> {
        let (_, bits) = self.addresses.parts(class);
        let names = self.unknown.iter().enumerate();
        names
            .filter(|(bit, _)| bits >> bit & 1 != 0)
            .map(|(_, name)| name.clone())
            .collect()
    }
}

/// What a zone is in a space.
#[derive(Clone, Copy)]
enum Holds {
    /// Not of this realm, or used nowhere.
    Nothing,
    /// A zone that is known, by number.
    Known(u32),
    /// One that is not, by bit.
    Unknown(u32),
    /// What no zone of the policy holds.
    Outside,
    /// Everything.
    Everything,
}

/// The zones of all policies that a space tells apart.
struct Members {
    spans: Vec<(Span, u32)>,
    known: usize,
    unknown: Vec<String>,
    /// By policy and zone.
    sides: Vec<Vec<Holds>>,
}

impl Members {
    fn find(policies: &[&Policy], (tags, ipv4): (Tags, bool), scope: &Scope, also: &[ZoneIndex]) -> Self {
        let mut out = Self {
            spans: Vec::new(),
            known: 0,
            unknown: Vec::new(),
            sides: Vec::new(),
        };
        for policy in policies {
            let mut used: BTreeSet<ZoneIndex> = also.iter().copied().collect();
            for direction in policy.rules.iter().flat_map(|rule| &rule.directions) {
                used.extend(direction.from.iter().chain(&direction.to));
            }
            let outside = policy.built_in(ZoneKind::Outside);
            // What is outside depends on every zone; so does the default, which may differ there.
            let all = outside.is_some_and(|zone| used.contains(&zone))
                || policy.default.inside != policy.default.outside;
            let holds = policy.zones.iter().enumerate().map(|(index, zone)| {
                if all || used.contains(&index) {
                    out.zone(zone, (tags, ipv4), scope)
                } else {
                    Holds::Nothing
                }
            });
            let holds = holds.collect();
            out.sides.push(holds);
        }
        out
    }

    fn zone(&mut self, zone: &Zone, (tags, ipv4): (Tags, bool), scope: &Scope) -> Holds {
        match zone.kind {
            ZoneKind::Any => return Holds::Everything,
            ZoneKind::Outside => return Holds::Outside,
            ZoneKind::Named if zone.tags() != tags => return Holds::Nothing,
            ZoneKind::Named if zone.dynamic && scope.any_members => return self.unknown(&zone.name),
            _ => {}
        }
        let own: &[IpAddr] = match (zone.kind, &scope.own_addresses) {
            (ZoneKind::SelfMachine, None) => return self.unknown(&zone.name),
            (ZoneKind::SelfMachine, Some(own)) => own,
            _ => &[],
        };
        let number = self.known as u32;
        self.known += 1;
        let prefixes = zone.prefixes.iter().copied();
        let all = prefixes.chain(own.iter().map(|address| IpNet::from(*address)));
        let here = all.filter(|prefix| prefix.addr().is_ipv4() == ipv4);
        self.spans.extend(here.map(|prefix| (span(prefix), number)));
        Holds::Known(number)
    }

    /// A zone by its name: those of one name hold the same in both policies.
    fn unknown(&mut self, name: &str) -> Holds {
        let known = self.unknown.iter().position(|own| own == name);
        let bit = known.unwrap_or_else(|| {
            self.unknown.push(name.to_owned());
            self.unknown.len() - 1
        });
        Holds::Unknown(bit as u32)
    }
}

fn span(prefix: IpNet) -> Span {
    match prefix {
        IpNet::V4(net) => (
            u128::from(u32::from(net.network())),
            u128::from(u32::from(net.broadcast())),
        ),
        IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast())),
    }
}

/// Numbers sets and pieces while a space is made.
struct Maker<'s> {
    space: &'s mut Space,
    sets: HashMap<Ranges, u32>,
    pieces: HashMap<Piece, u32>,
}

impl Maker<'_> {
    fn set(&mut self, set: Ranges) -> u32 {
        let list = &mut self.space.sets;
        *self.sets.entry(set).or_insert_with_key(|set| {
            list.push(set.clone());
            list.len() as u32 - 1
        })
    }

    fn piece(&mut self, piece: Piece) -> u32 {
        let list = &mut self.space.pieces;
        *self.pieces.entry(piece).or_insert_with_key(|piece| {
            list.push(piece.clone());
            list.len() as u32 - 1
        })
    }

    fn side(&mut self, policy: &Policy, found: &Members, holds: &[Holds], answers: bool) -> Side {
        let known = policy.realms().contains(&self.space.tags);
        let sets = self.zones(found, holds);
        let zones: Vec<Option<u32>> = sets
            .iter()
            .map(|set| {
                let set = set.as_ref().filter(|set| !set.is_empty())?;
                Some(self.set(set.clone()))
            })
            .collect();
        let mut side = Side {
            known,
            zones,
            boxes: Vec::new(),
        };
        if known {
            side.boxes = self.boxes(policy, &side.zones, answers);
        }
        side
    }

    /// By zone: what it holds.
    fn zones(&self, found: &Members, holds: &[Holds]) -> Vec<Option<Ranges>> {
        let addresses = &self.space.addresses;
        let known = addresses.of_members(found.known);
        let sets: Vec<Option<Ranges>> = holds
            .iter()
            .map(|holds| match holds {
                Holds::Known(number) => Some(known[*number as usize].clone()),
                Holds::Unknown(bit) => Some(addresses.of_unknown(*bit)),
                Holds::Everything => Some(addresses.all()),
                Holds::Nothing | Holds::Outside => None,
            })
            .collect();
        let named = holds.iter().zip(&sets).filter_map(|(holds, set)| match holds {
            Holds::Known(_) | Holds::Unknown(_) => set.as_ref(),
            _ => None,
        });
        let inside = Ranges::union(named.flat_map(Ranges::as_slice).copied().collect());
        let outside = addresses.all().minus(&inside);
        let fill = |(holds, set): (&Holds, Option<Ranges>)| match holds {
            Holds::Outside => Some(outside.clone()),
            _ => set,
        };
        holds.iter().zip(sets).map(fill).collect()
    }

    fn boxes(&mut self, policy: &Policy, zones: &[Option<u32>], answers: bool) -> Vec<FlowBox> {
        let mut lists: HashMap<&[ZoneIndex], Option<u32>> = HashMap::new();
        let mut services: HashMap<&[crate::model::ServiceMatch], Vec<u32>> = HashMap::new();
        let mut boxes = Vec::new();
        for (place, rule) in policy.rules.iter().enumerate() {
            let pieces = services.entry(&rule.services).or_insert_with(|| {
                let pieces = service::pieces(&rule.services, answers);
                pieces.into_iter().map(|piece| self.piece(piece)).collect()
            });
            let pieces = pieces.clone();
            for direction in &rule.directions {
                let mut list = |list| *lists.entry(list).or_insert_with(|| self.list(list, zones));
                let ends = (list(direction.from.as_slice()), list(direction.to.as_slice()));
                if let (Some(src), Some(dst)) = ends {
                    boxes.extend(pieces.iter().map(|piece| FlowBox {
                        rule: place as u32,
                        src,
                        dst,
                        piece: *piece,
                    }));
                }
            }
        }
        boxes
    }

    /// The set that a list of zones holds; `None`: nothing.
    fn list(&mut self, list: &[ZoneIndex], zones: &[Option<u32>]) -> Option<u32> {
        let held: Vec<u32> = list.iter().filter_map(|zone| zones[*zone]).collect();
        match held.as_slice() {
            [] => None,
            [one] => Some(*one),
            many => {
                let ranges = many
                    .iter()
                    .flat_map(|set| self.space.sets[*set as usize].as_slice());
                let set = Ranges::union(ranges.copied().collect());
                Some(self.set(set))
            }
        }
    }
}

/// The sets of zones in one list.
impl Side {
    /// What any of these zones holds.
    pub(crate) fn union(&self, space: &Space, zones: &[ZoneIndex]) -> Ranges {
        let sets = zones.iter().filter_map(|zone| self.zones[*zone]);
        let ranges = sets.flat_map(|set| space.sets[set as usize].as_slice());
        Ranges::union(ranges.copied().collect())
    }
}
