//! Resets. One ends a flow only if its sequence number is exactly the one expected: the receiver's last acknowledgement or
//! the sender's highest (RFC 5961 section 3.2; `nf_conntrack` likewise). One inside the window passes and ends nothing, so
//! that the receiver may challenge it; any other is dropped.

use super::opening::{answers, syn_window};
use super::{Known, Outcome, Segment, State, before, moved, own_fin, window};
use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag;

#[inline(always)]
pub(super) fn judge(word: StateWord, state: State, reply: bool, segment: Segment, known: &Known) -> Outcome {
    if exact(state, reply, segment, known) {
        return Outcome::Pass(moved(word, State::Close, 0));
    }
    if late(word, reply, segment, known) || harmless(state, reply, segment, known) {
        Outcome::Pass(word)
    } else {
        Outcome::Drop(Reason::RstInvalid)
    }
}

/// True if the reset ends the flow.
#[inline(always)]
fn exact(state: State, reply: bool, segment: Segment, known: &Known) -> bool {
    let (own, peer) = (known.own, known.peer);
    match (state, reply) {
        // In SYN_SENT a refusal must acknowledge the SYN (RFC 9293 section 3.10.7.3); the opener may take its SYN back.
        (State::SynSent, true) => segment.has(tcp_flag::ACK) && answers(segment, peer),
        (State::SynSent, false) => segment.seq == own.end || segment.seq == own.ack,
        // The opener has acknowledged nothing yet.
        (State::SynRecv, true) => segment.seq == own.end || segment.seq == known.answer,
        _ => segment.seq == own.end || segment.seq == peer.ack,
    }
}

/// True if the reset passes without effect because its sender is gone after its FIN: what was on its way to it then is refused by the number
/// that it acknowledged (RFC 9293 section 3.10.7.1), which is the FIN's own. The receiver, if it has acknowledged the FIN meanwhile,
/// drops it in silence.
#[inline(always)]
const fn late(word: StateWord, reply: bool, segment: Segment, known: &Known) -> bool {
    word.has(own_fin(reply)) && segment.seq.wrapping_add(1) == known.own.end
}

/// True if the reset passes without effect: it lies between the receiver's last acknowledgement, which is behind what the
/// receiver expects next by no more than an acknowledgement on its way, and the edge of its window.
#[inline(always)]
fn harmless(state: State, reply: bool, segment: Segment, known: &Known) -> bool {
    let (own, peer) = (known.own, known.peer);
    let acks = segment.has(tcp_flag::ACK);
    // Rule II of the windows reaches far behind what the receiver has acknowledged; a reset may not (RFC 5961 section 3.2:
    // outside the current receive window it is dropped in silence; `nf_conntrack` likewise).
    let old = before(segment.seq, peer.ack);
    match (state, reply) {
        // Stacks that refuse a SYN without acknowledging it; the opener decides what that means to it.
        (State::SynSent, true) => (acks && segment.ack == 0) || (!acks && segment.seq == 0),
        // The answer to a challenge carries the number that this acknowledged.
        (State::SynSent, false) => segment.seq == peer.ack,
        // A SYN that was sent again may be refused although the first was answered.
        (State::SynRecv, true) => {
            (acks && segment.seq == 0 && answers(segment, peer))
                || (!before(segment.seq, known.answer) && window::in_window(segment, own, syn_window(known)))
        }
        // The refusal of a SYN that passed without effect.
        (_, true) if acks && known.answer != 0 && segment.ack == known.answer => true,
        // Each segment that is still on its way to a side which has gone is refused by the number that it acknowledges.
        (State::TimeWait | State::Close, _) => (known.loose && !old) || window::in_window(segment, own, peer),
        _ => !old && (known.loose || window::in_window(segment, own, peer)),
    }
}
