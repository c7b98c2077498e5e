//! Options of all kinds, and bytes that are none.

use std::vec;
use std::vec::Vec;

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
        (&[1, 1, 1, 3, 3, 14, 0, 0], SCALED | MAX_SHIFT),
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

/// The option's length says how many blocks there are (RFC 2018 section 3); what follows the option is another one.
#[test]
fn blocks_end_where_their_option_does() {
    let one = [5, 10, 0, 0, 0, 10, 0, 0, 0, 20];
    let stamps = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 1, 0];
    let options: Vec<u8> = one.into_iter().chain(stamps).collect();
    assert_eq!(parsed(ACK, 5, &options), (0, 20));
    let two = [5, 18, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40];
    let options: Vec<u8> = two.into_iter().chain(stamps).collect();
    assert_eq!(parsed(ACK, 5, &options), (0, 40));
}
