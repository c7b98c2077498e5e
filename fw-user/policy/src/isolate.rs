//! `isolate:` proved: between two sets of zones no rule but the excepted ones lets a flow open, in either direction.
//!
//! For each rule that lets something through, what it holds between the two sides is compared with what the rules before it
//! hold: if they leave nothing, the rule crosses nowhere; otherwise what they leave is a packet that crosses. All addresses,
//! protocols, ports and realms are looked at, because they fall into classes.
//!
//! What is relied on: the rules alone. Screens, limits, ports of planes, deadlines and the default are not; they can only
//! make less pass. A rule with `audit: true` lets through what it matches. A rule with `track: false` also lets the answering
//! side's packets through; those are packets that it would let through the other way, and both ways are looked at.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

pub(crate) use report::report;

use crate::Environment;
use crate::explain::RuleRef;
use crate::flow::{DYNAMIC_PORT, Flow};
use crate::model::{Isolation, Policy, Rule, RuleAction, Tags, ZoneIndex};
use crate::space::{
    AXES, Covered, FlowBox, Order, Piece, Ranges, Scope, Slab, Space, SpaceError, WITH_MESSAGES, WITH_PORTS,
    messages, protocol, uncovered,
};

/// Pieces that one question may look at.
const STEPS: u64 = 4_000_000;

/// Who opens the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The left side, to the right one.
    LeftToRight,
    /// The right side, to the left one.
    RightToLeft,
}

/// Why an isolation does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Place of the statement in [`Policy::isolations`].
    pub isolation: usize,
    /// What is wrong.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What is wrong with an isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// A rule lets a flow open from one side to the other.
    Crossing(Crossing),
    /// An address is on both sides.
    Overlap {
        /// VLAN tags of its realm.
        tags: Tags,
        /// The address.
        address: IpAddr,
    },
    /// It is not known whether the isolation holds: the question is too large.
    Unproved {
        /// Why, as a sentence.
        why: String,
    },
}

/// A packet that crosses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Crossing {
    /// Who opens the flow.
    pub way: Way,
    /// Place of the rule in [`Policy::rules`].
    pub place: usize,
    /// The rule that lets it.
    pub rule: RuleRef,
    /// The packet.
    pub flow: Flow,
    /// The packet in the notation of flows.
    pub packet: String,
    /// Zones that hold the source as well, though the policy does not say so: dynamic ones, `self`.
    pub source_also: Vec<String>,
    /// Zones that hold the destination as well.
    pub destination_also: Vec<String>,
    /// The rule has `track: false`: packets of the answering side pass too, without a flow.
    pub untracked: bool,
}

/// All that is wrong with the isolations of a policy on this machine, whatever its dynamic zones hold: one finding for each
/// isolation, rule and direction. Empty: all are proved.
#[must_use]
pub fn violations(policy: &Policy, environment: &Environment) -> Vec<Violation> {
    violations_in(policy, &Scope::machine(environment))
}

/// As [`violations`], for other machines and members.
#[must_use]
pub fn violations_in(policy: &Policy, scope: &Scope) -> Vec<Violation> {
    if policy.isolations.is_empty() {
        return Vec::new();
    }
    let mut found = Found::default();
    let also: BTreeSet<ZoneIndex> = policy
        .isolations
        .iter()
        .flat_map(|isolation| isolation.left.iter().chain(&isolation.right))
        .copied()
        .collect();
    let also: Vec<ZoneIndex> = also.into_iter().collect();
    for tags in policy.realms() {
        for ipv4 in [true, false] {
            match Space::new(&[policy], (tags, ipv4), scope, &also, true) {
                Ok(space) => {
                    for (number, isolation) in policy.isolations.iter().enumerate() {
                        found.isolation(policy, &space, number, isolation);
                    }
                }
                Err(error) => found.unproved(policy, &error),
            }
        }
    }
    found.list(policy)
}

/// What was found so far, by isolation.
#[derive(Default)]
struct Found {
    overlaps: BTreeMap<usize, (Tags, IpAddr)>,
    /// By isolation, rule and direction.
    crossings: BTreeMap<(usize, usize, Way), Crossing>,
    unproved: BTreeMap<usize, String>,
}

impl Found {
    fn unproved(&mut self, policy: &Policy, error: &SpaceError) {
        for number in 0..policy.isolations.len() {
            self.unproved.entry(number).or_insert_with(|| error.to_string());
        }
    }

