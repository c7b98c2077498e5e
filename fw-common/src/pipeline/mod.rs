//! The order of steps, generic over [`Packet`] and [`Tables`]: the same code in the kernel, in tests and under a fuzzer.
//!
//! [`judge`] is the whole way of a packet; it ends in [`finish()`], the one place that counts a verdict and its reason.
//! Stages are functions of their own that are never inlined: the verifier of kernel 6.1 counts two to three times the
//! instructions where everything is one function. Each takes the per-CPU [`Scratch`] and at most three words more.

mod admit;
mod again;
mod answer;
mod clock;
mod create;
mod family;
mod finish;
mod fragments;
mod hit;
mod limits;
mod link;
mod open;
mod police;
mod port;
mod presence;
mod promote;
mod proof;
mod related;
mod scratch;
mod screens;
mod segment;
mod source;
mod tables;

pub use admit::pressure_slots;
pub use family::{Family, V4, V6};
pub use finish::{Outcome, finish};
pub use presence::{Hashed, place};
pub use scratch::Scratch;
pub use segment::Case;
pub use tables::{FlowMaps, FlowStat, INSERT_TRIES, Insert, Tables, code};

pub use crate::wire::Packet;

use core::hint::cold_path;

use crate::abi::{LiveFlow, Proto, Reason, Side, Verdict};
use crate::classify::{CORRUPT, classes4, decide_in, search, walk6};
use crate::reply;
use crate::wire::{self, Kind};

/// The parts of the way that need nothing but the scratch memory and lie off the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// May an IPv4 packet without a flow open one?
    Open4,
    /// The same for IPv6.
    Open6,
    /// Makes an IPv4 flow.
    Create4,
    /// Makes an IPv6 flow.
    Create6,
    /// May the IPv4 flow of the key, opened by `Scratch::opener_hi`, go on under the policy in force?
    Again4,
    /// The same for IPv6.
    Again6,
    /// ARP, LLDP, LACP (`Scratch::kind`), IGMP, MLD and neighbour discovery.
    Link,
    /// The screens that parsing has found.
    Screens,
    /// Which datagram does this fragment belong to, and may its bytes pass?
    Fragment,
    /// What became of a first fragment, for those that come after it.
    FragmentDone,
    /// Floods, caps, limits, room: may an allowed flow be opened now?
    Admit,
    /// Limits of packets and bytes, deadlines.
    Police,
    /// A packet of a source in no named zone was denied.
    Denied,
    /// Does this reset prove its source?
    Proof,
    /// Writes the answer.
    Reply,
    /// Classes of the IPv4 addresses in `Scratch::class`.
    Class4,
    /// Class of the IPv6 address in `Scratch::class.walk`.
    Class6,
    /// The decision for the classes and the service in `Scratch::class`.
    Decide,
    /// The first rule in a set of vectors, by `Scratch::class.search`.
    Vectors,
    /// Options of a TCP segment.
    Options,
    /// A TCP segment that is not the common case.
    Segment,
}

