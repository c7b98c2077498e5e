//! A packet without a flow: may it open one, by the rules?
//!
//! [`judge`] is a stage. Where another stage must be asked after it (limits, proofs), it says so in [`Scratch::then`] and
//! [`follow_up`] asks: stages that call stages would need more than the 512 bytes that a chain of calls has for its stacks.

use super::{Family, FlowMaps, Outcome, Scratch, Stage, Tables, finish, link, police, screens, source};
use crate::abi::{ClassFlags, Decision, EventKind, Features, Mode, Proto, Reason, RuleFlags, Side};
use crate::classify::{self, Service, classify, classify_in};
use crate::wire::{echo_request, tcp_flag};

/// What comes after [`judge`].
pub(super) mod then {
    /// Nothing: the outcome stands.
    pub const NOTHING: u32 = 0;
    /// Ask whether the flow may be opened now, then create it.
    pub const ADMIT: u32 = 1;
    /// Measure the packet by its rule; it needs no flow.
    pub const POLICE: u32 = 3;
    /// The packet needs no flow and is not measured.
    pub const PASS: u32 = 4;
    /// See whether this reset proves its source.
    pub const PROOF: u32 = 5;
    /// Count the denied packet for its source; the outcome stands.
    pub const DENIED: u32 = 6;
}

/// Asks the stages that are to follow.
#[inline(always)]
pub(super) fn follow_up<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
) -> Outcome {
    s.then = then::NOTHING;
    let outcome = Outcome::from_word(t.stage(F::OPEN, s));
    let (stage, next) = match s.then {
        then::ADMIT => (Stage::Admit, true),
        then::POLICE => (Stage::Police, false),
        then::PROOF => (Stage::Proof, false),
        then::PASS => return Outcome::deliver(s, Side::from_bits(s.to), Reason::Untracked),
        then::DENIED => {
            if source::marked(t, s) {
                t.stage(Stage::Denied, s);
            }
            return outcome;
        }
        _ => return outcome,
    };
    let refused = Outcome::from_word(t.stage(stage, s));
    if !refused.is_miss() {
        return refused;
    }
    if next {
        return Outcome::from_word(t.stage(F::CREATE, s));
    }
    if matches!(stage, Stage::Proof) {
        return Outcome::drop(Reason::TcpNoFlow);
    }
    Outcome::deliver(s, Side::from_bits(s.to), Reason::Untracked)
}

/// Judges a packet that belongs to no flow. [`Outcome::miss`]: see `Scratch::then`.
#[inline(always)]
pub(super) fn judge<'a, F: Family, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let Some(lines) = t.lines_in_place(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let untracked = classify::features(lines) & Features::UNTRACKED != 0;
    let stray = cannot_open(s);
    let running = running_tcp(s) && t.now() < t.control().map_or(0, |control| control.pickup_until.load());
    s.running = u32::from(running);
    if let Some(reason) = stray
        && !running
        && !(untracked && may_be_untracked(reason))
    {
        return stray_packet(s, reason);
    }
    let realm = match classify::realm_record(lines, (s.meta.vlan, s.meta.inner_vlan)) {
        Ok(realm) => realm,
        Err(reason) => return Outcome::drop(reason),
    };
    if let Some(outcome) = link::dhcp(lines, s) {
        return outcome;
    }
    let service = Service::of(s.meta.proto, s.meta.selector, s.meta.sport);
    let decision = match classify_in::<true, _, _>(lines, realm, F::addresses(s), service, &mut s.class) {
        Ok(decision) => decision,
        Err(reason) => return Outcome::drop(reason),
    };
    if s.meta.egress == 0 && s.class.src.flags & ClassFlags::OWN != 0 {
        return Outcome::drop(Reason::OwnSource);
    }
    let screened = screens::addresses(t, s, lines);
    if !screened.is_miss() {
        return screened;
    }
    s.to = peer_side(s) as u32;
    s.reversed = 0;
    let audited = s.class.rule_flags & RuleFlags::AUDIT != 0;
    if !decision.allows() && !audited {
        if running || (untracked && decision.rule() == 0) {
            let outcome = other_way::<F, T>(t, s, (lines, realm), decision);
            if s.then != then::NOTHING {
                return outcome;
            }
        }
        return match stray {
            Some(reason) if !running => stray_packet(s, reason),
            _ => denied(s, decision),
        };
    }
    if police::expired(t, s) {
        return Outcome::drop(Reason::RuleExpired);
    }
    if decision.allows() && s.class.rule_flags & RuleFlags::UNTRACKED != 0 {
        return without_entry(s, decision);
    }
    match stray {
        Some(reason) if !running => stray_packet(s, reason),
        _ => opens(t, s, decision),
    }
}

/// A packet that a rule allows, or that one with `audit: true` would deny, opens its flow.
#[inline(always)]
fn opens<'a, T: Tables<'a>>(t: T, s: &mut Scratch, decision: Decision) -> Outcome {
    s.then = then::ADMIT;
    if decision.allows() {
        log(s);
    } else {
        s.event_kind = EventKind::Audit as u8;
        finish::note(t, s, deny_reason(decision) as u32);
    }
    Outcome::miss()
}

