//! The TCP machine: a transition table held as data, after RFC 9293 section 3.3.2 and `nf_conntrack_proto_tcp.c`.

mod table;

pub use table::{Class, State, Step, TABLE};

use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag;

/// How far from the highest sequence number seen a reset may lie without being blind. Resets inside pass, so that the
/// peer can answer them (RFC 5961 section 3), but end nothing.
const RESET_SLACK: u32 = 1 << 24;
/// One segment, as the machine needs it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Flags (RFC 9293 section 3.1).
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts only with ACK.
    pub ack: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// The sequence number after this segment; SYN and FIN count as one (RFC 9293 section 3.4).
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> u32 {
        let controls = (self.flags & tcp_flag::SYN != 0) as u32 + (self.flags & tcp_flag::FIN != 0) as u32;
        self.seq.wrapping_add(self.payload).wrapping_add(controls)
    }

    /// True if the flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the transition table calls it. Flags were checked by [`crate::wire::tcp_flags_valid`].
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> Class {
        if self.has(tcp_flag::RST) {
            Class::Rst
        } else if self.has(tcp_flag::SYN) {
            if self.has(tcp_flag::ACK) {
                Class::SynAck
            } else {
                Class::Syn
            }
        } else if self.has(tcp_flag::FIN) {
            Class::Fin
        } else {
            Class::Ack
        }
    }
}

/// What both sides have sent so far.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The sender's highest sequence number plus one.
    pub own_end: u32,
    /// The receiver's highest sequence number plus one; 0 before its first segment.
    pub peer_end: u32,
    /// The last acknowledgement number that the receiver sent; until then, the number after its SYN itself.
    pub peer_ack: u32,
    /// True once the receiver has sent.
    pub peer_spoke: bool,
}

/// What the machine says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It passes and the flow's word becomes this one (perhaps the same as before).
    Pass(StateWord),
    /// It passes and starts a new flow: the old one is over.
    Reopen,
    /// It is dropped.
    Drop(Reason),
}

/// The word of a flow that a SYN has just opened.
#[must_use]
pub const fn opened() -> StateWord {
    StateWord::new(State::SynSent as u32, 0, State::SynSent.timeout_s())
}

/// `a` is behind `b` in sequence space (RFC 9293 section 3.4).
#[inline(always)]
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// Judges a segment of an existing flow. `reply`: it comes from the answering side.
#[inline(always)]
pub fn step(word: StateWord, reply: bool, segment: Segment, seen: Seen) -> Outcome {
    let state = State::from_bits(word.state());
    let class = segment.class();
    // The common case by itself: data and acknowledgements of an established flow change nothing.
    if matches!(state, State::Established) && matches!(class, Class::Ack) {
        return Outcome::Pass(if word.has(StateWord::CONFIRMED) {
            word
        } else {
            confirmed(word, reply, segment, seen)
        });
    }
    other_step(word, state, class, reply, segment, seen)
}

/// The word of a connection that was picked up in its middle: one packet of one side shows nothing, so it lives shortly
/// and stays out of the main map until the other side has acknowledged what that side sent.
#[must_use]
pub const fn picked_up(reply: bool) -> StateWord {
    let flags = if reply { StateWord::REPLIED } else { 0 };
    StateWord::new(State::Established as u32, flags, State::SynRecv.timeout_s())
}

/// The word of a picked up connection after another segment.
#[inline(always)]
const fn confirmed(word: StateWord, reply: bool, segment: Segment, seen: Seen) -> StateWord {
    let other_side = word.has(StateWord::REPLIED) != reply;
    if !other_side || !near(segment.ack, seen.peer_end) {
        return word;
    }
    let flags = word.flags() | StateWord::REPLIED | StateWord::CONFIRMED;
    StateWord::new(State::Established as u32, flags, State::Established.timeout_s())
}

/// True if two sequence numbers lie within [`RESET_SLACK`] of each other.
#[inline(always)]
const fn near(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance <= RESET_SLACK || distance.wrapping_neg() <= RESET_SLACK
}

