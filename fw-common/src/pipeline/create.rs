//! A new flow goes into the half-open map.

use super::tables::insist;
use super::{Family, FlowMaps, FlowStat, Insert, Outcome, Scratch, Tables, clock, code, presence, segment};
use crate::abi::{
    ClassFlags, Decision, FlowFlags, Half, LiveFlow, LiveHalf, LiveSent, Proto, Reason, RuleFlags, Sent,
    Side, StateWord,
};

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

/// Makes the flow that the packet in `s` opens: of what the tables said of it (`s.class`), towards `s.to`. With `s.running` it
/// is a connection that runs already; with `s.reversed` the packet comes from its answering side.
#[inline(always)]
pub(super) fn judge<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Outcome {
    let to = Side::from_bits(s.to);
    let reply = s.reversed != 0;
    fill_fresh(t, s, reply);
    if s.running != 0 {
        pick_up(s, reply);
    }
    let decision = Decision(s.class.decision);
    let reason = if !decision.allows() {
        Reason::Audit
    } else if s.running != 0 {
        Reason::PickedUp
    } else {
        Reason::Rule
    };
    if !t.dry_run() {
        let last = insert::<F, T>(t, s);
        match Insert::of(last) {
            Insert::Done | Insert::Exists => t.stat(FlowStat::Opened),
            refused => return refused_by_kernel(s, refused, last),
        }
        one_table_only::<F, T>(t, s);
    }
    Outcome::deliver(s, to, reason)
}

#[inline(always)]
fn fill_fresh<'a, T: Tables<'a>>(t: T, s: &mut Scratch, reply: bool) {
    let now = clock::now(t, s);
    let (here, there) = (Side::from_bits(u32::from(s.meta.side)), Side::from_bits(s.to));
    let (opener, peer) = if reply { (there, here) } else { (here, there) };
    let flags = FlowFlags::new((s.meta.from_hi != 0) != reply, opener, peer, s.meta.ifindex);
    // Of constants LLVM makes a call of memset, which writes byte by byte on this target.
    let zero = t.zero();
    let empty = Half {
        packets: u64::from(zero),
        bytes: u64::from(zero),
        last_seen: u64::from(zero),
    };
    let nothing = Sent {
        seq_end: zero,
        ack: zero,
        edge: zero,
        window: zero,
    };
    s.fresh.half[1] = empty;
    s.fresh.sent[1] = nothing;
    s.fresh.half[0].packets = u64::from(s.meta.segments);
    s.fresh.half[0].bytes = u64::from(s.meta.wire_bytes);
    s.fresh.half[0].last_seen = now;
    s.fresh.created = now;
    if s.meta.proto == Proto::TCP {
        segment::open(t, s);
    } else {
        s.fresh.sent[0] = nothing;
        s.fresh.state = StateWord::new(0, 0, unconfirmed_timeout_s(s.meta.proto)).0;
    }
    s.fresh.generation = s.generation;
    s.fresh.rule = s.class.rule_id;
    let (from, to) = (s.class.src.zone, s.class.dst.zone);
    s.fresh.src_zone = if reply { to } else { from };
    s.fresh.dst_zone = if reply { from } else { to };
    let lifeline = (s.class.src.flags | s.class.dst.flags) & ClassFlags::LIFELINE != 0;
    let counted = if s.counted != 0 { FlowFlags::COUNTED } else { 0 };
    let forwarded = if s.meta.forwarded != 0 {
        FlowFlags::FORWARDED
    } else {
        0
    };
    s.fresh.flags = flags.0 | counted | forwarded | if lifeline { FlowFlags::LIFELINE } else { 0 };
    s.fresh.policed = policed(s, Decision(s.class.decision));
    s.fresh.answer = 0;
    s.fresh.carried_packets = 0;
    s.fresh.carried_bytes = 0;
}

/// The rule that measures each packet of the flow; 0: none does.
#[inline(always)]
pub(super) fn policed(s: &Scratch, decision: Decision) -> u32 {
    if decision.allows() && s.class.rule_flags & RuleFlags::POLICED != 0 {
        decision.rule()
    } else {
        0
    }
}

/// Makes the fresh flow one that is established, with what this segment tells of both sides' numbers.
#[inline(always)]
fn pick_up(s: &mut Scratch, reply: bool) {
    s.fresh.flags |= FlowFlags::PICKED_UP;
    let (own, peer) = (s.fresh.half[0], s.fresh.half[1]);
    s.fresh.half[0] = if reply { peer } else { own };
    s.fresh.half[1] = if reply { own } else { peer };
    segment::pick_up(s, reply);
}

/// A copy of the flow's first packet may have been on its way through the other CPU, found nothing there, and come to its end
/// after the flow was confirmed and moved: then the entry that it has just made is one too many.
#[inline(always)]
fn one_table_only<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &Scratch) {
    if let Some(flow) = t.main(F::key(s))
        && flow.alive(s.fresh.created)
    {
        t.delete_half_open(F::key(s));
    }
}

/// The packet is dropped because its flow could not be inserted; the event tells the kernel's error.
#[inline(always)]
pub(super) fn refused_by_kernel(s: &mut Scratch, refused: Insert, last: i32) -> Outcome {
    s.errno = last.unsigned_abs() as u16;
    Outcome::drop(refused.reason())
}

/// Inserts the fresh flow; the kernel's last word. An entry that is there already is either over (then it is replaced: an
/// expired entry is never written again) or was made this instant by another CPU for the same packet's twin (then it stands).
#[inline(always)]
fn insert<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &Scratch) -> i32 {
    presence::mark(t, F::key(s));
    let last = insist(t, || t.insert_half_open(F::key(s), &s.fresh, false));
    if last != code::EXISTS {
        return last;
    }
    if let Some(flow) = t.half_open(F::key(s))
        && flow.alive(s.fresh.created)
    {
        return last;
    }
    insist(t, || t.insert_half_open(F::key(s), &s.fresh, true))
}

/// Copies a live entry into the scratch memory.
#[inline(always)]
pub(super) fn fresh_copy(s: &mut Scratch, flow: &LiveFlow) {
    copy_half(&mut s.fresh.half[0], &flow.half[0]);
    copy_half(&mut s.fresh.half[1], &flow.half[1]);
    copy_sent(&mut s.fresh.sent[0], &flow.sent[0]);
    copy_sent(&mut s.fresh.sent[1], &flow.sent[1]);
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
}

#[inline(always)]
fn copy_sent(into: &mut Sent, from: &LiveSent) {
    into.seq_end = from.seq_end.load();
    into.ack = from.ack.load();
    into.edge = from.edge.load();
    into.window = from.window.load();
}
