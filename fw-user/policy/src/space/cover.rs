//! Is a box covered by a union of others? If not, a point shows it; if so, the boxes that are needed for it.
//!
//! The axes are walked one after another. On each, the target is cut where the boxes begin and end; within a piece they
//! are all there or not, so what is left of the question has one axis less. What keeps it short: a piece that the boxes
//! needed to cover an earlier piece hold too is covered for the same reason and not looked at again.

use super::ranges::{Range, common, covers, has, meet};

/// Axes of the space of flows: source class, destination class, protocol, source port, selector.
pub(crate) const AXES: usize = 5;

/// A box: what it holds on each axis. A point lies in it if each axis holds its number there.
pub(crate) type Slab<'a> = [&'a [Range]; AXES];

/// Where a point is found first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Where it is quick.
    Quickest,
    /// The smallest by the first axis, then by the second, and so on.
    Smallest,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Covered {
    /// This point of the target lies in no box.
    No([u32; AXES]),
    /// These boxes, by place and ascending, cover the target.
    By(Vec<usize>),
    /// The question took more steps than were allowed.
    Unknown,
}

/// Looks for a point of `target` that lies in none of `boxes`. The target must not be empty on any axis. `steps`: how many
/// pieces may be looked at; what was needed is taken off.
pub(crate) fn uncovered(target: &Slab<'_>, boxes: &[Slab<'_>], order: Order, steps: &mut u64) -> Covered {
    let active: Vec<usize> = (0..boxes.len())
        .filter(|index| (0..AXES).all(|axis| meet(target[axis], boxes[*index][axis])))
        .collect();
    Search {
        target,
        boxes,
        order,
        steps,
    }
    .walk(0, &active)
}

struct Search<'a> {
    target: &'a Slab<'a>,
    boxes: &'a [Slab<'a>],
    order: Order,
    steps: &'a mut u64,
}

/// A piece of the target on one axis.
struct Piece {
    first: u32,
    /// How many boxes hold it.
    boxes: usize,
}

impl Search<'_> {
    /// `active` are the boxes that hold the pieces chosen on the axes before this one, and meet the target on the others.
    fn walk(&mut self, axis: usize, active: &[usize]) -> Covered {
        if active.is_empty() {
            return Covered::No(
                self.target
                    .map(|ranges| ranges.first().map_or(0, |range| range.0)),
            );
        }
        let whole = |index: &&usize| (axis..AXES).all(|axis| self.holds(**index, axis));
        if let Some(one) = active.iter().find(whole) {
            return Covered::By(vec![*one]);
        }
        if axis == AXES {
            // Unreachable: without an axis left every box is whole.
            return Covered::Unknown;
        }
        if active.iter().all(|index| self.holds(*index, axis)) {
            return self.walk(axis + 1, active);
        }
        let mut needed: Vec<Vec<usize>> = Vec::new();
        for piece in self.pieces(axis, active) {
            let same = |core: &Vec<usize>| {
                core.iter()
                    .all(|index| has(self.boxes[*index][axis], piece.first))
            };
            if needed.iter().any(same) {
                continue;
            }
            if *self.steps == 0 {
                return Covered::Unknown;
            }
            *self.steps -= 1;
            let held = active.iter().copied();
            let held: Vec<usize> = held
                .filter(|index| has(self.boxes[*index][axis], piece.first))
                .collect();
            match self.walk(axis + 1, &held) {
                Covered::No(mut point) => {
                    point[axis] = piece.first;
                    return Covered::No(point);
                }
                Covered::By(core) => needed.push(core),
                Covered::Unknown => return Covered::Unknown,
            }
        }
        let mut all: Vec<usize> = needed.into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        Covered::By(all)
    }

    fn holds(&self, index: usize, axis: usize) -> bool {
        covers(self.boxes[index][axis], self.target[axis])
    }

    /// Cuts the target on an axis where one of the boxes begins or ends.
    fn pieces(&self, axis: usize, active: &[usize]) -> Vec<Piece> {
        let mut cuts: Vec<(u32, i32)> = self.target[axis].iter().map(|range| (range.0, 0)).collect();
        let target = self.target[axis];
        for index in active {
            for (first, last) in common(target, self.boxes[*index][axis]) {
                cuts.push((first, 1));
                // What follows in the next range of the target begins with a cut of its own; so the count must not carry over.
                cuts.push((last.saturating_add(1), if last == u32::MAX { 0 } else { -1 }));
            }
        }
        cuts.sort_unstable_by_key(|(place, _)| *place);
        let (mut pieces, mut open) = (Vec::new(), 0_i32);
        for group in cuts.chunk_by(|a, b| a.0 == b.0) {
            open += group.iter().map(|(_, change)| change).sum::<i32>();
            let first = group[0].0;
            if has(target, first) {
                pieces.push(Piece {
                    first,
                    boxes: usize::try_from(open).unwrap_or(0),
                });
            }
        }
        if self.order == Order::Quickest {
            pieces.sort_by_key(|piece| piece.boxes);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ranges::{Ranges, has};
    use super::{AXES, Covered, Order, Slab, uncovered};

    const SIZE: u32 = 4;

    type Owned = [Ranges; AXES];

    fn slab(owned: &Owned) -> Slab<'_> {
        std::array::from_fn(|axis| owned[axis].as_slice())
    }

    fn side() -> impl Strategy<Value = Ranges> {
        // Every set but the empty one; the whole one often, as a rule's wildcards are.
        prop_oneof![Just(15_u32), 1_u32..16].prop_map(|bits| {
            let numbers = (0..SIZE).filter(|number| bits >> number & 1 != 0);
            Ranges::union(numbers.map(|number| (number, number)).collect())
        })
    }

    fn boxes() -> impl Strategy<Value = Vec<Owned>> {
        proptest::collection::vec([side(), side(), side(), side(), side()], 0..12)
    }

    fn inside(owned: &Owned, point: &[u32; AXES]) -> bool {
        (0..AXES).all(|axis| has(owned[axis].as_slice(), point[axis]))
    }

    fn points() -> impl Iterator<Item = [u32; AXES]> {
        (0..SIZE.pow(AXES as u32))
            .map(|number| std::array::from_fn(|axis| number / SIZE.pow((AXES - 1 - axis) as u32) % SIZE))
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_every_point(target in [side(), side(), side(), side(), side()], list in boxes()) {
            let free = |boxes: &[&Owned]| points()
                .find(|point| inside(&target, point) && !boxes.iter().any(|one| inside(one, point)));
            let all: Vec<&Owned> = list.iter().collect();
            let slabs: Vec<Slab<'_>> = list.iter().map(slab).collect();
            for order in [Order::Quickest, Order::Smallest] {
                match uncovered(&slab(&target), &slabs, order, &mut u64::MAX.clone()) {
                    Covered::No(point) => {
                        prop_assert!(inside(&target, &point));
                        prop_assert!(!list.iter().any(|one| inside(one, &point)));
                        if order == Order::Smallest {
                            prop_assert_eq!(Some(point), free(&all));
                        }
                    }
                    Covered::By(core) => {
                        let core: Vec<&Owned> = core.iter().map(|index| &list[*index]).collect();
                        prop_assert_eq!(free(&core), None);
                    }
                    Covered::Unknown => prop_assert!(false, "there were steps enough"),
                }
            }
        }
    }
}
