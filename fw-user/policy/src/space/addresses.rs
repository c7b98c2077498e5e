//! Address classes of one realm and family: all addresses that the same zones hold are one class.
//!
//! Of some zones the members are not known: dynamic ones, and `self` where no machine is meant. An address may be in each of
//! them or not, whatever other zones hold it; so a class is a set of zones that are known, and a set of those that are not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::SpaceError;
use super::ranges::Ranges;

/// Most classes of one realm and family.
const MAX_CLASSES: u64 = 1 << 22;

/// Number of a zone among those that are told apart here; zones of two policies have numbers of their own.
pub(crate) type Member = u32;

/// First and last address.
pub(crate) type Span = (u128, u128);

/// The classes.
pub(crate) struct Addresses {
    ipv4: bool,
    /// First address and base of each interval, in order, the first from 0; neighbours differ.
    intervals: Vec<(u128, u32)>,
    /// By base: the zones that hold its addresses, ascending.
    members: Vec<Vec<Member>>,
    /// By base: two addresses that stand for it, or its only one.
    examples: Vec<Vec<u128>>,
    /// Zones whose members are not known.
    unknown: u32,
}

impl Addresses {
    /// Cuts the address space of a family. `spans` are those of zones that are known; of `unknown` others it is not known
    /// what they hold.
    pub(crate) fn new(ipv4: bool, spans: &[(Span, Member)], unknown: u32) -> Result<Self, SpaceError> {
        let mut out = Self {
            ipv4,
            intervals: Vec::new(),
            members: Vec::new(),
            examples: Vec::new(),
            unknown,
        };
        out.cut(spans);
        let bases = out.members.len() as u64;
        if unknown > 22 || bases << unknown > MAX_CLASSES {
            return Err(SpaceError::Unknown {
                zones: unknown,
                classes: bases,
            });
        }
        out.find_examples();
        Ok(out)
    }

    fn max(&self) -> u128 {
        if self.ipv4 {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        }
    }

    fn cut(&mut self, spans: &[(Span, Member)]) {
        let max = self.max();
        let mut cuts: Vec<(u128, Member, bool)> = Vec::with_capacity(spans.len() * 2);
        for ((first, last), member) in spans {
            cuts.push((*first, *member, true));
            if *last < max {
                cuts.push((*last + 1, *member, false));
            }
        }
        cuts.sort_unstable();
        let mut open: Vec<(Member, u32)> = Vec::new();
        let mut numbers: HashMap<Vec<Member>, u32> = HashMap::new();
        let mut held: Vec<Member> = Vec::new();
        let mut at = 0;
        let mut next = 0;
        loop {
            while let Some((_, member, begins)) = cuts.get(next).filter(|cut| cut.0 == at) {
                change(&mut open, *member, *begins);
                next += 1;
            }
            held.clear();
            held.extend(open.iter().map(|(member, _)| *member));
            let base = if let Some(base) = numbers.get(&held) {
                *base
            } else {
                self.members.push(held.clone());
                numbers.insert(held.clone(), self.members.len() as u32 - 1);
                self.members.len() as u32 - 1
            };
            if self.intervals.last().is_none_or(|(_, last)| *last != base) {
                self.intervals.push((at, base));
            }
            match cuts.get(next) {
                Some(cut) => at = cut.0,
                None => return,
            }
        }
    }

    fn find_examples(&mut self) {
        let mut found: Vec<Vec<u128>> = vec![Vec::new(); self.members.len()];
        let mut poor = found.clone();
        for ((first, last), base) in self.spans() {
            let (good, poor) = (&mut found[base as usize], &mut poor[base as usize]);
            if good.len() < 2 {
                good.extend(plausible(self.ipv4, first, last).into_iter().take(2 - good.len()));
            }
            if poor.len() < 2 {
                poor.push(first);
                poor.extend(Some(last).filter(|last| *last != first));
            }
        }
        for (good, poor) in found.iter_mut().zip(poor) {
            let more: Vec<u128> = poor
                .into_iter()
                .filter(|address| !good.contains(address))
                .collect();
            good.extend(more);
            good.truncate(2);
        }
        self.examples = found;
    }

