//! Which bytes have passed.

use super::{LiveDatagram, MAX_RANGES, Progress, lifetime_ns};
use crate::abi::Shared;

/// Tries to take the lock. Who holds it runs some hundred instructions, so this is enough unless its CPU is taken away.
const LOCK_TRIES: u32 = 64;

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset, bytes: a multiple of 8.
    pub start: u32,
    /// Bytes of payload; not 0, and a multiple of 8 if more follow.
    pub len: u32,
    /// True unless it is the last one.
    pub more: bool,
}

/// What a fragment is to its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[repr(u32)]
pub enum Cover {
    /// None of its bytes passed before; they count as passed now.
    New = 1,
    /// All of its bytes have passed already: it adds nothing and is dropped alone (RFC 8200 section 4.5).
    Duplicate = 2,
    /// It overlaps another fragment, or contradicts the datagram's end, or one did so before: the datagram is lost.
    Overlap = 3,
    /// It would make a ninth range.
    TooMany = 4,
    /// Another CPU holds the datagram.
    Busy = 5,
    /// It is not the first fragment, the first one is not known yet, and the caller does not let it pass early.
    Early = 6,
}

/// Judges a fragment by what has passed of its datagram, and notes it. A datagram that is over (its time, or all its
/// bytes have passed) begins anew.
///
/// `now`: coarse monotonic time, ns. `early`: whether fragments before the first one may pass. `cas` is the caller's
/// compare-and-swap: (cell, old, new). Two CPUs never pass overlapping bytes, because one lock covers the ranges. The
/// ranges are exchanged too: if the LRU map has given the entry to another datagram meanwhile, whose ranges are others,
/// nothing is written.
#[inline(always)]
pub fn arrive(
    d: &LiveDatagram,
    piece: Piece,
    (family, early): (u8, bool),
    now: u64,
    scan: &mut Scan,
    cas: impl Fn(&Shared<u32>, u32, u32) -> bool + Copy,
) -> Cover {
    let mut tries = 0;
    while !cas(&d.lock, 0, 1) {
        tries += 1;
        if tries == LOCK_TRIES {
            return Cover::Busy;
        }
    }
    let over = now.saturating_sub(d.created.load()) > lifetime_ns(family);
    if over || d.progress.load() == Progress::COMPLETE {
        restart(d, now);
    }
    let cover = if d.progress.load() == Progress::POISONED {
        Cover::Overlap
    } else if piece.start != 0 && !early && !d.first().known() {
        Cover::Early
    } else {
        note(d, piece, scan, cas)
    };
    if matches!(cover, Cover::Overlap) {
        d.progress.store(Progress::POISONED);
    }
    // Fails only if the entry is another datagram's by now.
    let _still_ours = cas(&d.lock, 1, 0);
    cover
}

/// Forgets a datagram that is over.
#[inline(always)]
fn restart(d: &LiveDatagram, now: u64) {
    let mut index = 0;
    while index < MAX_RANGES {
        d.ranges[index].store(0);
        index += 1;
    }
    d.first.store(0);
    d.end.store(0);
    d.ports.store(0);
    d.progress.store(Progress::OPEN);
    d.created.store(now);
}

/// What a scan over the ranges finds of a piece. It lies in scratch memory, where a verifier forgets what each step has found
/// and does not follow all combinations. Slots count from 1; 0: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// The piece, in units of 8 bytes: start ...
    pub start: u32,
    /// ... and end.
    pub end: u32,
    /// 1 if the piece lies inside of a range.
    pub inside: u32,
    /// 1 if it shares bytes with a range.
    pub shares: u32,
    /// The range that ends where the piece starts.
    pub left: u32,
    /// The range that starts where the piece ends.
    pub right: u32,
    /// An empty slot.
    pub free: u32,
    /// 1 if a range ends behind the piece's end.
    pub beyond: u32,
}

impl Scan {
    /// All zero.
    pub const EMPTY: Self = Self {
        start: 0,
        end: 0,
        inside: 0,
        shares: 0,
        left: 0,
        right: 0,
        free: 0,
        beyond: 0,
    };
}

