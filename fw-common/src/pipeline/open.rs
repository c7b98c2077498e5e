//! A packet without a flow: may it open one? And a flow of an older policy: may it go on?

use super::{Family, FlowMaps, FlowStat, Insert, Outcome, Scratch, Tables, hit, link};
use crate::abi::{
    ClassFlags, Decision, FlowFlags, Half, LiveFlow, LiveHalf, Mode, Proto, Reason, Side, StateWord,
};
use crate::classify::{self, classify};
use crate::tcp;
use crate::wire::{echo_request, tcp_flag};

/// Seconds that an unanswered flow lives: the defaults of `nf_conntrack` (nf_conntrack-sysctl.rst).
#[inline(always)]
#[must_use]
const fn unconfirmed_timeout_s(proto: u8) -> u32 {
    match proto {
        Proto::UDP | Proto::ICMP | Proto::ICMPV6 => 30,
        _ => 600,
    }
}

/// Seconds that a flow lives once both sides have spoken and the opener again.
#[inline(always)]
#[must_use]
pub(super) const fn confirmed_timeout_s(proto: u8) -> u32 {
    match proto {
        Proto::UDP => 120,
        Proto::ICMP | Proto::ICMPV6 => 30,
        _ => 600,
    }
}

/// Judges a packet that belongs to no flow.
#[inline(always)]
pub(super) fn judge<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Outcome {
    let running = running_tcp(s);
    if let Some(reason) = cannot_open(s)
        && (!running || t.now() >= t.pickup_until())
    {
        return Outcome::drop(reason);
    }
    let Some(lines) = t.lines(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let realm = match classify::realm_record(lines, s.meta.vlan) {
        Ok(realm) => realm,
        Err(reason) => return Outcome::drop(reason),
    };
    if let Some(outcome) = link::dhcp(lines, s) {
        return outcome;
    }
    let service = (s.meta.proto, s.meta.selector);
    let decision = match classify(lines, realm, F::addresses(s), service, &mut s.class) {
        Ok(decision) => decision,
        Err(reason) => return Outcome::drop(reason),
    };
    if s.meta.egress == 0 && s.class.src.flags & ClassFlags::OWN != 0 {
        return Outcome::drop(Reason::OwnSource);
    }
    let to = peer_side(s);
    if !decision.allows() {
        return if running {
            pick_up_reply::<F, T>(t, s, lines, realm, (to, decision))
        } else {
            denied(decision)
        };
    }
    let from = Side::from_bits(u32::from(s.meta.side));
    fill_fresh(
        s,
        FlowFlags::new(s.meta.from_hi != 0, from, to, s.meta.ifindex),
        t.now(),
    );
    if running {
        pick_up(s, false);
    }
    create::<F, T>(t, s, to, if running { Reason::PickedUp } else { Reason::Rule })
}

#[inline(always)]
fn denied(decision: Decision) -> Outcome {
    Outcome::drop(if decision.rule() == 0 {
        Reason::DenyDefault
    } else {
        Reason::DenyRule
    })
}

/// Inserts the fresh flow and lets the packet go on to `to`.
#[inline(always)]
fn create<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    to: Side,
    reason: Reason,
) -> Outcome {
    if !t.dry_run() {
        match insert::<F, T>(t, s) {
            Insert::Done | Insert::Exists => t.stat(FlowStat::Opened),
            Insert::Full => return Outcome::drop(Reason::TableFull),
            Insert::Failed => return Outcome::drop(Reason::TableError),
        }
    }
    Outcome::deliver(s, to, reason)
}

/// A segment from the middle of a connection.
#[inline(always)]
fn running_tcp(s: &Scratch) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN};
    s.meta.proto == Proto::TCP && s.meta.tcp_flags & (SYN | RST | FIN | ACK) == ACK
}

