//! Walks through connections, rule by rule, and properties of the table.

mod edges;

use super::window::{MAX_SHIFT, Numbers, SACK_PERMITTED, SCALED, later};
use super::{
    Class, Known, Outcome, Segment, State, Step, before, opened, opener, picked_up_numbers, step, table,
};
use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag::{ACK, FIN, RST, SYN};

const OUT: Outcome = Outcome::Drop(Reason::TcpOutOfWindow);
const BAD_ACK: Outcome = Outcome::Drop(Reason::TcpBadAck);
const BAD_RST: Outcome = Outcome::Drop(Reason::RstInvalid);
const INVALID: Outcome = Outcome::Drop(Reason::TcpInvalid);

fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        flags,
        window: 1000,
        seq,
        ack,
        sack: ack,
        payload: 0,
        options: 0,
    }
}

fn data(seq: u32, ack: u32, payload: u32) -> Segment {
    Segment {
        payload,
        ..segment(ACK, seq, ack)
    }
}

/// A flow with both sides' numbers, as the pipeline keeps them.
struct Walk {
    word: StateWord,
    halves: [Numbers; 2],
    answer: u32,
    loose: bool,
}

impl Walk {
    fn open(syn: Segment) -> Self {
        Self {
            word: opened(),
            halves: [opener(syn), Numbers::default()],
            answer: 0,
            loose: false,
        }
    }

    fn send(&mut self, reply: bool, segment: Segment) -> Outcome {
        let known = Known {
            own: self.halves[usize::from(reply)],
            peer: self.halves[usize::from(!reply)],
            answer: self.answer,
            loose: self.loose,
        };
        let judged = step(self.word, reply, segment, &known);
        match judged.outcome {
            Outcome::Pass(word) => {
                self.word = word;
                self.halves[usize::from(reply)] = judged.own;
                self.answer = judged.answer;
            }
            _ => assert_eq!(
                (judged.own, judged.answer),
                (known.own, known.answer),
                "a drop leaves no trace"
            ),
        }
        judged.outcome
    }

    fn passes(&mut self, reply: bool, segment: Segment, then: State) {
        let outcome = self.send(reply, segment);
        assert!(matches!(outcome, Outcome::Pass(_)), "{segment:?}: {outcome:?}");
        assert_eq!(State::from_bits(self.word.state()), then, "{segment:?}");
    }

    /// Passes and changes neither state nor numbers.
    fn ignored(&mut self, reply: bool, segment: Segment) {
        let (word, halves) = (self.word, self.halves);
        assert_eq!(self.send(reply, segment), Outcome::Pass(word), "{segment:?}");
        assert_eq!(self.halves, halves, "{segment:?}");
    }

    fn timeout_s(&self) -> u64 {
        self.word.timeout_ns() / 1_000_000_000
    }

    /// The opener begins at 0 (its SYN at the highest number), the other side at 501. Windows of 1000, not scaled.
    fn established() -> Self {
        Self::established_with(0, 0)
    }

    fn established_with(opener: u32, answerer: u32) -> Self {
        let mut walk = Self::open(Segment {
            options: opener,
            ..segment(SYN, u32::MAX, 0)
        });
        walk.passes(
            true,
            Segment {
                options: answerer,
                ..segment(SYN | ACK, 500, 0)
            },
            State::SynRecv,
        );
        walk.passes(false, segment(ACK, 0, 501), State::Established);
        walk
    }
}

#[test]
fn a_connection_opens_works_and_closes() {
    let mut walk = Walk::established();
    assert!(walk.word.has(StateWord::CONFIRMED | StateWord::REPLIED));
    assert_eq!(walk.timeout_s(), 432_000);
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(ACK, 501, 1), State::CloseWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::LastAck);
    assert_eq!(walk.timeout_s(), 30);
    walk.passes(false, segment(ACK, 1, 502), State::TimeWait);
    assert_eq!(walk.timeout_s(), 120);
}

