//! A packet of a known flow: the fast path.

use core::hint::cold_path;

use super::promote::promote;
use super::{Family, FlowMaps, FlowStat, Outcome, Scratch, Stage, Tables, again, create, segment, source};
use crate::abi::{Flow, FlowFlags, LiveFlow, Mode, Proto, Reason, Side, StateWord};
use crate::tcp;
use crate::wire::{self, echo_request};

/// A flow that nobody answers moves to the main map after this many packets (syslog, RoCE: one-way by nature) ...
const ONE_WAY_PACKETS: u64 = 8;
/// ... and this many ns.
const ONE_WAY_AGE: u64 = 2_000_000_000;
/// One-way promotions per CPU and window of 2^30 ns: with the timeout of 30 s this caps what one-way senders can take
/// of the main map.
const ONE_WAY_PER_WINDOW: u32 = 1024;

/// Judges a packet by the live entry of its flow. [`Outcome::miss`] if the packet ends it and opens a new one.
#[inline(always)]
#[expect(
    clippy::too_many_lines,
    reason = "one step after the other; the marks of what is rare make it longer than 60 lines"
)]
pub(super) fn judge<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    in_main: bool,
    now: u64,
) -> Outcome {
    let flags = FlowFlags(flow.flags.load());
    // In arithmetic, and from memory: see `way`.
    s.reversed = (flags.0 ^ u32::from(s.meta.from_hi)) & FlowFlags::OPENER_HI;
    let reply = t.read_again(&s.reversed) != 0;
    let to = Side::from_bits(flags.side_of(!reply));
    note_where(t, s, flags);
    if u32::from(s.meta.side) != flags.side_of(reply) && !leaves_a_host(s) {
        cold_path();
        return Outcome::drop(Reason::WrongSide);
    }
    // With identifier 0 both sides of an echo have the same port: the type tells them apart.
    let icmp = s.meta.proto == Proto::ICMP || s.meta.proto == Proto::ICMPV6;
    if icmp && !later_fragment(s) && (s.meta.selector >> 8 == echo_request(s.meta.proto) >> 8) == reply {
        cold_path();
        return Outcome::drop(Reason::IcmpNoFlow);
    }
    s.policed = flow.policed.load();
    if again::is_older(flow, s) {
        cold_path();
        if let Err(reason) = again::judge_again::<F, T>(t, s, flow) {
            return Outcome::drop(reason);
        }
    }
    let word = StateWord(flow.state.load());
    let stepped = step(t, s, flow, word, reply, now);
    let next = match stepped {
        Step::Keep => word,
        Step::To(next) => next,
        Step::Reopen => {
            cold_path();
            end(t, s, flow, word);
            return Outcome::miss();
        }
        Step::End(reason) => {
            cold_path();
            // Where the port does not tell the two sides apart, anybody could have sent both of the segments that end a flow.
            end_if_bound(t, s, flow, word);
            return Outcome::drop(reason);
        }
        Step::Drop(reason) => {
            cold_path();
            return Outcome::drop(reason);
        }
    };
    // After the segment was found valid: a stranger's guesses must not use up what the flow may send.
    if t.read_again(&s.policed) != 0 {
        cold_path();
        police(t, s, flow);
        let refused = Outcome::from_word(s.word);
        if !refused.is_miss() {
            return refused;
        }
    }
    if t.dry_run() {
        return Outcome::deliver(s, to, Reason::Established);
    }
    let changed = next == word || change(t, s, flow, word, next);
    note::<F, T>(t, s, flow, in_main, word, now);
    // Another CPU has changed the word meanwhile: this packet is judged once more by the word that stands now, so that no
    // FIN is lost. If that fails too, its transition is left to the sender's next packet.
    let next = if changed {
        next
    } else {
        cold_path();
        again::<F, T>(t, s, flow, now)
    };
    // By a packet of the opener only: its own CPU has just written the opener's half, and no other one copies it too early.
    if !in_main && !reply && next.has(StateWord::CONFIRMED) {
        cold_path();
        promote::<F, T>(t, s, flow, to);
        return Outcome::from_word(s.word);
    }
    Outcome::deliver(s, to, Reason::Established)
}

/// What a packet does to its flow's word.
enum Step {
    Keep,
    To(StateWord),
    Reopen,
    End(Reason),
    Drop(Reason),
}