/// Marks the packet to be reported if its rule says `log: true`.
#[inline(always)]
fn log(s: &mut Scratch) {
    if s.class.rule_flags & RuleFlags::LOG != 0 {
        s.event_kind = EventKind::Log as u8;
    }
}

/// A packet that opens no flow, whatever the rules say. A reset may be what proves a source.
#[inline(always)]
fn stray_packet(s: &mut Scratch, reason: Reason) -> Outcome {
    use tcp_flag::{ACK, RST, SYN};
    if s.meta.proto == Proto::TCP && s.meta.tcp_flags & (RST | SYN | ACK) == RST {
        s.then = then::PROOF;
    }
    Outcome::drop(reason)
}

/// Strays that a rule with `track: false` can let through, because no entry is asked about it.
#[inline(always)]
const fn may_be_untracked(reason: Reason) -> bool {
    matches!(reason, Reason::TcpNoFlow | Reason::IcmpNoFlow)
}

/// A packet that a rule with `track: false` allows.
#[inline(always)]
fn without_entry(s: &mut Scratch, decision: Decision) -> Outcome {
    s.then = then::PASS;
    if s.class.rule_flags & RuleFlags::POLICED != 0 {
        s.policed = decision.rule();
        s.then = then::POLICE;
    }
    log(s);
    Outcome::miss()
}

#[inline(always)]
pub(super) const fn deny_reason(decision: Decision) -> Reason {
    match (decision.rule(), decision.rejects()) {
        (0, false) => Reason::DenyDefault,
        (0, true) => Reason::RejectDefault,
        (_, false) => Reason::DenyRule,
        (_, true) => Reason::RejectRule,
    }
}

#[inline(always)]
fn denied(s: &mut Scratch, decision: Decision) -> Outcome {
    if s.class.src.flags & ClassFlags::OUTSIDE != 0 {
        s.then = then::DENIED;
    }
    log(s);
    if decision.rejects() {
        Outcome::reply(deny_reason(decision))
    } else {
        Outcome::drop(deny_reason(decision))
    }
}

/// A segment from the middle of a connection.
#[inline(always)]
fn running_tcp(s: &Scratch) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN};
    s.meta.proto == Proto::TCP && s.meta.tcp_flags & (SYN | RST | FIN | ACK) == ACK
}

/// A packet that its own direction's rules deny: it may come from the answering side, of a running connection that is adopted
/// or of traffic without entries; then [`Scratch::then`] says what follows.
#[inline(always)]
fn other_way<'a, F: Family, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    (lines, realm): (T::Lines, u32),
    own: Decision,
) -> Outcome {
    let (src, dst) = F::addresses(s);
    let (own_rule, own_flags) = (s.class.rule_id, s.class.rule_flags);
    let proto = s.meta.proto;
    let icmp = proto == Proto::ICMP || proto == Proto::ICMPV6;
    // Who asks for an echo does not answer one.
    if icmp && s.meta.selector >> 8 == echo_request(proto) >> 8 {
        return Outcome::miss();
    }
    // As its opener's packets would show it: the ports change places.
    let service = if icmp {
        Service::of(proto, echo_request(proto), 0)
    } else {
        Service::between(proto, s.meta.dport, s.meta.sport)
    };
    let answer = classify(lines, realm, (dst, src), service, &mut s.class);
    core::mem::swap(&mut s.class.src, &mut s.class.dst);
    if let Ok(decision) = answer
        && decision.allows()
        && !police::expired(t, s)
    {
        let stateless = s.class.rule_flags & RuleFlags::UNTRACKED != 0;
        if stateless && (own.rule() != 0 || !has_selector(proto)) {
            return refused_both_ways(s, (own, own_rule, own_flags));
        }
        s.reversed = 1;
        if stateless && s.meta.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) != tcp_flag::SYN {
            return without_entry(s, decision);
        }
        if s.running != 0 && !stateless {
            s.then = then::ADMIT;
            return Outcome::miss();
        }
    }
    refused_both_ways(s, (own, own_rule, own_flags))
}

/// Neither way: the packet is denied by what was said of its own direction, and reported so.
#[inline(always)]
fn refused_both_ways(s: &mut Scratch, (own, rule, flags): (Decision, u32, u32)) -> Outcome {
    s.reversed = 0;
    s.class.decision = own.0;
    s.class.rule_id = rule;
    s.class.rule_flags = flags;
    Outcome::miss()
}

/// Protocols whose answers show by their source port, or by their type, what they answer.
#[inline(always)]
pub(super) const fn has_selector(proto: u8) -> bool {
    matches!(
        proto,
        Proto::TCP | Proto::UDP | Proto::SCTP | Proto::ICMP | Proto::ICMPV6
    )
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
pub(super) fn peer_side(s: &Scratch) -> Side {
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
