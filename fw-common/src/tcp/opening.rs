//! The handshake: from the SYN to the opener's acknowledgement of the answer.

use super::window::{self, Numbers, later};
use super::{Class, Judged, Known, Outcome, Segment, State, moved, own_fin};
use crate::abi::{Reason, StateWord};

/// Judges a segment that the table moves from SYN_SENT or SYN_RECV to `next`.
#[inline(always)]
pub(super) fn judge(
    word: StateWord,
    state: State,
    next: State,
    class: Class,
    reply: bool,
    segment: Segment,
    known: &Known,
) -> Judged {
    match (state, class, reply) {
        (State::SynSent, Class::Syn, false) => syn(word, segment, known),
        (State::SynSent, Class::Syn, true) => simultaneous(word, segment, known),
        (_, Class::SynAck, true) => syn_ack(word, segment, known),
        (_, Class::SynAck, false) => crossed_syn_ack(word, segment, known),
        (_, _, true) => early_reply(word, class, segment, known),
        (_, _, false) => acknowledged(word, next, class, segment, known),
    }
}

/// True if the answering side acknowledges the opener's SYN, with or without the data that a fast open carries (RFC
/// 7413): ISS < SEG.ACK <= SND.NXT (RFC 9293 section 3.10.7.3). While the connection opens, the opener's `ack` is ISS + 1.
#[inline(always)]
pub(super) const fn answers(segment: Segment, opener: Numbers) -> bool {
    segment.ack.wrapping_sub(opener.ack) <= opener.end.wrapping_sub(opener.ack)
}

/// True if the opener acknowledges the answering side's SYN, which shows that it has seen it: a spoofed source does not
/// (RFC 9293 section 3.10.7.4). Data that follows a fast open's answer at once may be acknowledged with it.
#[inline(always)]
const fn proves(segment: Segment, known: &Known) -> bool {
    segment.ack.wrapping_sub(known.answer) <= known.peer.end.wrapping_sub(known.answer)
}

/// While the opener has acknowledged nothing, the answering side may fill the window of its SYN, counted from the
/// answering side's own SYN (RFC 7413 section 4.2).
#[inline(always)]
pub(super) const fn syn_window(known: &Known) -> Numbers {
    let mut peer = known.peer;
    peer.edge = known.answer.wrapping_add(peer.edge);
    peer
}

/// The opener's SYN again, perhaps without the data of the first, or another SYN from the same port.
#[inline(always)]
fn syn(word: StateWord, segment: Segment, known: &Known) -> Judged {
    let mut own = super::opener(segment);
    if own.ack == known.own.ack {
        own.end = later(own.end, known.own.end);
    }
    Judged {
        outcome: Outcome::Pass(moved(word, State::SynSent, 0)),
        own,
        answer: known.answer,
    }
}

/// A SYN from the other side (RFC 9293 section 3.5, figure 8). It acknowledges nothing yet, but its window can only begin
/// after the opener's SYN.
#[inline(always)]
fn simultaneous(word: StateWord, segment: Segment, known: &Known) -> Judged {
    let isn = segment.seq.wrapping_add(1);
    Judged {
        outcome: Outcome::Pass(moved(word, State::SynRecv, StateWord::REPLIED)),
        own: Numbers::opening(segment, isn, known.peer.end),
        answer: isn,
    }
}

/// A SYN-ACK that does not acknowledge the SYN. In SYN_SENT a number shortly below it is the question of a SYN proof
/// ([`crate::reply::ask_for_proof`]), or of a server that has an old SYN (RFC 9293 section 3.5, figure 9): it passes without
/// effect, and so does the reset that carries its number.
#[inline(always)]
fn asked(word: StateWord, segment: Segment, known: &Known) -> Judged {
    let mut judged = Judged::dropped(known, Reason::TcpBadAck);
    // The opener's `ack` is its initial number plus one; the question's is 1 to 65,536 below the initial one.
    let below = known.peer.ack.wrapping_sub(segment.ack).wrapping_sub(2);
    if word.state() == State::SynSent as u32 && below <= 0xffff {
        judged.outcome = Outcome::Pass(word);
        judged.own.ack = segment.ack;
    }
    judged
}

