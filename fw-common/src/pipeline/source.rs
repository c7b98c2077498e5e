//! What is known of the source of a flow: caps, proofs, bans.

use super::{Scratch, Tables, admit, place};
use crate::abi::{LiveSource, PRESSURE_SLOTS, ProtectMode, Proto, Reason, SOURCE_WORDS, threshold};
use crate::classify::{self, Lines};
use crate::limit;

/// Coarse time to windows of 34 s, in which unconfirmed flows are counted.
const WINDOW_SHIFT: u32 = 35;
/// Unconfirmed flows in a window of a source that proved its address but has completed no handshake: a proof can be guessed.
const PROVED_CAP: u32 = 64;
/// For so long (ns) a completed handshake shows that a source exists.
const COMPLETED_NS: u64 = 600_000_000_000;
/// For so long (ns) a proof does.
const PROVED_NS: u64 = 60_000_000_000;

/// Makes the key of the opener: the packet's source, or with `s.reversed` its destination.
#[inline(always)]
pub(super) fn key(s: &mut Scratch) {
    let from = if s.reversed != 0 { &s.meta.dst } else { &s.meta.src };
    s.source_key.addr[0] = from[0];
    s.source_key.addr[1] = if s.meta.family == 4 { 0 } else { from[1] };
    s.source_key.addr[2] = 0;
    s.source_key.addr[3] = 0;
    s.source_key.realm = s.meta.realm;
    s.source_key.family = u32::from(s.meta.family);
}

/// Mixes a word into a hash; the constants are those of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
#[inline(always)]
pub(super) const fn mix(hash: u64, word: u64) -> u64 {
    let mut x = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Keyed hash of the source key in `s`.
#[inline(always)]
fn hash<'a, T: Tables<'a>>(t: T, s: &Scratch) -> u64 {
    let key = &s.source_key;
    let secret = t.control().map_or(0, |control| control.secret[0].load());
    let hash = mix(secret, (u64::from(key.addr[0]) << 32) | u64::from(key.addr[1]));
    mix(hash, (u64::from(key.realm) << 8) | u64::from(key.family))
}

/// The bucket of [`Tables::pressure`] for the source key in `s`.
#[inline(always)]
pub(super) fn slot<'a, T: Tables<'a>>(t: T, s: &Scratch) -> u32 {
    hash(t, s) as u32 % (PRESSURE_SLOTS - threshold::COUNT)
}

/// Unconfirmed flows of the source in the current window.
#[inline(always)]
fn opened(source: &LiveSource, now: u64) -> u32 {
    if source.window.load() == (now >> WINDOW_SHIFT) as u32 {
        source.opened.load()
    } else {
        0
    }
}

/// Caps and bans of a known source; 0 or the number of the reason to drop. The key in `s` must be made. Notes whether the
/// source is known, for [`opens`].
#[inline(always)]
pub(super) fn caps<'a, T: Tables<'a>>(t: T, s: &mut Scratch, protect: &[u32; 16], now: u64) -> u32 {
    let Some(source) = t.source(&s.source_key) else {
        s.new_source = 1;
        return 0;
    };
    s.new_source = 0;
    if source.banned_until.load() > now {
        return Reason::Banned as u32;
    }
    let (half_open, flows) = (protect[3], protect[4]);
    if half_open != 0 && opened(source, now) >= half_open {
        return Reason::CapHalfOpen as u32;
    }
    // While no agent counts, the number only grows.
    if flows != 0 && source.flows.load() >= flows && admit::agent_alive(t) {
        return Reason::CapFlows as u32;
    }
    0
}

/// True if the source has shown that it exists, so that its SYNs need no proof.
#[inline(always)]
pub(super) fn proved<'a, T: Tables<'a>>(t: T, s: &Scratch, now: u64) -> bool {
    let Some(source) = t.source(&s.source_key) else {
        return false;
    };
    let completed = source.completed.load();
    if completed != 0 && now.saturating_sub(completed) < COMPLETED_NS {
        return true;
    }
    source.proved_until.load() > now && opened(source, now) < PROVED_CAP
}

/// The source's entry, made if need be. A source without one has no caps: they spare the flow tables, which have bounds of
/// their own.
#[inline(always)]
fn entry<'a, T: Tables<'a>>(t: T, s: &Scratch) -> Option<&'a LiveSource> {
    if let Some(source) = t.source(&s.source_key) {
        return Some(source);
    }
    let _exists_now = t.insert_source(&s.source_key, &s.source);
    t.source(&s.source_key)
}

