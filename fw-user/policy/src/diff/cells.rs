//! The differences between two policies in one realm and family, as boxes that no two of can be merged.
//!
//! Axis by axis, the space is cut into groups of numbers that the same boxes of both policies hold, and only where a box lies
//! that the policies do not share. What is left at the end are two decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::align;
use super::merge::{Cell, merge};
use crate::isolate::lets_through;
use crate::model::{DefaultAction, Policy, RuleAction, ZoneKind};
use crate::space::{Piece, Range, Ranges, Slab, Space, SpaceError, common, universe};

/// Groups of address classes and of services that may be looked at.
const STEPS: u64 = 20_000_000;

/// The place of the default among the rules.
pub(super) const DEFAULT: u32 = u32::MAX;

/// What happened to the flows of a set, and what happens now.
pub(super) type Change = (RuleAction, RuleAction);

/// Services: groups of protocols, and by group ranges of source ports with their selectors. Equal sets are written alike.
pub(super) type ServiceSet = Vec<(Ranges, Vec<(Range, Ranges)>)>;

/// The rules of a side that decide, by place; [`DEFAULT`] among them.
pub(super) type Rules = BTreeSet<u32>;

/// Flows whose fate differs.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) src: Ranges,
    pub(super) dst: Ranges,
    pub(super) services: ServiceSet,
    pub(super) rules: [Rules; 2],
}

/// A part of a rule, or of the default.
struct Part<'a> {
    slab: Slab<'a>,
    /// Parts of the two policies that hold the same have the same.
    key: (u32, u32, u32),
    action: RuleAction,
    rule: u32,
    /// The other policy has no such rule in this place.
    own: bool,
}

/// All differences of a space, by change.
pub(super) fn differences(
    space: &Space,
    policies: [&Policy; 2],
) -> Result<BTreeMap<(u8, u8), (Change, Vec<Found>)>, SpaceError> {
    let defaults = [0, 1].map(|side| defaults(space, side, policies[side]));
    let (everything, all) = (universe(false), space.addresses.all());
    let same = defaults[0] == defaults[1];
    let mut sides = [0, 1].map(|side| {
        let mut parts = rule_parts(space, side, policies[side]);
        // Defaults that are alike have the same key.
        let key = if same { 0 } else { side as u32 };
        parts.extend(default_parts(space, &defaults[side], (&all, &everything), key));
        parts
    });
    mark(&mut sides);
    let [old, new] = sides;
    let news = old.len();
    let parts: Vec<Part<'_>> = old.into_iter().chain(new).collect();
    let all: Vec<u32> = (0..parts.len() as u32).collect();
    let mut cutter = Cutter {
        parts: &parts,
        news: news as u32,
        known: HashMap::new(),
        results: Vec::new(),
        steps: STEPS,
    };
    let mut cells: BTreeMap<(u8, u8), (Change, Vec<Cell>)> = BTreeMap::new();
    for (held, src) in cutter.groups(0, &all)? {
        for (held, dst) in cutter.groups(1, &held)? {
            let result = cutter.services(held)?;
            for (change, services, rules) in &cutter.results[result] {
                let key = (change.0 as u8, change.1 as u8);
                let cell = (src.clone(), dst.clone(), services.clone(), rules.clone());
                cells
                    .entry(key)
                    .or_insert_with(|| (*change, Vec::new()))
                    .1
                    .push(cell);
            }
        }
    }
    Ok(cells
        .into_iter()
        .map(|(key, (change, cells))| (key, (change, merge(&cells))))
        .collect())
}

/// What the default does, as sets of sources.
fn defaults(space: &Space, side: usize, policy: &Policy) -> Vec<(Ranges, RuleAction)> {
    let all = space.addresses.all();
    let action = |default| match default {
        DefaultAction::Drop => RuleAction::Deny,
        DefaultAction::Reject => RuleAction::Reject,
    };
    let (inside, outside) = (action(policy.default.inside), action(policy.default.outside));
    if !space.sides[side].known {
        return vec![(all, RuleAction::Deny)];
    }
    if inside == outside {
        return vec![(all, inside)];
    }
    let zone = policy.built_in(ZoneKind::Outside);
    let strange = zone.map_or_else(Ranges::default, |zone| space.sides[side].union(space, &[zone]));
    let known = all.minus(&strange);
    let both = vec![(known, inside), (strange, outside)];
    both.into_iter().filter(|(set, _)| !set.is_empty()).collect()
}

