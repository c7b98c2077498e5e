//! The IPv6 address map: an 8-ary search over interval starts, first on the high half of the address, then, where a
//! zone is longer than /64, on the low half.

use super::{CORRUPT, Lines, word};
use crate::abi::{Ip6, Line, MAX_V6_LEVELS, V6_SUBTREE};

/// Words of a [`crate::abi::V6Tree`] before the level counts.
const COUNTS_AT: u32 = 4;

/// Class of an IPv6 address. [`CORRUPT`] if the set is damaged.
#[inline(always)]
pub(super) fn class6<'a, L: Lines<'a>>(lines: L, realm_record: u32, addr: Ip6) -> u32 {
    let value = search(lines, realm_record, 1, addr.high());
    if value == CORRUPT || value & V6_SUBTREE == 0 {
        return value;
    }
    search(lines, value & !V6_SUBTREE, 0, addr.low())
}

/// The value of the interval that holds `x`, in the tree whose description begins at word `at` of line `tree`.
///
/// The walk takes at most [`MAX_V6_LEVELS`] steps. The index is clamped to each level's line count, so a key of all
/// ones, which equals the padding of a level's last line, ends in the last interval.
#[inline(never)]
fn search<'a, L: Lines<'a>>(lines: L, tree: u32, at: u32, x: u64) -> u32 {
    let Some(head) = lines.line(tree) else { return CORRUPT };
    let at = (at & 1) as usize;
    let (depth, intervals, values, mut base) = (head.w[at], head.w[at + 1], head.w[at + 2], head.w[at + 3]);
    let mut index = 0_u32;
    let mut level = 0_u32;
    while level < depth {
        if level >= MAX_V6_LEVELS as u32 {
            return CORRUPT;
        }
        let count = head.w[(at + COUNTS_AT as usize + level as usize) & 0xf];
        let Some(line) = lines.line(base.wrapping_add(index)) else { return CORRUPT };
        let bound = if level + 1 == depth { intervals } else { head.w[(at + 5 + level as usize) & 0xf] };
        index = (index.wrapping_mul(8)).wrapping_add(not_above(line, x).wrapping_sub(1));
        if index >= bound {
            index = bound.wrapping_sub(1);
        }
        base = base.wrapping_add(count);
        level += 1;
    }
    word(lines, values, index).unwrap_or(CORRUPT)
}

/// How many of a line's eight keys are not above `x`. Without branches: a branchy search over the keys multiplies the
/// verifier's paths. The borrow of `x - key` is Hacker's Delight, section 2-13.
#[inline(always)]
fn not_above(line: &Line, x: u64) -> u32 {
    let mut above = 0_u64;
    let mut n = 0;
    while n < 8 {
        let key = (line.w[2 * n] as u64) | ((line.w[2 * n + 1] as u64) << 32);
        above += ((!x & key) | ((!x | key) & x.wrapping_sub(key))) >> 63;
        n += 1;
    }
    8 - above as u32
}
