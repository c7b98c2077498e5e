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
mod tests {
    use super::{MAX_SHIFT, SACK_PERMITTED, SCALED, parse};
    use crate::wire::tcp_flag::{ACK, SYN};
    use crate::wire::{Meta, WINDOW_WORDS};
    use proptest::prelude::*;

    /// Where the TCP header lies in the tests' window.
    const L4: u32 = 9;

    /// What is found in these options: bits and the highest selective acknowledgement above `ack`.
    fn parsed(flags: u8, ack: u32, options: &[u8]) -> (u32, u32) {
        let mut m = Meta::EMPTY;
        m.l4 = L4;
        m.tcp_flags = flags;
        m.ack = ack;
        m.tcp_options = options.len() as u16;
        m.window_end = 4 * (L4 + 5) + options.len() as u32;
        m.window.words = [u32::MAX; WINDOW_WORDS];
        for (at, byte) in options.iter().enumerate() {
            let word = &mut m.window.words[L4 as usize + 5 + at / 4];
            let mut bytes = word.to_ne_bytes();
            bytes[at % 4] = *byte;
            *word = u32::from_ne_bytes(bytes);
        }
        parse(&mut m);
        (m.option_bits, m.sack)
    }

    #[test]
    fn a_syn_tells_scale_and_sack() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(parsed(SYN, 0, &linux), (SACK_PERMITTED | SCALED | 7, 0));
        for (options, bits) in [
            (&[][..], 0),
            (&[1, 1, 1, 3, 3, 14, 0, 0], SCALED | 14),
            (&[3, 3, 255, 1], SCALED | MAX_SHIFT),
            (&[4, 2, 0, 3, 3, 5], SACK_PERMITTED),
            (&[3, 4, 5, 5, 4, 3, 1, 1], 0),
            (&[3, 3, 2, 3, 3, 5, 1, 1], SCALED | 5),
        ] {
            assert_eq!(parsed(SYN, 0, options).0, bits, "{options:?}");
        }
        assert_eq!(parsed(ACK, 0, &linux).0, 0, "only a SYN offers");
    }

    /// RFC 9293 section 3.2 knows no option shorter than two bytes but the first two; a broken one ends the parsing.
    #[test]
    fn broken_options_end_the_parsing() {
        for options in [
            &[9, 0, 4, 2][..],
            &[9, 1, 4, 2],
            &[9, 9, 4, 2],
            &[4, 3],
            &[3],
            &[0, 0, 4, 2],
        ] {
            assert_eq!(parsed(SYN, 0, options).0, 0, "{options:?}");
        }
        assert_eq!(parsed(SYN, 0, &[1; 40]).0, 0);
    }

    fn blocks(edges: &[(u32, u32)]) -> Vec<u8> {
        let mut option = vec![1, 1, 5, 2 + 8 * edges.len() as u8];
        for (left, right) in edges {
            option.extend(left.to_be_bytes());
            option.extend(right.to_be_bytes());
        }
        option
    }

    #[test]
    fn the_highest_block_counts() {
        for (edges, highest) in [
            (&[(20, 30)][..], 30),
            (&[(5, 9), (40, 50), (20, 30)], 50),
            (&[(5, 9)], 10),
            (&[(20, 30), (30, 31), (32, 33), (60, 61)], 61),
        ] {
            assert_eq!(parsed(ACK, 10, &blocks(edges)).1, highest, "{edges:?}");
        }
        let wrapped = blocks(&[(u32::MAX - 5, u32::MAX), (2, 7)]);
        assert_eq!(parsed(ACK, u32::MAX - 9, &wrapped).1, 7);
        let mut shifted = vec![8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        shifted.extend(blocks(&[(20, 30), (90, 99)]));
        assert_eq!(parsed(ACK, 10, &shifted).1, 99, "at any byte");
        shifted.pop();
        assert_eq!(parsed(ACK, 10, &shifted).1, 10, "cut off");
    }

    #[test]
    fn options_out_of_sight_are_the_most_lenient() {
        let mut m = Meta::EMPTY;
        m.l4 = L4;
        m.tcp_flags = SYN;
        m.tcp_options = 20;
        m.window_end = 4 * (L4 + 5) + 19;
        parse(&mut m);
        assert_eq!(m.option_bits, SCALED | MAX_SHIFT | SACK_PERMITTED);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(flags in prop::sample::select(vec![SYN, ACK]), options in prop::collection::vec(0..12_u8, 0..=40)) {
            let (bits, sack) = parsed(flags, 7, &options);
            prop_assert!(bits & 0xf <= MAX_SHIFT);
            prop_assert!(flags == SYN && sack == 7 || flags == ACK && bits == 0);
        }
    }
}