    /// The intervals: first and last address, and the base.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (Span, u32)> + '_ {
        let ends = self.intervals.iter().skip(1).map(|(next, _)| next - 1);
        let ends = ends.chain([self.max()]);
        self.intervals
            .iter()
            .zip(ends)
            .map(|((first, base), last)| ((*first, last), *base))
    }

    /// Classes that differ in the zones that are known.
    pub(crate) fn bases(&self) -> u32 {
        self.members.len() as u32
    }

    /// Number of classes; the class of a base and a set of unknown zones is `set * bases + base`.
    pub(crate) fn count(&self) -> u32 {
        self.bases() << self.unknown
    }

    /// The base of a class, and the unknown zones that hold it, as bits.
    pub(crate) fn parts(&self, class: u32) -> (u32, u32) {
        (class % self.bases(), class / self.bases())
    }

    /// All classes.
    pub(crate) fn all(&self) -> Ranges {
        Ranges::of(0, self.count() - 1)
    }

    /// By zone that is known: its classes.
    pub(crate) fn of_members(&self, members: usize) -> Vec<Ranges> {
        let mut bases: Vec<Vec<u32>> = vec![Vec::new(); members];
        for (base, held) in self.members.iter().enumerate() {
            for member in held {
                bases[*member as usize].push(base as u32);
            }
        }
        bases
            .into_iter()
            .map(|bases| {
                self.in_any_set(&Ranges::union(
                    bases.into_iter().map(|base| (base, base)).collect(),
                ))
            })
            .collect()
    }

    /// The classes that an unknown zone holds.
    pub(crate) fn of_unknown(&self, zone: u32) -> Ranges {
        let sets = (0..1_u32 << self.unknown).filter(|set| set >> zone & 1 != 0);
        let bases = self.bases();
        Ranges::union(sets.map(|set| (set * bases, (set + 1) * bases - 1)).collect())
    }

    /// These bases with every set of unknown zones.
    pub(crate) fn in_any_set(&self, bases: &Ranges) -> Ranges {
        let sets = 0..1_u32 << self.unknown;
        let parts = sets.flat_map(|set| {
            let shift = set * self.bases();
            bases
                .as_slice()
                .iter()
                .map(move |(first, last)| (first + shift, last + shift))
        });
        Ranges::union(parts.collect())
    }

    /// Two addresses of a class, the same one twice if it has no other. Addresses that a host can have come first.
    pub(crate) fn example(&self, class: u32) -> [IpAddr; 2] {
        let addresses = &self.examples[self.parts(class).0 as usize];
        // A base has an interval, and so an address.
        let first = addresses.first().copied().unwrap_or(0);
        let second = addresses.get(1).copied().unwrap_or(first);
        [first, second].map(|address| ip(self.ipv4, address))
    }

    /// True if both classes are the same single address, in whichever unknown zones.
    pub(crate) fn one_address(&self, a: u32, b: u32) -> bool {
        let base = self.parts(a).0;
        base == self.parts(b).0 && self.examples[base as usize].len() == 1
    }

    /// The class of an address; `held`: the unknown zones that hold it.
    #[cfg(test)]
    pub(crate) fn class(&self, address: u128, held: u32) -> u32 {
        let behind = self.intervals.partition_point(|(first, _)| *first <= address);
        held * self.bases() + self.intervals[behind - 1].1
    }
}

/// An address from its number.
pub(crate) fn ip(ipv4: bool, address: u128) -> IpAddr {
    if ipv4 {
        Ipv4Addr::from(address as u32).into()
    } else {
        Ipv6Addr::from(address).into()
    }
}

/// Counts a span of a zone that begins or ends; `open` is sorted.
fn change(open: &mut Vec<(Member, u32)>, member: Member, begins: bool) {
    match open.binary_search_by_key(&member, |entry| entry.0) {
        Ok(place) if begins => open[place].1 += 1,
        Ok(place) => {
            open[place].1 -= 1;
            if open[place].1 == 0 {
                open.remove(place);
            }
        }
        Err(place) if begins => open.insert(place, (member, 1)),
        // A span that never began cannot end.
        Err(_) => {}
    }
}

/// Up to two addresses between these two that a host can have, not the first of a network where there is a choice.
fn plausible(ipv4: bool, first: u128, last: u128) -> Vec<u128> {
    // What no host has as its source: RFC 6890 section 2.2.2, RFC 4291 section 2.5.
    const V4: [Span; 3] = [
        (0, 0x00ff_ffff),
        (0x7f00_0000, 0x7fff_ffff),
        (0xe000_0000, 0xffff_ffff),
    ];
    const V6: [Span; 3] = [
        (0, 1),
        (0xffff_0000_0000, 0xffff_ffff_ffff),
        (0xff00 << 112, u128::MAX),
    ];
    let barred: &[Span] = if ipv4 { &V4 } else { &V6 };
    let mut at = first;
    for (from, to) in barred {
        if (*from..=*to).contains(&at) {
            match to.checked_add(1) {
                Some(behind) => at = behind,
                None => return Vec::new(),
            }
        }
    }
    let end = barred
        .iter()
        .filter(|(from, _)| *from > at)
        .map(|(from, _)| from - 1)
        .min()
        .unwrap_or(u128::MAX)
        .min(last);
    if at > end {
        return Vec::new();
    }
    let host = u128::from(end - at >= 3 && at.is_multiple_of(4));
    (at + host..=end).take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::{Addresses, plausible};

    #[test]
    fn examples_are_addresses_of_hosts() {
        assert_eq!(plausible(true, 0, 0xffff_ffff), [0x0100_0001, 0x0100_0002]);
        assert_eq!(plausible(true, 0x7f00_0000, 0x8000_0000), [0x8000_0000]);
        assert!(plausible(true, 0xe000_0000, 0xffff_ffff).is_empty());
        assert_eq!(plausible(true, 0x0a00_0000, 0x0a00_0000), [0x0a00_0000]);
        assert_eq!(plausible(false, 0, u128::MAX), [2, 3]);
    }

    #[test]
    fn zones_cut_and_unknown_ones_double() {
        let spans = [((10, 19), 0), ((15, 29), 1), ((12, 13), 0)];
        let addresses = Addresses::new(true, &spans, 1).expect("few classes");
        assert_eq!((addresses.bases(), addresses.count()), (4, 8));
        let sets = addresses.of_members(2);
        for (address, zones) in [
            (9, [false, false]),
            (12, [true, false]),
            (15, [true, true]),
            (20, [false, true]),
        ] {
            for held in [0, 1] {
                let class = addresses.class(address, held);
                let has = |set: usize| sets[set].iter().any(|own| own == class);
                assert_eq!([has(0), has(1)], zones, "{address}");
                assert_eq!(addresses.of_unknown(0).iter().any(|own| own == class), held == 1);
            }
        }
    }
}
