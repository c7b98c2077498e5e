//! A packet as a TCP segment: what the TCP machine needs of the flow, and what it leaves there.
//!
//! The common case is judged in line. Everything else is a stage of its own, which finds its question in
//! [`Scratch::tcp`] and leaves its answer there.

use super::{Scratch, Stage, Tables, hit};
use crate::abi::{ControlFlags, FlowFlags, LiveFlow, LiveSent, Reason, Shared, StateWord};
use crate::tcp::window::fits;
use crate::tcp::{self, Judged, Known, Numbers, Outcome, Segment, State};

/// A question to the TCP machine, and its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What the segment's sender has sent; then, what is to be stored as that.
    pub own: Numbers,
    /// What its receiver has sent.
    pub peer: Numbers,
    /// The flow's `answer`; then, what is to be stored as that.
    pub answer: u32,
    /// 1 if `answer` has changed.
    pub answered: u32,
    /// The flow's word; then, its next one.
    pub word: u32,
    /// 1 if the answering side sent the segment.
    pub reply: u32,
    /// Not 0 if the flow was picked up in its middle, where windows are not judged.
    pub loose: u32,
    /// What happens to the segment: one of `code`.
    pub code: u32,
    /// Not 0 if what the segment changes is left to what measures it to be stored.
    pub measured: u32,
}

impl Case {
    /// All zero.
    pub const EMPTY: Self = {
        let none = Numbers {
            end: 0,
            ack: 0,
            edge: 0,
            window: 0,
        };
        Self {
            own: none,
            peer: none,
            answer: 0,
            answered: 0,
            word: 0,
            reply: 0,
            loose: 0,
            code: 0,
            measured: 0,
        }
    };
}

/// [`Case::code`]: an outcome as a number, because it goes through memory.
mod code {
    pub const PASS: u32 = 0;
    pub const REOPEN: u32 = 1;
    pub const END: u32 = 2;
    pub const INVALID: u32 = 3;
    pub const BAD_ACK: u32 = 4;
    pub const OUT_OF_WINDOW: u32 = 5;
    pub const RST_INVALID: u32 = 6;
}

/// Judges the segment in `s` by its flow, and notes what it changes if it passes: before the word is changed, so that whoever
/// finds the new word finds the numbers that belong to it. They stay in `s.tcp` for [`note`]; where the packet is `measured` by its rule,
/// those of all but the common case are left to it.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    word: StateWord,
    reply: bool,
) -> Outcome {
    let way = hit::way(t, s);
    let sender = &flow.sent[way];
    let (own, peer) = (load(sender), load(&flow.sent[way ^ 1]));
    if tcp::is_common(word, s.meta.tcp_flags) && s.meta.tcp_options == 0 {
        s.meta.sack = s.meta.ack;
        let segment = segment(s);
        if fits(segment, own, peer) {
            let after = own.after(segment, peer);
            s.tcp.own = after;
            s.tcp.answered = 0;
            if !t.dry_run() {
                keep(sender, after, flow.flags.load() & FlowFlags::PICKED_UP == 0);
            }
            return Outcome::Pass(tcp::common(word, reply, segment, peer));
        }
    }
    core::hint::cold_path();
    s.tcp.own = own;
    s.tcp.peer = peer;
    s.tcp.answer = flow.answer.load();
    s.tcp.word = word.0;
    s.tcp.reply = u32::from(reply);
    s.tcp.loose = flow.flags.load() & FlowFlags::PICKED_UP;
    t.stage(Stage::Segment, s);
    // A packet that is measured changes nothing before that: see `hit::police`.
    if s.tcp.code | s.tcp.measured == 0 && !t.dry_run() {
        note(t, s, flow);
    }
    outcome(s)
}

/// A later fragment of a segment that fits: its bytes are sent too, so that the other side may acknowledge them. Its numbers were
/// found by [`crate::fragment::LiveDatagram::fill_in`]. Not beyond what the other side has room for, and what follows what is known.
#[inline(never)]
pub(super) fn go_on<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow) {
    let established = StateWord(flow.state.load()).state() >= State::Established as u32;
    if t.dry_run() || !established || s.goes_on == 0 {
        return;
    }
    let way = hit::way(t, s);
    let (sender, receiver) = (&flow.sent[way], &flow.sent[way ^ 1]);
    let (known, end) = (sender.seq_end.load(), s.meta.seq.wrapping_add(s.meta.payload));
    let further = tcp::before(known, end) && end.wrapping_sub(known) <= LONGEST;
    if further && !tcp::before(receiver.edge.load(), end) {
        sender.seq_end.store(end);
    }
}

/// Bytes of the longest datagram.
const LONGEST: u32 = 1 << 16;

/// Stores what the segment has changed: its own side's numbers, where they differ. `flow` may be the entry that took the
/// judged one's place in the main map.
///
/// One direction may leave by two CPUs: a socket's owner sends on one, the answer to an acknowledgement on another. Once a
/// connection is established its numbers only go forward ([`Numbers::after`]), so one that was overtaken by the other
/// CPU's is left out. Before that, and where a connection was adopted, they are set anew.
#[inline(always)]
pub(super) fn note<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow) {
    let sender = &flow.sent[hit::way(t, s)];
    let established = StateWord(flow.state.load()).state() >= State::Established as u32;
    let forward = established && flow.flags.load() & FlowFlags::PICKED_UP == 0;
    keep(sender, s.tcp.own, forward);
    if s.tcp.answered != 0 {
        core::hint::cold_path();
        flow.answer.store(s.tcp.answer);
    }
}