/// A running connection whose packet comes from the answering side: it goes on if the policy allows its opener to open it.
#[inline(always)]
fn pick_up_reply<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    lines: T::Lines,
    realm: u32,
    (to, own): (Side, Decision),
) -> Outcome {
    let (src, dst) = F::addresses(s);
    let own_rule = s.class.rule_id;
    match classify(lines, realm, (dst, src), (Proto::TCP, s.meta.sport), &mut s.class) {
        Ok(decision) if decision.allows() => {
            let from = Side::from_bits(u32::from(s.meta.side));
            fill_fresh(
                s,
                FlowFlags::new(s.meta.from_hi == 0, to, from, s.meta.ifindex),
                t.now(),
            );
            pick_up(s, true);
            create::<F, T>(t, s, to, Reason::PickedUp)
        }
        // Neither way: it is denied by what was said of its own direction, and reported so.
        Ok(_) => {
            core::mem::swap(&mut s.class.src, &mut s.class.dst);
            s.class.decision = own.0;
            s.class.rule_id = own_rule;
            denied(own)
        }
        Err(reason) => Outcome::drop(reason),
    }
}

/// Makes the fresh flow one that is established, with what this segment tells of both sides' numbers.
#[inline(always)]
fn pick_up(s: &mut Scratch, reply: bool) {
    s.fresh.state = tcp::picked_up(reply).0;
    s.fresh.flags |= FlowFlags::PICKED_UP;
    let own = s.fresh.half[0];
    let mut peer = s.fresh.half[1];
    peer.seq_end = s.meta.ack;
    peer.ack = s.meta.seq;
    s.fresh.half[0] = if reply { peer } else { own };
    s.fresh.half[1] = if reply { own } else { peer };
}

/// Packets that never open a flow, whatever the rules say.
#[inline(always)]
fn cannot_open(s: &Scratch) -> Option<Reason> {
    match s.meta.proto {
        Proto::TCP if s.meta.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) != tcp_flag::SYN => {
            Some(Reason::TcpNoFlow)
        }
        Proto::ICMP | Proto::ICMPV6 => {
            let kind = s.meta.selector >> 8;
            if kind == echo_request(s.meta.proto) >> 8 {
                None
            } else if kind == 0 || kind == 129 {
                Some(Reason::IcmpNoFlow)
            } else if s.meta.proto == Proto::ICMP && kind == 5 {
                Some(Reason::DenyRedirect)
            } else {
                Some(Reason::IcmpType)
            }
        }
        _ => None,
    }
}

/// The side that will answer.
#[inline(always)]
fn peer_side(s: &Scratch) -> Side {
    let inline = s.port.mode == Mode::Inline as u8;
    let port_side = Side::from_bits(u32::from(s.port.side));
    if s.meta.side == Side::Own as u8 {
        port_side
    } else if s.meta.forwarded == 0 && s.class.dst.flags & ClassFlags::OWN != 0 {
        Side::Own
    } else if inline {
        if matches!(port_side, Side::Outer) {
            Side::Inner
        } else {
            Side::Outer
        }
    } else {
        Side::Outer
    }
}

#[inline(always)]
fn fill_fresh(s: &mut Scratch, flags: FlowFlags, now: u64) {
    let empty = Half {
        packets: 0,
        bytes: 0,
        last_seen: 0,
        seq_end: 0,
        ack: 0,
        edge: 0,
        window: 0,
    };
    let tcp = s.meta.proto == Proto::TCP;
    s.fresh.half[1] = empty;
    s.fresh.half[0].packets = u64::from(s.meta.segments);
    s.fresh.half[0].bytes = u64::from(s.meta.wire_bytes);
    s.fresh.half[0].last_seen = now;
    s.fresh.half[0].seq_end = if tcp { hit::segment(s).end() } else { 0 };
    // Until the opener acknowledges anything, the number after its SYN: what an answer must acknowledge at least.
    s.fresh.half[0].ack = match (tcp, s.meta.tcp_flags & tcp_flag::ACK != 0) {
        (false, _) => 0,
        (true, true) => s.meta.ack,
        (true, false) => s.meta.seq.wrapping_add(1),
    };
    s.fresh.created = now;
    s.fresh.state = if tcp {
        tcp::opened().0
    } else {
        StateWord::new(0, 0, unconfirmed_timeout_s(s.meta.proto)).0
    };
    s.fresh.generation = s.generation;
    s.fresh.rule = s.class.rule_id;
    s.fresh.src_zone = s.class.src.zone;
    s.fresh.dst_zone = s.class.dst.zone;
    s.fresh.flags = flags.0;
    s.fresh.policed = 0;
    s.fresh.answer = 0;
    s.fresh.carried_packets = 0;
    s.fresh.carried_bytes = 0;
}

