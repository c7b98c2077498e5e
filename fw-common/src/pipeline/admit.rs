//! A flow that a rule allows: may it be opened now, as far as floods, caps, limits and the table's room go?

use super::limits::{self, Draw};
use super::{Outcome, Scratch, Tables, clock, source};
use crate::abi::{
    ClassFlags, Decision, FlowFlags, HEARTBEAT_NS, PRESSURE_SLOTS, ProtectMode, Proto, Reason, Side,
    threshold,
};
use crate::classify;
use crate::limit::{self, Taken};

/// [`Outcome::miss`] if the flow may be opened.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let Some(lines) = t.lines_in_place(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let Some(protect) = classify::protect(lines) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let now = clock::now(t, s);
    source::key(s);
    // What this machine sends itself needs no proof and no cap either.
    let own = s.meta.side == Side::Own as u8;
    s.counted = 0;
    let spared = own || s.class.src.flags & (ClassFlags::EXEMPT | ClassFlags::LIFELINE) != 0;
    if !spared {
        let refused = source::caps(t, s, &protect.w, now);
        if refused != 0 {
            return Outcome::from_word(refused);
        }
        let flood = flood(t, s, lines, &protect.w);
        if !flood.is_miss() {
            return flood;
        }
    }
    // A connection that is adopted is not new, and what a rule only audits has no limits: neither is charged.
    if s.running == 0 && Decision(s.class.decision).allows() {
        let refused = limits::draw(t, s, Draw::Opening);
        if refused != 0 {
            return Outcome::from_word(refused);
        }
    }
    if !room::<T>(t, s) {
        return Outcome::drop(Reason::TableFull);
    }
    if !spared && !t.dry_run() {
        source::opens(t, s, now);
    }
    Outcome::miss()
}

/// True if the main table has room for this flow, or if it does not matter: a lifeline uses the reserve, and while nobody
/// ages the table flows stay in the half-open one.
#[inline(always)]
fn room<'a, T: Tables<'a>>(t: T, s: &Scratch) -> bool {
    let lifeline = (s.class.src.flags | s.class.dst.flags) & ClassFlags::LIFELINE != 0;
    lifeline || free(t, s.meta.family == 6) || !agent_alive(t)
}

/// True if the main table of the family holds fewer flows than anyone may fill.
#[inline(always)]
pub(super) fn free<'a, T: Tables<'a>>(t: T, v6: bool) -> bool {
    t.levels().is_some_and(|levels| {
        let family = usize::from(v6);
        levels.used[family].load() < levels.room[family].load()
    })
}

/// True if the agent was seen at work lately.
#[inline(always)]
pub(super) fn agent_alive<'a, T: Tables<'a>>(t: T) -> bool {
    t.control()
        .is_some_and(|control| t.now().saturating_sub(control.heartbeat.load()) <= HEARTBEAT_NS)
}

/// Flows to one destination: above the threshold TCP must prove its source, others are dropped. Of TCP those count that are
/// half open, of others all that are new.
#[inline(always)]
fn flood<'a, T: Tables<'a>>(t: T, s: &mut Scratch, lines: T::Lines, protect: &[u32; 16]) -> Outcome {
    let (number, reason) = match s.meta.proto {
        Proto::TCP => (threshold::SYN, Reason::SynProof),
        Proto::ICMP | Proto::ICMPV6 => (threshold::ICMP, Reason::IcmpFlood),
        _ => (threshold::UDP, Reason::UdpFlood),
    };
    let mode = match number {
        threshold::SYN => protect[5],
        threshold::UDP => protect[6],
        _ => protect[7],
    };
    if mode == ProtectMode::Skip as u32 {
        return Outcome::miss();
    }
    if within(t, s, lines, number) {
        s.counted = u32::from(number == threshold::SYN);
        return Outcome::miss();
    }
    if mode == ProtectMode::Count as u32 {
        super::finish::note(t, s, reason as u32);
        return Outcome::miss();
    }
    if number != threshold::SYN {
        return Outcome::drop(reason);
    }
    let now = clock::now(t, s);
    if source::proved(t, s, now) {
        return Outcome::miss();
    }
    Outcome::reply(reason)
}

