//! A packet of a known flow: the fast path.

use super::open::{self, fresh_copy};
use super::{Family, FlowMaps, FlowStat, Insert, Outcome, Scratch, Tables};
use crate::abi::{Flow, FlowFlags, LiveFlow, LiveHalf, Mode, Proto, Reason, Side, StateWord};
use crate::tcp::{self, Seen, Segment};
use crate::wire::{echo_request, tcp_flag};

/// A flow that nobody answers moves to the main map after this many packets (syslog, RoCE: one-way by nature) ...
const ONE_WAY_PACKETS: u64 = 8;
/// ... and this many ns.
const ONE_WAY_AGE: u64 = 2_000_000_000;
/// One-way promotions per CPU and window of 2^30 ns: with the timeout of 30 s this caps what one-way senders can take
/// of the main map.
const ONE_WAY_PER_WINDOW: u32 = 1024;

/// Judges a packet by the live entry of its flow. [`Outcome::miss`] if the packet ends it and opens a new one.
#[inline(always)]
pub(super) fn judge<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    in_main: bool,
    now: u64,
) -> Outcome {
    let word = StateWord(flow.state.load());
    let flags = FlowFlags(flow.flags.load());
    let reply = flags.opener_hi() != (s.meta.from_hi != 0);
    let (from, to) = if reply {
        (flags.peer(), flags.opener())
    } else {
        (flags.opener(), flags.peer())
    };
    if s.meta.side != from as u8 && !leaves_a_host(s) {
        return Outcome::drop(Reason::WrongSide);
    }
    // With identifier 0 both sides of an echo have the same port: the type tells them apart.
    let icmp = s.meta.proto == Proto::ICMP || s.meta.proto == Proto::ICMPV6;
    if icmp && (s.meta.selector == echo_request(s.meta.proto)) == reply {
        return Outcome::drop(Reason::IcmpNoFlow);
    }
    if flow.generation.load() != s.generation
        && let Err(reason) = open::judge_again::<F, T>(t, s, flow)
    {
        return Outcome::drop(reason);
    }
    // A forwarded packet that leaves went through the machine when it came in.
    let next = if s.meta.forwarded != 0 {
        word
    } else if s.meta.proto == Proto::TCP {
        match tcp_step(s, flow, word, reply) {
            tcp::Outcome::Pass(next) => next,
            tcp::Outcome::Reopen => {
                end(t, flow, word);
                return Outcome::miss();
            }
            tcp::Outcome::Drop(reason) => return Outcome::drop(reason),
        }
    } else {
        other_step(t, s, flow, word, reply, now)
    };
    if !t.dry_run() {
        note(s, flow, word, reply, now);
        // Another CPU may have changed the word meanwhile: then its transition stands, and this packet's is left to the
        // next one. No state is skipped, because every packet is judged by the word it finds.
        if next != word && !t.swap(&flow.state, word.0, next.0) {
            return Outcome::deliver(s, to, Reason::Established);
        }
        if !in_main && next.has(StateWord::CONFIRMED) {
            promote::<F, T>(t, s, flow, to);
            return Outcome::from_word(s.word);
        }
    }
    Outcome::deliver(s, to, Reason::Established)
}

/// True for what leaves a machine in mode `host`. Containers, bridges and VLAN devices of the machine stand between its
/// ports, so what leaves may have come by any of them; only what comes in from the wire can lie about its side.
#[inline(always)]
pub(super) fn leaves_a_host(s: &Scratch) -> bool {
    s.meta.egress != 0 && (s.port.mode == Mode::Host as u8 || s.meta.forwarded != 0)
}

/// Marks an entry as over, so that it is a miss from now on.
#[inline(always)]
fn end<'a, T: Tables<'a>>(t: T, flow: &LiveFlow, word: StateWord) {
    if !t.dry_run() {
        let _lost_race = t.swap(&flow.state, word.0, word.0 | StateWord::DEAD);
    }
}

/// The packet as a TCP segment.
#[inline(always)]
pub(super) fn segment(s: &Scratch) -> Segment {
    Segment {
        flags: s.meta.tcp_flags,
        seq: s.meta.seq,
        ack: s.meta.ack,
        payload: s.meta.payload,
    }
}

