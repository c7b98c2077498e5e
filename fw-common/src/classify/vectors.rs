//! The first rule in sets of vectors: the first bit that is set in all rows of a packet. The layout is told in
//! [`crate::abi::SetHeader`]'s module.

use core::hint::black_box;

use super::{CORRUPT, Lines, word};
use crate::abi::{BLOCK_ATOMS, ExtraRecord, Line, MAX_BLOCKS, PairEntry, ROW_BLOCKS};

/// No atom has this number: none matches.
pub const NOTHING: u32 = u32::MAX - 1;
/// No row has this line: it stands for all atoms.
const EVERY: u32 = 0;

/// What a search looks for, and where it stands: in memory, for the reason of [`super::Walk`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Blocks that no row's aggregate excludes and that were not looked at yet, a bit each; at last the word in which the first
    /// atom was found.
    pub left: u64,
    /// Lines of the packet's rows: source, destination, service, source port. The last may be 0: any atom fits.
    pub rows: [u32; 4],
    /// The first atom in all rows, [`NOTHING`], or [`CORRUPT`].
    pub atom: u32,
    /// Bits of the protocols that were found to be allowed.
    pub protos: u32,
}

/// Searches the rows in `search.rows`; the result goes into `search.atom`.
///
/// At most [`MAX_BLOCKS`] rounds, of at most eight lines each.
#[inline(always)]
pub fn search<'a, L: Lines<'a>>(lines: L, search: &mut Search) {
    search.atom = CORRUPT;
    let Some(left) = candidates(lines, &search.rows) else {
        return;
    };
    search.left = left;
    let mut round = 0;
    while round < MAX_BLOCKS {
        let search = black_box(&mut *search);
        let left = search.left;
        if left == 0 {
            break;
        }
        let block = lowest(left);
        search.left = left & left.wrapping_sub(1);
        if !visit(lines, search, block) {
            found(search);
            return;
        }
        round += 1;
    }
    black_box(search).atom = NOTHING;
}

/// Adds the bit's place in its word. Here and not where it is found: the verifier follows this once, not for each word of
/// each block.
#[inline(always)]
fn found(search: &mut Search) {
    let search = black_box(search);
    if search.atom != CORRUPT {
        search.atom = search.atom.wrapping_add(lowest(search.left));
    }
}

/// Blocks that no row's aggregate excludes.
#[inline(always)]
fn candidates<'a, L: Lines<'a>>(lines: L, rows: &[u32; 4]) -> Option<u64> {
    let (a, b, c) = (lines.line(rows[0])?, lines.line(rows[1])?, lines.line(rows[2])?);
    let common = pair(a, 0) & pair(b, 0) & pair(c, 0);
    if rows[3] == EVERY {
        return Some(common);
    }
    Some(common & pair(lines.line(rows[3])?, 0))
}

/// Looks at a block; false if the search is over: with the first bit of the word in `search.atom`, and the word in
/// `search.left`; or with [`CORRUPT`] in `search.atom`, where nothing else was before.
#[inline(always)]
fn visit<'a, L: Lines<'a>>(lines: L, search: &mut Search, block: u32) -> bool {
    let rows = &search.rows;
    let (Some(a), Some(b), Some(c)) = (
        block_of(lines, rows[0], block),
        block_of(lines, rows[1], block),
        block_of(lines, rows[2], block),
    ) else {
        return false;
    };
    let d = if rows[3] == EVERY {
        c
    } else {
        let Some(d) = block_of(lines, rows[3], block) else {
            return false;
        };
        d
    };
    let mut at = 0;
    while at < 8 {
        let common = pair(a, at) & pair(b, at) & pair(c, at) & pair(d, at);
        if common != 0 {
            search.left = common;
            search.atom = block.wrapping_mul(BLOCK_ATOMS).wrapping_add(at as u32 * 64);
            return false;
        }
        at += 1;
    }
    true
}

/// The line of a row's block.
#[inline(always)]
fn block_of<'a, L: Lines<'a>>(lines: L, row: u32, block: u32) -> Option<&'a Line> {
    lines.line(word(lines, row, block + ROW_BLOCKS)?)
}

/// Words `2 * index` and `2 * index + 1` of a line as one.
#[inline(always)]
fn pair(line: &Line, index: usize) -> u64 {
    (line.w[2 * index] as u64) | ((line.w[2 * index + 1] as u64) << 32)
}

/// Number of the lowest bit that is set; 64 if there is none. Counted below a black box: of the plain word LLVM makes a
/// table, which a kernel program has no place for.
#[inline(always)]
fn lowest(word: u64) -> u32 {
    black_box(word.wrapping_sub(1) & !word).count_ones()
}

/// Which protocols of `wanted` ([`PairEntry::proto_bit`]) some atom lets through between two rows: those of which the
/// first atom that either lets something through or denies the protocol as a whole lets something through.
///
/// An atom that others before it deny piece by piece counts as well: what is asked is whether a fragment may wait for its
/// first one, which is judged by its ports.
#[inline(always)]
pub(super) fn protocols<'a, L: Lines<'a>>(
    lines: L,
    extra: &ExtraRecord,
    (src_row, dst_row): (u32, u32),
    (wanted, passes): (u32, impl Fn(u32) -> bool),
    search: &mut Search,
) -> u32 {
    search.rows[0] = src_row;
    search.rows[1] = dst_row;
    search.rows[3] = EVERY;
    search.protos = 0;
    let mut proto = 0;
    while proto < PairEntry::PROTOS {
        let search = black_box(&mut *search);
        let bit = 1 << (PairEntry::PROTO_SHIFT + proto);
        if wanted & bit != 0 {
            search.rows[2] = extra.proto_rows.wrapping_add(proto.wrapping_mul(extra.stride));
            lines.vectors(search);
            if search.atom < NOTHING
                && let Some(decision) = word(lines, extra.atoms, search.atom)
                && passes(decision)
            {
                search.protos |= bit;
            }
        }
        proto += 1;
    }
    black_box(search).protos
}
