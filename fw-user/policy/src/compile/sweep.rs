//! Cuts an address space where prefixes begin and end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::classes::Bits;
use crate::model::ZoneIndex;

/// A prefix of a zone, as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    first: u128,
    last: u128,
    zone: ZoneIndex,
    /// What wins where ranges overlap: the policy's zones before built-in ones, then the longest prefix, then the zone
    /// that stands first.
    rank: Rank,
}

type Rank = (bool, Reverse<u8>, ZoneIndex);

impl Range {
    pub(super) fn new(prefix: IpNet, zone: ZoneIndex, built_in: bool) -> Self {
        let (first, last) = match prefix {
            IpNet::V4(net) => (
                u128::from(u32::from(net.network())),
                u128::from(u32::from(net.broadcast())),
            ),
            IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast())),
        };
        Self {
            first,
            last,
            zone,
            rank: (built_in, Reverse(prefix.prefix_len()), zone),
        }
    }
}

/// Calls `piece` for every piece of the space `0..=max` in order: its first address, the zones whose ranges hold it, and
/// the one that wins. Neighbouring pieces may be equal.
pub(super) fn sweep<E>(
    ranges: &[Range],
    zones: usize,
    max: u128,
    mut piece: impl FnMut(u128, &Bits, Option<ZoneIndex>) -> Result<(), E>,
) -> Result<(), E> {
    let mut cuts: Vec<(u128, bool, usize)> = Vec::with_capacity(ranges.len() * 2);
    for (index, range) in ranges.iter().enumerate() {
        cuts.push((range.first, true, index));
        if range.last < max {
            cuts.push((range.last + 1, false, index));
        }
    }
    cuts.sort_unstable();
    let mut open = Open {
        counts: vec![0; zones],
        bits: Bits::new(zones),
        ranks: BTreeMap::new(),
    };
    let mut next = 0;
    let mut at = 0;
    loop {
        while let Some((_, begins, index)) = cuts.get(next).filter(|(place, _, _)| *place == at) {
            open.change(&ranges[*index], *begins);
            next += 1;
        }
        piece(
            at,
            &open.bits,
            open.ranks.first_key_value().map(|(rank, _)| rank.2),
        )?;
        match cuts.get(next) {
            Some((place, _, _)) => at = *place,
            None => return Ok(()),
        }
    }
}

/// The ranges that hold the current place.
struct Open {
    /// By zone: how many of its ranges are open.
    counts: Vec<u32>,
    bits: Bits,
    ranks: BTreeMap<Rank, u32>,
}

impl Open {
    fn change(&mut self, range: &Range, begins: bool) {
        let count = &mut self.counts[range.zone];
        if begins {
            *count += 1;
            self.bits.set(range.zone, true);
            *self.ranks.entry(range.rank).or_default() += 1;
            return;
        }
        *count -= 1;
        let closed = *count == 0;
        if closed {
            self.bits.set(range.zone, false);
        }
        if let Some(same) = self.ranks.get_mut(&range.rank) {
            *same -= 1;
            if *same == 0 {
                self.ranks.remove(&range.rank);
            }
        }
    }
}