#[inline(always)]
fn step<'a, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    word: StateWord,
    reply: bool,
    now: u64,
) -> Step {
    let next = if s.meta.proto == Proto::TCP {
        if later_fragment(s) {
            cold_path();
            segment::go_on(t, s, flow);
            return Step::Keep;
        }
        match segment::judge(t, s, flow, word, reply) {
            tcp::Outcome::Pass(next) => next,
            tcp::Outcome::Reopen => return Step::Reopen,
            tcp::Outcome::End(reason) => return Step::End(reason),
            tcp::Outcome::Drop(reason) => return Step::Drop(reason),
        }
    } else {
        other_step(t, s, flow, word, reply, now)
    };
    if next == word { Step::Keep } else { Step::To(next) }
}

/// Judges the packet once more by the word that another CPU has written. The packet passes whatever comes out: it was valid
/// when it came. The word goes into `s.word`: see [`crate::classify::classes4`].
#[inline(always)]
fn again<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    now: u64,
) -> StateWord {
    judge_word_again::<F, T>(t, s, flow, now);
    StateWord(s.word)
}

#[inline(never)]
fn judge_word_again<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    now: u64,
) {
    t.stat(FlowStat::StateRaces);
    let ended = StateWord(flow.state.load()).has(StateWord::DEAD);
    // An entry that was moved meanwhile: what this packet changes belongs to the new one.
    let flow = match t.main(F::key(s)) {
        Some(new) if ended && new.alive(now) => new,
        _ => flow,
    };
    let word = StateWord(flow.state.load());
    let reply = s.reversed != 0;
    s.word = word.0;
    if let Step::To(next) = step(t, s, flow, word, reply, now) {
        if s.meta.proto == Proto::TCP {
            // It was measured already, where it is.
            segment::note(t, s, flow);
        }
        if t.swap(&flow.state, word.0, next.0) {
            s.word = next.0;
        }
    }
}

/// Says in `s.came_before` whether the packet was judged and counted already when it came in. Not so for those of the opener of a flow that
/// began where they leave: forwarded under another address or tag than they came in by, this is the only place where they are
/// met by its key. Without a branch: the verifier would walk all that follows once more.
#[inline(always)]
fn note_where<'a, T: Tables<'a>>(t: T, s: &mut Scratch, flags: FlowFlags) {
    let not_here_only = !(flags.0 >> FlowFlags::FORWARDED.trailing_zeros()) | t.read_again(&s.reversed);
    s.came_before = u32::from(t.read_again(&s.meta.forwarded)) & not_here_only;
}

/// Index of the packet's direction in a flow's halves. An index, not a choice: the verifier of 6.1 follows each choice
/// between two places in an entry as two ways, whatever it was told by an earlier one.
#[inline(always)]
pub(super) fn way<'a, T: Tables<'a>>(t: T, s: &Scratch) -> usize {
    (t.read_again(&s.reversed) & 1) as usize
}

/// Changes a flow's word, after the time that its timeout counts from: whoever finds the new word finds that too. False if another
/// CPU has changed it.
#[inline(always)]
fn change<'a, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    word: StateWord,
    next: StateWord,
) -> bool {
    cold_path();
    seen_before(t, s, flow, word);
    t.swap(&flow.state, word.0, next.0)
}

#[inline(never)]
fn seen_before<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow, word: StateWord) {
    seen(flow, word, way(t, s), s.now);
}

/// Measures the packet by the rule of its flow, `s.reversed` telling its direction; the outcome goes into `s.word`. What the
/// segment tells of the numbers is stored afterwards: one that is refused here never arrives.
#[inline(never)]
fn police<'a, T: Tables<'a>>(t: T, s: &mut Scratch, flow: &LiveFlow) {
    if s.came_before != 0 {
        s.word = Outcome::miss().word();
        return;
    }
    // Another CPU may have stamped the flow with a newer policy than the one this packet has read: the rule's number is of that.
    let newest = flow.generation.load();
    if tcp::before(s.generation, newest) {
        s.generation = newest;
        s.policed = flow.policed.load();
    }
    let refused = if s.policed == 0 {
        Outcome::miss()
    } else {
        Outcome::from_word(t.stage(Stage::Police, s))
    };
    if refused.is_miss() && s.meta.proto == Proto::TCP && !later_fragment(s) && !t.dry_run() {
        segment::note(t, s, flow);
    }
    s.word = refused.word();
}

/// True for a fragment without transport header.
#[inline(always)]
pub(super) fn later_fragment(s: &Scratch) -> bool {
    s.meta.fragment == wire::LATER
}

/// True for what leaves a machine in mode `host`. Containers, bridges and VLAN devices of the machine stand between its
/// ports, so what leaves may have come by any of them; only what comes in from the wire can lie about its side.
#[inline(always)]
pub(super) fn leaves_a_host(s: &Scratch) -> bool {
    s.meta.egress != 0 && (s.port.mode == Mode::Host as u8 || s.meta.forwarded != 0)
}