/// RFC 9293 section 3.10.7.3: SND.UNA < SEG.ACK <= SND.NXT.
#[test]
fn the_handshake_must_acknowledge() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    assert_eq!(walk.send(true, segment(SYN | ACK, 7, 1000)), BAD_ACK);
    assert_eq!(walk.send(true, segment(SYN | ACK, 7, 1002)), BAD_ACK);
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
    for ack in [9, 0, 7] {
        assert_eq!(walk.send(false, segment(ACK, 1001, ack)), BAD_ACK);
    }
    assert_eq!(walk.send(false, segment(ACK, 80_000, 8)), OUT);
    walk.passes(false, segment(ACK, 1001, 8), State::Established);
}

/// Every segment may be lost after it was seen here.
#[test]
fn every_segment_of_a_handshake_may_come_again() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    walk.passes(false, segment(SYN, 1000, 0), State::SynSent);
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
    walk.ignored(false, segment(SYN, 1000, 0));
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
    walk.passes(false, segment(ACK, 1001, 8), State::Established);
    walk.ignored(true, segment(SYN | ACK, 7, 1001));
    walk.ignored(false, segment(SYN, 1000, 0));
    walk.passes(false, segment(ACK, 1001, 8), State::Established);
}

/// Another SYN from the same port before anyone has answered counts from now on.
#[test]
fn a_new_syn_replaces_an_unanswered_one() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    walk.passes(false, segment(SYN, 5, 0), State::SynSent);
    assert_eq!(walk.send(true, segment(SYN | ACK, 7, 1001)), BAD_ACK);
    walk.passes(true, segment(SYN | ACK, 7, 6), State::SynRecv);
}

/// RFC 7413: data in the SYN, acknowledged or not; data of the answering side before the opener acknowledges anything.
#[test]
fn fast_open() {
    let syn = Segment {
        payload: 100,
        ..segment(SYN, 1000, 0)
    };
    for acknowledged in [1001, 1101] {
        let mut walk = Walk::open(syn);
        walk.passes(false, segment(SYN, 1000, 0), State::SynSent);
        walk.passes(true, segment(SYN | ACK, 7, acknowledged), State::SynRecv);
        walk.passes(true, data(8, acknowledged, 600), State::SynRecv);
        walk.passes(true, data(608, acknowledged, 400), State::SynRecv);
        assert_eq!(walk.send(true, data(100_000, acknowledged, 10)), OUT);
        assert_eq!(walk.send(true, data(1008, 900, 10)), BAD_ACK);
        let mut early = segment(FIN | ACK, 1008, acknowledged);
        early.payload = 10;
        walk.passes(true, early, State::SynRecv);
        assert_eq!(walk.timeout_s(), 60, "nothing is proved yet");
        assert_eq!(walk.send(false, data(acknowledged, 1020, 10)), BAD_ACK);
        walk.passes(false, data(acknowledged, 608, 10), State::FinWait);
        walk.passes(false, segment(ACK, acknowledged + 10, 1019), State::CloseWait);
    }
}

/// RFC 9293 section 3.5, figure 8.
#[test]
fn simultaneous_open() {
    let mut walk = Walk::open(segment(SYN, 100, 0));
    walk.passes(true, segment(SYN, 500, 0), State::SynRecv);
    walk.ignored(true, segment(SYN, 500, 0));
    assert_eq!(walk.send(true, segment(SYN, 501, 0)), INVALID);
    assert_eq!(walk.send(false, segment(SYN | ACK, 100, 502)), BAD_ACK);
    assert_eq!(walk.send(false, segment(SYN | ACK, 101, 501)), BAD_ACK);
    walk.passes(false, segment(SYN | ACK, 100, 501), State::SynRecv);
    walk.passes(true, segment(SYN | ACK, 500, 101), State::SynRecv);
    walk.passes(true, data(501, 101, 600), State::SynRecv);
    walk.passes(false, data(101, 1101, 10), State::Established);
    walk.passes(true, data(1101, 111, 10), State::Established);
}

