//! The order of steps, generic over [`Packet`] and [`Tables`]: the same code in the kernel, in tests and under a fuzzer.
//!
//! [`judge`] is the whole way of a packet; it ends in [`finish()`], the one place that counts a verdict and its reason.
//! Stages are functions of their own that are never inlined: the verifier of kernel 6.1 counts two to three times the
//! instructions where everything is one function. Each takes the per-CPU [`Scratch`] and at most three words more.

mod family;
mod finish;
mod hit;
mod link;
mod open;
mod related;
mod tables;

pub use family::{Family, V4, V6};
pub use finish::{Outcome, finish};
pub use tables::{FlowMaps, FlowStat, Insert, Tables};

pub use crate::wire::Packet;

use crate::abi::{Event, Flow, Key4, Key6, LiveFlow, PortConfig, Proto, Reason, Side};
use crate::classify::{Classified, Walk};
use crate::wire::{self, Kind, Meta};

/// Scratch memory of one packet: too much for the 512 bytes of a BPF stack, so it lies in a per-CPU map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// What is known of the packet.
    pub meta: Meta,
    /// The port whose hook runs.
    pub port: PortConfig,
    /// Key of an IPv4 packet's flow.
    pub key4: Key4,
    /// Key of an IPv6 packet's flow.
    pub key6: Key6,
    /// What the policy's tables say.
    pub class: Classified,
    /// Generation in force when the packet arrived.
    pub generation: u32,
    /// Window of the event limiter (coarse time >> 26); lives on from packet to packet.
    pub event_window: u32,
    /// Events that may still be sent in this window.
    pub events_left: u32,
    /// Window of the limiter of one-way promotions (coarse time >> 30).
    pub one_way_window: u32,
    /// One-way promotions left in that window.
    pub one_way_left: u32,
    /// [`Kind`] of a link packet, as a number.
    pub kind: u32,
    /// 1 if the opener of the flow that is asked about is the key's `hi` side.
    pub opener_hi: u32,
    /// [`Outcome`] of the last stage that is a function of its own.
    pub word: u32,
    /// A flow to be inserted.
    pub fresh: Flow,
    /// An event to be sent.
    pub event: Event,
}

impl Scratch {
    /// All zero.
    pub const EMPTY: Self = {
        let key6 = crate::abi::Ip6([0; 4]);
        let half = crate::abi::Half {
            packets: 0,
            bytes: 0,
            last_seen: 0,
            seq_end: 0,
            ack: 0,
            edge: 0,
            window: 0,
        };
        let record = crate::abi::ClassRecord {
            src_row: 0,
            dst_col: 0,
            zone: 0,
            flags: 0,
        };
        let ip4 = crate::abi::Ip4(0);
        Self {
            meta: Meta::EMPTY,
            port: PortConfig {
                ifindex: 0,
                peer_ifindex: 0,
                mode: 0,
                engine: 0,
                link: 0,
                side: 0,
                realm: 0,
                role: 0,
                peer_role: 0,
                pad: 0,
            },
            key4: Key4 {
                lo: ip4,
                hi: ip4,
                lo_port: 0,
                hi_port: 0,
                realm: 0,
                proto: 0,
                realm_high: 0,
            },
            key6: Key6 {
                lo: key6,
                hi: key6,
                lo_port: 0,
                hi_port: 0,
                realm: 0,
                proto: 0,
                realm_high: 0,
            },
            class: Classified {
                src: record,
                dst: record,
                decision: 0,
                rule_id: 0,
                found: 0,
                pad: 0,
                walk: Walk {
                    x: 0,
                    base: 0,
                    index: 0,
                    tree: 0,
                    at: 0,
                },
            },
            generation: 0,
            event_window: 0,
            events_left: 0,
            one_way_window: 0,
            one_way_left: 0,
            kind: 0,
            opener_hi: 0,
            word: 0,
            fresh: Flow {
                half: [half, half],
                created: 0,
                state: 0,
                generation: 0,
                rule: 0,
                src_zone: 0,
                dst_zone: 0,
                flags: 0,
                policed: 0,
                answer: 0,
                carried_packets: 0,
                carried_bytes: 0,
            },
            event: Event {
                time: 0,
                src: [0; 4],
                dst: [0; 4],
                ifindex: 0,
                rule: 0,
                src_zone: 0,
                dst_zone: 0,
                generation: 0,
                len: 0,
                sport: 0,
                dport: 0,
                realm: 0,
                ethertype: 0,
                kind: 0,
                reason: 0,
                family: 0,
                proto: 0,
                tcp_flags: 0,
                egress: 0,
                inner_vlan: 0,
                errno: 0,
                pad: 0,
            },
        }
    };
}

/// The parts of the way that need nothing but the scratch memory and lie off the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// May an IPv4 packet without a flow open one?
    Open4,
    /// The same for IPv6.
    Open6,
    /// May the IPv4 flow of the key, opened by `Scratch::opener_hi`, go on under the policy in force?
    Again4,
    /// The same for IPv6.
    Again6,
    /// ARP, LLDP, LACP (`Scratch::kind`), IGMP, MLD and neighbour discovery.
    Link,
}