/// Stores a side's numbers, where they differ. `forward`: only those that are ahead of what is known.
#[inline(always)]
fn keep(sender: &LiveSent, own: Numbers, forward: bool) {
    put(&sender.seq_end, own.end, forward);
    put(&sender.ack, own.ack, forward);
    put(&sender.edge, own.edge, forward);
    if sender.window.load() != own.window {
        sender.window.store(own.window);
    }
}

#[inline(always)]
fn put(cell: &Shared<u32>, number: u32, forward: bool) {
    let known = cell.load();
    if known != number && (!forward || tcp::before(known, number)) {
        cell.store(number);
    }
}

/// The stage: options, then everything but the common case without options.
#[inline(always)]
pub(super) fn stage<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    options(t, s);
    let known = Known {
        own: s.tcp.own,
        peer: s.tcp.peer,
        answer: s.tcp.answer,
        loose: s.tcp.loose != 0 || loose(t),
    };
    let judged = tcp::step(StateWord(s.tcp.word), s.tcp.reply != 0, segment(s), &known);
    s.tcp.measured = s.policed;
    if s.came_before != 0 {
        s.tcp.measured = 0;
        // It was judged when it came in. It moves this flow all the same: where an address, a port or a tag is changed on the
        // way (NAT), nobody has seen it by this key. Where not, it is a retransmission.
        if !matches!(judged.outcome, Outcome::Pass(_)) {
            s.tcp.answered = 0;
            s.tcp.code = code::PASS;
            return 0;
        }
    }
    answer(s, judged);
    0
}

#[inline(always)]
fn options<'a, T: Tables<'a>>(t: T, s: &mut Scratch) {
    s.meta.option_bits = 0;
    s.meta.sack = s.meta.ack;
    if s.meta.tcp_options != 0 {
        t.stage(Stage::Options, s);
    }
}

/// True if the policy says that windows are not judged.
#[inline(always)]
fn loose<'a, T: Tables<'a>>(t: T) -> bool {
    t.control()
        .is_some_and(|control| control.flags.load() & ControlFlags::WINDOW_LOOSE != 0)
}

#[inline(always)]
fn answer(s: &mut Scratch, judged: Judged) {
    s.tcp.answered = u32::from(judged.answer != s.tcp.answer);
    s.tcp.answer = judged.answer;
    s.tcp.own = judged.own;
    s.tcp.code = match judged.outcome {
        Outcome::Pass(word) => {
            s.tcp.word = word.0;
            code::PASS
        }
        Outcome::Reopen => code::REOPEN,
        Outcome::End(_) => code::END,
        Outcome::Drop(Reason::TcpBadAck) => code::BAD_ACK,
        Outcome::Drop(Reason::TcpOutOfWindow) => code::OUT_OF_WINDOW,
        Outcome::Drop(Reason::RstInvalid) => code::RST_INVALID,
        Outcome::Drop(_) => code::INVALID,
    };
}

#[inline(always)]
fn outcome(s: &Scratch) -> Outcome {
    match s.tcp.code {
        code::PASS => Outcome::Pass(StateWord(s.tcp.word)),
        code::REOPEN => Outcome::Reopen,
        code::END => Outcome::End(Reason::TcpInvalid),
        code::BAD_ACK => Outcome::Drop(Reason::TcpBadAck),
        code::OUT_OF_WINDOW => Outcome::Drop(Reason::TcpOutOfWindow),
        code::RST_INVALID => Outcome::Drop(Reason::RstInvalid),
        _ => Outcome::Drop(Reason::TcpInvalid),
    }
}

/// The TCP part of a flow that the SYN in `s` opens.
#[inline(always)]
pub(super) fn open<'a, T: Tables<'a>>(t: T, s: &mut Scratch) {
    options(t, s);
    let own = tcp::opener(segment(s));
    s.fresh.state = tcp::opened().0;
    fill(s, false, own);
}

/// The TCP part of a flow that the segment in `s` shows to be running. `reply`: it comes from the answering side.
#[inline(always)]
pub(super) fn pick_up(s: &mut Scratch, reply: bool) {
    s.meta.option_bits = 0;
    s.meta.sack = s.meta.ack;
    let (own, peer) = tcp::picked_up_numbers(segment(s));
    s.fresh.state = tcp::picked_up(reply).0;
    fill(s, reply, own);
    fill(s, !reply, peer);
}

#[inline(always)]
fn fill(s: &mut Scratch, reply: bool, numbers: Numbers) {
    let sent = if reply {
        &mut s.fresh.sent[1]
    } else {
        &mut s.fresh.sent[0]
    };
    sent.seq_end = numbers.end;
    sent.ack = numbers.ack;
    sent.edge = numbers.edge;
    sent.window = numbers.window;
}

/// Each number is read once: the other side's may change at any time.
#[inline(always)]
fn load(sent: &LiveSent) -> Numbers {
    Numbers {
        end: sent.seq_end.load(),
        ack: sent.ack.load(),
        edge: sent.edge.load(),
        window: sent.window.load(),
    }
}

/// The packet as a TCP segment; its options were parsed, or there are none.
#[inline(always)]
fn segment(s: &Scratch) -> Segment {
    Segment {
        flags: s.meta.tcp_flags,
        window: s.meta.tcp_window,
        seq: s.meta.seq,
        ack: s.meta.ack,
        sack: s.meta.sack,
        payload: s.meta.payload,
        options: s.meta.option_bits,
    }
}