/// Counts a flow that the source opens. [`caps`] was asked before.
#[inline(always)]
pub(super) fn opens<'a, T: Tables<'a>>(t: T, s: &mut Scratch, now: u64) {
    let window = (now >> WINDOW_SHIFT) as u32;
    if s.new_source != 0 && first_opens(t, s, window) {
        return;
    }
    let Some(source) = entry(t, s) else { return };
    if source.window.load() != window {
        source.window.store(window);
        source.opened.store(1);
        return;
    }
    t.add(&source.opened, 1);
}

/// Makes the entry of a source with its first flow counted in it; false if it has one by now, or the kernel refused.
#[inline(always)]
fn first_opens<'a, T: Tables<'a>>(t: T, s: &mut Scratch, window: u32) -> bool {
    s.source.window = window;
    s.source.opened = 1;
    let made = t.insert_source(&s.source_key, &s.source);
    s.source.window = 0;
    s.source.opened = 0;
    made
}

#[inline(always)]
fn less_opened<'a, T: Tables<'a>>(t: T, source: &LiveSource, now: u64) {
    if opened(source, now) != 0 {
        t.add(&source.opened, u32::MAX);
    }
}

/// The first answer of a flow other than TCP: it was asked for in earnest, so it counts no more as unanswered. The packet in
/// `s` comes from the answering side.
#[inline(always)]
pub(super) fn answered<'a, T: Tables<'a>>(t: T, s: &mut Scratch) {
    key(s);
    if let Some(source) = t.source(&s.source_key) {
        less_opened(t, source, t.now());
    }
}

/// Counts a flow of the source that was confirmed; `handshake`: by a TCP handshake.
#[inline(always)]
pub(super) fn confirms<'a, T: Tables<'a>>(t: T, s: &mut Scratch, handshake: bool, now: u64) {
    key(s);
    let Some(source) = entry(t, s) else { return };
    if s.meta.proto == Proto::TCP {
        less_opened(t, source, now);
    }
    t.add(&source.flows, 1);
    if handshake {
        source.completed.store(now);
        let hash = hash(t, s);
        let (word, bit) = place(hash, SOURCE_WORDS);
        if let Some(bits) = t.source_bits(word)
            && bits.load() & bit == 0
        {
            t.or64(bits, bit);
        }
    }
}

/// Remembers that the source has proved its address.
#[inline(always)]
pub(super) fn proves<'a, T: Tables<'a>>(t: T, s: &mut Scratch, now: u64) {
    key(s);
    if let Some(source) = entry(t, s) {
        source.proved_until.store(now.wrapping_add(PROVED_NS));
    }
}

/// True if the packet's source may have completed a handshake. Of the sources of a flood hardly one has, so that they cost
/// no look-up.
#[inline(always)]
pub(super) fn marked<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> bool {
    s.reversed = 0;
    key(s);
    let (word, bit) = place(hash(t, s), SOURCE_WORDS);
    t.source_bits(word).is_some_and(|bits| bits.load() & bit != 0)
}

/// Counts a denied packet of a source that lies in no named zone. Only a source that has completed a handshake can be
/// banned: anybody can put any address into a packet. Returns true if it is over the threshold.
#[inline(always)]
pub(super) fn denied<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> bool {
    let Some(source) = t.source(&s.source_key) else {
        return false;
    };
    let Some(lines) = t.lines(s.generation) else {
        return false;
    };
    let Some(protect) = classify::protect(lines) else {
        return false;
    };
    let (mode, ban_s) = (protect.w[5 + threshold::SCAN as usize], protect.w[9]);
    mode != ProtectMode::Skip as u32
        && source.completed.load() != 0
        && over::<T>(t, lines, source, (mode, ban_s))
}

#[inline(always)]
fn over<'a, T: Tables<'a>>(
    t: T,
    lines: impl Lines<'a>,
    source: &LiveSource,
    (mode, ban_s): (u32, u32),
) -> bool {
    let Some(rate) = super::limits::rate(lines, threshold::SCAN) else {
        return false;
    };
    let now = t.precise();
    let taken = limit::take(&source.denied, now, rate.cost(1), rate.burst, |cell, old, new| {
        t.swap64(cell, old, new)
    });
    if !matches!(taken, limit::Taken::Over) {
        return false;
    }
    if mode == ProtectMode::Drop as u32 {
        let until = t.now().wrapping_add(u64::from(ban_s) * 1_000_000_000);
        source.banned_until.store(until);
    }
    true
}