/// RFC 5961 section 3.2.
#[test]
fn only_an_exact_reset_closes() {
    let mut walk = Walk::established();
    walk.passes(true, data(501, 0, 100), State::Established);
    walk.ignored(true, segment(RST, 700, 0));
    walk.ignored(true, segment(RST, 1501, 0));
    for blind in [70_000, 0x7000_0000, 0x8000_0000, 0x9000_0000] {
        assert_eq!(walk.send(true, segment(RST, blind, 0)), BAD_RST);
    }
    walk.passes(true, segment(RST, 601, 0), State::Close);
    assert_eq!(walk.timeout_s(), 10);

    let mut walk = Walk::established();
    walk.passes(true, data(501, 0, 100), State::Established);
    walk.passes(true, segment(RST, 501, 0), State::Close);
    walk.passes(false, data(0, 501, 10), State::Close);
    assert_eq!(walk.send(false, segment(SYN, 3, 0)), Outcome::Reopen);
}

/// RFC 5961 section 3.2: behind what the receiver has acknowledged no reset passes, however far old data may be late.
#[test]
fn a_reset_behind_the_window_is_dropped() {
    let mut walk = Walk::established();
    walk.passes(true, data(501, 0, 100), State::Established);
    walk.passes(false, data(0, 601, 10), State::Established);
    walk.passes(true, data(601, 10, 100), State::Established);
    for behind in [1, 2, 100, 65_000, 1 << 19] {
        let number = 601_u32.wrapping_sub(behind);
        assert_eq!(walk.send(true, segment(RST, number, 0)), BAD_RST, "{behind}");
        walk.ignored(true, data(number, 10, 1));
        let number = 10_u32.wrapping_sub(behind);
        assert_eq!(walk.send(false, segment(RST, number, 0)), BAD_RST, "{behind}");
    }
    // The window: from the acknowledgement to the edge that it offers.
    walk.ignored(true, segment(RST, 602, 0));
    walk.ignored(true, segment(RST, 1601, 0));
    assert_eq!(walk.send(true, segment(RST, 1602, 0)), BAD_RST);
    walk.passes(true, segment(RST, 601, 0), State::Close);
    // What was on its way to the side that has gone is refused by the numbers that it acknowledged.
    walk.ignored(true, segment(RST, 501, 0));
    assert_eq!(walk.send(true, segment(RST, 0x7000_0000, 0)), BAD_RST);

    let mut walk = Walk::established();
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::LastAck);
    assert_eq!(walk.send(true, segment(RST, 500, 0)), BAD_RST);
    walk.passes(false, segment(ACK, 1, 502), State::TimeWait);
    walk.ignored(true, segment(RST, 501, 0));
}

/// RFC 9293 section 3.10.7.3: a refusal acknowledges the SYN. Stacks that do not are heard by the opener alone.
#[test]
fn a_refusal_acknowledges_the_syn() {
    let mut walk = Walk::open(segment(SYN, 40, 0));
    assert_eq!(walk.send(true, segment(RST | ACK, 0, 40)), BAD_RST);
    assert_eq!(walk.send(true, segment(RST, 41, 0)), BAD_RST);
    walk.ignored(true, segment(RST | ACK, 0, 0));
    walk.ignored(true, segment(RST, 0, 0));
    walk.passes(true, segment(RST | ACK, 0, 41), State::Close);

    let mut answered = Walk::open(segment(SYN, 40, 0));
    answered.passes(true, segment(SYN | ACK, 500, 41), State::SynRecv);
    answered.ignored(true, segment(RST | ACK, 0, 41));
    assert_eq!(answered.send(true, segment(RST | ACK, 3_000_000, 41)), BAD_RST);
    answered.passes(false, segment(RST, 41, 0), State::Close);
}

/// RFC 5961 section 4: a SYN is challenged, by the end that has the connection.
#[test]
fn a_syn_in_an_established_flow_changes_nothing() {
    let mut walk = Walk::established();
    walk.ignored(false, segment(SYN, 77, 0));
    assert_eq!(
        walk.send(true, segment(SYN, 77, 0)),
        INVALID,
        "it would open the other way round"
    );
    walk.passes(true, segment(ACK, 501, 0), State::Established);
    walk.passes(false, data(0, 501, 5), State::Established);
    assert_eq!(walk.halves[0].end, 5);
}

