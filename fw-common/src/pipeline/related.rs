//! ICMP errors: they pass only for a packet of a live flow that they quote (RFC 5927), or of traffic that a rule with
//! `track: false` allows, from any router on its way.

use super::open::{has_selector, peer_side};
use super::{Family, FlowMaps, Outcome, Scratch, Tables, again, find, hit, screens};
use crate::abi::{ClassFlags, Decision, Features, FlowFlags, LiveFlow, Proto, Reason, RuleFlags, Side};
use crate::classify;
use crate::tcp;
use crate::wire::{self, Packet, echo_request};

/// Judges an ICMP error. The outcome goes into `s.word`: see [`crate::classify::classes4`].
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
    match find::<F, T>(t, s) {
        Some((flow, ..)) => quoted_flow::<F, T>(t, s, flow),
        None => without_flow::<F, T>(t, s),
    }
}

/// No flow has sent what the error quotes; traffic without entries may have. Without packet-too-big it would have no path MTU
/// discovery (RFC 1191, RFC 8201), so an error passes for a packet that a rule with `track: false` allows as it was quoted,
/// either from its opener or, where the port tells, from the answering side: as the packets themselves do ([`super::open`]).
/// The receiver compares the quote with its sockets, and of TCP the sequence number too (`tcp_v4_err` of `tcp_ipv4.c`).
#[inline(always)]
fn without_flow<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Outcome {
    let untracked = t.lines(s.generation).map_or(0, classify::features) & Features::UNTRACKED != 0;
    let (proto, selector) = (s.meta.proto, s.meta.selector);
    let icmp = proto == Proto::ICMP || proto == Proto::ICMPV6;
    if !untracked || (icmp && !wire::is_echo(proto, selector)) {
        return Outcome::drop(Reason::IcmpUnrelated);
    }
    let sender = u32::from(s.meta.from_hi != 0);
    // Of an echo the type tells who has opened it; of all else either side may have.
    let reply = icmp && selector >> 8 != echo_request(proto) >> 8;
    if !reply {
        match stateless::<F, T>(t, s, sender) {
            Stateless::Allows => {
                core::mem::swap(&mut s.class.src, &mut s.class.dst);
                return back_to_the_sender(t, s);
            }
            Stateless::Silent if !icmp && has_selector(proto) => {}
            Stateless::Silent => return Outcome::drop(Reason::IcmpUnrelated),
            Stateless::Refuses(reason) => return Outcome::drop(reason),
        }
    }
    match stateless::<F, T>(t, s, sender ^ 1) {
        Stateless::Allows => back_to_the_sender(t, s),
        Stateless::Silent => Outcome::drop(Reason::IcmpUnrelated),
        Stateless::Refuses(reason) => Outcome::drop(reason),
    }
}

/// What the rules say of quoted traffic without an entry.
enum Stateless {
    /// A rule with `track: false` allows it.
    Allows,
    /// No rule is about it.
    Silent,
    /// A rule denies it or allows it with an entry, or its time is over; or the tables are damaged.
    Refuses(Reason),
}

/// Asks the rules about the key in `s`, opened by its `hi` side if `opener_hi` is 1.
#[inline(always)]
fn stateless<'a, F: Family, T: Tables<'a>>(t: T, s: &mut Scratch, opener_hi: u32) -> Stateless {
    s.opener_hi = opener_hi;
    let told = t.stage(F::AGAIN, s);
    let decision = Decision(s.class.decision);
    if told == Reason::TableCorrupt as u32 {
        return Stateless::Refuses(Reason::TableCorrupt);
    }
    let allows = told == Reason::Established as u32 && decision.allows();
    if allows && s.class.rule_flags & RuleFlags::UNTRACKED != 0 {
        return Stateless::Allows;
    }
    if decision.allows() || decision.rule() != 0 {
        return Stateless::Refuses(Reason::IcmpUnrelated);
    }
    Stateless::Silent
}

/// Passes the error as if it were a packet from where the quoted one went (`s.class.src`) to its sender (`s.class.dst`): the
/// planes must fit, and what went to this machine is reported by this machine.
#[inline(always)]
fn back_to_the_sender<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let Some(lines) = t.lines(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let screened = screens::addresses(t, s, lines);
    if !screened.is_miss() {
        return screened;
    }
    let from_own = s.class.src.flags & ClassFlags::OWN != 0;
    if from_own && s.meta.side != Side::Own as u8 && !hit::leaves_a_host(s) {
        return Outcome::drop(Reason::WrongSide);
    }
    let to = peer_side(s);
    Outcome::deliver(s, to, Reason::Related)
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
        (&flow.sent[1], &flow.sent[0])
    } else {
        (&flow.sent[0], &flow.sent[1])
    };
    let behind = own.seq_end.load().wrapping_sub(s.meta.seq);
    let window = peer.window.load() & tcp::REACH;
    let limit = if window > QUOTE_SLACK { window } else { QUOTE_SLACK };
    // A bare acknowledgement has the number after all that was sent.
    behind <= limit
}
