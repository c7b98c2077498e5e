//! Reassembly bookkeeping: which bytes of a fragmented datagram have passed.
//!
//! Nothing is reassembled. One entry in an LRU map follows a datagram by (realm, addresses, identification, and in IPv4
//! the protocol): its first fragment's ports serve the later ones, and no byte passes twice, so what the receiver puts
//! together is what was judged (RFC 1858, RFC 3128, RFC 5722, RFC 8200 section 4.5).

mod ranges;

pub use ranges::{Cover, Piece, Scan, arrive};

use crate::abi::{Proto, Shared};
use crate::wire::{Meta, tcp_flag};

/// Ranges of bytes that a datagram may have passed in at a time: with 8, seven holes. Reordering in a network makes one or two.
pub const MAX_RANGES: usize = 8;

/// Life of a datagram from its first fragment to arrive, ns. IPv4: `IP_FRAG_TIME` of Linux (include/net/ip.h: 30 s); IPv6:
/// RFC 8200 section 4.5, 60 s.
#[inline(always)]
#[must_use]
pub const fn lifetime_ns(family: u8) -> u64 {
    if family == 4 {
        30_000_000_000
    } else {
        60_000_000_000
    }
}

/// Key of a datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source; IPv4 in word 0.
    pub src: [u32; 4],
    /// Destination, likewise.
    pub dst: [u32; 4],
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Realm.
    pub realm: u32,
    /// IPv4: the header's protocol (RFC 791 section 3.2); IPv6: 0, because the next header of a later fragment may differ
    /// from the first one's (RFC 8200 section 4.5).
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
    /// The side that the fragment comes from; set by the caller.
    pub pad: u16,
}

impl FragmentKey {
    /// Makes this the key of the fragment in `m`.
    #[inline(always)]
    pub fn set(&mut self, m: &Meta) {
        self.src = m.src;
        self.dst = m.dst;
        self.id = m.frag_id;
        self.realm = m.realm;
        self.proto = m.frag_proto;
        self.family = m.family;
        self.pad = 0;
    }
}

/// A datagram, generic over the integer type like [`crate::abi::FlowOf`].
///
/// An all-zero value with `created` set is a datagram of which nothing has passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DatagramOf<A32, A64> {
    /// Coarse monotonic time of the fragment that arrived first, ns.
    pub created: A64,
    /// Bytes that have passed: start << 16 | end, in units of 8 bytes, the end of the last fragment rounded up; 0: empty. They
    /// neither overlap nor touch. Written under `lock`.
    pub ranges: [A32; MAX_RANGES],
    /// 1 while a CPU reads and writes what the lock covers.
    pub lock: A32,
    /// [`Progress`]; written under `lock`.
    pub progress: A32,
    /// Bytes of the whole datagram, from its last fragment; 0: not seen yet. Written under `lock`.
    pub end: A32,
    /// The first fragment's ports: source << 16 | destination.
    pub ports: A32,
    /// What became of the first fragment: see [`First`]. 0: not seen yet.
    pub first: A32,
    /// Generation of the policy that judged the first fragment.
    pub generation: A32,
    /// Number of the rule in that generation's set that measures the datagram's packets, if no flow does; 0: none.
    pub rule: A32,
    /// 1 if the first fragment was handed to this machine's stack, or left it.
    pub up: A32,
    /// TCP: the segment's sequence number less the bytes before its payload, so that the number of a byte is this and its place in
    /// the datagram.
    pub seq: A32,
    /// 0.
    pub pad: A32,
}

/// A datagram that can be copied: the template of an insertion.
pub type Datagram = DatagramOf<u32, u64>;
/// A datagram in the map.
pub type LiveDatagram = DatagramOf<Shared<u32>, Shared<u64>>;

const _: () = assert!(size_of::<FragmentKey>() == 44 && align_of::<FragmentKey>() == 4);
const _: () = assert!(size_of::<Datagram>() == 80 && align_of::<Datagram>() == 8);
const _: () = assert!(size_of::<LiveDatagram>() == 80 && align_of::<LiveDatagram>() == 8);

/// Values of [`DatagramOf::progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress;