/// The opener was restarted and uses the port again: the other end's challenge passes, its answer ends the old flow.
#[test]
fn the_answer_to_a_challenge_closes() {
    let mut walk = Walk::established();
    walk.ignored(false, segment(SYN, 9_000_000, 0));
    walk.passes(true, segment(ACK, 501, 0), State::Established);
    walk.passes(false, segment(RST, 0, 0), State::Close);
    assert_eq!(walk.send(false, segment(SYN, 9_000_000, 0)), Outcome::Reopen);
}

/// The answering side was restarted: it answers a SYN that passed without effect. The flow is over, the next SYN opens one.
#[test]
fn an_answer_to_a_syn_that_passed_ends_the_flow() {
    let mut walk = Walk::established();
    walk.ignored(true, segment(SYN | ACK, 500, 0));
    walk.ignored(false, segment(SYN, 9_000_000, 0));
    walk.ignored(true, segment(SYN | ACK, 0x3000_0000, 9_000_000));
    walk.ignored(true, segment(RST | ACK, 0, 9_000_001));
    assert_eq!(
        walk.send(true, segment(SYN | ACK, 0x3000_0000, 9_000_001)),
        Outcome::End(Reason::TcpInvalid)
    );
}

/// A SYN proof (`crate::reply`): the question acknowledges a number shortly below the SYN's, the reset carries that.
#[test]
fn the_question_of_a_syn_proof_passes_and_so_does_its_answer() {
    for below in [1, 300, 65_536] {
        let mut walk = Walk::open(segment(SYN, 1000, 0));
        let (word, number) = (walk.word, 1000_u32.wrapping_sub(below));
        assert_eq!(
            walk.send(true, segment(SYN | ACK, 7, number)),
            Outcome::Pass(word)
        );
        walk.ignored(false, segment(RST, number, 0));
        walk.ignored(false, segment(RST, number, 0));
        walk.passes(false, segment(SYN, 1000, 0), State::SynSent);
        walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
        assert_eq!(walk.send(true, segment(SYN | ACK, 7, number)), BAD_ACK);
    }
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    let beyond = 1000_u32.wrapping_sub(65_537);
    assert_eq!(walk.send(true, segment(SYN | ACK, 7, beyond)), BAD_ACK);
}

#[test]
fn a_challenge_to_a_syn_passes_and_so_does_its_answer() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    let word = walk.word;
    assert_eq!(walk.send(true, segment(ACK, 7, 555)), Outcome::Pass(word));
    walk.ignored(false, segment(RST, 555, 0));
    assert_eq!(walk.send(false, segment(RST, 556, 0)), BAD_RST);
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
}

/// RFC 9293 section 3.6.1: out of TIME_WAIT a newer SYN opens a new connection.
#[test]
fn time_wait_is_left_by_a_newer_syn() {
    let mut walk = Walk::established();
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::LastAck);
    walk.passes(false, segment(ACK, 1, 502), State::TimeWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::TimeWait);
    for old in [0, u32::MAX, 0x9000_0000] {
        walk.ignored(false, segment(SYN, old, 0));
    }
    assert_eq!(walk.send(false, segment(SYN, 1, 0)), Outcome::Reopen);
    assert_eq!(walk.send(false, segment(SYN, 90_000, 0)), Outcome::Reopen);
    assert_eq!(
        walk.send(true, segment(SYN, 7, 0)),
        Outcome::Reopen,
        "the policy is asked"
    );
}