/// Runs a stage. The result is an [`Outcome`]'s word, except for `Again4` and `Again6`: a [`Reason`]'s number.
#[inline(always)]
pub fn run<'a, T: Tables<'a>>(t: T, stage: Stage, s: &mut Scratch) -> u32 {
    match stage {
        Stage::Open4 => open::judge::<V4, T>(t, s).word(),
        Stage::Open6 => open::judge::<V6, T>(t, s).word(),
        Stage::Again4 => open::ask_again::<V4, T>(t, s),
        Stage::Again6 => open::ask_again::<V6, T>(t, s),
        Stage::Link => link::judge(t, s).word(),
    }
}

/// The whole way of a packet: port, parse, link protocols, conntrack, policy. Counts and reports through [`finish()`].
#[inline(always)]
pub fn judge<'a, P: Packet, T: Tables<'a>>(pkt: P, t: T, s: &mut Scratch) -> Outcome {
    s.meta.egress = u8::from(pkt.egress());
    // What came in by another port of ours was judged and counted there; what came by an interface that is not ours counts
    // as sent by this machine.
    let came_by = pkt.came_by();
    s.meta.forwarded = u8::from(came_by != 0 && t.port(came_by, &mut s.port));
    s.meta.ifindex = pkt.ifindex();
    s.class.decision = 0;
    s.class.rule_id = 0;
    s.class.src.zone = 0;
    s.class.dst.zone = 0;
    let outcome = steps(pkt, t, s);
    finish(t, s, outcome)
}

#[inline(always)]
fn steps<'a, P: Packet, T: Tables<'a>>(pkt: P, t: T, s: &mut Scratch) -> Outcome {
    // Parsed before anything can fail, so that the counters and the event know the packet.
    if !t.port(s.meta.ifindex, &mut s.port) {
        s.meta.reset();
        s.meta.len = pkt.len();
        s.meta.wire_bytes = pkt.wire_bytes();
        s.meta.segments = pkt.segments();
        return Outcome::drop(Reason::UnknownPort);
    }
    let parsed = wire::parse(pkt, s.port.link, s.port.realm, &mut s.meta);
    if parsed & wire::PARSED == 0 {
        return Outcome::from_word(parsed);
    }
    s.meta.side = side_of(s);
    s.generation = t.generation();
    if s.generation == 0 {
        return Outcome::drop(Reason::NoPolicy);
    }
    let kind = parsed & !wire::PARSED;
    if kind == Kind::Ipv4 as u32 {
        ip::<V4, P, T>(pkt, t, s)
    } else if kind == Kind::Ipv6 as u32 {
        ip::<V6, P, T>(pkt, t, s)
    } else {
        s.kind = kind;
        Outcome::from_word(t.stage(Stage::Link, s))
    }
}

/// Where the packet comes from. What this machine sends comes from [`Side::Own`]; what it forwards came in by another
/// port and is judged as if by this one.
#[inline(always)]
fn side_of(s: &Scratch) -> u8 {
    if s.meta.egress != 0 && s.meta.forwarded == 0 {
        Side::Own as u8
    } else {
        s.port.side
    }
}

#[inline(always)]
fn ip<'a, F: Family, P: Packet, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    pkt: P,
    t: T,
    s: &mut Scratch,
) -> Outcome {
    let (proto, selector) = (s.meta.proto, s.meta.selector);
    if proto == Proto::IGMP || (proto == Proto::ICMPV6 && wire::icmpv6_is_link(selector)) {
        s.kind = Kind::Ipv6 as u32;
        return Outcome::from_word(t.stage(Stage::Link, s));
    }
    if (proto == Proto::ICMP || proto == Proto::ICMPV6) && wire::icmp_error(proto, selector) {
        related::judge::<F, P, T>(pkt, t, s);
        return Outcome::from_word(s.word);
    }
    if (proto == Proto::ICMP || proto == Proto::ICMPV6) && !wire::is_echo(proto, selector) {
        // No flow is of such a type; its key would be that of an echo with identifier 0.
        return Outcome::from_word(t.stage(F::OPEN, s));
    }
    track::<F, T>(t, s);
    Outcome::from_word(s.word)
}

/// Conntrack, then policy. The outcome goes into `s.word`: see [`crate::classify::class4`].
#[inline(never)]
fn track<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) {
    s.word = flow_or_policy::<F, T>(t, s).word();
}

#[inline(always)]
fn flow_or_policy<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Outcome {
    F::make_key(s);
    let now = t.now();
    if let Some((flow, in_main)) = find::<F, T>(t, s, now) {
        let outcome = hit::judge::<F, T>(t, s, flow, in_main, now);
        if !outcome.is_miss() {
            return outcome;
        }
    }
    Outcome::from_word(t.stage(F::OPEN, s))
}

/// The live entry of the key in `s`, and whether it lies in the main map: main, half-open, and on a double miss main once
/// more, because a promotion on another CPU inserts into main before it deletes from half-open. An expired entry is a
/// miss.
#[inline(always)]
fn find<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &Scratch,
    now: u64,
) -> Option<(&'a LiveFlow, bool)> {
    if let Some(flow) = t.main(F::key(s))
        && flow.alive(now)
    {
        return Some((flow, true));
    }
    if let Some(flow) = t.half_open(F::key(s))
        && flow.alive(now)
    {
        return Some((flow, false));
    }
    let flow = t.main(F::key(s))?;
    if flow.alive(now) { Some((flow, true)) } else { None }
}