/// The rules' boxes in order.
fn rule_parts<'a>(space: &'a Space, side: usize, policy: &Policy) -> Vec<Part<'a>> {
    let rules = space.sides[side].boxes.iter().map(|flow_box| {
        let rule = &policy.rules[flow_box.rule as usize];
        let action = if lets_through(rule) {
            RuleAction::Allow
        } else {
            rule.action
        };
        Part {
            slab: space.slab(flow_box),
            key: (flow_box.src, flow_box.dst, flow_box.piece),
            action,
            rule: flow_box.rule,
            own: true,
        }
    });
    rules.collect()
}

/// The default's boxes, which come after those of the rules.
fn default_parts<'a>(
    space: &'a Space,
    defaults: &'a [(Ranges, RuleAction)],
    (all, everything): (&'a Ranges, &'a [Piece]),
    key: u32,
) -> Vec<Part<'a>> {
    let parts = (0_u32..).zip(defaults).flat_map(|(number, (src, action))| {
        (0_u32..).zip(everything).map(move |(place, piece)| Part {
            slab: space.slab_of(src, all, piece),
            key: (DEFAULT, number * 2 + key, place),
            action: *action,
            rule: DEFAULT,
            own: true,
        })
    });
    parts.collect()
}

/// Takes the mark from parts of rules that both policies have.
fn mark(sides: &mut [Vec<Part<'_>>; 2]) {
    let rules = |parts: &[Part<'_>]| -> Vec<(Vec<(u32, u32, u32)>, u8)> {
        let groups = parts.chunk_by(|a, b| a.rule == b.rule && a.action == b.action);
        groups
            .map(|group| (group.iter().map(|part| part.key).collect(), group[0].action as u8))
            .collect()
    };
    let (old, new) = (rules(&sides[0]), rules(&sides[1]));
    let (in_old, in_new) = align::common(&old, &new);
    for (side, kept) in sides.iter_mut().zip([in_old, in_new]) {
        let groups = side.chunk_by_mut(|a, b| a.rule == b.rule && a.action == b.action);
        for (group, kept) in groups.zip(kept) {
            for part in group {
                part.own = !kept;
            }
        }
    }
}

/// What differs between a group of sources and one of destinations.
type Difference = (Change, ServiceSet, [Rules; 2]);

struct Cutter<'a> {
    parts: &'a [Part<'a>],
    /// The place of the new policy's first part.
    news: u32,
    /// By parts that hold a group of sources and one of destinations: place in `results`.
    known: HashMap<Vec<u32>, usize>,
    results: Vec<Vec<Difference>>,
    steps: u64,
}