/// Bytes that may overtake a SYN-ACK: the largest window that is not scaled.
const OVERTAKING: u32 = 0xffff;

#[inline(always)]
fn syn_ack(word: StateWord, segment: Segment, known: &Known) -> Judged {
    if !answers(segment, known.peer) {
        return asked(word, segment, known);
    }
    let isn = segment.seq.wrapping_add(1);
    let mut own = Numbers::opening(segment, segment.ack, segment.ack);
    // Sent again: what followed the first one still counts.
    if word.state() == State::SynRecv as u32 && isn == known.answer {
        own.end = later(own.end, known.own.end);
        own.edge = later(own.edge, known.own.edge);
        own.window = window::widest(own.window, known.own.window);
    }
    // What has overtaken it was let through and may be acknowledged. 0: nothing has; close before a wrap it looks as if.
    let overtaken = known.own.end != 0 && known.own.end.wrapping_sub(own.end) <= OVERTAKING;
    if word.state() == State::SynSent as u32 && overtaken {
        own.end = known.own.end;
    }
    Judged {
        outcome: Outcome::Pass(moved(word, State::SynRecv, StateWord::REPLIED)),
        own,
        answer: isn,
    }
}

/// The opener's SYN-ACK in a simultaneous open: its own SYN once more, with the acknowledgement of the other's.
#[inline(always)]
fn crossed_syn_ack(word: StateWord, segment: Segment, known: &Known) -> Judged {
    if !proves(segment, known) || segment.seq.wrapping_add(1) != known.own.ack {
        return Judged::dropped(known, Reason::TcpBadAck);
    }
    let own = Numbers::opening(segment, known.own.ack, 0);
    Judged {
        outcome: Outcome::Pass(moved(word, State::SynRecv, StateWord::CONFIRMED)),
        own,
        answer: known.answer,
    }
}

/// Data, an acknowledgement or a FIN of the answering side before the opener has acknowledged its SYN: a fast open (RFC
/// 7413 section 4.2), or a simultaneous one.
#[inline(always)]
fn early_reply(word: StateWord, class: Class, segment: Segment, known: &Known) -> Judged {
    if !answers(segment, known.peer) {
        return Judged::dropped(known, Reason::TcpBadAck);
    }
    let peer = syn_window(known);
    if !known.loose && !window::in_window(segment, known.own, peer) {
        return Judged::dropped(known, Reason::TcpOutOfWindow);
    }
    let mut own = known.own.after(segment, peer);
    own.ack = segment.ack;
    let fin = if matches!(class, Class::Fin) {
        own_fin(true)
    } else {
        0
    };
    Judged {
        outcome: Outcome::Pass(moved(word, State::SynRecv, fin)),
        own,
        answer: known.answer,
    }
}

/// The opener's acknowledgement of the answer, perhaps with a FIN: the connection is established and confirmed.
#[inline(always)]
fn acknowledged(word: StateWord, next: State, class: Class, segment: Segment, known: &Known) -> Judged {
    if !proves(segment, known) {
        return Judged::dropped(known, Reason::TcpBadAck);
    }
    // The data of a fast open's SYN may go beyond the window that the answer offers.
    let mut peer = known.peer;
    peer.edge = later(peer.edge, known.own.end);
    if !known.loose && !window::in_window(segment, known.own, peer) {
        return Judged::dropped(known, Reason::TcpOutOfWindow);
    }
    let (closed, all) = (word.has(own_fin(true)), segment.ack == known.peer.end);
    let next = match (class, closed) {
        (Class::Fin, true) => State::LastAck,
        (_, true) if all => State::CloseWait,
        (_, true) => State::FinWait,
        (_, false) => next,
    };
    let fin = if matches!(class, Class::Fin) {
        own_fin(false)
    } else {
        0
    };
    Judged {
        outcome: Outcome::Pass(moved(word, next, StateWord::CONFIRMED | fin)),
        own: known.own.after_first(segment, known.peer, known.answer),
        answer: 0,
    }
}