/// Compares the piece in `found` with every range.
#[inline(always)]
fn scan(d: &LiveDatagram, found: &mut Scan) {
    // Of constants LLVM makes a call of memset, which writes byte by byte on this target.
    let zero = core::hint::black_box(0_u32);
    found.inside = zero;
    found.shares = zero;
    found.left = zero;
    found.right = zero;
    found.free = zero;
    found.beyond = zero;
    let mut index = 0;
    while index < MAX_RANGES as u32 {
        compare(d, index, found);
        index += 1;
    }
}

/// Compares the piece with one range. A function of its own, so that the eight of them do not share registers.
#[inline(never)]
fn compare(d: &LiveDatagram, index: u32, found: &mut Scan) {
    let word = d.ranges[index as usize & (MAX_RANGES - 1)].load();
    let slot = index + 1;
    if word == 0 {
        found.free = slot;
        return;
    }
    let (from, to) = (word >> 16, word & 0xffff);
    let (start, end) = (found.start, found.end);
    if from <= start && end <= to {
        found.inside = 1;
    }
    if start < to && from < end {
        found.shares = 1;
    }
    if to == start {
        found.left = slot;
    }
    if from == end {
        found.right = slot;
    }
    if end < to {
        found.beyond = 1;
    }
}

/// Notes a piece of an open datagram. The caller holds the lock.
#[inline(always)]
fn note(
    d: &LiveDatagram,
    piece: Piece,
    found: &mut Scan,
    cas: impl Fn(&Shared<u32>, u32, u32) -> bool + Copy,
) -> Cover {
    let bytes = piece.start + piece.len;
    found.start = piece.start / 8;
    found.end = bytes.div_ceil(8);
    let known = d.end.load();
    scan(d, found);
    let contradicts = if piece.more {
        known != 0 && bytes > known
    } else {
        (known != 0 && bytes != known) || found.beyond != 0
    };
    if contradicts {
        return Cover::Overlap;
    }
    if found.inside != 0 {
        // The last fragment cannot be the copy of one after which more follow.
        return if piece.more || known != 0 {
            Cover::Duplicate
        } else {
            Cover::Overlap
        };
    }
    if found.shares != 0 {
        return Cover::Overlap;
    }
    if found.left == 0 && found.right == 0 && found.free == 0 {
        return Cover::TooMany;
    }
    let Some(whole) = claim(d, found, cas) else {
        return Cover::Busy;
    };
    let total = if piece.more { known } else { bytes };
    if !piece.more {
        d.end.store(bytes);
    }
    // One range from the start to the end: complete.
    if total != 0 && whole == total.div_ceil(8) {
        d.progress.store(Progress::COMPLETE);
    }
    Cover::New
}

/// The cell of a slot that a scan has found.
#[inline(always)]
fn cell(d: &LiveDatagram, slot: u32) -> &Shared<u32> {
    &d.ranges[slot.wrapping_sub(1) as usize & (MAX_RANGES - 1)]
}

/// Adds the piece to the ranges: extends a neighbour, joins two, or takes an empty slot. Returns the range that holds it, or
/// `None` if the entry has become another datagram's.
#[inline(always)]
fn claim(d: &LiveDatagram, found: &Scan, cas: impl Fn(&Shared<u32>, u32, u32) -> bool + Copy) -> Option<u32> {
    let (mut from, mut to, mut slot) = (found.start, found.end, found.free);
    if found.right != 0 {
        to = cell(d, found.right).load() & 0xffff;
        slot = found.right;
    }
    if found.left != 0 {
        from = cell(d, found.left).load() >> 16;
        slot = found.left;
    }
    let target = cell(d, slot);
    let whole = (from << 16) | to;
    if !cas(target, target.load(), whole) {
        return None;
    }
    if found.left != 0 && found.right != 0 {
        cell(d, found.right).store(0);
    }
    Some(whole)
}
