//! Which rules two policies have in common, in the same order.
//!
//! A packet that none of the other rules matches meets the same common rule first in both, and so the same fate: a
//! difference can lie only where one of the others matches.

use std::collections::HashMap;
use std::hash::Hash;

/// By item of `old` and of `new`: true if it is among the common ones. These are the same in the same order, but not always
/// the most that could be found: items that occur more than once count at the two ends only.
pub(super) fn common<T: Eq + Hash>(old: &[T], new: &[T]) -> (Vec<bool>, Vec<bool>) {
    let (mut in_old, mut in_new) = (vec![false; old.len()], vec![false; new.len()]);
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (rest_old, rest_new) = (&old[head..], &new[head..]);
    let ends = rest_old.iter().rev().zip(rest_new.iter().rev());
    let tail = ends.take_while(|(a, b)| a == b).count();
    for index in (0..head).chain(old.len() - tail..old.len()) {
        in_old[index] = true;
    }
    for index in (0..head).chain(new.len() - tail..new.len()) {
        in_new[index] = true;
    }
    let middle_old = &rest_old[..rest_old.len() - tail];
    let middle_new = &rest_new[..rest_new.len() - tail];
    for (a, b) in ascending(&unique_pairs(middle_old, middle_new)) {
        in_old[head + a] = true;
        in_new[head + b] = true;
    }
    (in_old, in_new)
}

/// Places of the items that occur exactly once in both lists, by place in the first.
fn unique_pairs<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let mut seen: HashMap<&T, [(usize, usize); 2]> = HashMap::new();
    for (side, list) in [old, new].into_iter().enumerate() {
        for (place, item) in list.iter().enumerate() {
            let entry = &mut seen.entry(item).or_default()[side];
            *entry = (entry.0 + 1, place);
        }
    }
    let mut pairs: Vec<(usize, usize)> = seen
        .into_values()
        .filter(|[old, new]| old.0 == 1 && new.0 == 1)
        .map(|[old, new]| (old.1, new.1))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// The longest run of pairs, not necessarily neighbours, in which the second places ascend too (patience sorting; Fredman,
/// "On computing the length of longest increasing subsequences", 1975).
fn ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // By length of a run less one: the pair that ends it with the lowest second place. By pair: the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(index);
        } else {
            ends[length] = index;
        }
    }
    let mut at = ends.last().copied();
    let mut run = Vec::with_capacity(ends.len());
    while let Some(index) = at {
        run.push(pairs[index]);
        at = before[index];
    }
    run
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::common;

    fn kept(list: &[u8], kept: &[bool]) -> Vec<u8> {
        list.iter()
            .zip(kept)
            .filter(|(_, kept)| **kept)
            .map(|(item, _)| *item)
            .collect()
    }

    proptest! {
        #[test]
        fn common_items_are_the_same_in_the_same_order(
            old in proptest::collection::vec(0_u8..20, 0..15),
            new in proptest::collection::vec(0_u8..20, 0..15),
        ) {
            let (in_old, in_new) = common(&old, &new);
            prop_assert_eq!(kept(&old, &in_old), kept(&new, &in_new));
        }
    }

    #[test]
    fn one_inserted_and_one_moved_item_leave_the_others() {
        let (old, new) = common(b"abcdefg".as_slice(), b"abXdecfg".as_slice());
        assert_eq!(old, [true, true, false, true, true, true, true]);
        assert_eq!(new, [true, true, false, true, true, false, true, true]);
    }
}
