//! The IPv6 address map: an 8-ary search over interval starts, first on the high half of the address, then, where a
//! zone is longer than /64, on the low half.

use core::hint::black_box;

use super::{CORRUPT, Lines, word};
use crate::abi::{Ip6, Line, MAX_V6_LEVELS, V6_SUBTREE};

/// Words of a [`crate::abi::V6Tree`] before the level counts.
const COUNTS_AT: usize = 4;

/// Where a walk stands. It lies in memory, not in registers: what the verifier reads back from a map value is an unknown
/// number, so all paths through one level look alike to it and are followed once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// What is looked for.
    pub x: u64,
    /// First line of the level.
    pub base: u32,
    /// Line in the level, then the interval, at last the result.
    pub index: u32,
    /// Line of the tree's description.
    pub tree: u32,
    /// Word of that line where the description begins: 1 in a realm record, else 0.
    pub at: u32,
    /// Line of the realm record; [`Lines::class6`] begins there.
    pub realm: u32,
    /// Always 0.
    pub pad: u32,
    /// The low half of the address.
    pub low: u64,
}

/// Class of an IPv6 address. [`CORRUPT`] if the set is damaged.
#[inline(always)]
pub(super) fn class6<'a, L: Lines<'a>>(lines: L, realm_record: u32, addr: Ip6, walk: &mut Walk) -> u32 {
    walk.x = addr.high();
    walk.low = addr.low();
    walk.realm = realm_record;
    lines.class6(walk);
    walk.index
}

/// The walk for the address in `walk.x` and `walk.low`; the class goes into `walk.index`.
#[inline(always)]
pub fn walk6<'a, L: Lines<'a>>(lines: L, walk: &mut Walk) {
    let (high, realm) = (walk.x, walk.realm);
    begin(walk, high, realm, 1);
    search(lines, walk);
    let value = walk.index;
    if value == CORRUPT || value & V6_SUBTREE == 0 {
        return;
    }
    let low = walk.low;
    begin(walk, low, value & !V6_SUBTREE, 0);
    search(lines, walk);
}

/// Sets a walk at the root of a tree.
#[inline(always)]
fn begin(walk: &mut Walk, x: u64, tree: u32, at: u32) {
    walk.x = x;
    walk.base = 0;
    walk.index = 0;
    walk.tree = tree;
    walk.at = at;
}

/// The value of the interval that holds `walk.x`, into `walk.index`, in the tree whose description begins at word `walk.at` of line
/// `walk.tree`.
///
/// The walk takes at most [`MAX_V6_LEVELS`] steps. The index is clamped to each level's line count, so a key of all
/// ones, which equals the padding of a level's last line, ends in the last interval.
#[inline(never)]
fn search<'a, L: Lines<'a>>(lines: L, walk: &mut Walk) {
    walk.index = descend(lines, walk);
}

#[inline(always)]
fn descend<'a, L: Lines<'a>>(lines: L, walk: &mut Walk) -> u32 {
    let Some(head) = lines.line(walk.tree) else {
        return CORRUPT;
    };
    let at = (walk.at & 1) as usize;
    walk.base = head.w[at + 3];
    let mut level = 0;
    while level < MAX_V6_LEVELS {
        let walk = black_box(&mut *walk);
        let depth = head.w[at] as usize;
        if level >= depth {
            break;
        }
        let Some(line) = lines.line(walk.base.wrapping_add(walk.index)) else {
            return CORRUPT;
        };
        let last = level + 1 == depth;
        let bound = if last {
            head.w[at + 1]
        } else {
            head.w[(at + COUNTS_AT + 1 + level) & 0xf]
        };
        let index = walk
            .index
            .wrapping_mul(8)
            .wrapping_add(not_above(line, walk.x).wrapping_sub(1));
        walk.index = min(index, bound.wrapping_sub(1));
        walk.base = walk.base.wrapping_add(head.w[(at + COUNTS_AT + level) & 0xf]);
        level += 1;
    }
    let walk = black_box(walk);
    word(lines, head.w[at + 2], walk.index).unwrap_or(CORRUPT)
}

/// The smaller of two numbers, without a branch.
#[inline(always)]
fn min(a: u32, b: u32) -> u32 {
    let (a, b) = (a as u64, b as u64);
    let less = (a.wrapping_sub(b).cast_signed() >> 63).cast_unsigned();
    ((a & less) | (b & !less)) as u32
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
