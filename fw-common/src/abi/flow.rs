//! The conntrack entry: two halves, each written only by packets of its direction, and one state word.
//!
//! Where a kernel's table puts an entry at a multiple of 64 bytes (IPv4's does), the first 64 are one cache line: all that a
//! packet of a known flow reads and writes, but for TCP's numbers, which lie in the second.

use core::cell::Cell;

/// A number in a map that other CPUs read and write too: aligned, loaded and stored as a whole. The BPF target has no
/// 32-bit atomic types; what needs more than a load or a store goes through [`crate::pipeline::Tables::swap`].
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared<T: Copy>(Cell<T>);

impl<T: Copy> Shared<T> {
    /// A number.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Reads it.
    #[inline(always)]
    pub fn load(&self) -> T {
        self.0.get()
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, value: T) {
        self.0.set(value);
    }

    /// Where it lies.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

/// What one direction of a flow has sent. Written only by packets of that direction, so no lock is needed while each
/// direction is handled by one CPU (RSS sees to that).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfOf<A64> {
    /// Packets; a GSO super-packet counts as its segments.
    pub packets: A64,
    /// Bytes of the frames as on the wire.
    pub bytes: A64,
    /// Coarse monotonic time of the last packet, ns; 0: none yet.
    pub last_seen: A64,
}

/// What one side of a TCP connection has sent: [`crate::tcp::Numbers`] in an entry. Written like its half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SentOf<A32> {
    /// TCP: the highest sequence number sent plus one (SYN and FIN count as one, RFC 9293 section 3.4).
    pub seq_end: A32,
    /// TCP: the highest acknowledgement number sent; before the first, the number after the own SYN.
    pub ack: A32,
    /// TCP: the highest right edge of a window that this side has offered to the other (acknowledgement plus scaled window).
    pub edge: A32,
    /// TCP: window scale and the largest window offered; see [`crate::tcp`].
    pub window: A32,
}

/// A conntrack entry, generic over the integer type so that the kernel and the host's tests may share it between CPUs
/// ([`LiveFlow`]) while user space copies it ([`Flow`]); both have the same layout.
///
/// `half[0]` belongs to the opener (original direction), `half[1]` to the side that answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowOf<A32, A64> {
    /// [`StateWord`]; changed by compare-and-swap only.
    pub state: A32,
    /// Generation of the policy that allowed the flow last.
    pub generation: A32,
    /// [`FlowFlags`]; fixed at creation.
    pub flags: A32,
    /// Number of the rule in the set of `generation` if each packet is measured by it (limits on packets or bytes, a
    /// deadline); 0: the flow's packets are free.
    pub policed: A32,
    /// `[original, reply]`.
    pub half: [HalfOf<A64>; 2],
    /// The same of TCP.
    pub sent: [SentOf<A32>; 2],
    /// Coarse monotonic time of the first packet, ns.
    pub created: A64,
    /// Stable id of the rule that allowed the flow ([`crate::abi::RuleRecord::id`]).
    pub rule: A32,
    /// Stable id of the source's most specific zone; 0: none.
    pub src_zone: A32,
    /// Stable id of the destination's most specific zone; 0: none.
    pub dst_zone: A32,
    /// TCP: the answering side's initial sequence number plus one; 0: not known.
    pub answer: A32,
    /// Packets of the answering side that were counted on the half-open entry: written once, by the promotion.
    pub carried_packets: A32,
    /// Their bytes.
    pub carried_bytes: A32,
}

/// A half that can be copied.
pub type Half = HalfOf<u64>;
/// TCP's numbers that can be copied.
pub type Sent = SentOf<u32>;
/// A flow that can be copied: user space's view, and the template that a new flow is inserted from.
pub type Flow = FlowOf<u32, u64>;
/// A half in a map.
pub type LiveHalf = HalfOf<Shared<u64>>;
/// TCP's numbers in a map.
pub type LiveSent = SentOf<Shared<u32>>;
/// A flow in a map: other CPUs write to it; see ARCHITECTURE.md, "two CPUs, one flow".
pub type LiveFlow = FlowOf<Shared<u32>, Shared<u64>>;

const _: () = assert!(size_of::<Half>() == 24 && size_of::<Sent>() == 16);
// The first line: the words and both halves.
const _: () = assert!(core::mem::offset_of!(Flow, sent) == 64);
const _: () = assert!(size_of::<Flow>() == 128 && align_of::<Flow>() == 8);
const _: () =
    assert!(size_of::<LiveFlow>() == size_of::<Flow>() && align_of::<LiveFlow>() == align_of::<Flow>());

/// Which way a packet enters or leaves the data plane. A flow is bound to the sides it was opened between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Mode `host`: the wire. Mode `inline`: the pair's first port (towards the network).
    Outer = 0,
    /// Mode `inline`: the pair's second port (towards the guarded host).
    Inner = 1,
    /// This machine's own stack.
    Own = 2,
}

impl Side {
    /// The side with this number; anything unknown is [`Side::Own`], which no ingress packet matches.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Outer,
            1 => Self::Inner,
            _ => Self::Own,
        }
    }
}

/// Constant facts of a flow, packed.
///
/// bit 0: the opener is the key's `hi` side; bits 1..2: opener's [`Side`]; bits 3..4: the answering side's [`Side`];
/// bit 5: the flow was picked up in the middle; bit 6: one of its ends is a lifeline; bit 7: it counts as half open; bit 8: it began where a
/// forwarded packet leaves; bits 16..31: ifindex of the opener's port, low 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFlags(pub u32);

