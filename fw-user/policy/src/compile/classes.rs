//! Address classes: all addresses that the same zones hold are one class.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use super::CompileError;
use super::sweep::{Range, sweep};
use crate::model::{Policy, Tags, ZoneIndex, ZoneKind};

/// Classes that fit into an address map's entry.
const MAX_CLASSES: usize = 1 << 24;

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of numbers below `size`.
    pub(super) fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    pub(super) fn set(&mut self, index: usize, on: bool) {
        let bit = 1 << (index % 64);
        if on {
            self.0[index / 64] |= bit;
        } else {
            self.0[index / 64] &= !bit;
        }
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Makes this the set of all numbers below `size`.
    pub(super) fn fill(&mut self, size: usize) {
        for (index, word) in self.0.iter_mut().enumerate() {
            let left = size.saturating_sub(index * 64);
            *word = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
        }
    }

    /// Takes all numbers out, and hands out each.
    pub(super) fn drain(&mut self, mut take: impl FnMut(usize)) {
        self.iter().for_each(&mut take);
        self.clear();
    }

    /// Takes those numbers out that `other` has too, and hands out each.
    pub(super) fn drain_common(&mut self, other: &Self, mut take: impl FnMut(usize)) {
        for (index, (word, other)) in self.0.iter_mut().zip(&other.0).enumerate() {
            let mut common = *word & other;
            *word &= !other;
            while common != 0 {
                take(index * 64 + common.trailing_zeros() as usize);
                common &= common - 1;
            }
        }
    }

    /// The numbers in the set, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros() as usize;
                    left &= left - 1;
                    index * 64 + bit
                })
            })
        })
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// The zones that hold its addresses; `any` and `outside` included.
    pub(super) zones: Bits,
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
    list: Vec<Rc<Class>>,
    numbers: HashMap<Rc<Class>, u32>,
    zones: usize,
    any: Option<ZoneIndex>,
    outside: Option<ZoneIndex>,
}

impl Classes {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            list: Vec::new(),
            numbers: HashMap::new(),
            zones: policy.zones.len(),
            any: policy.built_in(ZoneKind::Any),
            outside: policy.built_in(ZoneKind::Outside),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Class> {
        self.list.iter().map(Rc::as_ref)
    }

    /// Cuts the address space of a realm and numbers the classes that occur in it.
    pub(super) fn intervals(
        &mut self,
        policy: &Policy,
        tags: Tags,
        own: &[IpAddr],
    ) -> Result<Intervals, CompileError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, zone) in policy.zones.iter().enumerate() {
            let built_in = zone.kind != ZoneKind::Named;
            let here = built_in || zone.tags() == tags;
            let own = if zone.kind == ZoneKind::SelfMachine {
                own
            } else {
                &[]
            };
            let own = own.iter().map(|address| IpNet::from(*address));
            for prefix in zone.prefixes.iter().copied().chain(own).filter(|_| here) {
                let side = if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 };
                side.push(Range::new(prefix, index, built_in));
            }
        }
        let v4 = self.cut(&v4, u128::from(u32::MAX))?;
        let v6 = self.cut(&v6, u128::MAX)?;
        Ok(Intervals {
            v4: v4
                .into_iter()
                .map(|(first, class)| (first as u32, class))
                .collect(),
            v6,
        })
    }

    fn cut(&mut self, ranges: &[Range], max: u128) -> Result<Vec<(u128, u32)>, CompileError> {
        let mut intervals: Vec<(u128, u32)> = Vec::new();
        let zones = self.zones;
        sweep(ranges, zones, max, |first, bits, best| {
            let class = self.number(bits, best)?;
            if intervals.last().is_none_or(|(_, last)| *last != class) {
                intervals.push((first, class));
            }
            Ok(())
        })?;
        Ok(intervals)
    }

    /// The class of addresses that these zones hold, `any` and `outside` not yet counted.
    fn number(&mut self, named: &Bits, best: Option<ZoneIndex>) -> Result<u32, CompileError> {
        let mut zones = named.clone();
        if let Some(outside) = self.outside.filter(|_| named.is_empty()) {
            zones.set(outside, true);
        }
        if let Some(any) = self.any {
            zones.set(any, true);
        }
        let class = Class {
            zones,
            best: best.or(self.outside),
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
            });
        }
        let class = Rc::new(class);
        self.list.push(Rc::clone(&class));
        self.numbers.insert(class, number as u32);
        Ok(number as u32)
    }
}