/// Draws one flow from the destination's bucket. Destinations that share a bucket by their hash share its rate.
#[inline(always)]
fn within<'a, T: Tables<'a>>(t: T, s: &Scratch, lines: T::Lines, number: u32) -> bool {
    let Some(rate) = limits::rate(lines, number) else {
        return false;
    };
    let secret = t.control().map_or(0, |control| control.secret[1].load());
    let (own, all) = pressure_slots(secret, &s.meta.dst, s.meta.realm, number);
    let (now, cost) = (t.precise(), rate.cost(1));
    drawn(t, own, now, (cost, rate.burst)) && drawn(t, all, now, (cost.div_ceil(ALL_SHARE), rate.burst))
}

/// Ticks of a bucket are 2^-8 ns.
const TICK_SHIFT: u32 = 8;

/// Gives back what a flow drew that is not half open any more: its handshake is complete. What took longer than the burst has
/// drained already: given back it would make room for others. The packet in `s` is the opener's, and `s.fresh` a copy of
/// the flow. `now`: coarse time, ns.
#[inline(always)]
pub(super) fn completed<'a, T: Tables<'a>>(t: T, s: &Scratch, now: u64) {
    if s.fresh.flags & FlowFlags::COUNTED == 0 {
        return;
    }
    let Some(lines) = t.lines_in_place(s.generation) else {
        return;
    };
    let Some(rate) = limits::rate(lines, threshold::SYN) else {
        return;
    };
    if now.saturating_sub(s.fresh.created) >= rate.burst >> TICK_SHIFT {
        return;
    }
    let secret = t.control().map_or(0, |control| control.secret[1].load());
    let (own, all) = pressure_slots(secret, &s.meta.dst, s.meta.realm, threshold::SYN);
    let cost = rate.cost(1);
    for (slot, cost) in [(own, cost), (all, cost.div_ceil(ALL_SHARE))] {
        if let Some(bucket) = t.pressure(slot) {
            limit::give_back(bucket, cost, |cell, old, new| t.swap64(cell, old, new));
        }
    }
}

/// The buckets of [`Tables::pressure`] for new flows to a destination (as in [`crate::wire::Meta::dst`]): its own, and the
/// one of all destinations. `secret` is the second word of [`crate::abi::Control::secret`], `number` the threshold's.
///
/// Many destinations together may take eight times the rate of one: spread over a network, a flood would push everybody's
/// handshakes out of the half-open map without reaching any one threshold. The last buckets are for all of a kind.
#[inline(always)]
#[must_use]
pub const fn pressure_slots(secret: u64, dst: &[u32; 4], realm: u32, number: u32) -> (u32, u32) {
    let hash = source::mix(secret, ((dst[0] as u64) << 32) | dst[1] as u64);
    let hash = source::mix(hash, ((dst[2] as u64) << 32) | dst[3] as u64);
    let hash = source::mix(hash, ((realm as u64) << 8) | number as u64);
    (
        hash as u32 % (PRESSURE_SLOTS - threshold::COUNT),
        PRESSURE_SLOTS - 1 - number,
    )
}

/// For the destinations of a machine together the threshold is so many times that of one.
const ALL_SHARE: u64 = 8;

/// Draws from one bucket of [`Tables::pressure`].
#[inline(always)]
pub(super) fn drawn<'a, T: Tables<'a>>(t: T, slot: u32, now: u64, (cost, burst): (u64, u64)) -> bool {
    let Some(bucket) = t.pressure(slot) else {
        return false;
    };
    if t.dry_run() {
        return limit::admit(bucket.load(), now, cost, burst).is_some();
    }
    let taken = limit::take(bucket, now, cost, burst, |cell, old, new| {
        t.swap64(cell, old, new)
    });
    matches!(taken, Taken::Admitted)
}