#[inline(always)]
fn other_step(
    word: StateWord,
    state: State,
    class: Class,
    reply: bool,
    segment: Segment,
    seen: Seen,
) -> Outcome {
    if matches!(class, Class::Rst) {
        return reset(word, state, segment, seen);
    }
    // A FIN seen again is a retransmission and not the other side's.
    let own_fin = if reply {
        StateWord::FIN_REPLY
    } else {
        StateWord::FIN_ORIGINAL
    };
    if matches!(class, Class::Fin) && word.has(own_fin) {
        return Outcome::Pass(word);
    }
    match (state, class, reply) {
        // The answer to a SYN must acknowledge it; the opener's ACK must acknowledge the answer (a spoofed source never
        // sees the number, RFC 9293 section 3.10.7.3).
        (State::SynSent, Class::SynAck, true) if !answers_syn(segment, seen) => {
            return Outcome::Drop(Reason::TcpBadAck);
        }
        (State::SynRecv, Class::Ack | Class::Fin, false) if segment.ack != seen.peer_end => {
            return Outcome::Drop(Reason::TcpBadAck);
        }
        _ => {}
    }
    match table::next(state, class, reply) {
        Step::Invalid => Outcome::Drop(Reason::TcpInvalid),
        Step::Ignore => Outcome::Pass(word),
        Step::Reopen => Outcome::Reopen,
        Step::To(next) => Outcome::Pass(moved(word, state, next, reply, class)),
    }
}

/// True if the segment acknowledges the receiver's SYN, with or without the data that a fast open carries (RFC 7413):
/// ISS < SEG.ACK <= SND.NXT (RFC 9293 section 3.10.7.3).
#[inline(always)]
const fn answers_syn(segment: Segment, seen: Seen) -> bool {
    segment.ack.wrapping_sub(seen.peer_ack) <= seen.peer_end.wrapping_sub(seen.peer_ack)
}

/// The word after a transition to `next`.
#[inline(always)]
fn moved(word: StateWord, state: State, next: State, reply: bool, class: Class) -> StateWord {
    let mut flags = word.flags();
    if reply {
        flags |= StateWord::REPLIED;
    }
    if matches!(class, Class::Fin) {
        flags |= if reply {
            StateWord::FIN_REPLY
        } else {
            StateWord::FIN_ORIGINAL
        };
    }
    if matches!(state, State::SynRecv) && !reply {
        flags |= StateWord::CONFIRMED;
    }
    StateWord::new(next as u32, flags, next.timeout_s())
}

/// A reset ends the flow only if its sequence number is exactly the one expected: the receiver's last acknowledgement
/// or the sender's highest (RFC 5961 section 3.2; `nf_conntrack` likewise). In SYN_SENT it must acknowledge the SYN
/// (RFC 9293 section 3.10.7.3).
#[inline(always)]
fn reset(word: StateWord, state: State, segment: Segment, seen: Seen) -> Outcome {
    let exact = if matches!(state, State::SynSent) {
        // The opener may take its SYN back; anyone else must show that he saw it.
        if seen.peer_spoke {
            segment.has(tcp_flag::ACK) && answers_syn(segment, seen)
        } else {
            segment.seq == seen.own_end
        }
    } else {
        segment.seq == seen.own_end || (seen.peer_spoke && segment.seq == seen.peer_ack)
    };
    if exact {
        return Outcome::Pass(StateWord::new(
            State::Close as u32,
            word.flags(),
            State::Close.timeout_s(),
        ));
    }
    // In SYN_SENT the opener may answer a challenge, with the number that it acknowledged; that ends nothing here.
    let challenged = matches!(state, State::SynSent) && !seen.peer_spoke && segment.seq == seen.peer_ack;
    if challenged || (near(segment.seq, seen.own_end) && !matches!(state, State::SynSent)) {
        Outcome::Pass(word)
    } else {
        Outcome::Drop(Reason::RstInvalid)
    }
}

#[cfg(test)]
mod tests;
