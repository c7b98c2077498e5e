//! Sets of small numbers as ranges: what a rule holds on one axis of the space of flows.

/// Numbers from the first to the second, both included.
pub(crate) type Range = (u32, u32);

/// A set of numbers: ranges in order, with a gap between neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// The set of one range.
    pub(crate) fn of(first: u32, last: u32) -> Self {
        Self(vec![(first, last)])
    }

    /// The set of numbers in any of these ranges, which may overlap and stand in any order.
    pub(crate) fn union(mut parts: Vec<Range>) -> Self {
        parts.sort_unstable();
        let mut out: Vec<Range> = Vec::with_capacity(parts.len());
        for (first, last) in parts {
            match out.last_mut() {
                Some(end) if u64::from(first) <= u64::from(end.1) + 1 => end.1 = end.1.max(last),
                _ => out.push((first, last)),
            }
        }
        Self(out)
    }

    /// The ranges, in order.
    pub(crate) fn as_slice(&self) -> &[Range] {
        &self.0
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers the set has.
    pub(crate) fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum()
    }

    /// All numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self(common(&self.0, &other.0).collect())
    }

    /// Numbers of this set that the other has not.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut out = Vec::new();
        let mut holes = other.0.as_slice();
        for (first, last) in &self.0 {
            let mut at = u64::from(*first);
            let end = u64::from(*last);
            while let Some((from, to)) = holes.first() {
                if u64::from(*to) < at {
                    holes = &holes[1..];
                    continue;
                }
                if u64::from(*from) > end {
                    break;
                }
                if u64::from(*from) > at {
                    out.push((at as u32, from - 1));
                }
                at = u64::from(*to) + 1;
                if at > end {
                    break;
                }
            }
            if at <= end {
                out.push((at as u32, *last));
            }
        }
        Self(out)
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        meet(&self.0, &other.0)
    }

    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        covers(&self.0, &other.0)
    }
}

/// True if a set has the number.
pub(crate) fn has(set: &[Range], number: u32) -> bool {
    let behind = set.partition_point(|(first, _)| *first <= number);
    behind > 0 && number <= set[behind - 1].1
}

/// True if two sets have a number in common.
pub(crate) fn meet(a: &[Range], b: &[Range]) -> bool {
    common(a, b).next().is_some()
}

/// True if `outer` has every number of `inner`.
pub(crate) fn covers(outer: &[Range], inner: &[Range]) -> bool {
    let mut rest = outer;
    inner.iter().all(|(first, last)| {
        let skip = rest.partition_point(|(_, end)| end < first);
        rest = &rest[skip..];
        rest.first().is_some_and(|(from, to)| from <= first && last <= to)
    })
}

/// The ranges that two sets have in common, in order.
pub(crate) fn common<'a>(mut a: &'a [Range], mut b: &'a [Range]) -> impl Iterator<Item = Range> + 'a {
    std::iter::from_fn(move || {
        while let (Some(x), Some(y)) = (a.first(), b.first()) {
            let both = (x.0.max(y.0), x.1.min(y.1));
            if x.1 < y.1 {
                // Far ahead: what lies before the other's range is skipped at once.
                let skip = a.partition_point(|range| range.1 < y.0).max(1);
                a = &a[skip..];
            } else {
                let skip = b.partition_point(|range| range.1 < x.0).max(1);
                b = &b[skip..];
            }
            if both.0 <= both.1 {
                return Some(both);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Ranges, covers, has, meet};

    fn set(ranges: &Ranges) -> BTreeSet<u32> {
        ranges.iter().collect()
    }

    fn ranges() -> impl Strategy<Value = Ranges> {
        proptest::collection::vec((0_u32..40, 0_u32..6), 0..8).prop_map(|parts| {
            Ranges::union(
                parts
                    .into_iter()
                    .map(|(first, more)| (first, first + more))
                    .collect(),
            )
        })
    }

    proptest! {
        #[test]
        fn ranges_are_sets(a in ranges(), b in ranges(), number in 0_u32..50) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(set(&a.intersection(&b)), &x & &y);
            prop_assert_eq!(set(&a.minus(&b)), &x - &y);
            prop_assert_eq!(meet(a.as_slice(), b.as_slice()), !x.is_disjoint(&y));
            prop_assert_eq!(covers(a.as_slice(), b.as_slice()), y.is_subset(&x));
            prop_assert_eq!(has(a.as_slice(), number), x.contains(&number));
            prop_assert_eq!(a.count(), x.len() as u64);
        }
    }

    #[test]
    fn the_last_number_is_one() {
        let all = Ranges::of(0, u32::MAX);
        assert_eq!(all.minus(&Ranges::of(5, u32::MAX)), Ranges::of(0, 4));
        assert_eq!(all.minus(&Ranges::of(0, 7)), Ranges::of(8, u32::MAX));
        assert!(all.minus(&all).is_empty());
    }
}
