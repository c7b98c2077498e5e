//! Walks through connections, and properties of the table.

use super::{Class, Outcome, Seen, Segment, State, Step, before, opened, step, table};
use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag::{ACK, FIN, RST, SYN};

fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        flags,
        seq,
        ack,
        payload: 0,
    }
}

/// A flow with both sides' numbers, as the pipeline keeps them.
struct Walk {
    word: StateWord,
    end: [u32; 2],
    ack: [u32; 2],
}

impl Walk {
    fn open(isn: u32) -> Self {
        Self {
            word: opened(),
            end: [isn.wrapping_add(1), 0],
            ack: [isn.wrapping_add(1), 0],
        }
    }

    fn send(&mut self, reply: bool, segment: Segment) -> Outcome {
        let (own, peer) = (usize::from(reply), usize::from(!reply));
        let seen = Seen {
            own_end: self.end[own],
            peer_end: self.end[peer],
            peer_ack: self.ack[peer],
            peer_spoke: reply || self.word.has(StateWord::REPLIED),
        };
        let outcome = step(self.word, reply, segment, seen);
        if let Outcome::Pass(word) = outcome {
            self.word = word;
            self.end[own] = segment.end();
            if segment.has(ACK) {
                self.ack[own] = segment.ack;
            }
        }
        outcome
    }

    fn passes(&mut self, reply: bool, segment: Segment, then: State) {
        let outcome = self.send(reply, segment);
        assert!(matches!(outcome, Outcome::Pass(_)), "{segment:?}: {outcome:?}");
        assert_eq!(State::from_bits(self.word.state()), then, "{segment:?}");
    }

    fn established() -> Self {
        let mut walk = Self::open(u32::MAX);
        walk.passes(true, segment(SYN | ACK, 500, 0), State::SynRecv);
        walk.passes(false, segment(ACK, 0, 501), State::Established);
        walk
    }
}

#[test]
fn a_connection_opens_works_and_closes() {
    let mut walk = Walk::established();
    assert!(walk.word.has(StateWord::CONFIRMED | StateWord::REPLIED));
    assert_eq!(walk.word.timeout_ns(), 432_000_000_000_000);
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(false, segment(FIN | ACK, 0, 501), State::FinWait);
    walk.passes(true, segment(ACK, 501, 1), State::CloseWait);
    walk.passes(true, segment(FIN | ACK, 501, 1), State::LastAck);
    walk.passes(false, segment(ACK, 1, 502), State::TimeWait);
    assert_eq!(walk.send(false, segment(SYN, 90_000, 0)), Outcome::Reopen);
}

#[test]
fn the_handshake_must_acknowledge() {
    let mut walk = Walk::open(1000);
    assert_eq!(
        walk.send(true, segment(SYN | ACK, 7, 1000)),
        Outcome::Drop(Reason::TcpBadAck)
    );
    walk.passes(true, segment(SYN | ACK, 7, 1001), State::SynRecv);
    assert_eq!(
        walk.send(false, segment(ACK, 1001, 9)),
        Outcome::Drop(Reason::TcpBadAck)
    );
    assert_eq!(
        walk.send(false, segment(ACK, 1001, 0)),
        Outcome::Drop(Reason::TcpBadAck)
    );
    walk.passes(false, segment(ACK, 1001, 8), State::Established);
}

#[test]
fn only_an_exact_reset_closes() {
    let mut walk = Walk::established();
    walk.passes(true, segment(RST, 700, 0), State::Established);
    assert_eq!(
        walk.send(true, segment(RST, 0x7000_0000, 0)),
        Outcome::Drop(Reason::RstInvalid)
    );
    walk.passes(true, segment(RST, 501, 0), State::Close);

    let mut refused = Walk::open(40);
    assert_eq!(
        refused.send(true, segment(RST | ACK, 0, 40)),
        Outcome::Drop(Reason::RstInvalid)
    );
    refused.passes(true, segment(RST | ACK, 0, 41), State::Close);
}

#[test]
fn a_syn_in_an_established_flow_changes_nothing() {
    let mut walk = Walk::established();
    let word = walk.word;
    assert_eq!(
        walk.send(false, segment(SYN, 77, 0)),
        Outcome::Pass(word),
        "the other end may challenge it"
    );
    assert_eq!(
        walk.send(true, segment(SYN, 77, 0)),
        Outcome::Drop(Reason::TcpInvalid),
        "it would open the other way round"
    );
    assert_eq!(walk.word, word);
}

#[test]
fn a_challenge_to_a_syn_passes_and_so_does_its_answer() {
    let mut walk = Walk::open(1000);
    let word = walk.word;
    assert_eq!(walk.send(true, segment(ACK, 7, 555)), Outcome::Pass(word));
    assert_eq!(walk.send(false, segment(RST, 555, 0)), Outcome::Pass(word));
    assert_eq!(
        walk.send(false, segment(RST, 556, 0)),
        Outcome::Drop(Reason::RstInvalid)
    );
}

#[test]
fn a_picked_up_connection_is_confirmed_by_the_other_side_only() {
    let seen = |peer_end| Seen {
        own_end: 10,
        peer_end,
        peer_ack: 10,
        peer_spoke: true,
    };
    let word = super::picked_up(true);
    assert_eq!(word.timeout_ns(), 60_000_000_000);
    assert_eq!(
        step(word, true, segment(ACK, 10, 20), seen(20)),
        Outcome::Pass(word),
        "the same side again"
    );
    assert_eq!(
        step(word, false, segment(ACK, 20, 0x7000_0000), seen(10)),
        Outcome::Pass(word),
        "a guess"
    );
    let Outcome::Pass(confirmed) = step(word, false, segment(ACK, 20, 10), seen(10)) else {
        panic!("an answer")
    };
    assert!(confirmed.has(StateWord::CONFIRMED | StateWord::REPLIED));
    assert_eq!(confirmed.timeout_ns(), 432_000_000_000_000);
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
}