    fn list(self, policy: &Policy) -> Vec<Violation> {
        let mut out = Vec::new();
        for isolation in 0..policy.isolations.len() {
            let overlap = self.overlaps.get(&isolation);
            let overlap = overlap.map(|(tags, address)| Fault::Overlap {
                tags: *tags,
                address: *address,
            });
            let unproved = self.unproved.get(&isolation);
            let unproved = unproved.map(|why| Fault::Unproved { why: why.clone() });
            let own = (isolation, 0, Way::LeftToRight)..(isolation + 1, 0, Way::LeftToRight);
            let crossings = self.crossings.range(own);
            let crossings = crossings.map(|(_, crossing)| Fault::Crossing(crossing.clone()));
            let faults = overlap.into_iter().chain(crossings).chain(unproved);
            out.extend(faults.map(|fault| Violation { isolation, fault }));
        }
        out
    }

    fn isolation(&mut self, policy: &Policy, space: &Space, number: usize, isolation: &Isolation) {
        let side = &space.sides[0];
        let (left, right) = (
            side.union(space, &isolation.left),
            side.union(space, &isolation.right),
        );
        if left.is_empty() || right.is_empty() {
            return;
        }
        if !self.overlaps.contains_key(&number)
            && let Some(address) = overlap(policy, space, isolation)
        {
            self.overlaps.insert(number, (space.tags, address));
        }
        for (way, src, dst) in [
            (Way::LeftToRight, &left, &right),
            (Way::RightToLeft, &right, &left),
        ] {
            self.way(policy, space, (number, way), (src, dst));
        }
    }

    /// One direction of an isolation.
    fn way(
        &mut self,
        policy: &Policy,
        space: &Space,
        (number, way): (usize, Way),
        (src, dst): (&Ranges, &Ranges),
    ) {
        let isolation = &policy.isolations[number];
        let touches = |side: &Ranges| -> Vec<bool> { space.sets.iter().map(|set| set.meets(side)).collect() };
        let (from, to) = (touches(src), touches(dst));
        let boxes = space.sides[0].boxes.iter();
        let between = boxes.filter(|flow_box| from[flow_box.src as usize] && to[flow_box.dst as usize]);
        let mut points: BTreeMap<usize, [u32; AXES]> = BTreeMap::new();
        for flow_box in between {
            let place = flow_box.rule as usize;
            // What was found in an earlier realm or family stands.
            if !crosses(policy, isolation, place) || self.crossings.contains_key(&(number, place, way)) {
                continue;
            }
            match smallest(space, flow_box, (src, dst), &policy.rules[place]) {
                Ok(Some(point)) => {
                    let best = points.entry(place).or_insert(point);
                    *best = point.min(*best);
                }
                Ok(None) => {}
                Err(error) => {
                    self.unproved.entry(number).or_insert_with(|| error.to_string());
                }
            }
        }
        for (place, point) in points {
            let found = crossing(policy, space, way, place, point);
            self.crossings.insert((number, place, way), found);
        }
    }
}

/// True if the rule at this place lets something through, and may not.
fn crosses(policy: &Policy, isolation: &Isolation, place: usize) -> bool {
    lets_through(&policy.rules[place]) && isolation.except.binary_search(&place).is_err()
}

/// True if flows that the rule decides may open.
#[must_use]
pub fn lets_through(rule: &Rule) -> bool {
    rule.action == RuleAction::Allow || rule.audit
}

/// An address that zones of both sides hold by what the policy says of them.
fn overlap(policy: &Policy, space: &Space, isolation: &Isolation) -> Option<IpAddr> {
    let known = |zones: &[ZoneIndex]| {
        let known = zones.iter().copied();
        let known: Vec<ZoneIndex> = known
            .filter(|zone| !space.unknown.contains(&policy.zones[*zone].name))
            .collect();
        space.sides[0].union(space, &known)
    };
    let both = known(&isolation.left).intersection(&known(&isolation.right));
    let class = both.iter().next()?;
    Some(space.addresses.example(class)[0])
}

