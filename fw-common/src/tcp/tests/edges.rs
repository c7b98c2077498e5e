//! Borders that no connection of the other tests happens to touch: the last number that counts, and the next one.

use super::{ACK, BAD_ACK, BAD_RST, FIN, OUT, RST, SYN, Walk, data, segment};
use crate::abi::{Reason, StateWord};
use crate::tcp::window::{Numbers, REACH, widest};
use crate::tcp::{Outcome, Segment, State, picked_up, picked_up_numbers};

/// A handshake up to the answer: the opener begins at 1000, the other side at `isn`.
fn answered(isn: u32) -> Walk {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    walk.passes(true, segment(SYN | ACK, isn, 1001), State::SynRecv);
    walk
}

#[test]
fn a_syn_that_comes_again_waits_as_long_as_the_first() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    assert_eq!(walk.timeout_s(), 120);
    walk.passes(false, segment(SYN, 1000, 0), State::SynSent);
    assert_eq!(walk.timeout_s(), 120);
}

/// Near is 2^24 bytes, on both sides of what the other side has sent.
#[test]
fn an_acknowledgement_near_the_end_confirms() {
    let near = 1 << 24;
    for (ack, confirms) in [
        (1000 + near, true),
        (1001 + near, false),
        (1000_u32.wrapping_sub(near), true),
        (999_u32.wrapping_sub(near), false),
        (999, true),
        (1001, true),
    ] {
        for reply in [false, true] {
            let numbers = picked_up_numbers(segment(ACK, 1000, 2000));
            let (word, own) = (picked_up(reply), segment(ACK, 2000, ack));
            let confirmed = super::super::common(word, !reply, own, numbers.0);
            assert_eq!(confirmed.has(StateWord::CONFIRMED), confirms, "{ack}");
            assert_eq!(super::super::common(word, reply, own, numbers.0), word);
        }
    }
}

#[test]
fn what_is_not_confirmed_closes_soon() {
    let numbers = picked_up_numbers(segment(ACK, 1000, 2000));
    let mut walk = Walk {
        word: picked_up(false),
        halves: [numbers.0, numbers.1],
        answer: 0,
        loose: true,
    };
    walk.passes(false, segment(FIN | ACK, 1000, 2000), State::FinWait);
    assert_eq!(walk.timeout_s(), 60);
    walk.passes(false, segment(RST, 1000, 0), State::Close);
    assert_eq!(walk.timeout_s(), 10);
    let word = walk.word;
    assert_eq!(
        walk.send(true, segment(ACK, 2000, 1001)),
        Outcome::Pass(word),
        "what is over stays as it was"
    );
}

/// A copy of a SYN comes at most 2^26 bytes late; a stranger one is remembered for its answer.
#[test]
fn a_late_copy_of_a_syn_is_no_new_one() {
    let recent = 1 << 26;
    let mut walk = Walk::established();
    walk.ignored(false, segment(SYN, 0_u32.wrapping_sub(recent), 0));
    assert_eq!(walk.answer, 0);
    let strange = 0_u32.wrapping_sub(recent + 1);
    walk.ignored(false, segment(SYN, strange, 0));
    assert_eq!(walk.answer, strange.wrapping_add(1));
    // The answer to it: a late copy of the first answer says nothing, a wrong acknowledgement neither.
    let answer = walk.answer;
    walk.ignored(true, segment(SYN | ACK, 501_u32.wrapping_sub(recent), answer));
    walk.ignored(true, segment(SYN | ACK, 0x3000_0000, answer.wrapping_add(1)));
    assert_eq!(
        walk.send(true, segment(SYN | ACK, 500_u32.wrapping_sub(recent), answer)),
        Outcome::End(Reason::TcpInvalid)
    );
    // Nothing was asked: nothing is answered, also not number 0.
    let mut walk = Walk::established();
    walk.ignored(true, segment(SYN | ACK, 0x3000_0000, 0));
}

/// Only a reset with ACK can refuse a SYN that passed, and only if one has.
#[test]
fn a_refusal_names_the_syn_that_passed() {
    let mut walk = Walk::established();
    assert_eq!(walk.send(true, segment(RST | ACK, 0x7000_0000, 0)), BAD_RST);
    walk.ignored(false, segment(SYN, 9_000_000, 0));
    assert_eq!(walk.send(true, segment(RST, 0x7000_0000, 9_000_001)), BAD_RST);
    assert_eq!(
        walk.send(true, segment(RST | ACK, 0x7000_0000, 9_000_002)),
        BAD_RST
    );
    assert_eq!(
        walk.send(false, segment(RST | ACK, 0x7000_0000, 9_000_001)),
        BAD_RST
    );
    walk.ignored(true, segment(RST | ACK, 0x7000_0000, 9_000_001));
}

#[test]
fn the_opener_takes_its_syn_back_with_or_without_its_data() {
    let syn = Segment {
        payload: 100,
        ..segment(SYN, 1000, 0)
    };
    for seq in [1001, 1101] {
        let mut walk = Walk::open(syn);
        assert_eq!(walk.send(false, segment(RST, seq + 1, 0)), BAD_RST);
        walk.passes(false, segment(RST, seq, 0), State::Close);
    }
}

