//! Sets of addresses as sorted ranges: exact union, difference, and back to the fewest prefixes. All is done by sorting and
//! sweeping, so that a million prefixes take a fraction of a second.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses from one to another, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

impl From<IpNet> for Range {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(net.network().to_bits(), net.broadcast().to_bits()),
            IpNet::V6(net) => Self::V6(net.network().to_bits(), net.broadcast().to_bits()),
        }
    }
}

impl Range {
    /// From one address to another; `None` if they are of two families, or the first is behind the last.
    pub(crate) fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                Some(Self::V4(first.to_bits(), last.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                Some(Self::V6(first.to_bits(), last.to_bits()))
            }
            _ => None,
        }
    }
}

/// A set of addresses. Ranges may be added in any order; what reads them needs [`Ranges::merge`] first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    /// No address.
    pub(crate) const NONE: Self = Self {
        v4: Vec::new(),
        v6: Vec::new(),
    };

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub(crate) fn push(&mut self, range: Range) {
        match range {
            Range::V4(first, last) => self.v4.push((first, last)),
            Range::V6(first, last) => self.v6.push((first, last)),
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
    }

    /// Sorts, and joins ranges that overlap or touch.
    pub(crate) fn merge(&mut self) {
        merge(&mut self.v4, |last| last.checked_add(1));
        merge(&mut self.v6, |last| last.checked_add(1));
    }

    /// Takes out the addresses of `other`. Both are merged.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if !other.v4.is_empty() {
            self.v4 = difference(&self.v4, &other.v4, |n| n.wrapping_sub(1), |n| n.wrapping_add(1));
        }
        if !other.v6.is_empty() {
            self.v6 = difference(&self.v6, &other.v6, |n| n.wrapping_sub(1), |n| n.wrapping_add(1));
        }
    }

    /// True if an address of the range is in the set, which is merged.
    pub(crate) fn meets(&self, range: Range) -> bool {
        match range {
            Range::V4(first, last) => meets(&self.v4, first, last),
            Range::V6(first, last) => meets(&self.v6, first, last),
        }
    }

    /// The fewest prefixes that hold exactly the set, sorted. The set is merged.
    pub(crate) fn prefixes(&self) -> Vec<IpNet> {
        let mut prefixes = Vec::with_capacity(self.v4.len() + self.v6.len());
        for (first, last) in &self.v4 {
            cover(u128::from(*first), u128::from(*last), 32, |first, length| {
                let net = Ipv4Net::new(Ipv4Addr::from_bits(first as u32), length);
                prefixes.extend(net.map(IpNet::V4));
            });
        }
        for (first, last) in &self.v6 {
            cover(*first, *last, 128, |first, length| {
                let net = Ipv6Net::new(Ipv6Addr::from_bits(first), length);
                prefixes.extend(net.map(IpNet::V6));
            });
        }
        prefixes
    }
}

impl FromIterator<Range> for Ranges {
    fn from_iter<T: IntoIterator<Item = Range>>(ranges: T) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.push(range));
        set.merge();
        set
    }
}

fn merge<T: Copy + Ord>(ranges: &mut Vec<(T, T)>, behind: impl Fn(T) -> Option<T>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = behind(kept.1).is_none_or(|behind| next.0 <= behind);
        if touches {
            kept.1 = kept.1.max(next.1);
        }
        touches
    });
}

/// What is in `from` and not in `without`; both are sorted and merged. `below` and `above` give the neighbours of a number;
/// they are asked only where there is one.
fn difference<T: Copy + Ord>(
    from: &[(T, T)],
    without: &[(T, T)],
    below: impl Fn(T) -> T,
    above: impl Fn(T) -> T,
) -> Vec<(T, T)> {
    let mut out = Vec::with_capacity(from.len());
    let mut holes = without.iter().copied().peekable();
    for &(mut first, last) in from {
        while holes.next_if(|hole| hole.1 < first).is_some() {}
        let mut gone = false;
        while let Some(&(start, end)) = holes.peek().filter(|hole| hole.0 <= last) {
            if start > first {
                out.push((first, below(start)));
            }
            if end >= last {
                gone = true;
                break;
            }
            first = above(end);
            holes.next();
        }
        if !gone {
            out.push((first, last));
        }
    }
    out
}

fn meets<T: Copy + Ord>(ranges: &[(T, T)], first: T, last: T) -> bool {
    let place = ranges.partition_point(|range| range.1 < first);
    ranges.get(place).is_some_and(|range| range.0 <= last)
}

/// Calls `found` with the fewest prefixes, each by its first address and its length, that hold `first` to `last`.
fn cover(mut first: u128, last: u128, width: u32, mut found: impl FnMut(u128, u8)) {
    loop {
        // The largest block that begins here: bounded by the zeros at the end of the address, and by what is left. What is
        // left is everything of a family exactly if its number overflows or has `width` bits.
        let left = (last - first).checked_add(1).map_or(128, u128::ilog2);
        let bits = first.trailing_zeros().min(left).min(width);
        found(first, (width - bits) as u8);
        let end = first | 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
        match end.checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::{Range, Ranges};

    fn set(ranges: &[(u32, u32)]) -> Ranges {
        ranges.iter().map(|(a, b)| Range::V4(*a, *b)).collect()
    }

    fn texts(ranges: &Ranges) -> Vec<String> {
        ranges.prefixes().iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn the_ends_of_the_families_are_no_special_case() {
        assert_eq!(texts(&set(&[(0, u32::MAX)])), ["0.0.0.0/0"]);
        assert_eq!(texts(&set(&[(u32::MAX, u32::MAX)])), ["255.255.255.255/32"]);
        let all: Ranges = [Range::V6(0, u128::MAX)].into_iter().collect();
        assert_eq!(texts(&all), ["::/0"]);
        let mut most = all.clone();
        most.subtract(&[Range::V6(u128::MAX, u128::MAX)].into_iter().collect());
        assert_eq!(most.prefixes().len(), 128);
        let mut none = all.clone();
        none.subtract(&all);
        assert!(none.is_empty());
        assert_eq!(texts(&set(&[(0, 5), (6, u32::MAX)])), ["0.0.0.0/0"]);
    }

    fn small() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0_u32..64, 0_u32..20), 0..8).prop_map(|list| {
            list.into_iter()
                .map(|(first, len)| (first, first + len))
                .collect()
        })
    }

    fn members(ranges: &[(u32, u32)]) -> BTreeSet<u32> {
        ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    proptest! {
        #[test]
        fn sets_hold_exactly_their_members(a in small(), b in small(), (first, len) in (0_u32..90, 0_u32..9)) {
            let mut left = set(&a);
            let right = set(&b);
            prop_assert_eq!(left.meets(Range::V4(first, first + len)),
                members(&a).range(first..=first + len).next().is_some());
            left.subtract(&right);
            let expected: BTreeSet<u32> = members(&a).difference(&members(&b)).copied().collect();
            let prefixes = left.prefixes();
            let held: Vec<u32> = prefixes.iter().flat_map(|net| match net {
                IpNet::V4(net) => net.network().to_bits()..=net.broadcast().to_bits(),
                IpNet::V6(_) => unreachable!("only IPv4 was put in"),
            }).collect();
            prop_assert_eq!(held.iter().copied().collect::<BTreeSet<_>>(), expected);
            prop_assert!(held.is_sorted());
            // No two siblings that would make one prefix.
            for pair in prefixes.windows(2) {
                let siblings = pair[0].prefix_len() == pair[1].prefix_len()
                    && pair[0].supernet() == pair[1].supernet();
                prop_assert!(!siblings, "{:?}", pair);
            }
        }
    }
}
