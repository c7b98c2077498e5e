//! ICMP errors: they pass only for a packet of a live flow that they quote (RFC 5927), from any router on its way.

use super::{Family, FlowMaps, Outcome, Scratch, Tables, find, hit, open};
use crate::abi::{FlowFlags, LiveFlow, Reason, Side};
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
    if flow.generation.load() != s.generation
        && let Err(reason) = open::judge_again::<F, T>(t, s, flow)
    {
        return Outcome::drop(reason);
    }
    Outcome::deliver(s, to, Reason::Related)
}