#[test]
fn a_reset_of_an_answer_is_exact_or_refuses_the_syn() {
    let mut early = answered(5000);
    for number in [5001_u32.wrapping_sub(1 << 20), 4000, 5000] {
        assert_eq!(early.send(true, segment(RST, number, 0)), BAD_RST, "{number}");
    }
    early.ignored(true, segment(RST, 5002, 0));
    let isn = 0x3000_0000;
    for close in [isn + 1, isn + 11] {
        let mut walk = answered(isn);
        walk.passes(true, data(isn + 1, 1001, 10), State::SynRecv);
        for (flags, seq, ack) in [(RST, 0, 1001), (RST | ACK, 0, 9), (RST | ACK, 5, 1001)] {
            assert_eq!(walk.send(true, segment(flags, seq, ack)), BAD_RST);
        }
        walk.ignored(true, segment(RST | ACK, 0, 1001));
        walk.ignored(true, segment(RST, isn + 5, 0));
        walk.passes(true, segment(RST, close, 0), State::Close);
    }
}

#[test]
fn another_answer_replaces_the_first_and_the_same_does_not() {
    let mut walk = answered(500);
    walk.passes(true, data(501, 1001, 100), State::SynRecv);
    let wide = Segment {
        window: 9000,
        ..segment(ACK, 601, 1001)
    };
    walk.passes(true, wide, State::SynRecv);
    let before = walk.halves[1];
    walk.passes(true, segment(SYN | ACK, 500, 1001), State::SynRecv);
    assert_eq!(walk.halves[1], before);
    walk.passes(true, segment(SYN | ACK, 100, 1001), State::SynRecv);
    assert_eq!((walk.halves[1].end, walk.halves[1].edge), (101, 2001));
    assert_eq!(walk.answer, 101);
}

/// What overtakes a SYN-ACK counts if it is at most the largest window that is not scaled.
#[test]
fn data_that_overtakes_the_answer() {
    for (bytes, end) in [(1, 9), (0xffff, 0x1_0007), (0x1_0000, 8)] {
        let mut walk = Walk::open(segment(SYN, 1000, 0));
        let word = walk.word;
        assert_eq!(walk.send(true, data(8, 1001, bytes)), Outcome::Pass(word));
        walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
        assert_eq!(walk.halves[1].end, end);
    }
    // Nothing has overtaken this one, which begins just before the numbers wrap.
    assert_eq!(answered(u32::MAX - 1).halves[1].end, u32::MAX);
}

/// The answering side has finished before the opener has acknowledged anything.
#[test]
fn an_early_fin_is_acknowledged_with_the_answer() {
    for (flags, ack, then) in [
        (ACK, 502, State::CloseWait),
        (ACK, 501, State::FinWait),
        (FIN | ACK, 502, State::LastAck),
        (FIN | ACK, 501, State::LastAck),
    ] {
        let mut walk = answered(500);
        walk.passes(true, segment(FIN | ACK, 501, 1001), State::SynRecv);
        walk.passes(false, segment(flags, 1001, ack), then);
    }
}

#[test]
fn loose_opens_whatever_the_window() {
    let mut walk = answered(500);
    assert_eq!(walk.send(true, data(90_000_000, 1001, 1)), OUT);
    assert_eq!(walk.send(false, data(90_000_000, 501, 1)), OUT);
    walk.loose = true;
    walk.passes(true, data(90_000_000, 1001, 1), State::SynRecv);
    walk.passes(false, data(90_000_000, 501, 1), State::Established);
    let mut walk = answered(500);
    walk.loose = true;
    assert_eq!(walk.send(true, data(501, 1000, 1)), BAD_ACK);
    assert_eq!(walk.send(false, data(1001, 500, 1)), BAD_ACK);
}

#[test]
fn the_wider_reach_is_kept_with_the_own_bits() {
    assert_eq!(widest(64 | 5, 128 | 9), 128 | 5);
    assert_eq!(widest(128 | 5, 64 | 9), 128 | 5);
    assert_eq!(widest(64 | 5, 64 | 9), 64 | 5);
}

/// Twice the window, the next multiple of 64 above it, a quarter of the numbers at most.
#[test]
fn the_reach_is_twice_the_window() {
    let least = Numbers::opening(segment(SYN, 0, 0), 1, 0).reach();
    let of = |scale: u32, window: u16| {
        let own = Numbers {
            window: super::SCALED | scale,
            ..Numbers::default()
        };
        let told = Segment {
            window,
            ..segment(ACK, 0, 0)
        };
        own.after(told, own).reach()
    };
    assert!(least >= 66_000 && least.is_multiple_of(64));
    assert_eq!((of(0, 0), of(7, 0)), (least, least));
    assert_eq!(of(10, 5000), (10_240_000 + 64) & REACH);
    assert_eq!(of(14, u16::MAX), 1 << 30);
    assert_eq!(of(13, u16::MAX), (65_535 << 14) + 64);
    assert_eq!(of(12, u16::MAX), (65_535 << 13) + 64);
}

/// Both scales are taken for the largest, and what the other side offers for a gigabyte.
#[test]
fn the_numbers_of_a_connection_that_was_picked_up() {
    let unknown = super::SCALED | super::MAX_SHIFT | super::SACK_PERMITTED;
    let (own, peer) = picked_up_numbers(data(1000, 2000, 10));
    assert_eq!(
        own,
        Numbers {
            end: 1010,
            ack: 2000,
            edge: 2000 + (1000 << 14),
            window: ((1000 << 15) + 64) | unknown,
        }
    );
    assert_eq!(
        peer,
        Numbers {
            end: 2000,
            ack: 1000,
            edge: 1010 + (1 << 30),
            window: 1 << 30 | unknown,
        }
    );
}
