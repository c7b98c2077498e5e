//! ICMP errors: they pass only for a packet of a live flow that they quote (RFC 5927), from any router on its way.

use super::{Family, FlowMaps, Outcome, Scratch, Tables, again, find, hit};
use crate::abi::{FlowFlags, LiveFlow, Proto, Reason, Side};
use crate::tcp;
use crate::wire::{self, Packet};

/// Judges an ICMP error. The outcome goes into `s.word`: see [`crate::classify::class4`].
#[inline(never)]
pub(super) fn judge<'a, F: Family, P: Packet, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    pkt: P,
    t: T,
    s: &mut Scratch,
) {
    s.word = error::<F, P, T>(pkt, t, s).word();
}

#[inline(always)]
fn error<'a, F: Family, P: Packet, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    pkt: P,
    t: T,
    s: &mut Scratch,
) -> Outcome {
    let (_, error_to) = F::addresses(s);
    let refused = wire::quoted(pkt, &mut s.meta);
    if refused != 0 {
        return Outcome::from_word(refused);
    }
    // An error goes to the sender of what it quotes.
    let (quoted_from, _) = F::addresses(s);
    if error_to != quoted_from {
        return Outcome::drop(Reason::IcmpUnrelated);
    }
    F::make_key(s);
    match find::<F, T>(t, s, t.now()) {
        Some((flow, _)) => quoted_flow::<F, T>(t, s, flow),
        None => Outcome::drop(Reason::IcmpUnrelated),
    }
}

#[inline(always)]
fn quoted_flow<'a, F: Family, T: Tables<'a>>(t: T, s: &mut Scratch, flow: &LiveFlow) -> Outcome {
    let flags = FlowFlags(flow.flags.load());
    let quoted_reply = flags.opener_hi() != (s.meta.from_hi != 0);
    // The error comes back from where the quoted packet went, and goes where it came from. This machine may report too:
    // it is a router on the way of what it forwards.
    let (from, to) = if quoted_reply {
        (flags.opener(), flags.peer())
    } else {
        (flags.peer(), flags.opener())
    };
    if s.meta.side != from as u8 && s.meta.side != Side::Own as u8 && !hit::leaves_a_host(s) {
        return Outcome::drop(Reason::WrongSide);
    }
    if s.meta.proto == Proto::TCP && !was_sent(s, flow, quoted_reply) {
        return Outcome::drop(Reason::IcmpBadQuote);
    }
    if again::is_older(flow, s)
        && let Err(reason) = again::judge_again::<F, T>(t, s, flow)
    {
        return Outcome::drop(reason);
    }
    Outcome::deliver(s, to, Reason::Related)
}

/// Least distance (bytes) behind the highest number sent at which a quoted segment is believed; `MAXACKWINCONST` of
/// `nf_conntrack_proto_tcp.c`.
const QUOTE_SLACK: u32 = 66_000;

/// True if the quoted sequence number is one that its flow has sent and that can still be on its way: at most one window of the
/// receiver behind the highest (RFC 5927 section 4.1, with the window for the data in flight, because the acknowledgement may
/// have overtaken the error).
#[inline(always)]
fn was_sent(s: &Scratch, flow: &LiveFlow, quoted_reply: bool) -> bool {
    let (own, peer) = if quoted_reply {
        (&flow.half[1], &flow.half[0])
    } else {
        (&flow.half[0], &flow.half[1])
    };
    let behind = own.seq_end.load().wrapping_sub(s.meta.seq);
    let window = peer.window.load() & tcp::REACH;
    let limit = if window > QUOTE_SLACK { window } else { QUOTE_SLACK };
    // A bare acknowledgement has the number after all that was sent.
    behind <= limit
}
