//! The TCP machine: a transition table held as data, after RFC 9293 section 3.3.2 and `nf_conntrack_proto_tcp.c`, and
//! windows tracked by direction. What it does differently from the kernel's conntrack, and why, is listed in
//! `docs/tcp.md`.

mod opening;
pub mod options;
mod reset;
mod running;
mod table;
pub mod window;

pub use table::{Class, State, Step, TABLE, next};
pub use window::{LEAST_REACH, Numbers, REACH, before};

use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag;

/// One segment, as the machine needs it. A GSO super-packet is one segment with all its payload.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Flags (RFC 9293 section 3.1). ECE, CWR and NS say nothing here.
    pub flags: u8,
    /// Window as sent, not scaled.
    pub window: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts only with ACK.
    pub ack: u32,
    /// The highest right edge of a selective acknowledgement block, or `ack` if there is none above it.
    pub sack: u32,
    /// Bytes of payload.
    pub payload: u32,
    /// Of a SYN: its options as in [`Numbers::window`].
    pub options: u32,
}

impl Segment {
    /// The sequence number after this segment; SYN and FIN count as one (RFC 9293 section 3.4).
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> u32 {
        let controls = (self.flags & tcp_flag::FIN) as u32 + ((self.flags & tcp_flag::SYN) >> 1) as u32;
        self.seq.wrapping_add(self.payload).wrapping_add(controls)
    }

    /// True if the flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the transition table calls it.
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

/// What the machine needs to know of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What the segment's sender has sent.
    pub own: Numbers,
    /// What its receiver has sent.
    pub peer: Numbers,
    /// While the connection opens: the answering side's initial sequence number plus one, 0 if unknown. Later: the same of
    /// the opener's last SYN that passed without effect, see [`Outcome::End`].
    pub answer: u32,
    /// Windows are not judged: `tcp: { window: loose }`, or the flow was picked up in its middle, where scales are unknown.
    pub loose: bool,
}

/// What the machine says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It passes and the flow's word becomes this one (perhaps the same as before).
    Pass(StateWord),
    /// It passes and starts a new flow: the old one is over.
    Reopen,
    /// It is dropped and the flow is over: the answering side has lost the connection and answers a new SYN, which passed
    /// without effect. The opener's next SYN finds no flow and opens one, as the policy in force says.
    End(Reason),
    /// It is dropped.
    Drop(Reason),
}

/// The outcome, and the numbers to be stored with it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Judged {
    /// What happens to the segment.
    pub outcome: Outcome,
    /// The sender's numbers from now on.
    pub own: Numbers,
    /// The flow's `answer` from now on.
    pub answer: u32,
}

impl Judged {
    #[inline(always)]
    const fn unchanged(known: &Known, outcome: Outcome) -> Self {
        Self {
            outcome,
            own: known.own,
            answer: known.answer,
        }
    }

    #[inline(always)]
    const fn dropped(known: &Known, reason: Reason) -> Self {
        Self::unchanged(known, Outcome::Drop(reason))
    }
}

/// The word of a flow that a SYN has just opened.
#[must_use]
pub const fn opened() -> StateWord {
    StateWord::new(State::SynSent as u32, 0, State::SynSent.timeout_s())
}

/// The numbers of a side whose SYN has opened a flow.
#[inline(always)]
#[must_use]
pub const fn opener(segment: Segment) -> Numbers {
    // Nobody knows yet what its window begins at: the edge is the window itself.
    Numbers::opening(segment, segment.seq.wrapping_add(1), 0)
}

/// The word of a connection that was picked up in its middle: one packet of one side shows nothing, so it lives shortly
/// and stays out of the main map until the other side has acknowledged what that side sent.
#[must_use]
pub const fn picked_up(reply: bool) -> StateWord {
    let flags = if reply { StateWord::REPLIED } else { 0 };
    StateWord::new(State::Established as u32, flags, State::SynRecv.timeout_s())
}

/// Both sides' numbers, sender first, of a connection that was picked up in its middle. Scales are unknown: the largest is
/// assumed, and windows are not judged by it ([`Known::loose`]); it keeps the numbers moving, for resets.
#[inline(always)]
#[must_use]
pub const fn picked_up_numbers(segment: Segment) -> (Numbers, Numbers) {
    const UNKNOWN: u32 = window::MAX_SHIFT | window::SCALED | window::SACK_PERMITTED;
    const WIDEST: u32 = 1 << 30;
    let peer = Numbers {
        end: segment.ack,
        ack: segment.seq,
        edge: segment.end().wrapping_add(WIDEST),
        window: WIDEST | UNKNOWN,
    };
    let blank = Numbers {
        end: segment.end(),
        ack: segment.ack,
        edge: segment.ack,
        window: UNKNOWN,
    };
    (blank.after(segment, peer), peer)
}

/// True for the common case: data or an acknowledgement of an established flow.
#[inline(always)]
#[must_use]
pub const fn is_common(word: StateWord, flags: u8) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN};
    word.state() == State::Established as u32 && flags & (SYN | FIN | RST | ACK) == ACK
}

/// Judges a segment of an existing flow. `reply`: it comes from the answering side. Pure: if another CPU has changed the
/// word meanwhile, judge again.
#[inline(always)]
pub fn step(word: StateWord, reply: bool, segment: Segment, known: &Known) -> Judged {
    if !is_common(word, segment.flags) {
        uncommon(word, reply, segment, known)
    } else if window::fits(segment, known.own, known.peer) {
        Judged {
            outcome: Outcome::Pass(common(word, reply, segment, known.peer)),
            own: known.own.after(segment, known.peer),
            answer: known.answer,
        }
    } else if known.loose {
        Judged::unchanged(known, Outcome::Pass(word))
    } else {
        Judged::dropped(known, Reason::TcpOutOfWindow)
    }
}

