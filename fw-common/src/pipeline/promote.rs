//! From the half-open map to the main map: insert there, hand over what was counted meanwhile, then delete here.

use super::create::{fresh_copy, refused_by_kernel};
use super::tables::insist;
use super::{Family, FlowMaps, FlowStat, Insert, Outcome, Scratch, Tables, admit, clock, code, source};
use crate::abi::{Flow, FlowFlags, LiveFlow, LiveSent, Proto, Reason, Sent, Shared, Side, StateWord};
use crate::tcp;

/// Moves a flow to the main map, so that a look-up in this order (main, half-open, main) always finds it. While an expired
/// entry of the same key waits for the agent, the flow stays where it is.
///
/// The outcome goes into `s.word`: see [`crate::classify::classes4`].
#[inline(never)]
pub(super) fn promote<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(
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
    let lifeline = flow.flags.load() & FlowFlags::LIFELINE != 0;
    fresh_copy(s, flow);
    // A table that the agent calls full is so by our own count: the kernel was not asked, so there is no error of its.
    let (inserted, last) = if lifeline || admit::free(t, s.meta.family == 6) {
        let last = insist(t, || t.insert_main(F::key(s), &s.fresh));
        (Insert::of(last), last)
    } else {
        (Insert::Full, code::DONE)
    };
    match inserted {
        Insert::Done => {
            moved::<F, T>(t, s, flow);
            Outcome::deliver(s, to, Reason::Established)
        }
        Insert::Exists => {
            t.stat(FlowStat::PromotionWaits);
            Outcome::deliver(s, to, Reason::Established)
        }
        // It was answered, and it was admitted when there was room: a datagram's sender would not even learn why it is cut.
        Insert::Full if lifeline || s.meta.proto != Proto::TCP || !admit::agent_alive(t) => {
            t.stat(FlowStat::StaysHalfOpen);
            Outcome::deliver(s, to, Reason::Established)
        }
        refused => refused_by_kernel(s, refused, last),
    }
}

#[inline(always)]
fn moved<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &mut Scratch, old: &LiveFlow) {
    if let Some(levels) = t.levels() {
        let family = usize::from(s.meta.family == 6);
        t.add64(&levels.used[family], 1);
    }
    hand_over::<F, T>(t, s, old);
    t.delete_half_open(F::key(s));
    t.stat(FlowStat::Promoted);
    let now = clock::now(t, s);
    source::confirms(t, s, s.meta.proto == Proto::TCP, now);
    admit::completed(t, s, now);
}

/// The answering side's packets may run on another CPU and have been written to the old entry after it was copied: their
/// counts go into the new entry's `carried` words, which nobody else writes, and their numbers move it forward. A packet that
/// comes later to the old entry finds [`Flow::TAKEN`] and goes to the new one.
///
/// Most often there was none, and the new entry stays as it was inserted: it is looked up for those only.
#[inline(always)]
fn hand_over<'a, F: Family, T: Tables<'a> + FlowMaps<'a, F::Key>>(t: T, s: &Scratch, old: &LiveFlow) {
    let (from, copied) = (&old.half[1], &s.fresh.half[1]);
    let packets = t
        .exchange64(&from.packets, Flow::TAKEN)
        .wrapping_sub(copied.packets);
    let bytes = t.exchange64(&from.bytes, Flow::TAKEN).wrapping_sub(copied.bytes);
    let word = last_word(t, s, old);
    let since = (packets | bytes) != 0 || from.last_seen.load() != copied.last_seen || word != s.fresh.state;
    if !since && same(&old.sent[1], &s.fresh.sent[1]) {
        return;
    }
    core::hint::cold_path();
    let Some(new) = t.main(F::key(s)) else { return };
    new.carried_packets.store(packets as u32);
    new.carried_bytes.store(bytes as u32);
    let into = &new.half[1];
    if into.last_seen.load() < from.last_seen.load() {
        into.last_seen.store(from.last_seen.load());
    }
    numbers(t, &old.sent[1], &new.sent[1]);
    if word != s.fresh.state {
        let _newer_still = t.swap(&new.state, s.fresh.state, word);
    }
}

/// True if a side's numbers are those that were copied.
#[inline(always)]
fn same(sent: &LiveSent, copied: &Sent) -> bool {
    let differ = (sent.seq_end.load() ^ copied.seq_end)
        | (sent.ack.load() ^ copied.ack)
        | (sent.edge.load() ^ copied.edge)
        | (sent.window.load() ^ copied.window);
    differ == 0
}

/// Ends the old entry and returns its last word: a FIN or a reset of the answering side may have changed it since it was
/// copied. The old entry is over then: who still holds it loses the exchange and leaves the transition to its sender's next
/// packet; and should the deletion fail, the entry is a miss.
#[inline(always)]
fn last_word<'a, T: Tables<'a>>(t: T, s: &Scratch, old: &LiveFlow) -> u32 {
    let mut tries = 0;
    while tries < 2 {
        let word = old.state.load();
        if t.swap(&old.state, word, word | StateWord::DEAD) {
            return word;
        }
        tries += 1;
    }
    s.fresh.state
}

#[inline(always)]
fn numbers<'a, T: Tables<'a>>(t: T, from: &LiveSent, into: &LiveSent) {
    forward(t, &from.seq_end, &into.seq_end);
    forward(t, &from.ack, &into.ack);
    forward(t, &from.edge, &into.edge);
    let (known, newer) = (into.window.load(), from.window.load());
    if known != newer {
        let _newer_still = t.swap(&into.window, known, newer);
    }
}

/// Moves a number forward in sequence space, unless its own side has done so.
#[inline(always)]
fn forward<'a, T: Tables<'a>>(t: T, from: &Shared<u32>, into: &Shared<u32>) {
    let (known, newer) = (into.load(), from.load());
    if tcp::before(known, newer) {
        let _newer_still = t.swap(into, known, newer);
    }
}