impl FlowFlags {
    /// Set where the opener is the key's `hi` side.
    pub const OPENER_HI: u32 = 1;
    /// Set where the flow was adopted in the middle of its life.
    pub const PICKED_UP: u32 = 1 << 5;
    /// Set where an end of the flow lies in a lifeline zone.
    pub const LIFELINE: u32 = 1 << 6;
    /// Set where the flow's first packet left this machine under another key than it came in by (NAT): its opener's packets are
    /// met at the way out only.
    pub const FORWARDED: u32 = 1 << 8;
    /// Set where the flow counts as half open for its destination, until its handshake is complete.
    pub const COUNTED: u32 = 1 << 7;

    /// Packs the facts of a new flow.
    #[inline(always)]
    #[must_use]
    pub const fn new(opener_hi: bool, opener: Side, peer: Side, ifindex: u32) -> Self {
        Self(opener_hi as u32 | ((opener as u32) << 1) | ((peer as u32) << 3) | (ifindex << 16))
    }

    /// True if the opener is the key's `hi` side.
    #[inline(always)]
    #[must_use]
    pub const fn opener_hi(self) -> bool {
        self.0 & Self::OPENER_HI != 0
    }

    /// Number of the [`Side`] that a direction's packets come from.
    #[inline(always)]
    #[must_use]
    pub const fn side_of(self, reply: bool) -> u32 {
        (self.0 >> (1 + 2 * (reply as u32))) & 3
    }

    /// The side the opener's packets come from.
    #[inline(always)]
    #[must_use]
    pub const fn opener(self) -> Side {
        Side::from_bits(self.0 >> 1)
    }

    /// The side the replies come from.
    #[inline(always)]
    #[must_use]
    pub const fn peer(self) -> Side {
        Side::from_bits(self.0 >> 3)
    }
}

/// State and timeout of a flow in one word, so that one compare-and-swap changes both.
///
/// bits 0..3: [`crate::tcp::State`] (0 for other protocols); bit 4: the answering side has sent; bit 5: the flow is
/// over and its entry is a miss ([`StateWord::DEAD`]); bit 6: reply seen and confirmed by the opener (in the main
/// map); bits 7..8: FIN seen from `[original, reply]`; bit 9: ended by a policy change; bits 12..31: timeout in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StateWord(pub u32);

impl StateWord {
    /// The answering side has sent.
    pub const REPLIED: u32 = 1 << 4;
    /// The entry counts as absent, whatever its times say; the agent removes it.
    pub const DEAD: u32 = 1 << 5;
    /// The opener has answered the reply: the flow belongs in the main map.
    pub const CONFIRMED: u32 = 1 << 6;
    /// The opener's FIN was seen.
    pub const FIN_ORIGINAL: u32 = 1 << 7;
    /// The answering side's FIN was seen.
    pub const FIN_REPLY: u32 = 1 << 8;
    /// The flow was ended because a newer policy denies it.
    pub const REVOKED: u32 = 1 << 9;

    /// Packs a protocol state, flag bits and a timeout in seconds (at most 2^20 - 1).
    #[inline(always)]
    #[must_use]
    pub const fn new(state: u32, flags: u32, timeout_s: u32) -> Self {
        Self((state & 0xf) | (flags & 0xff0) | (timeout_s << 12))
    }

    /// The protocol's state number.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u32 {
        self.0 & 0xf
    }

    /// The flag bits.
    #[inline(always)]
    #[must_use]
    pub const fn flags(self) -> u32 {
        self.0 & 0xff0
    }

    /// True if all bits of `flag` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag == flag
    }

    /// Timeout in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn timeout_ns(self) -> u64 {
        (self.0 >> 12) as u64 * 1_000_000_000
    }

    /// True if a flow last seen at `last_seen` is over at `now` (both coarse monotonic ns). A clock that reads earlier
    /// than `last_seen` (another CPU's tick) counts as no time passed.
    #[inline(always)]
    #[must_use]
    pub const fn expired(self, last_seen: u64, now: u64) -> bool {
        self.0 & Self::DEAD != 0 || now.saturating_sub(last_seen) > self.timeout_ns()
    }
}

impl Flow {
    /// Packets of a direction (0: original, 1: reply).
    #[must_use]
    pub fn packets(&self, direction: usize) -> u64 {
        let carried = if direction == 1 { self.carried_packets } else { 0 };
        (self.half[direction & 1].packets & !Self::TAKEN).wrapping_add(u64::from(carried))
    }

    /// Set in the counts of a half-open entry's answering half once its flow has moved to the main map: what a packet of the
    /// other CPU adds afterwards belongs to the new entry.
    pub const TAKEN: u64 = 1 << 63;

    /// Bytes of a direction (0: original, 1: reply).
    #[must_use]
    pub fn bytes(&self, direction: usize) -> u64 {
        let carried = if direction == 1 { self.carried_bytes } else { 0 };
        (self.half[direction & 1].bytes & !Self::TAKEN).wrapping_add(u64::from(carried))
    }

    /// The later of both halves' last packets, ns.
    #[must_use]
    pub fn last_seen(&self) -> u64 {
        self.half[0].last_seen.max(self.half[1].last_seen)
    }

    /// See [`StateWord::expired`].
    #[must_use]
    pub fn expired(&self, now: u64) -> bool {
        StateWord(self.state).expired(self.last_seen(), now)
    }
}

impl LiveFlow {
    /// True if the flow goes on at `now`; see [`StateWord::expired`].
    #[inline(always)]
    #[must_use]
    pub fn alive(&self, now: u64) -> bool {
        // The word first: its writer has stored the time before.
        let word = StateWord(self.state.load());
        let (original, reply) = (self.half[0].last_seen.load(), self.half[1].last_seen.load());
        let last_seen = if original > reply { original } else { reply };
        !word.expired(last_seen, now)
    }
}
