//! The one exit: counts verdict and reason, reports drops within a limit.

use super::{FlowStat, Scratch, Tables, clock};
use crate::abi::{Event, EventKind, Mode, NOTED, Reason, Side, Verdict};

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

    /// The packet is dropped, and an answer goes back if the limit of answers and the packet permit one.
    #[inline(always)]
    pub const fn reply(reason: Reason) -> Self {
        Self(reason as u32 | ((Verdict::Reply as u32) << 8))
    }

    /// The same without an answer.
    #[inline(always)]
    pub const fn silent(self) -> Self {
        Self((self.0 & 0xff) | ((Verdict::Drop as u32) << 8))
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
            3 => Verdict::Reply,
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

/// Counts the outcome and reports a drop, or a match of a rule with `log: true`. A forwarded packet that leaves was counted
/// when it came in, unless it is dropped here. The outcome returned differs if the limit of answers is reached.
#[inline(always)]
pub fn finish<'a, T: Tables<'a>>(t: T, s: &mut Scratch, outcome: Outcome) -> Outcome {
    if t.dry_run() {
        return outcome;
    }
    let outcome = within_limit_of_answers(t, s, outcome);
    let passes = matches!(outcome.verdict(), Verdict::Pass | Verdict::Forward);
    if !passes || s.meta.forwarded == 0 {
        t.count_number(u32::from(outcome.reason()), s.meta.segments, s.meta.wire_bytes);
    }
    if (!passes || s.event_kind != 0) && may_report(t, s) {
        report(t, s, outcome.reason());
    }
    outcome
}

/// Answers are limited per CPU and window, like events: a flood of rejected packets must not become one of answers. What is
/// dropped during a SYN flood without being asked for a proof has a reason of its own.
#[inline(always)]
fn within_limit_of_answers<'a, T: Tables<'a>>(t: T, s: &mut Scratch, outcome: Outcome) -> Outcome {
    if !matches!(outcome.verdict(), Verdict::Reply) {
        return outcome;
    }
    core::hint::cold_path();
    // The sender of what this machine forwards is behind another port.
    if s.meta.forwarded != 0 {
        return outcome.silent();
    }
    let window = (clock::now(t, s) >> EVENT_WINDOW_SHIFT) as u32;
    if s.reply_window != window {
        s.reply_window = window;
        s.replies_left = t.control().map_or(0, |control| control.replies_per_window.load());
        s.demands_left = if s.replies_left > u32::MAX >> DEMANDS_SHIFT {
            u32::MAX
        } else {
            s.replies_left << DEMANDS_SHIFT
        };
    }
    let demand = outcome.reason() == Reason::SynProof as u8;
    let left = if demand { s.demands_left } else { s.replies_left };
    if left == 0 {
        t.stat(FlowStat::RepliesSuppressed);
        return if demand {
            Outcome::drop(Reason::SynProofOver)
        } else {
            outcome.silent()
        };
    }
    if demand {
        s.demands_left = left - 1;
    } else {
        s.replies_left = left - 1;
    }
    outcome
}

/// For each other answer 2^8 demands for proof may be sent: 244,000 a second and CPU by default. A demand is as long as the
/// SYN that it answers, so it makes no flood larger; and who is not asked among the many of a flood cannot prove anything.
const DEMANDS_SHIFT: u32 = 8;

/// Counts a packet that would have been dropped, had a screen or a threshold not the mode `count`, or a rule `audit: true`;
/// and reports it with what becomes of it.
#[inline(always)]
pub(super) fn note<'a, T: Tables<'a>>(t: T, s: &mut Scratch, reason: u32) {
    // What leaves again was noted when it came in.
    if t.dry_run() || s.meta.forwarded != 0 {
        return;
    }
    t.count_number(NOTED + (reason & 0xff), s.meta.segments, s.meta.wire_bytes);
    if s.event_kind == 0 {
        s.event_kind = EventKind::Noted as u8;
        s.noted = reason as u8;
    }
}

/// Takes one of this CPU's events of the window. The limit is per CPU, so no limiter word is shared, and it is checked before
/// the event is built: a flood costs one clock read and two compares. Matches of rules with `log: true` and `audit: true`
/// have a budget of their own, so that a flood of other drops does not hide them.
#[inline(always)]
fn may_report<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> bool {
    let window = (clock::now(t, s) >> EVENT_WINDOW_SHIFT) as u32;
    if s.event_window != window {
        s.event_window = window;
        let events = t.control().map_or(0, |control| control.events_per_window.load());
        s.events_left = events;
        s.logs_left = events;
    }
    let wanted = s.event_kind == EventKind::Log as u8 || s.event_kind == EventKind::Audit as u8;
    let left = if wanted {
        &mut s.logs_left
    } else {
        &mut s.events_left
    };
    if *left == 0 {
        t.stat(FlowStat::EventsSuppressed);
        return false;
    }
    *left -= 1;
    true
}

/// Sends an event.
#[inline(never)]
fn report<'a, T: Tables<'a>>(t: T, s: &mut Scratch, reason: u8) {
    let now = clock::now(t, s);
    fill(s, reason, now);
    if !t.emit(&s.event) {
        t.stat(FlowStat::EventsLost);
    }
}

#[inline(always)]
fn fill(s: &mut Scratch, reason: u8, now: u64) {
    let m = &s.meta;
    let noted = s.event_kind == EventKind::Noted as u8;
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
        realm: m.realm,
        sport: m.sport,
        dport: if m.proto == crate::abi::Proto::ICMP || m.proto == crate::abi::Proto::ICMPV6 {
            m.selector
        } else {
            m.dport
        },
        ethertype: m.ethertype,
        errno: s.errno,
        kind: if s.event_kind == 0 {
            EventKind::Drop as u8
        } else {
            s.event_kind
        },
        reason: if noted { s.noted } else { reason },
        family: m.family,
        proto: m.proto,
        tcp_flags: m.tcp_flags,
        egress: m.egress,
        inner_vlan: m.inner_vlan,
        pad: 0,
    };
}
