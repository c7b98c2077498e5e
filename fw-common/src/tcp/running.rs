//! From the first FIN to the end, and everything else after the handshake that is no SYN and no RST.

use super::{Class, Judged, Known, Outcome, Segment, State, moved, own_fin, window};
use crate::abi::{Reason, StateWord};
use crate::wire::tcp_flag;

/// Judges a segment that the table moves to `next`.
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
    if !segment.has(tcp_flag::ACK) {
        return Judged::dropped(known, Reason::TcpInvalid);
    }
    let fits = window::fits(segment, known.own, known.peer);
    if !fits && !known.loose {
        return Judged::dropped(known, Reason::TcpOutOfWindow);
    }
    let mut judged = Judged::unchanged(known, Outcome::Pass(word));
    // What does not fit tells nothing of the numbers: then the table alone decides, as in the kernel.
    let next = if fits {
        judged.own = known.own.after(segment, known.peer);
        if acknowledges(word, state, class, reply, segment, known) {
            next
        } else {
            state
        }
    } else {
        next
    };
    let fin = if matches!(class, Class::Fin) {
        own_fin(reply)
    } else {
        0
    };
    if next as u32 != word.state() || fin != 0 {
        let replied = if reply { StateWord::REPLIED } else { 0 };
        judged.outcome = Outcome::Pass(moved(word, next, fin | replied));
    }
    judged
}

/// False for an acknowledgement that leaves the state as it is, because it does not cover a FIN: in `FIN_WAIT` it must be the
/// other side's and cover the one FIN, in `LAST_ACK` both FINs must be covered. A challenge to a SYN (RFC 5961 section 4)
/// therefore closes nothing.
#[inline(always)]
fn acknowledges(
    word: StateWord,
    state: State,
    class: Class,
    reply: bool,
    segment: Segment,
    known: &Known,
) -> bool {
    if !matches!(class, Class::Ack) {
        return true;
    }
    let (own, peer) = (known.own, known.peer);
    let covers = segment.ack == peer.end;
    match state {
        State::FinWait => covers && word.has(own_fin(!reply)),
        State::LastAck => covers && peer.ack == window::later(own.end, segment.end()),
        _ => true,
    }
}