impl Cutter<'_> {
    /// Groups of numbers on an axis by the parts of `held` that hold them, where one of them is of one policy only.
    fn groups(&mut self, axis: usize, held: &[u32]) -> Result<Vec<(Vec<u32>, Ranges)>, SpaceError> {
        let mut groups: HashMap<Vec<u32>, Vec<Range>> = HashMap::new();
        self.sweep(axis, held, |open, range| {
            let list: Vec<u32> = open.iter().copied().collect();
            groups.entry(list).or_default().push(range);
        })?;
        let mut groups: Vec<(Vec<u32>, Ranges)> = groups
            .into_iter()
            .map(|(list, ranges)| (list, Ranges::union(ranges)))
            .collect();
        groups.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        Ok(groups)
    }

    /// Calls `piece` with the parts that hold each range of an axis where one of them is of one policy only.
    fn sweep(
        &mut self,
        axis: usize,
        held: &[u32],
        mut piece: impl FnMut(&BTreeSet<u32>, Range),
    ) -> Result<(), SpaceError> {
        let own = held.iter().filter(|index| self.parts[**index as usize].own);
        let own = own.flat_map(|index| self.parts[*index as usize].slab[axis]);
        let target = Ranges::union(own.copied().collect());
        let mut cuts: Vec<(u64, bool, u32)> = Vec::new();
        for index in held {
            for (first, last) in common(target.as_slice(), self.parts[*index as usize].slab[axis]) {
                cuts.push((u64::from(first), true, *index));
                cuts.push((u64::from(last) + 1, false, *index));
            }
        }
        cuts.sort_unstable();
        let mut open: BTreeSet<u32> = BTreeSet::new();
        let mut own = 0_usize;
        let mut groups = cuts.chunk_by(|a, b| a.0 == b.0).peekable();
        while let Some(group) = groups.next() {
            for (_, begins, index) in group {
                let changed = if *begins {
                    open.insert(*index)
                } else {
                    open.remove(index)
                };
                if changed && self.parts[*index as usize].own {
                    own = if *begins { own + 1 } else { own - 1 };
                }
            }
            let (Some(next), true) = (groups.peek(), own > 0) else {
                continue;
            };
            self.steps = self
                .steps
                .checked_sub(1)
                .ok_or(SpaceError::Steps { steps: STEPS })?;
            piece(&open, (group[0].0 as u32, (next[0].0 - 1) as u32));
        }
        Ok(())
    }

    /// What differs where these parts lie, as a place in `results`.
    fn services(&mut self, held: Vec<u32>) -> Result<usize, SpaceError> {
        if let Some(result) = self.known.get(&held) {
            return Ok(*result);
        }
        let mut found: BTreeMap<(u8, u8), (Change, Vec<ByProtocol>, [Rules; 2])> = BTreeMap::new();
        for (held, protos) in self.groups(2, &held)? {
            let mut ports: BTreeMap<(u8, u8), Vec<(Range, Ranges)>> = BTreeMap::new();
            for (held, sources) in self.groups(3, &held)? {
                for (key, (change, selectors, rules)) in self.decisions(&held)? {
                    let (_, _, all) = found
                        .entry(key)
                        .or_insert_with(|| (change, Vec::new(), Default::default()));
                    all.iter_mut().zip(rules).for_each(|(all, more)| all.extend(more));
                    let ranges = sources.as_slice().iter();
                    ports
                        .entry(key)
                        .or_default()
                        .extend(ranges.map(|range| (*range, selectors.clone())));
                }
            }
            for (key, ports) in ports {
                if let Some((_, list, _)) = found.get_mut(&key) {
                    list.push((protos.clone(), joined(ports)));
                }
            }
        }
        let found = found.into_values();
        let result = found.map(|(change, list, rules)| (change, alike(list), rules));
        self.results.push(result.collect());
        let place = self.results.len() - 1;
        self.known.insert(held, place);
        Ok(place)
    }

    /// Selectors that are decided differently, by change.
    fn decisions(&mut self, held: &[u32]) -> Result<BTreeMap<(u8, u8), Decided>, SpaceError> {
        let (parts, news) = (self.parts, self.news);
        let mut found: BTreeMap<(u8, u8), (Change, Vec<Range>, [Rules; 2])> = BTreeMap::new();
        self.sweep(4, held, |open, range| {
            // The default holds everything, so both sides have a first part.
            let firsts = [open.first(), open.range(news..).next()];
            let [Some(old), Some(new)] = firsts.map(|first| first.map(|index| &parts[*index as usize]))
            else {
                return;
            };
            if old.action != new.action {
                let change = (old.action, new.action);
                let entry = found
                    .entry((old.action as u8, new.action as u8))
                    .or_insert_with(|| (change, Vec::new(), Default::default()));
                entry.1.push(range);
                entry.2[0].insert(old.rule);
                entry.2[1].insert(new.rule);
            }
        })?;
        Ok(found
            .into_iter()
            .map(|(key, (change, ranges, rules))| (key, (change, Ranges::union(ranges), rules)))
            .collect())
    }
}

type ByProtocol = (Ranges, Vec<(Range, Ranges)>);
type Decided = (Change, Ranges, [Rules; 2]);

/// Neighbouring ranges of ports with the same selectors become one.
fn joined(mut ports: Vec<(Range, Ranges)>) -> Vec<(Range, Ranges)> {
    ports.sort_unstable();
    let mut out: Vec<(Range, Ranges)> = Vec::with_capacity(ports.len());
    for (range, selectors) in ports {
        match out.last_mut() {
            Some((last, same)) if last.1 + 1 == range.0 && *same == selectors => last.1 = range.1,
            _ => out.push((range, selectors)),
        }
    }
    out
}

/// Groups of protocols with the same ports become one.
fn alike(list: Vec<ByProtocol>) -> ServiceSet {
    let mut groups: BTreeMap<Vec<(Range, Ranges)>, Vec<Range>> = BTreeMap::new();
    for (protos, ports) in list {
        groups.entry(ports).or_default().extend(protos.as_slice());
    }
    let sets = groups
        .into_iter()
        .map(|(ports, protos)| (Ranges::union(protos), ports));
    let mut sets: ServiceSet = sets.collect();
    sets.sort_unstable();
    sets
}