/// The flow's word after a segment of the common case ([`is_common`]) that fits: the same, but for a flow that was picked
/// up and waits for its confirmation.
#[inline(always)]
#[must_use]
pub const fn common(word: StateWord, reply: bool, segment: Segment, peer: Numbers) -> StateWord {
    if word.has(StateWord::CONFIRMED) {
        word
    } else {
        confirmed(word, reply, segment, peer)
    }
}

/// The word of a picked up connection after another segment.
#[inline(always)]
const fn confirmed(word: StateWord, reply: bool, segment: Segment, peer: Numbers) -> StateWord {
    /// How far from the highest sequence number seen an acknowledgement may lie.
    const NEAR: u32 = 1 << 24;
    let other_side = word.has(StateWord::REPLIED) != reply;
    let distance = segment.ack.wrapping_sub(peer.end);
    if !other_side || (distance > NEAR && distance.wrapping_neg() > NEAR) {
        return word;
    }
    let flags = word.flags() | StateWord::REPLIED | StateWord::CONFIRMED;
    StateWord::new(State::Established as u32, flags, State::Established.timeout_s())
}

/// Everything but the common case.
#[inline(always)]
pub fn uncommon(word: StateWord, reply: bool, segment: Segment, known: &Known) -> Judged {
    let state = State::from_bits(word.state());
    let class = seen_as(word, reply, segment.class());
    if matches!(class, Class::Rst) {
        return Judged::unchanged(known, reset::judge(word, state, reply, segment, known));
    }
    match table::next(state, class, reply) {
        Step::Invalid => Judged::dropped(known, Reason::TcpInvalid),
        Step::Ignore => ignored(word, state, class, reply, segment, known),
        Step::Reopen => reopened(word, state, reply, segment, known),
        Step::To(next) => {
            let opens = matches!(state, State::SynSent | State::SynRecv);
            if opens {
                opening::judge(word, state, next, class, reply, segment, known)
            } else {
                running::judge(word, state, next, class, reply, segment, known)
            }
        }
    }
}

/// A FIN of a side that has sent one is a retransmission and counts for what it acknowledges.
#[inline(always)]
const fn seen_as(word: StateWord, reply: bool, class: Class) -> Class {
    match class {
        Class::Fin if word.has(own_fin(reply)) => Class::Ack,
        other => other,
    }
}

/// The flag that says that this side has sent a FIN.
#[inline(always)]
const fn own_fin(reply: bool) -> u32 {
    if reply {
        StateWord::FIN_REPLY
    } else {
        StateWord::FIN_ORIGINAL
    }
}

/// A segment that passes so that the other end may answer it.
#[inline(always)]
fn ignored(
    word: StateWord,
    state: State,
    class: Class,
    reply: bool,
    segment: Segment,
    known: &Known,
) -> Judged {
    let mut judged = Judged::unchanged(known, Outcome::Pass(word));
    match (class, reply, state) {
        // An acknowledgement in SYN_SENT: a challenge; the opener's reset will carry its number (RFC 5961 section 4). Or data
        // of a fast open that has overtaken its SYN-ACK.
        (Class::Ack, true, State::SynSent) => {
            judged.own.ack = segment.ack;
            judged.own.end = segment.end();
        }
        // In a simultaneous open the answering side may send its SYN again, and nothing but that.
        (Class::Syn, true, State::SynRecv) if segment.seq.wrapping_add(1) != known.answer => {
            judged.outcome = Outcome::Drop(Reason::TcpInvalid);
        }
        (_, _, State::SynSent | State::SynRecv) => {}
        (Class::Syn, false, _) if strange(state, segment, known.own) => {
            judged.answer = segment.seq.wrapping_add(1);
        }
        (Class::SynAck, true, _)
            if known.answer != 0 && segment.ack == known.answer && strange(state, segment, known.own) =>
        {
            judged.outcome = Outcome::End(Reason::TcpInvalid);
        }
        _ => {}
    }
    judged
}

/// True if a SYN or SYN-ACK cannot be a late copy of the one that opened this connection: its number does not lie shortly
/// behind what its sender has sent. In TIME_WAIT a copy does no harm.
#[inline(always)]
const fn strange(state: State, segment: Segment, own: Numbers) -> bool {
    /// Bytes that a connection carries at most while a copy of its SYN is on its way.
    const RECENT: u32 = 1 << 26;
    matches!(state, State::TimeWait) || own.end.wrapping_sub(segment.seq) > RECENT
}

/// A SYN after the end. Out of TIME_WAIT the opener's must be newer than all that it sent before (RFC 9293 section
/// 3.6.1); another one passes without effect, so that the other end may answer it.
#[inline(always)]
fn reopened(word: StateWord, state: State, reply: bool, segment: Segment, known: &Known) -> Judged {
    if matches!(state, State::TimeWait) && !reply && before(segment.seq, known.own.end) {
        return ignored(word, state, Class::Syn, reply, segment, known);
    }
    Judged::unchanged(known, Outcome::Reopen)
}

/// The word after a transition to `next`.
#[inline(always)]
const fn moved(word: StateWord, next: State, flags: u32) -> StateWord {
    let flags = word.flags() | flags;
    let (own, short) = (next.timeout_s(), State::SynRecv.timeout_s());
    // A flow that is not confirmed never lives long.
    let timeout = if flags & StateWord::CONFIRMED == 0 && own > short && !matches!(next, State::SynSent) {
        short
    } else {
        own
    };
    StateWord::new(next as u32, flags, timeout)
}

#[cfg(test)]
mod tests;