/// Runs a stage. The result is an [`Outcome`]'s word, except for `Again4` and `Again6`: a [`Reason`]'s number.
#[inline(always)]
pub fn run<'a, T: Tables<'a>>(t: T, stage: Stage, s: &mut Scratch) -> u32 {
    match stage {
        Stage::Open4 => open::judge::<V4, T>(t, s).word(),
        Stage::Open6 => open::judge::<V6, T>(t, s).word(),
        Stage::Create4 => create::judge::<V4, T>(t, s).word(),
        Stage::Create6 => create::judge::<V6, T>(t, s).word(),
        Stage::Again4 => again::ask_again::<V4, T>(t, s),
        Stage::Again6 => again::ask_again::<V6, T>(t, s),
        Stage::Link => link::judge(t, s).word(),
        Stage::Screens => screens::parsed(t, s).word(),
        Stage::Fragment => fragments::judge(t, s).word(),
        Stage::FragmentDone => fragments::done(t, s),
        Stage::Admit => admit::judge(t, s).word(),
        Stage::Police => police::judge(t, s).word(),
        Stage::Denied => proof::count_denied(t, s),
        Stage::Proof => proof::judge(t, s).word(),
        Stage::Reply => answer::write(t, s),
        Stage::Class4 => {
            if let Some(lines) = t.lines(s.generation) {
                classes4(lines, &mut s.class);
            } else {
                s.class.src_class = CORRUPT;
            }
            0
        }
        Stage::Class6 => {
            if let Some(lines) = t.lines(s.generation) {
                walk6(lines, &mut s.class.walk);
            } else {
                s.class.walk.index = CORRUPT;
            }
            0
        }
        Stage::Decide => {
            if let Some(lines) = t.lines(s.generation) {
                decide_in::<true, _>(lines, &mut s.class);
            } else {
                s.class.found = 0;
            }
            0
        }
        Stage::Vectors => {
            if let Some(lines) = t.lines(s.generation) {
                search(lines, &mut s.class.search);
            } else {
                s.class.search.atom = CORRUPT;
            }
            0
        }
        Stage::Options => {
            crate::tcp::options::parse(&mut s.meta);
            0
        }
        Stage::Segment => segment::stage(t, s),
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
    s.event_kind = 0;
    s.errno = 0;
    let outcome = steps(pkt, t, s);
    let outcome = finish(t, s, outcome);
    if matches!(outcome.verdict(), Verdict::Reply) && !t.dry_run() {
        cold_path();
        return answered(pkt, t, s, outcome);
    }
    outcome
}

/// Writes the answer into `s.reply`; the packet is dropped without one if none may be given.
#[inline(always)]
fn answered<'a, P: Packet, T: Tables<'a>>(pkt: P, t: T, s: &mut Scratch, outcome: Outcome) -> Outcome {
    capture(pkt, s);
    s.word = outcome.word();
    if t.stage(Stage::Reply, s) == 0 {
        return outcome.silent();
    }
    outcome
}

/// Reads the head of the frame again; a function of its own, because parsers are what the verifier takes longest over.
#[inline(never)]
fn capture<P: Packet>(pkt: P, s: &mut Scratch) {
    let link = s.port.link;
    reply::capture(pkt, link, &mut s.meta, &mut s.reply);
}

#[inline(always)]
fn steps<'a, P: Packet, T: Tables<'a>>(pkt: P, t: T, s: &mut Scratch) -> Outcome {
    // Parsed before anything can fail, so that the counters and the event know the packet.
    if !port::find(t, s, s.meta.ifindex) {
        cold_path();
        s.meta.reset(pkt.zero());
        s.meta.len = pkt.len();
        s.meta.wire_bytes = pkt.wire_bytes(s.meta.len);
        s.meta.segments = pkt.segments();
        return Outcome::drop(Reason::UnknownPort);
    }
    let parsed = wire::parse(pkt, s.port.link, s.port.realm, &mut s.meta);
    if parsed & wire::PARSED == 0 {
        cold_path();
        return Outcome::from_word(parsed);
    }
    // From here on in memory: what is kept across calls costs stack, and the programs' own is part of every chain of calls.
    s.kind = parsed & !wire::PARSED;
    s.meta.side = side_of(s);
    s.generation = t.generation();
    if s.generation == 0 {
        cold_path();
        return Outcome::drop(Reason::NoPolicy);
    }
    if s.meta.screens != 0 {
        cold_path();
        let screened = Outcome::from_word(t.stage(Stage::Screens, s));
        if !screened.is_miss() {
            return screened;
        }
    }
    if s.kind != Kind::Ipv4 as u32 && s.kind != Kind::Ipv6 as u32 {
        cold_path();
        return Outcome::from_word(t.stage(Stage::Link, s));
    }
    if s.meta.fragment != 0 {
        cold_path();
        let tied = Outcome::from_word(t.stage(Stage::Fragment, s));
        if !tied.is_miss() {
            s.word = tied.word();
            measure(t, s);
            return Outcome::from_word(s.word);
        }
    }
    s.word = if s.meta.family == 4 {
        ip::<V4, P, T>(pkt, t, s).word()
    } else {
        ip::<V6, P, T>(pkt, t, s).word()
    };
    if s.meta.fragment == wire::FIRST {
        cold_path();
        t.stage(Stage::FragmentDone, s);
    }
    Outcome::from_word(s.word)
}

/// A later fragment of a datagram that needed no flow is measured by the rule that its first one was. Its outcome is in `s.word`.
#[inline(never)]
fn measure<'a, T: Tables<'a>>(t: T, s: &mut Scratch) {
    if s.word & 0xff != Reason::FragmentPass as u32 || s.policed == 0 {
        return;
    }
    let tied = s.word;
    s.reversed = 0;
    let refused = Outcome::from_word(t.stage(Stage::Police, s));
    s.word = if refused.is_miss() { tied } else { refused.word() };
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
    // A later fragment has the protocol and the ports of its first one, and no type.
    let icmp = (proto == Proto::ICMP || proto == Proto::ICMPV6) && !hit::later_fragment(s);
    if (proto == Proto::IGMP && !hit::later_fragment(s)) || (icmp && link_type(proto, selector)) {
        cold_path();
        s.kind = Kind::Ipv6 as u32;
        return Outcome::from_word(t.stage(Stage::Link, s));
    }
    if icmp && wire::icmp_error(proto, selector) {
        cold_path();
        related::judge::<F, P, T>(pkt, t, s);
        return Outcome::from_word(s.word);
    }
    // No flow is of another type; its key would be that of an echo with identifier 0.
    let tracked = if icmp && !wire::is_echo(proto, selector) {
        cold_path();
        Outcome::miss()
    } else {
        flow::<F, T>(t, s)
    };
    if !tracked.is_miss() {
        return tracked;
    }
    cold_path();
    open_flow::<F, T>(t, s);
    Outcome::from_word(s.word)
}

#[inline(always)]
const fn link_type(proto: u8, selector: u16) -> bool {
    proto == Proto::ICMPV6 && wire::icmpv6_is_link(selector)
}

/// Conntrack. A miss if the policy is to be asked.
#[inline(always)]
fn flow<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Outcome {
    F::make_key(s);
    if let Some((flow, in_main, now)) = find::<F, T>(t, s) {
        let outcome = hit::judge::<F, T>(t, s, flow, in_main, now);
        if !outcome.is_miss() {
            return outcome;
        }
    }
    cold_path();
    if hit::later_fragment(s) {
        // Its first fragment was allowed, but the flow is gone, or a newer policy has ended it.
        return Outcome::drop(Reason::FragmentDenied);
    }
    Outcome::miss()
}

/// Policy, where conntrack knows no flow. The outcome goes into `s.word`: see [`crate::classify::classes4`].
#[inline(never)]
fn open_flow<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) {
    s.word = open::follow_up::<F, T>(t, s).word();
}