impl Progress {
    /// Bytes are missing.
    pub const OPEN: u32 = 0;
    /// All bytes have passed: the next fragment with this key begins another datagram. IPv4 has 16 bits of identification,
    /// so at 10,000 datagrams a second one comes again after 7 s.
    pub const COMPLETE: u32 = 1;
    /// Fragments overlapped: nothing more of this datagram passes (RFC 5722 section 3).
    pub const POISONED: u32 = 2;
}

/// Word [`DatagramOf::first`]: what became of the first fragment, its protocol and selector in one word, so that it is
/// read as a whole. bits 0..15: selector; 16..23: protocol; 24: allowed; 25: denied; 26: allowed without a flow; 27: a segment with FIN;
/// 28: a segment whose later fragments count as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First(pub u32);

impl First {
    /// The first fragment passed as a packet of a flow.
    pub const ALLOWED: u32 = 1 << 24;
    /// The first fragment was dropped.
    pub const DENIED: u32 = 1 << 25;
    /// The first fragment passed, and no flow was made for it.
    pub const UNTRACKED: u32 = 1 << 26;
    /// The first fragment is that of a segment with FIN, which stands behind its last byte (RFC 9293 section 3.4).
    pub const FIN: u32 = 1 << 27;

    /// The first fragment is that of a segment with ACK and without SYN or RST. Such a one passes only where its numbers fit the flow (RFC
    /// 9293 section 3.10.7.4), while a SYN of any number passes without effect: what follows it says nothing of its sender.
    pub const FITS: u32 = 1 << 28;

    /// True if a first fragment was seen.
    #[inline(always)]
    #[must_use]
    pub const fn known(self) -> bool {
        self.0 & (Self::ALLOWED | Self::DENIED | Self::UNTRACKED) != 0
    }

    /// True if `bit` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Protocol of the transport header.
    #[inline(always)]
    #[must_use]
    pub const fn proto(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The selector, see [`Meta::selector`].
    #[inline(always)]
    #[must_use]
    pub const fn selector(self) -> u16 {
        self.0 as u16
    }
}

impl LiveDatagram {
    /// What is known of the first fragment.
    #[inline(always)]
    #[must_use]
    pub fn first(&self) -> First {
        First(self.first.load())
    }

    /// Notes what became of the first fragment, which is the packet in `m`: `outcome` is one of [`First`]'s bits. The
    /// ports are written first: who sees the outcome on another CPU before the ports looks up a flow that does not exist.
    #[inline(always)]
    pub fn note_first(&self, m: &Meta, outcome: u32) {
        self.ports.store((u32::from(m.sport) << 16) | u32::from(m.dport));
        let tcp = m.proto == Proto::TCP;
        if tcp {
            // All that stands before the payload in the fragmented part: in IPv6 extension headers too.
            let header = m.frag_len.wrapping_sub(m.payload);
            self.seq.store(m.seq.wrapping_sub(header));
        }
        let has = |flag: u8, bit: u32| if tcp && m.tcp_flags & flag != 0 { bit } else { 0 };
        let fin = has(tcp_flag::FIN, First::FIN);
        let opens_or_ends = has(tcp_flag::SYN | tcp_flag::RST, First::FITS);
        let fits = has(tcp_flag::ACK, First::FITS) & !opens_or_ends;
        self.first
            .store(outcome | fin | fits | (u32::from(m.proto) << 16) | u32::from(m.selector));
    }

    /// Gives a later fragment the protocol, ports and selector of the first one; in TCP, the sequence number of its first byte, and how
    /// many numbers it takes.
    #[inline(always)]
    pub fn fill_in(&self, m: &mut Meta) {
        let (first, ports) = (self.first(), self.ports.load());
        m.proto = first.proto();
        m.selector = first.selector();
        m.sport = (ports >> 16) as u16;
        m.dport = ports as u16;
        if m.proto == Proto::TCP {
            m.seq = self.seq.load().wrapping_add(m.frag_offset);
            m.payload = m.frag_len + u32::from(first.has(First::FIN) && m.frag_more == 0);
        }
    }
}

#[cfg(test)]
mod tests;
