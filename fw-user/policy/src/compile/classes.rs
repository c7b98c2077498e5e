//! Address classes: all addresses that the same zones hold are one class.

use std::cmp::Reverse;
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::CompileError;
use super::sets::Sets;
use super::sweep::{Place, Range, add, sweep};
use crate::model::{Policy, Tags, Zone, ZoneIndex, ZoneKind};

/// Classes that fit into an address map's entry.
const MAX_CLASSES: usize = 1 << 24;

/// A class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// The set of zones that hold its addresses; `any` and `outside` included.
    pub(super) zones: u32,
    /// The most specific of them.
    pub(super) best: Option<ZoneIndex>,
}

/// A realm's address space, cut: first address and class of each interval, in order, the first one from 0.
pub(super) struct Intervals {
    pub(super) v4: Vec<(u32, u32)>,
    pub(super) v6: Vec<(u128, u32)>,
}

/// All classes of all realms.
pub(super) struct Classes {
    /// Sets of zones.
    pub(super) sets: Sets,
    list: Vec<Class>,
    numbers: HashMap<Class, u32>,
    /// Sets with one more zone.
    steps: HashMap<(u32, u32), u32>,
    /// The set that was completed last, and what it became.
    completed: Option<(u32, u32)>,
    any: Option<ZoneIndex>,
    outside: Option<ZoneIndex>,
    /// Zones of each realm, and those that lie in all.
    by_tags: HashMap<Tags, Vec<ZoneIndex>>,
    everywhere: Vec<ZoneIndex>,
}

/// What holds a place: the set of zones, and the range that wins there.
#[derive(Clone, Copy)]
struct Held {
    zones: u32,
    best: Option<Best>,
}

/// What wins where ranges overlap: the policy's zones before built-in ones, then the longest prefix, then the zone that
/// stands first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Best {
    built_in: bool,
    length: Reverse<u8>,
    zone: u32,
}

impl Classes {
    pub(super) fn new(policy: &Policy) -> Self {
        let mut by_tags: HashMap<Tags, Vec<ZoneIndex>> = HashMap::new();
        let mut everywhere = Vec::new();
        for (index, zone) in policy.zones.iter().enumerate() {
            if zone.kind == ZoneKind::Named {
                by_tags.entry(zone.tags()).or_default().push(index);
            } else {
                everywhere.push(index);
            }
        }
        Self {
            sets: Sets::new(policy.zones.len()),
            list: Vec::new(),
            numbers: HashMap::new(),
            steps: HashMap::new(),
            completed: None,
            any: policy.built_in(ZoneKind::Any),
            outside: policy.built_in(ZoneKind::Outside),
            by_tags,
            everywhere,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Class> {
        self.list.iter().copied()
    }

    /// Cuts the address space of a realm and numbers the classes that occur in it.
    pub(super) fn intervals(
        &mut self,
        policy: &Policy,
        tags: Tags,
        own: &[IpAddr],
    ) -> Result<Intervals, CompileError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let here = self.by_tags.get(&tags).into_iter().flatten();
        for index in here.chain(&self.everywhere) {
            let zone: &Zone = &policy.zones[*index];
            let of_zone = (*index, zone.kind != ZoneKind::Named);
            for prefix in &zone.prefixes {
                add(*prefix, of_zone, &mut v4, &mut v6);
            }
            if zone.kind == ZoneKind::SelfMachine {
                for address in own {
                    add(IpNet::from(*address), of_zone, &mut v4, &mut v6);
                }
            }
        }
        Ok(Intervals {
            v4: self.cut(&mut v4)?,
            v6: self.cut(&mut v6)?,
        })
    }

    fn cut<P: Place>(&mut self, ranges: &mut [Range<P>]) -> Result<Vec<(P, u32)>, CompileError> {
        let intervals: Vec<(P, u32)> = Vec::with_capacity(ranges.len() * 2 + 1);
        let mut context = (self, intervals);
        sweep(
            ranges,
            &mut context,
            Held { zones: 0, best: None },
            |(classes, _), around, range| classes.enter(around, range),
            |(classes, intervals), first, held| {
                let class = classes.number(held)?;
                if intervals.last().is_none_or(|(_, last)| *last != class) {
                    intervals.push((first, class));
                }
                Ok(())
            },
        )?;
        Ok(context.1)
    }

    /// What holds a place inside of a range.
    fn enter<P>(&mut self, around: Held, range: &Range<P>) -> Held {
        let own = Best {
            built_in: range.built_in,
            length: Reverse(range.length),
            zone: range.zone,
        };
        Held {
            zones: self.step(around.zones, range.zone as usize),
            best: Some(around.best.map_or(own, |best| best.min(own))),
        }
    }

    /// The set with one more zone.
    fn step(&mut self, zones: u32, zone: ZoneIndex) -> u32 {
        let sets = &mut self.sets;
        *self
            .steps
            .entry((zones, zone as u32))
            .or_insert_with(|| sets.with(zones, zone))
    }

    /// The set of these zones as a class has it: `any` is in it, and `outside` where no other zone is.
    pub(super) fn complete(&mut self, named: u32) -> u32 {
        if let Some((_, zones)) = self.completed.filter(|(last, _)| *last == named) {
            return zones;
        }
        let mut zones = named;
        if let Some(outside) = self.outside.filter(|_| named == 0) {
            zones = self.step(zones, outside);
        }
        if let Some(any) = self.any {
            zones = self.step(zones, any);
        }
        self.completed = Some((named, zones));
        zones
    }

    /// The set of a class's zones as the address maps show them: without `any` and `outside`.
    pub(super) fn named(&mut self, zones: u32) -> u32 {
        let built_in = [self.any, self.outside];
        let built_in = built_in.into_iter().flatten();
        built_in.fold(zones, |zones, zone| self.sets.without(zones, zone))
    }

    fn number(&mut self, held: Held) -> Result<u32, CompileError> {
        let class = Class {
            zones: self.complete(held.zones),
            best: held.best.map(|best| best.zone as usize).or(self.outside),
        };
        if let Some(number) = self.numbers.get(&class) {
            return Ok(*number);
        }
        let number = self.list.len();
        if number == MAX_CLASSES {
            return Err(CompileError::TooMany {
                what: "address classes",
                count: number + 1,
                limit: MAX_CLASSES,
                most: String::new(),
            });
        }
        self.list.push(class);
        self.numbers.insert(class, number as u32);
        Ok(number as u32)
    }

    /// True if no zone of the set but `outside` and `any` holds the addresses.
    pub(super) fn is_outside(&self, zones: u32) -> bool {
        self.outside.is_some_and(|zone| self.sets.has(zones, zone))
    }
}