/// Rules I to IV of [`super::window::fits`].
#[test]
fn windows() {
    let mut walk = Walk::established();
    // I: the other side has offered 1000 from 0 on; the segment may begin at the edge, and hang over it.
    assert_eq!(walk.send(false, data(1001, 501, 1)), OUT);
    walk.passes(false, data(1000, 501, 100), State::Established);
    // II: what hangs over does not move the lower bound.
    let lower = 0_u32.wrapping_add(1000).wrapping_sub(1_048_640 + 1);
    walk.passes(false, segment(ACK, lower, 501), State::Established);
    assert_eq!(walk.send(false, segment(ACK, lower.wrapping_sub(20), 501)), OUT);
    // III: nobody acknowledges what was never sent.
    assert_eq!(walk.send(false, segment(ACK, 0, 502)), OUT);
    walk.passes(true, data(501, 0, 300), State::Established);
    walk.passes(false, segment(ACK, 0, 801), State::Established);
    // IV: nor what was acknowledged long ago.
    let old = 801_u32.wrapping_sub(1_048_640);
    walk.passes(false, segment(ACK, 0, old), State::Established);
    assert_eq!(walk.send(false, segment(ACK, 0, old.wrapping_sub(1))), OUT);
    assert_eq!(
        (walk.halves[0].ack, walk.halves[0].edge),
        (801, 1801),
        "what is old moves nothing back"
    );
}

/// RFC 7323 section 2.2: both sides must send the option, and the windows of SYNs are not scaled.
#[test]
fn scaling_needs_both_options() {
    for (opener, answerer, reach) in [
        (SCALED | 3, SCALED | 5, 8000),
        (SCALED | 3, 0, 1000),
        (0, SCALED | 5, 1000),
        (SCALED | MAX_SHIFT, SCALED, 1000 << 14),
    ] {
        let mut walk = Walk::open(Segment {
            options: opener,
            ..segment(SYN, u32::MAX, 0)
        });
        walk.passes(
            true,
            Segment {
                options: answerer,
                ..segment(SYN | ACK, 500, 0)
            },
            State::SynRecv,
        );
        assert_eq!(walk.halves[1].edge, 1000);
        walk.passes(false, segment(ACK, 0, 501), State::Established);
        assert_eq!(walk.halves[0].edge, 501 + reach);
        assert_eq!(walk.send(true, data(502 + reach, 0, 1)), OUT);
        walk.passes(true, data(501 + reach, 0, 1), State::Established);
    }
}

/// RFC 9293 section 3.8.6.1 and RFC 1122 section 4.2.3.6.
#[test]
fn zero_windows_and_keep_alives() {
    let mut walk = Walk::established();
    walk.passes(true, data(501, 0, 100), State::Established);
    let closed = Segment {
        window: 0,
        ..segment(ACK, 0, 1501)
    };
    walk.passes(true, data(601, 0, 900), State::Established);
    walk.passes(false, closed, State::Established);
    for probe in [segment(ACK, 1500, 0), data(1500, 0, 1), data(1501, 0, 1)] {
        walk.passes(true, probe, State::Established);
        walk.passes(false, closed, State::Established);
    }
    let opened = Segment {
        window: 500,
        ..segment(ACK, 0, 1502)
    };
    walk.passes(false, opened, State::Established);
    walk.passes(true, data(1502, 0, 500), State::Established);
    walk.passes(false, segment(ACK, u32::MAX, 2002), State::Established);
    walk.passes(false, data(u32::MAX, 2002, 1), State::Established);
}

/// RFC 2018: a block acknowledges too, if the other side may be sent any.
#[test]
fn selective_acknowledgements_are_judged_if_they_were_agreed() {
    let mut walk = Walk::established_with(SACK_PERMITTED, SACK_PERMITTED);
    walk.passes(true, data(601, 0, 100), State::Established);
    let block = |right| Segment {
        sack: right,
        ..segment(ACK, 0, 501)
    };
    walk.passes(false, block(701), State::Established);
    assert_eq!(walk.send(false, block(702)), OUT);
    let mut without = Walk::established();
    without.passes(false, block(0x7000_0000), State::Established);
}

