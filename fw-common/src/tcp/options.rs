//! TCP options (RFC 9293 section 3.2): window scale and SACK permitted of a SYN (RFC 7323, 2018), selective
//! acknowledgements of everything else.

use core::hint::black_box;

use super::before;
use super::window::{MAX_SHIFT, SACK_PERMITTED, SCALED};
use crate::wire::{Meta, tcp_flag};

/// Kinds of options (IANA).
mod kind {
    pub const END: u32 = 0;
    pub const NOP: u32 = 1;
    pub const WINDOW_SCALE: u32 = 3;
    pub const SACK_PERMITTED: u32 = 4;
    pub const SACK: u32 = 5;
}

/// The most bytes of options that a header can have.
const MOST: u32 = 40;
/// The most blocks that fit into one SACK option (RFC 2018 section 3).
const MOST_BLOCKS: u32 = 4;
/// A cursor behind everything.
const NONE: u32 = u32::MAX;

/// Parses the options of the packet in `m` into `m.option_bits` (of a SYN) and `m.sack`. Options that do not lie in the
/// window are taken for the most lenient ones: the largest scale, and no selective acknowledgement.
///
/// The cursor lies in memory: what the verifier reads back from a map value is an unknown number, so that each turn of
/// the loop looks like the one before. Malformed options end the parsing, as in `nf_conntrack_proto_tcp.c`.
#[inline(always)]
pub fn parse(m: &mut Meta) {
    let syn = m.tcp_flags & tcp_flag::SYN != 0;
    m.option_bits = 0;
    m.sack = m.ack;
    if !m.holds(m.l4 + 5, m.tcp_options as u32) {
        m.option_bits = if syn {
            MAX_SHIFT | SCALED | SACK_PERMITTED
        } else {
            0
        };
        return;
    }
    m.cursor = 0;
    m.sack_at = NONE;
    let mut turn = 0;
    while turn < MOST {
        let m = black_box(&mut *m);
        if m.cursor >= m.tcp_options as u32 {
            break;
        }
        one(m);
        turn += 1;
    }
    let m = black_box(m);
    if syn {
        m.sack = m.ack;
    } else {
        m.option_bits = 0;
        sack(m);
    }
}

/// Looks at the option at the cursor and moves the cursor behind it: to [`NONE`] at the end and where the option is
/// malformed. What was found is stored at once, so that all paths look alike afterwards.
#[inline(always)]
fn one(m: &mut Meta) {
    let at = m.cursor;
    let head = be32(m, at);
    if head >> 24 == kind::NOP {
        m.cursor = at + 1;
        return;
    }
    let (start, next) = (head >> 16, at + (head >> 16 & 0xff));
    let malformed = next < at + 2 || next > m.tcp_options as u32;
    m.cursor = if head >> 24 == kind::END || malformed {
        NONE
    } else {
        next
    };
    if malformed {
        return;
    }
    if start == kind::WINDOW_SCALE << 8 | 3 {
        m.option_bits = m.option_bits & SACK_PERMITTED | SCALED | shift(head >> 8 & 0xff);
    }
    if start == kind::SACK_PERMITTED << 8 | 2 {
        m.option_bits |= SACK_PERMITTED;
    }
    if head >> 24 == kind::SACK {
        m.sack_at = at;
    }
}

/// A shift; a larger one than the largest legal one is taken for that (RFC 7323 section 2.3).
#[inline(always)]
const fn shift(told: u32) -> u32 {
    if told > MAX_SHIFT { MAX_SHIFT } else { told }
}

/// Moves `m.sack` forward to the highest right edge of the blocks (RFC 2018 section 3) of the option at `m.sack_at`.
#[inline(always)]
fn sack(m: &mut Meta) {
    if m.sack_at == NONE {
        return;
    }
    let mut block = 0;
    while block < MOST_BLOCKS {
        let m = black_box(&mut *m);
        let (at, end) = (m.sack_at, 10 + 8 * block);
        if be32(m, at) >> 16 & 0xff < end {
            break;
        }
        let right = be32(m, at + end - 4);
        if before(m.sack, right) {
            m.sack = right;
        }
        block += 1;
    }
}

/// Four bytes of the options from byte `at` on, wherever they lie.
#[inline(always)]
fn be32(m: &Meta, at: u32) -> u32 {
    let word = 5 + at / 4;
    let both = (m.l4_word(word) as u64) << 32 | m.l4_word(word + 1) as u64;
    (both >> (32 - 8 * (at & 3))) as u32
}

#[cfg(test)]
mod tests;
