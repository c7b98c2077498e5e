//! Limits of rules: which buckets a packet draws from, and whether they have enough.

use super::{Scratch, Tables, admit};
use crate::abi::{LimitKind, LimitPer, MAX_LIMITS, Reason};
use crate::classify;
use crate::limit::{self, Rate, Taken};

/// What a packet draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// It opens a flow: limits of all kinds.
    Opening,
    /// It belongs to a flow, or to none (`track: false`): limits on packets and bytes.
    Passing,
}

/// Draws from all limits of the rule in `s.class`. The packet's own addresses count as source and destination, unless
/// `s.reversed` says that it comes from the answering side. 0: within all limits; else the number of the reason to drop.
///
/// What one limit has given is not taken back if the next one refuses: a sender over one limit does not get more of another.
#[inline(always)]
pub(super) fn draw<'a, T: Tables<'a>>(t: T, s: &mut Scratch, draw: Draw) -> u32 {
    let Some(lines) = t.lines_in_place(s.generation) else {
        return Reason::TableCorrupt as u32;
    };
    let (first, count) = (s.class.rule_limits >> 8, s.class.rule_limits & 0xff);
    let mut index = 0;
    while index < MAX_LIMITS {
        if index >= count {
            break;
        }
        let refused = one::<T>(t, s, lines, first.wrapping_add(index), draw);
        if refused != 0 {
            return refused;
        }
        index += 1;
    }
    0
}

#[inline(always)]
fn one<'a, T: Tables<'a>>(t: T, s: &mut Scratch, lines: T::Lines, number: u32, draw: Draw) -> u32 {
    let Some(record) = classify::limit(lines, number) else {
        return Reason::TableCorrupt as u32;
    };
    let (id, what) = (record.word(0), record.word(1));
    let kind = what & 0xff;
    let opening = matches!(draw, Draw::Opening);
    let (units, reason) = match kind {
        k if k == LimitKind::Packets as u32 => (s.meta.segments, Reason::LimitPackets),
        k if k == LimitKind::Bytes as u32 => (s.meta.wire_bytes, Reason::LimitBytes),
        k if k == LimitKind::NewFlows as u32 => (1, Reason::LimitNewFlows),
        _ => (1, Reason::LimitFlows),
    };
    if !opening && kind >= LimitKind::NewFlows as u32 {
        return 0;
    }
    key(s, id, what);
    let rate = rate_of(record);
    let within = if kind == LimitKind::Flows as u32 {
        flows(t, s, rate.mantissa)
    } else {
        within(t, s, rate, units)
    };
    if within { 0 } else { reason as u32 }
}

/// The rate of limit record `number`.
#[inline(always)]
pub(super) fn rate<'a, L: classify::Lines<'a>>(lines: L, number: u32) -> Option<Rate> {
    classify::limit(lines, number).map(rate_of)
}

#[inline(always)]
fn rate_of(record: classify::LimitWords) -> Rate {
    Rate {
        mantissa: record.word(2),
        shift: record.word(3),
        burst: (u64::from(record.word(5)) << 32) | u64::from(record.word(4)),
    }
}

/// Makes the key of the bucket.
#[inline(always)]
fn key(s: &mut Scratch, id: u32, what: u32) {
    let per = what >> 8 & 0xff;
    let prefix = if s.meta.family == 4 {
        what >> 16 & 0xff
    } else {
        what >> 24
    };
    let (by_source, by_destination) = (
        per == LimitPer::Source as u32 || per == LimitPer::Pair as u32,
        per == LimitPer::Destination as u32 || per == LimitPer::Pair as u32,
    );
    s.limit_key.limit = id;
    s.limit_key.realm = if by_source || by_destination {
        s.meta.realm | (u32::from(s.meta.family) << 24)
    } else {
        0
    };
    let swap = s.reversed != 0;
    let mut word = 0;
    while word < 4 {
        let (src, dst) = (s.meta.src[word as usize], s.meta.dst[word as usize]);
        let (from, to) = if swap { (dst, src) } else { (src, dst) };
        let mask = mask(prefix, word);
        s.limit_key.a[word as usize] = if by_source {
            from & mask
        } else if by_destination {
            to & mask
        } else {
            0
        };
        s.limit_key.b[word as usize] = if by_source && by_destination { to & mask } else { 0 };
        word += 1;
    }
}

/// The part of a prefix's mask that falls into this word.
#[inline(always)]
const fn mask(prefix: u32, word: u32) -> u32 {
    let bits = prefix.saturating_sub(32 * word);
    if bits == 0 {
        0
    } else if bits >= 32 {
        u32::MAX
    } else {
        u32::MAX << (32 - bits)
    }
}

/// Draws `units` from the bucket of the key in `s`. A bucket that cannot be made is an empty one: it refuses.
#[inline(always)]
fn within<'a, T: Tables<'a>>(t: T, s: &mut Scratch, rate: Rate, units: u32) -> bool {
    let (now, cost) = (t.precise(), rate.cost(units));
    if t.dry_run() {
        // A bucket that is not there yet is made unused; even so a packet may cost more than the burst.
        let arrival = t.bucket(&s.limit_key).map_or(0, crate::abi::Shared::load);
        return limit::admit(arrival, now, cost, rate.burst).is_some();
    }
    let Some(bucket) = bucket(t, s) else {
        return false;
    };
    let taken = limit::take(bucket, now, cost, rate.burst, |cell, old, new| {
        t.swap64(cell, old, new)
    });
    matches!(taken, Taken::Admitted)
}

/// The bucket of the key in `s`, made if need be.
#[inline(always)]
fn bucket<'a, T: Tables<'a>>(t: T, s: &Scratch) -> Option<&'a crate::abi::Shared<u64>> {
    if let Some(bucket) = t.bucket(&s.limit_key) {
        return Some(bucket);
    }
    let _exists_now = t.insert_bucket(&s.limit_key, 0);
    t.bucket(&s.limit_key)
}

/// Counts one more flow at a time, up to `most`. The agent writes down what it finds in the tables: see ARCHITECTURE.md,
/// "counts that the agent mends".
#[inline(always)]
fn flows<'a, T: Tables<'a>>(t: T, s: &Scratch, most: u32) -> bool {
    if t.dry_run() {
        return t
            .bucket(&s.limit_key)
            .is_none_or(|count| count.load() < u64::from(most) || !admit::agent_alive(t));
    }
    let Some(count) = bucket(t, s) else {
        return false;
    };
    // While no agent counts, the number only grows.
    if count.load() >= u64::from(most) && admit::agent_alive(t) {
        return false;
    }
    t.add64(count, 1);
    true
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn masks_are_those_of_the_prefix() {
        assert_eq!(mask(24, 0), 0xffff_ff00);
        assert_eq!(mask(0, 0), 0);
        assert_eq!((mask(64, 0), mask(64, 1), mask(64, 2)), (u32::MAX, u32::MAX, 0));
        assert_eq!((mask(100, 3), mask(128, 3)), (0xf000_0000, u32::MAX));
    }
}