/// Inserts the fresh flow. An entry that is there already is either over (then it is replaced: an expired entry is never
/// written again) or was made this instant by another CPU for the same packet's twin (then it stands).
#[inline(always)]
fn insert<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &Scratch) -> Insert {
    match t.insert_half_open(F::key(s), &s.fresh, false) {
        Insert::Exists => {}
        other => return other,
    }
    if let Some(flow) = t.half_open(F::key(s))
        && flow.alive(s.fresh.created)
    {
        return Insert::Exists;
    }
    t.insert_half_open(F::key(s), &s.fresh, true)
}

/// Copies a live entry into the scratch memory.
#[inline(always)]
pub(super) fn fresh_copy(s: &mut Scratch, flow: &LiveFlow) {
    copy_half(&mut s.fresh.half[0], &flow.half[0]);
    copy_half(&mut s.fresh.half[1], &flow.half[1]);
    s.fresh.created = flow.created.load();
    s.fresh.state = flow.state.load();
    s.fresh.generation = flow.generation.load();
    s.fresh.rule = flow.rule.load();
    s.fresh.src_zone = flow.src_zone.load();
    s.fresh.dst_zone = flow.dst_zone.load();
    s.fresh.flags = flow.flags.load();
    s.fresh.policed = flow.policed.load();
    s.fresh.answer = flow.answer.load();
    s.fresh.carried_packets = 0;
    s.fresh.carried_bytes = 0;
}

#[inline(always)]
fn copy_half(into: &mut Half, from: &LiveHalf) {
    into.packets = from.packets.load();
    into.bytes = from.bytes.load();
    into.last_seen = from.last_seen.load();
    into.seq_end = from.seq_end.load();
    into.ack = from.ack.load();
    into.edge = from.edge.load();
    into.window = from.window.load();
}

/// Asks the policy in force about the flow of the key in `s`, in its opener's direction. Returns
/// [`Reason::Established`], [`Reason::PolicyRevoked`], or [`Reason::TableCorrupt`], which ends nothing.
#[inline(always)]
pub(super) fn ask_again<'a, F: Family, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    let Some(lines) = t.lines(s.generation) else {
        return Reason::TableCorrupt as u32;
    };
    let realm = match classify::realm_record(lines, s.meta.vlan) {
        Ok(realm) => realm,
        Err(Reason::UnknownRealm) => return Reason::PolicyRevoked as u32,
        Err(_) => return Reason::TableCorrupt as u32,
    };
    let (lo, hi) = F::sides(s);
    let (from, to) = if s.opener_hi != 0 { (hi, lo) } else { (lo, hi) };
    let proto = s.meta.proto;
    let icmp = proto == Proto::ICMP || proto == Proto::ICMPV6;
    let selector = if icmp { echo_request(proto) } else { to.1 };
    match classify(lines, realm, (from.0, to.0), (proto, selector), &mut s.class) {
        Ok(decision) if decision.allows() => Reason::Established as u32,
        Ok(_) => Reason::PolicyRevoked as u32,
        Err(_) => Reason::TableCorrupt as u32,
    }
}

/// Judges a flow of an older generation again, whichever side sent this packet: stamps it if the policy in force allows
/// it, ends it if not. The key in `s` must be the flow's.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub(super) fn judge_again<'a, F: Family, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
) -> Result<(), Reason> {
    s.opener_hi = u32::from(FlowFlags(flow.flags.load()).opener_hi());
    let answer = t.stage(F::AGAIN, s);
    if answer == Reason::Established as u32 {
        if !t.dry_run() {
            flow.rule.store(s.class.rule_id);
            flow.src_zone.store(s.class.src.zone);
            flow.dst_zone.store(s.class.dst.zone);
            flow.generation.store(s.generation);
        }
        return Ok(());
    }
    if answer != Reason::PolicyRevoked as u32 {
        return Err(Reason::TableCorrupt);
    }
    if !t.dry_run() {
        revoke(t, flow);
    }
    Err(Reason::PolicyRevoked)
}

/// Ends a flow that the policy in force denies. If another CPU changes the word at the same time, that CPU's packet was
/// judged by the same generation or the next packet will be: the flow cannot go on.
#[inline(always)]
fn revoke<'a, T: Tables<'a>>(t: T, flow: &LiveFlow) {
    let word = flow.state.load();
    let _lost_race = t.swap(&flow.state, word, word | StateWord::DEAD | StateWord::REVOKED);
}
