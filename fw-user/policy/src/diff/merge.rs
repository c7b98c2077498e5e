//! Cells of differences merged into boxes.

use std::collections::{BTreeSet, HashMap};

use super::cells::{Found, Rules, ServiceSet};
use crate::space::{Range, Ranges};

/// Source classes, destination classes, services, rules.
pub(super) type Cell = (Ranges, Ranges, ServiceSet, [Rules; 2]);

/// Cells of which no two share a point, as boxes of which no two share a point or can be merged: for each source, the
/// destinations with the same services are one; then the sources with the same destinations and services. Or the other way
/// round, if that gives fewer.
pub(super) fn merge(cells: &[Cell]) -> Vec<Found> {
    let by_source = merge_from(
        cells
            .iter()
            .map(|(src, dst, services, rules)| (src, dst, services, rules)),
    );
    let by_destination = merge_from(
        cells
            .iter()
            .map(|(src, dst, services, rules)| (dst, src, services, rules)),
    );
    let boxes = |((src, dst, services), rules)| Found {
        src,
        dst,
        services,
        rules,
    };
    if by_destination.len() < by_source.len() {
        let turned = by_destination.into_iter();
        return turned
            .map(|((dst, src, services), rules)| boxes(((src, dst, services), rules)))
            .collect();
    }
    by_source.into_iter().map(boxes).collect()
}

type Merged = Vec<((Ranges, Ranges, ServiceSet), [Rules; 2])>;

fn merge_from<'a>(
    cells: impl Iterator<Item = (&'a Ranges, &'a Ranges, &'a ServiceSet, &'a [Rules; 2])>,
) -> Merged {
    // The groups of the second end may differ from one group of the first end to the next: cut the first end anew.
    let cells: Vec<_> = cells.collect();
    let mut groups: HashMap<Vec<usize>, Vec<Range>> = HashMap::new();
    for (list, range) in held_by(&cells.iter().map(|cell| cell.0).collect::<Vec<_>>()) {
        groups.entry(list).or_default().push(range);
    }
    let mut out: HashMap<(Ranges, &ServiceSet), (Vec<Range>, [Rules; 2])> = HashMap::new();
    for (list, first) in groups {
        let mut by_services: HashMap<&ServiceSet, (Vec<Range>, [Rules; 2])> = HashMap::new();
        for (_, second, services, rules) in list.iter().map(|index| cells[*index]) {
            let entry = by_services.entry(services).or_default();
            entry.0.extend(second.as_slice());
            add(&mut entry.1, rules);
        }
        for (services, (second, rules)) in by_services {
            let entry = out.entry((Ranges::union(second), services)).or_default();
            entry.0.extend(&first);
            add(&mut entry.1, &rules);
        }
    }
    let out = out.into_iter();
    let merged = out.map(|((second, services), (first, rules))| {
        ((Ranges::union(first), second, services.clone()), rules)
    });
    let mut merged: Merged = merged.collect();
    merged.sort_unstable();
    merged
}

fn add(all: &mut [Rules; 2], more: &[Rules; 2]) {
    all.iter_mut()
        .zip(more)
        .for_each(|(all, more)| all.extend(more.iter().copied()));
}

/// Ranges of numbers, and the sets that hold each.
fn held_by(sets: &[&Ranges]) -> Vec<(Vec<usize>, Range)> {
    let mut cuts: Vec<(u64, bool, usize)> = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        for (first, last) in set.as_slice() {
            cuts.push((u64::from(*first), true, index));
            cuts.push((u64::from(*last) + 1, false, index));
        }
    }
    cuts.sort_unstable();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut out = Vec::new();
    let mut groups = cuts.chunk_by(|a, b| a.0 == b.0).peekable();
    while let Some(group) = groups.next() {
        for (_, begins, index) in group {
            if *begins {
                open.insert(*index);
            } else {
                open.remove(index);
            }
        }
        if let (Some(next), false) = (groups.peek(), open.is_empty()) {
            out.push((
                open.iter().copied().collect(),
                (group[0].0 as u32, (next[0].0 - 1) as u32),
            ));
        }
    }
    out
}