/// The smallest point that the box's rule decides between two sets of classes, ports as people write them preferred.
fn smallest(
    space: &Space,
    flow_box: &FlowBox,
    (src, dst): (&Ranges, &Ranges),
    rule: &Rule,
) -> Result<Option<[u32; AXES]>, SpaceError> {
    let src = space.sets[flow_box.src as usize].intersection(src);
    let dst = space.sets[flow_box.dst as usize].intersection(dst);
    let piece = &space.pieces[flow_box.piece as usize];
    let Some(piece) = openers(piece, !rule.track) else {
        return Ok(None);
    };
    if src.is_empty() || dst.is_empty() {
        return Ok(None);
    }
    let target = space.slab_of(&src, &dst, &piece);
    let boxes = &space.sides[0].boxes;
    let earlier = &boxes[..boxes.partition_point(|other| other.rule < flow_box.rule)];
    let earlier: Vec<Slab<'_>> = earlier
        .iter()
        .filter(|other| space.meets(other, &target))
        .map(|other| space.slab(other))
        .collect();
    if find(space, &target, &earlier, Order::Quickest)?.is_none() {
        return Ok(None);
    }
    for piece in preferred(&piece) {
        let target = space.slab_of(&src, &dst, &piece);
        if let Some(point) = find(space, &target, &earlier, Order::Smallest)? {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

/// The services of a piece that can open a flow; `answers`: and echo replies, which pass without one.
pub(crate) fn openers(piece: &Piece, answers: bool) -> Option<Piece> {
    let place = piece.protos.iter().next()?;
    if !(WITH_MESSAGES.0..=WITH_MESSAGES.1).contains(&place) {
        return Some(piece.clone());
    }
    let selectors = piece.selectors.intersection(&messages(protocol(place), answers));
    let piece = Piece {
        selectors,
        ..piece.clone()
    };
    (!piece.selectors.is_empty()).then_some(piece)
}

/// Narrower pieces with ports as people write them, then the piece itself.
fn preferred(piece: &Piece) -> Vec<Piece> {
    let mut out = Vec::new();
    if piece.protos.iter().all(|place| place <= WITH_PORTS.1) {
        let ports = Ranges::of(1, u32::from(u16::MAX));
        let usual = Ranges::of(DYNAMIC_PORT.into(), DYNAMIC_PORT.into());
        for sources in [&usual, &ports] {
            out.push(Piece {
                protos: piece.protos.clone(),
                sources: piece.sources.intersection(sources),
                selectors: piece.selectors.intersection(&ports),
            });
        }
        out.retain(|piece| !piece.sources.is_empty() && !piece.selectors.is_empty());
    }
    out.push(piece.clone());
    out
}

/// A point of the target that no box holds, and that is no packet from an address to itself.
fn find(
    space: &Space,
    target: &Slab<'_>,
    boxes: &[Slab<'_>],
    order: Order,
) -> Result<Option<[u32; AXES]>, SpaceError> {
    let point = match uncovered(target, boxes, order, &mut STEPS.clone()) {
        Covered::No(point) => point,
        Covered::By(_) => return Ok(None),
        Covered::Unknown => return Err(SpaceError::Steps { steps: STEPS }),
    };
    let [src, dst, ..] = point;
    if !space.addresses.one_address(src, dst) {
        return Ok(Some(point));
    }
    let all = |axis: usize| Ranges::union(target[axis].to_vec());
    let one = Ranges::of(src, src);
    let bases = space.addresses.bases();
    let same = (dst % bases..space.addresses.count()).step_by(bases as usize);
    let same = Ranges::union(same.map(|class| (class, class)).collect());
    let (rest, others) = (all(0).minus(&one), all(1).minus(&same));
    let mut best: Option<[u32; AXES]> = None;
    for (src, dst) in [(&one, &others), (&rest, &all(1))] {
        if !src.is_empty() && !dst.is_empty() {
            let target = [src.as_slice(), dst.as_slice(), target[2], target[3], target[4]];
            let found = find(space, &target, boxes, order)?;
            best = best.into_iter().chain(found).min();
        }
    }
    Ok(best)
}

fn crossing(policy: &Policy, space: &Space, way: Way, place: usize, point: [u32; AXES]) -> Crossing {
    let rule = &policy.rules[place];
    let mut flow = space.flow(point);
    flow.sport = flow.sport.filter(|port| *port != DYNAMIC_PORT);
    Crossing {
        way,
        place,
        rule: RuleRef::new(policy, rule),
        packet: flow.to_string(),
        flow,
        source_also: space.held(point[0]),
        destination_also: space.held(point[1]),
        untracked: !rule.track,
    }
}