/// The live entry of the key in `s`: main, half-open, and on a double miss main once more, because a promotion on another CPU
/// inserts into main before it deletes from half-open. An expired entry is a miss.
///
/// A flow whose bit is not set is in none of them. Where the last flow that this CPU looked for was in the main map, the next
/// one probably is as well and that map is asked first: established packets pay one look-up. Where it was not, the bit is
/// asked first, and a flood pays for no look-up.
#[inline(always)]
fn find<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch) -> Option<Found<'a>> {
    if s.missed == 0
        && let Some(found) = alive(t, s, t.main(F::key(s)), true)
    {
        return Some(found);
    }
    cold_path();
    s.missed = 1;
    if presence::absent(t, F::key(s)) {
        return None;
    }
    if let Some(found) = alive(t, s, t.half_open(F::key(s)), false) {
        return Some(found);
    }
    let found = alive(t, s, t.main(F::key(s)), true)?;
    s.missed = 0;
    Some(found)
}

/// A live entry, whether it lies in the main map, and the coarse time, which is read only where there is an entry.
type Found<'a> = (&'a LiveFlow, bool, u64);

#[inline(always)]
fn alive<'a, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: Option<&'a LiveFlow>,
    in_main: bool,
) -> Option<Found<'a>> {
    let flow = flow?;
    let now = clock::now(t, s);
    if flow.alive(now) {
        Some((flow, in_main, now))
    } else {
        None
    }
}