#[test]
fn a_half_close_lives_as_long_as_a_connection() {
    let mut walk = Walk::established();
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    assert_eq!(walk.timeout_s(), 432_000);
    walk.passes(false, segment(ACK, 1, 501), State::FinWait);
    walk.passes(true, data(501, 0, 10), State::FinWait);
    walk.passes(true, data(511, 1, 10), State::CloseWait);
    assert_eq!(walk.timeout_s(), 432_000);
    walk.passes(false, segment(ACK, 1, 521), State::CloseWait);
    walk.passes(true, segment(FIN | ACK, 521, 1), State::LastAck);
}

/// Both FINs cross on their way, then both acknowledgements.
#[test]
fn simultaneous_close() {
    let mut walk = Walk::established();
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(FIN | ACK, 501, 0), State::LastAck);
    walk.passes(false, segment(ACK, 1, 502), State::LastAck);
    walk.passes(false, segment(ACK, 1, 502), State::LastAck);
    walk.passes(true, segment(ACK, 502, 1), State::TimeWait);
}

/// RFC 5961 section 4: the challenge to a SYN in `LAST_ACK` acknowledges no FIN.
#[test]
fn a_challenge_in_last_ack_closes_nothing() {
    let mut walk = Walk::established();
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::LastAck);
    walk.ignored(false, segment(SYN, 40_000_000, 0));
    walk.passes(true, segment(ACK, 502, 1), State::LastAck);
    walk.passes(false, segment(ACK, 1, 502), State::TimeWait);
}

#[test]
fn a_picked_up_connection_is_confirmed_by_the_other_side_only() {
    let numbers = picked_up_numbers(data(1000, 2000, 10));
    for reply in [false, true] {
        let mut walk = Walk {
            word: super::picked_up(reply),
            halves: if reply {
                [numbers.1, numbers.0]
            } else {
                [numbers.0, numbers.1]
            },
            answer: 0,
            loose: true,
        };
        assert_eq!(walk.timeout_s(), 60);
        walk.passes(reply, data(1010, 2000, 10), State::Established);
        walk.ignored(!reply, segment(ACK, 2000, 0x7000_0000));
        assert!(!walk.word.has(StateWord::CONFIRMED));
        walk.passes(!reply, segment(ACK, 2000, 1020), State::Established);
        assert!(walk.word.has(StateWord::CONFIRMED | StateWord::REPLIED));
        assert_eq!(walk.timeout_s(), 432_000);
        walk.ignored(!reply, segment(RST, 3000, 0));
        walk.passes(!reply, segment(RST, 2000, 0), State::Close);
    }
}

/// Both sides' scales are unknown: nothing that a running connection can send is dropped, whatever was missed.
#[test]
fn a_picked_up_connection_loses_nothing() {
    let numbers = picked_up_numbers(segment(ACK, 1000, 2000));
    let mut walk = Walk {
        word: super::picked_up(false),
        halves: [numbers.0, numbers.1],
        answer: 0,
        loose: true,
    };
    // Data in flight when tracking began, acknowledged now.
    walk.passes(true, data(50_000_000, 1000, 10), State::Established);
    walk.passes(false, segment(ACK, 1000, 40_000_000), State::Established);
    walk.passes(true, segment(ACK, 50_000_010, 90_000_000), State::Established);
    walk.passes(false, data(100_000_000, 50_000_010, 1000), State::Established);
    walk.passes(true, segment(ACK, 50_000_010, 100_001_000), State::Established);
    walk.passes(true, segment(FIN | ACK, 50_000_010, 100_001_000), State::FinWait);
    walk.passes(false, segment(FIN | ACK, 100_001_000, 50_000_011), State::LastAck);
    walk.passes(true, segment(ACK, 50_000_011, 100_001_001), State::TimeWait);
}

#[test]
fn loose_judges_resets_but_no_windows() {
    let mut walk = Walk::established();
    walk.loose = true;
    walk.ignored(true, data(0x7000_0000, 0x7000_0000, 10));
    walk.ignored(true, segment(RST, 0x7000_0000, 0));
    assert_eq!(walk.send(true, segment(RST, 0x9000_0000, 0)), BAD_RST);
    walk.passes(true, segment(RST, 501, 0), State::Close);
    // Nor where a side has gone and refuses what still comes.
    walk.ignored(true, segment(RST, 0x7000_0000, 0));
    assert_eq!(walk.send(true, segment(RST, 0x9000_0000, 0)), BAD_RST);
}

