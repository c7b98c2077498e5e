//! Window tracking, after van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2000), and `tcp_in_window` of
//! `nf_conntrack_proto_tcp.c`, with one change: every number is kept by the side that sent it, so that each half of a flow
//! has one writer.

use super::Segment;

/// Window scale shift that a side announced (RFC 7323 section 2.2), in [`Numbers::window`].
pub const SHIFT: u32 = 0xf;
/// The side sent the window scale option.
pub const SCALED: u32 = 1 << 4;
/// The side may be sent selective acknowledgements (RFC 2018 section 2).
pub const SACK_PERMITTED: u32 = 1 << 5;
/// How far (bytes, a multiple of 64) behind the newest a segment may lie that is still judged to be in time: twice the
/// largest window that the side has offered. A segment that was delayed for less than a round trip is overtaken by at most
/// so much: one window that was on its way, and one that acknowledgements on their way have opened. What lies behind the
/// receiver's window changes nothing there, so the firewall need not be exact.
pub const REACH: u32 = !0x3f;
/// The largest legal shift (RFC 7323 section 2.3).
pub const MAX_SHIFT: u32 = 14;

/// Twice the window is counted as at least 1 MiB. `nf_conntrack` lets old segments and acknowledgements pass however late they
/// are, without effect (`NFCT_TCP_IGNORE` below the lower bounds of `tcp_in_window`), because a receiver discards them anyway;
/// here they pass so long as a network can have kept them, and a blind guess is nearly always further off.
const LEAST: u32 = 1 << 20;
/// The least [`REACH`]: of windows up to half a mebibyte.
pub const LEAST_REACH: u32 = LEAST + BEYOND;
/// Always more than the window, for the probe and for a FIN at the very edge: [`REACH`] has no smaller step.
const BEYOND: u32 = 64;
/// The largest, a quarter of the sequence space, so that comparisons stay unique.
const MOST: u32 = (1 << 30) - BEYOND;

/// What one side of a connection has sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Numbers {
    /// The highest sequence number plus one.
    pub end: u32,
    /// The highest acknowledgement number; before the first, the number after the own SYN.
    pub ack: u32,
    /// The highest right edge of a window offered: acknowledgement plus window, one more where the window was zero,
    /// because it may be probed (RFC 9293 section 3.8.6.1). Of the opener before its first acknowledgement: the window of
    /// its SYN.
    pub edge: u32,
    /// [`SHIFT`], [`SCALED`], [`SACK_PERMITTED`] and [`REACH`]; 0 before the side has sent.
    pub window: u32,
}

/// `a` is behind `b` in sequence space (RFC 9293 section 3.4).
#[inline(always)]
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The later of two sequence numbers.
#[inline(always)]
#[must_use]
pub const fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

impl Numbers {
    /// See [`REACH`].
    #[inline(always)]
    #[must_use]
    pub const fn reach(self) -> u32 {
        self.window & REACH
    }

    /// What a SYN or SYN-ACK makes of a side. Its window is never scaled (RFC 7323 section 2.2).
    #[inline(always)]
    #[must_use]
    pub const fn opening(segment: Segment, ack: u32, acknowledged: u32) -> Self {
        let window = segment.window as u32;
        Self {
            end: segment.end(),
            ack,
            edge: right_edge(acknowledged, window),
            window: grown(segment.options & !REACH, window),
        }
    }

    /// The side after a segment with ACK that fits.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, segment: Segment, peer: Self) -> Self {
        let window = scaled(segment.window, self, peer);
        Self {
            end: later(self.end, segment.end()),
            ack: later(self.ack, segment.ack),
            edge: later(self.edge, right_edge(segment.ack, window)),
            window: grown(self.window, window),
        }
    }

    /// The opener after its first segment with ACK that is no SYN. Its SYN's window counts from `answer` on; scaled ones
    /// may end a little before it.
    #[inline(always)]
    #[must_use]
    pub const fn after_first(self, segment: Segment, peer: Self, answer: u32) -> Self {
        let window = scaled(segment.window, self, peer);
        let edge = right_edge(segment.ack, window);
        Self {
            end: later(self.end, segment.end()),
            ack: segment.ack,
            edge: later(edge, answer.wrapping_add(self.edge)),
            window: grown(self.window, window),
        }
    }
}

/// A segment's window in bytes: scaled only if both sides sent the option (RFC 7323 section 2.2).
#[inline(always)]
const fn scaled(window: u16, own: Numbers, peer: Numbers) -> u32 {
    let both = (own.window & peer.window & SCALED) >> 4;
    (window as u32) << (own.window & SHIFT & both.wrapping_neg())
}

#[inline(always)]
const fn right_edge(ack: u32, window: u32) -> u32 {
    ack.wrapping_add(window).wrapping_add((window == 0) as u32)
}

/// The packed window word once a window of so many bytes was offered.
#[inline(always)]
const fn grown(packed: u32, window: u32) -> u32 {
    let twice = 2 * window;
    let reach = if twice < LEAST { LEAST } else { twice };
    let reach = if reach > MOST { MOST } else { reach };
    widest(packed, reach + BEYOND)
}

/// The packed window word `packed`, with the larger one of its and the other word's reach.
#[inline(always)]
#[must_use]
pub const fn widest(packed: u32, other: u32) -> u32 {
    if other & REACH > packed & REACH {
        (packed & !REACH) | (other & REACH)
    } else {
        packed
    }
}

/// True if a segment may come now: it begins inside the window that its receiver has offered (I) and does not end before
/// it (II), and acknowledges something that was sent (III) not too long ago (IV).
///
/// Where the sender has overshot the window (a probe, a FIN), II is judged from the window's edge. One comparison of four
/// sign bits: branches would multiply what the verifier has to follow.
#[inline(always)]
#[must_use]
pub const fn fits(segment: Segment, own: Numbers, peer: Numbers) -> bool {
    let sack = if peer.window & SACK_PERMITTED != 0 {
        segment.sack
    } else {
        segment.ack
    };
    // Blocks far ahead may wrap: both are compared.
    let sent = peer.end.wrapping_sub(sack) | peer.end.wrapping_sub(segment.ack);
    let fresh = segment.ack.wrapping_sub(peer.end.wrapping_sub(own.reach()));
    (outside(segment, own, peer) | sent | fresh).cast_signed() >= 0
}

/// True if a segment's sequence number lies where its receiver may take it: rules I and II of [`fits`].
#[inline(always)]
#[must_use]
pub const fn in_window(segment: Segment, own: Numbers, peer: Numbers) -> bool {
    outside(segment, own, peer).cast_signed() >= 0
}

/// The top bit is set if a segment breaks rule I or II.
#[inline(always)]
const fn outside(segment: Segment, own: Numbers, peer: Numbers) -> u32 {
    let upper = peer.edge.wrapping_sub(segment.seq);
    let past = segment.end().wrapping_add(peer.reach()).wrapping_add(1);
    upper | (past.wrapping_sub(own.end) & past.wrapping_sub(peer.edge))
}
