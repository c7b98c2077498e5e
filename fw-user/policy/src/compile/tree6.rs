//! The IPv6 map: an 8-ary search over interval starts, on the high half of the address, then, where a zone is longer
//! than /64, on the low half. Equal trees over low halves are written once.

use fw_common::abi::{MAX_V6_LEVELS, V6_SUBTREE, V6Tree};
use hashbrown::HashMap;

use super::CompileError;
use super::lines::{Lines, Section};

/// Keys in a line.
const KEYS: usize = 8;
/// Intervals that a tree of [`MAX_V6_LEVELS`] levels holds.
const MAX_INTERVALS: usize = KEYS.pow(MAX_V6_LEVELS as u32);

/// Intervals of half an address: first value, and what stands there.
type Halves = Vec<(u64, u32)>;

#[derive(Default)]
pub(super) struct Writer {
    subtrees: HashMap<Halves, u32>,
    /// Lines that a look-up in a subtree loads at most: description, levels, value.
    deepest: u32,
}

/// The tree's description as words.
pub(super) fn words(tree: &V6Tree) -> Vec<u32> {
    [tree.depth, tree.intervals, tree.values, tree.level0]
        .into_iter()
        .chain(tree.count)
        .collect()
}

impl Writer {
    /// Writes the map of a realm, given as (first address, class) in order.
    pub(super) fn write(
        &mut self,
        intervals: &[(u128, u32)],
        lines: &mut Lines,
    ) -> Result<V6Tree, CompileError> {
        let mut highs: Halves = Vec::new();
        let mut rest = intervals;
        // The class of the last address that was looked at.
        let mut class = 0;
        while let Some((first, _)) = rest.first() {
            let high = (first >> 64) as u64;
            let inside = rest
                .iter()
                .take_while(|(next, _)| (next >> 64) as u64 == high)
                .count();
            let (group, behind) = rest.split_at(inside);
            rest = behind;
            let low = |(first, class): &(u128, u32)| (*first as u64, *class);
            let mut lows: Halves = group.iter().map(low).collect();
            if lows.first().is_some_and(|(low, _)| *low != 0) {
                lows.insert(0, (0, class));
            }
            class = lows.last().map_or(class, |(_, last)| *last);
            if let [(_, only)] = lows.as_slice() {
                add(&mut highs, high, *only);
                continue;
            }
            let line = self.subtree(lows, lines)?;
            add(&mut highs, high, V6_SUBTREE | line);
            // What follows has one class again, from the next high half on.
            if let Some(next) = high.checked_add(1) {
                add(&mut highs, next, class);
            }
        }
        tree(&highs, lines)
    }

    /// Lines that a look-up in a subtree loads at most; 0: there is none.
    pub(super) const fn deepest(&self) -> u32 {
        self.deepest
    }

    fn subtree(&mut self, lows: Halves, lines: &mut Lines) -> Result<u32, CompileError> {
        if let Some(line) = self.subtrees.get(&lows) {
            return Ok(*line);
        }
        let tree = tree(&lows, lines)?;
        let line = lines.reserve(Section::Ipv6, 1)?;
        lines.set_words(line, 0, &words(&tree));
        self.deepest = self.deepest.max(1 + tree.depth + 1);
        self.subtrees.insert(lows, line);
        Ok(line)
    }
}

/// Adds an interval; one that begins at the same place is replaced, one of the same value goes on.
fn add(halves: &mut Halves, first: u64, value: u32) {
    if halves.last().is_some_and(|(last, _)| *last == first) {
        halves.pop();
    }
    if halves.last().is_none_or(|(_, last)| *last != value) {
        halves.push((first, value));
    }
}

/// Writes a tree's levels and values.
fn tree(intervals: &[(u64, u32)], lines: &mut Lines) -> Result<V6Tree, CompileError> {
    if intervals.len() > MAX_INTERVALS {
        let (count, limit) = (intervals.len(), MAX_INTERVALS);
        return Err(CompileError::TooMany {
            what: "IPv6 intervals",
            count,
            limit,
            most: String::new(),
        });
    }
    // From the last level up: each level has the first key of each line of the level below it.
    let mut levels: Vec<Vec<u64>> = vec![intervals.iter().map(|(first, _)| *first).collect()];
    while let Some(level) = levels.last().filter(|level| level.len() > KEYS) {
        let above = level.chunks(KEYS).map(|line| line[0]).collect();
        levels.push(above);
    }
    levels.reverse();
    let mut tree = V6Tree {
        depth: levels.len() as u32,
        intervals: intervals.len() as u32,
        ..V6Tree::default()
    };
    // In one piece: the levels lie behind each other.
    let total: usize = levels.iter().map(|level| level.len().div_ceil(KEYS)).sum();
    tree.level0 = lines.reserve(Section::Ipv6, total as u64)?;
    let mut base = tree.level0;
    for (number, level) in levels.iter().enumerate() {
        let count = level.len().div_ceil(KEYS);
        tree.count[number] = count as u32;
        for index in 0..count * KEYS {
            let key = level.get(index).copied().unwrap_or(u64::MAX);
            lines.set_words(base, index as u32 * 2, &[key as u32, (key >> 32) as u32]);
        }
        base += count as u32;
    }
    let values: Vec<u32> = intervals.iter().map(|(_, value)| *value).collect();
    tree.values = lines.push_words(Section::Ipv6, &values)?;
    Ok(tree)
}