/// Fifty times round the sequence space, a segment of a quarter of a gigabyte at a time, in a window of one gigabyte.
#[test]
fn sequence_numbers_wrap_fifty_times_at_scale_14() {
    const CHUNK: u32 = 1 << 28;
    let mut walk = Walk::established_with(SCALED | MAX_SHIFT, SCALED | MAX_SHIFT);
    let full = |seq, ack, payload| Segment {
        window: u16::MAX,
        payload,
        ..segment(ACK, seq, ack)
    };
    walk.passes(true, full(501, 0, 0), State::Established);
    let mut seq = 0_u32;
    for _ in 0..50 * 16 {
        for _ in 0..3 {
            walk.passes(false, full(seq, 501, CHUNK), State::Established);
            assert_eq!(walk.send(false, full(seq.wrapping_add(0x7000_0000), 501, 1)), OUT);
            assert_eq!(walk.send(false, full(seq.wrapping_sub(0x6000_0000), 501, 1)), OUT);
            walk.ignored(false, full(seq, 501, CHUNK));
            seq = seq.wrapping_add(CHUNK);
        }
        walk.passes(true, full(501, seq, 0), State::Established);
    }
    walk.passes(true, segment(RST, 501, 0), State::Close);
}

#[test]
fn what_carries_no_acknowledgement_is_no_data() {
    let mut walk = Walk::established();
    for flags in [0, FIN] {
        assert_eq!(walk.send(false, segment(flags, 0, 501)), INVALID);
    }
}

#[test]
fn every_cell_is_a_known_step_and_closing_never_reopens_by_itself() {
    for state in State::ALL {
        for class in [Class::Syn, Class::SynAck, Class::Fin, Class::Ack] {
            for reply in [false, true] {
                if let Step::To(next) = table::next(state, class, reply) {
                    assert_ne!(next, State::None);
                    let closing = matches!(
                        state,
                        State::FinWait | State::CloseWait | State::LastAck | State::TimeWait
                    );
                    assert!(
                        !closing || (next as u8) >= State::FinWait as u8,
                        "{state:?} {class:?} -> {next:?}"
                    );
                    assert!(next != State::Established || class == Class::Ack);
                }
            }
        }
    }
}

#[test]
fn sequence_comparison_wraps() {
    assert!(before(u32::MAX, 0) && !before(0, u32::MAX) && !before(5, 5));
    assert_eq!((later(u32::MAX, 3), later(3, u32::MAX), later(7, 7)), (3, 3, 7));
}

/// Numbers of states lie in flows and in events, so they stay; names are those of `/proc/net/nf_conntrack`.
#[test]
fn states_keep_their_numbers_and_names() {
    let names = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
    ];
    for (bits, name) in (0..).zip(names) {
        let state = State::from_bits(bits);
        assert_eq!((state as u32, state.name()), (bits, name));
    }
    assert_eq!(State::from_bits(9), State::Close, "no such number");
}

/// Twice a window of half a mebibyte, and the step of 64 bytes beyond it.
#[test]
fn the_least_reach_is_a_mebibyte_and_a_step() {
    assert_eq!(super::window::LEAST_REACH, 1_048_576 + 64);
}

/// While a connection is being opened, the number that was answered is not replaced by a SYN of another one, however far
/// it is: only where a connection runs does such a SYN say what a challenge or a refusal will answer.
#[test]
fn a_strange_syn_while_opening_leaves_what_was_answered() {
    let mut walk = Walk::open(segment(SYN, 1000, 0));
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
    let before = walk.answer;
    walk.ignored(false, segment(SYN, 0x7000_0000, 0));
    assert_eq!(walk.answer, before);
    walk.passes(false, segment(ACK, 1001, 8), State::Established);
    walk.ignored(false, segment(SYN, 0x7000_0000, 0));
    assert_eq!(walk.answer, 0x7000_0001, "of a running one it does");
}
