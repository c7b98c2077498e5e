//! Cuts an address space where prefixes begin and end. Prefixes lie in each other or beside each other, never across, so one
//! stack holds those that are open.

use ipnet::IpNet;

use crate::model::ZoneIndex;

/// An address as a number.
pub(super) trait Place: Copy + Ord {
    /// The lowest.
    const MIN: Self;
    /// The highest.
    const MAX: Self;

    /// The next higher one; of the highest anything.
    fn next(self) -> Self;
}

impl Place for u32 {
    const MIN: Self = 0;
    const MAX: Self = Self::MAX;

    fn next(self) -> Self {
        self.wrapping_add(1)
    }
}

impl Place for u128 {
    const MIN: Self = 0;
    const MAX: Self = Self::MAX;

    fn next(self) -> Self {
        self.wrapping_add(1)
    }
}

/// A prefix of a zone, as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range<P> {
    first: P,
    last: P,
    pub(super) zone: u32,
    pub(super) length: u8,
    pub(super) built_in: bool,
}

/// A prefix in the list of its family.
pub(super) fn add(
    prefix: IpNet,
    (zone, built_in): (ZoneIndex, bool),
    v4: &mut Vec<Range<u32>>,
    v6: &mut Vec<Range<u128>>,
) {
    let zone = zone as u32;
    let length = prefix.prefix_len();
    match prefix {
        IpNet::V4(net) => v4.push(Range {
            first: net.network().into(),
            last: net.broadcast().into(),
            zone,
            length,
            built_in,
        }),
        IpNet::V6(net) => v6.push(Range {
            first: net.network().into(),
            last: net.broadcast().into(),
            zone,
            length,
            built_in,
        }),
    }
}

/// Calls `piece` for every piece of the address space in order, with its first address and the state of the ranges that hold
/// it: `outermost` where none does, else what `enter` made of the state around the innermost range. Of equal ranges that of
/// the zone that stands first is the outer one. Neighbouring pieces may be equal. Both are handed `context`.
pub(super) fn sweep<C, P: Place, S: Copy, E>(
    ranges: &mut [Range<P>],
    context: &mut C,
    outermost: S,
    enter: impl Fn(&mut C, S, &Range<P>) -> S,
    piece: impl Fn(&mut C, P, S) -> Result<(), E>,
) -> Result<(), E> {
    // Stable, because that sort is quick where long runs are in order: each zone's prefixes are.
    ranges.sort_by_key(|range| (range.first, range.length, range.zone));
    let mut open: Vec<(P, S)> = Vec::new();
    let mut at = P::MIN;
    for range in ranges.iter() {
        while let Some((last, state)) = open.pop_if(|(last, _)| *last < range.first) {
            if at <= last {
                piece(context, at, state)?;
                at = last.next();
            }
        }
        let around = open.last().map_or(outermost, |(_, state)| *state);
        if at < range.first {
            piece(context, at, around)?;
            at = range.first;
        }
        open.push((range.last, enter(context, around, range)));
    }
    while let Some((last, state)) = open.pop() {
        if at <= last {
            piece(context, at, state)?;
            if last == P::MAX {
                return Ok(());
            }
            at = last.next();
        }
    }
    piece(context, at, outermost)
}