/// Marks an entry as over if its two sides are told apart by their ports.
#[inline(never)]
fn end_if_bound<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow, word: StateWord) {
    let flags = FlowFlags(flow.flags.load());
    if flags.opener() as u8 != flags.peer() as u8 {
        end(t, s, flow, word);
    }
}

/// Marks an entry as over, so that it is a miss from now on. The agent leaves it where it is for a while after this packet's
/// time, because other CPUs may hold it.
#[inline(always)]
fn end<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow, word: StateWord) {
    if !t.dry_run() {
        seen(flow, word, way(t, s), s.now);
        let _lost_race = t.swap(&flow.state, word.0, word.0 | StateWord::DEAD);
    }
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
            create::confirmed_timeout_s(s.meta.proto),
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
    take_one_way(t, s, now);
    s.word != 0
}

/// The answer goes into `s.word`. A function of its own: the stack of the program itself is part of the longest chain of calls.
#[inline(never)]
fn take_one_way<'a, T: Tables<'a>>(t: T, s: &mut Scratch, now: u64) {
    s.word = u32::from(one_way_left(t, s, now));
}

#[inline(always)]
fn one_way_left<'a, T: Tables<'a>>(t: T, s: &mut Scratch, now: u64) -> bool {
    // What nobody answers takes at most half of what there is room for.
    let family = usize::from(s.meta.family == 6);
    let half_full = t
        .levels()
        .is_none_or(|levels| levels.used[family].load() >= levels.room[family].load() / 2);
    if t.dry_run() || half_full {
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

/// Notes the time of a packet. What comes after a reset does not keep the entry alive.
#[inline(always)]
pub(super) fn seen(flow: &LiveFlow, word: StateWord, way: usize, now: u64) {
    if word.state() != tcp::State::Close as u32 {
        flow.half[way & 1].last_seen.store(now);
    }
}

/// Writes what this packet adds to its direction's half. A forwarded packet that leaves was noted when it came in, by
/// this flow or by the one that it came in by.
#[inline(always)]
fn note<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    in_main: bool,
    word: StateWord,
    now: u64,
) {
    let way = way(t, s);
    seen(flow, word, way, now);
    if !in_main && t.read_again(&s.reversed) != 0 {
        cold_path();
        note_half_open::<F, T>(t, s, flow, word);
        return;
    }
    let half = &flow.half[way];
    if t.read_again(&s.came_before) != 0 {
        cold_path();
        met_here_only(t, s, flow);
        return;
    }
    half.packets
        .store(half.packets.load() + u64::from(s.meta.segments));
    half.bytes.store(half.bytes.load() + u64::from(s.meta.wire_bytes));
}

/// A forwarded packet of the opener, whose packets nobody has counted where they come in: they come in by another key, and the flow was
/// picked up by a packet of its answering side. From now on they are counted and measured here.
#[inline(never)]
fn met_here_only<'a, T: Tables<'a>>(t: T, s: &Scratch, flow: &LiveFlow) {
    if way(t, s) == 0 && flow.half[0].packets.load() == 0 {
        flow.flags.store(flow.flags.load() | FlowFlags::FORWARDED);
    }
}

/// Counts a packet of the answering side on a half-open entry, which the opener's CPU may be moving to the main map at this
/// moment: see [`super::promote`]. `word`: the flow's before this packet.
#[inline(never)]
fn note_half_open<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
    word: StateWord,
) {
    if s.came_before != 0 {
        // The first answer of a flow that is met by its key only here.
        if s.meta.proto != Proto::TCP && !word.has(StateWord::REPLIED) {
            source::answered(t, s);
        }
        return;
    }
    let (packets, bytes) = (u64::from(s.meta.segments), u64::from(s.meta.wire_bytes));
    let half = &flow.half[1];
    let before = t.add64(&half.packets, packets);
    if before == 0 && s.meta.proto != Proto::TCP {
        source::answered(t, s);
    }
    let moved = before & Flow::TAKEN != 0;
    if moved && let Some(new) = t.main(F::key(s)) {
        new.half[1].packets.store(new.half[1].packets.load() + packets);
        if s.meta.proto == Proto::TCP && !later_fragment(s) {
            segment::note(t, s, new);
        }
    }
    if t.add64(&half.bytes, bytes) & Flow::TAKEN != 0
        && let Some(new) = t.main(F::key(s))
    {
        new.half[1].bytes.store(new.half[1].bytes.load() + bytes);
    }
}

const _: () = assert!(size_of::<Flow>() == size_of::<LiveFlow>());