#[inline(always)]
fn tcp_step(s: &Scratch, flow: &LiveFlow, word: StateWord, reply: bool) -> tcp::Outcome {
    let (own, peer) = if reply {
        (&flow.half[1], &flow.half[0])
    } else {
        (&flow.half[0], &flow.half[1])
    };
    let seen = Seen {
        own_end: own.seq_end.load(),
        peer_end: peer.seq_end.load(),
        peer_ack: peer.ack.load(),
        peer_spoke: reply || word.has(StateWord::REPLIED),
    };
    tcp::step(word, reply, segment(s), seen)
}

/// UDP, ICMP and the rest: unanswered, answered, confirmed (the opener sent again after an answer).
#[inline(always)]
fn other_step<'a, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    word: StateWord,
    reply: bool,
    now: u64,
) -> StateWord {
    if reply {
        return StateWord(word.0 | StateWord::REPLIED);
    }
    if word.has(StateWord::REPLIED) {
        return StateWord::new(
            0,
            word.flags() | StateWord::CONFIRMED,
            open::confirmed_timeout_s(s.meta.proto),
        );
    }
    if word.has(StateWord::CONFIRMED) {
        return word;
    }
    let age = now.saturating_sub(flow.created.load());
    if flow.half[0].packets.load() >= ONE_WAY_PACKETS && age >= ONE_WAY_AGE && one_way_room(t, s, now) {
        return StateWord(word.0 | StateWord::CONFIRMED);
    }
    word
}

/// Takes one of this CPU's one-way promotions of the window.
#[inline(always)]
fn one_way_room<'a, T: Tables<'a>>(t: T, s: &mut Scratch, now: u64) -> bool {
    if t.dry_run() {
        return false;
    }
    let window = (now >> 30) as u32;
    if s.one_way_window != window {
        s.one_way_window = window;
        s.one_way_left = ONE_WAY_PER_WINDOW;
    }
    if s.one_way_left == 0 {
        t.stat(FlowStat::OneWayWaits);
        return false;
    }
    s.one_way_left -= 1;
    true
}

/// Writes what this packet adds to its direction's half. A forwarded packet that leaves was noted when it came in.
#[inline(always)]
fn note(s: &Scratch, flow: &LiveFlow, word: StateWord, reply: bool, now: u64) {
    let half = if reply { &flow.half[1] } else { &flow.half[0] };
    // What comes after a reset does not keep the entry alive.
    if word.state() != tcp::State::Close as u32 {
        half.last_seen.store(now);
    }
    if s.meta.forwarded != 0 {
        return;
    }
    half.packets
        .store(half.packets.load() + u64::from(s.meta.segments));
    half.bytes.store(half.bytes.load() + u64::from(s.meta.wire_bytes));
    if s.meta.proto == Proto::TCP && s.meta.tcp_flags & tcp_flag::RST == 0 {
        note_tcp(s, half, word);
    }
}

#[inline(always)]
fn note_tcp(s: &Scratch, half: &LiveHalf, word: StateWord) {
    let segment = segment(s);
    let (end, known) = (segment.end(), half.seq_end.load());
    let syn = segment.has(tcp_flag::SYN);
    let opening = word.state() <= tcp::State::SynRecv as u32;
    // While the connection opens, a SYN sets the number, whatever stood there; later segments only move it forward, and
    // a SYN in the middle of a connection says nothing.
    if (syn && opening) || (!syn && tcp::before(known, end)) {
        half.seq_end.store(end);
    }
    if segment.has(tcp_flag::ACK) {
        half.ack.store(segment.ack);
    } else if syn && opening {
        half.ack.store(segment.seq.wrapping_add(1));
    }
}

/// Moves a flow to the main map: insert there, then delete here, so that a look-up in this order (main, half-open, main)
/// always finds it. While an expired entry of the same key waits for the agent, the flow stays where it is.
///
/// The outcome goes into `s.word`: see [`crate::classify::class4`].
#[inline(never)]
fn promote<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    to: Side,
) {
    s.word = to_main::<F, T>(t, s, flow, to).word();
}

#[inline(always)]
fn to_main<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    to: Side,
) -> Outcome {
    fresh_copy(s, flow);
    match t.insert_main(F::key(s), &s.fresh) {
        Insert::Done => {
            t.delete_half_open(F::key(s));
            t.stat(FlowStat::Promoted);
        }
        Insert::Exists => t.stat(FlowStat::PromotionWaits),
        Insert::Full => return Outcome::drop(Reason::TableFull),
        Insert::Failed => return Outcome::drop(Reason::TableError),
    }
    Outcome::deliver(s, to, Reason::Established)
}

const _: () = assert!(size_of::<Flow>() == size_of::<LiveFlow>());
