//! The one exit: counts verdict and reason, reports drops within a limit.

use super::{FlowStat, Scratch, Tables};
use crate::abi::{Event, EventKind, Mode, Reason, Side, Verdict};

/// Verdict and reason in one register: bits 0..7 reason, bits 8..15 verdict, bit 16: no entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[repr(transparent)]
pub struct Outcome(u32);

impl Outcome {
    const MISS: u32 = 1 << 16;

    /// The packet is dropped.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self(reason as u32 | ((Verdict::Drop as u32) << 8))
    }

    /// The packet passes to `to`, as seen from this packet's hook.
    #[inline(always)]
    pub fn deliver(s: &Scratch, to: Side, reason: Reason) -> Self {
        let forward = s.port.mode == Mode::Inline as u8 && s.meta.egress == 0 && !matches!(to, Side::Own);
        let verdict = if forward { Verdict::Forward } else { Verdict::Pass };
        Self(reason as u32 | ((verdict as u32) << 8))
    }

    /// The outcome as a word, for [`super::Stage`].
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The outcome that a stage has returned. Whatever the word, it is a drop unless it says otherwise.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// No live entry was found; the next table is asked. Never leaves the pipeline.
    #[inline(always)]
    pub(super) const fn miss() -> Self {
        Self(Self::MISS)
    }

    #[inline(always)]
    pub(super) const fn is_miss(self) -> bool {
        self.0 & Self::MISS != 0
    }

    /// Number of the reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> u8 {
        self.0 as u8
    }

    /// The verdict; what is not surely a pass is a drop.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        match (self.0 >> 8) & 0xff {
            1 => Verdict::Pass,
            2 => Verdict::Forward,
            _ => Verdict::Drop,
        }
    }

    /// What a program loaded for questions or for tests returns: bits 0..1 verdict, 2..9 reason, 10..31 rule number.
    #[inline(always)]
    #[must_use]
    pub const fn report(self, decision: u32) -> u32 {
        self.verdict() as u32 | ((self.reason() as u32) << 2) | ((decision >> 2) << 10)
    }
}

/// Coarse time to limiter windows of 67 ms.
const EVENT_WINDOW_SHIFT: u32 = 26;

/// Counts the outcome and reports a drop. A forwarded packet that leaves was counted when it came in, unless it is
/// dropped here.
#[inline(always)]
pub fn finish<'a, T: Tables<'a>>(t: T, s: &mut Scratch, outcome: Outcome) -> Outcome {
    if t.dry_run() {
        return outcome;
    }
    let dropped = matches!(outcome.verdict(), Verdict::Drop);
    if dropped || s.meta.forwarded == 0 {
        count(t, s, outcome);
    }
    if dropped {
        report(t, s, outcome.reason());
    }
    outcome
}

#[inline(always)]
fn count<'a, T: Tables<'a>>(t: T, s: &Scratch, outcome: Outcome) {
    t.count_number(outcome.reason(), s.meta.segments, s.meta.wire_bytes);
}

/// Sends an event unless this CPU has used up its window. The limit is per CPU, so no limiter word is shared, and it
/// is checked before the event is built: a flood costs one clock read and two compares.
#[inline(never)]
fn report<'a, T: Tables<'a>>(t: T, s: &mut Scratch, reason: u8) {
    let now = t.now();
    let window = (now >> EVENT_WINDOW_SHIFT) as u32;
    if s.event_window != window {
        s.event_window = window;
        s.events_left = t.events_per_window();
    }
    if s.events_left == 0 {
        t.stat(FlowStat::EventsSuppressed);
        return;
    }
    s.events_left -= 1;
    fill(s, reason, now);
    if !t.emit(&s.event) {
        t.stat(FlowStat::EventsLost);
    }
}

#[inline(always)]
fn fill(s: &mut Scratch, reason: u8, now: u64) {
    let m = &s.meta;
    s.event = Event {
        time: now,
        src: m.src,
        dst: m.dst,
        ifindex: m.ifindex,
        rule: s.class.rule_id,
        src_zone: s.class.src.zone,
        dst_zone: s.class.dst.zone,
        generation: s.generation,
        len: m.len,
        sport: m.sport,
        dport: if m.proto == crate::abi::Proto::ICMP || m.proto == crate::abi::Proto::ICMPV6 {
            m.selector
        } else {
            m.dport
        },
        realm: u32::from(m.realm),
        ethertype: m.ethertype,
        kind: EventKind::Drop as u8,
        reason,
        family: m.family,
        proto: m.proto,
        tcp_flags: m.tcp_flags,
        egress: m.egress,
        inner_vlan: 0,
        errno: 0,
        pad: 0,
    };
}
