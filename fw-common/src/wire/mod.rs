//! Parsing: from a frame to [`Meta`], once. Later stages see no raw bytes.
//!
//! A frame is read through a [`Window`] of words that [`Packet::load`] fills, so one parser serves XDP (fragmented
//! buffers too), TC and plain byte slices. The window begins two bytes before an Ethernet header, which aligns every
//! IP header, tagged or not, to a word.

mod extension;
mod fragment;
mod ip;
pub mod plain;
mod quote;
mod transport;
mod vlan;

pub use quote::quoted;
pub use transport::{echo_request, icmp_error, icmpv6_is_link, is_echo, tcp_flags_valid};
pub use vlan::stacked_realm;

use core::hint::black_box;

use crate::abi::{LinkKind, Reason};

/// Words in a [`Window`].
pub const WINDOW_WORDS: usize = 32;
/// Bytes in a [`Window`].
pub const WINDOW_BYTES: u32 = 4 * WINDOW_WORDS as u32;
/// Bytes left free in front of an Ethernet header.
pub const ETHERNET_SKIP: u32 = 2;

/// Ethernet types (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (IEEE 802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Slow protocols: LACP and marker (IEEE 802.3 annex 57A).
    pub const SLOW: u16 = 0x8809;
    /// LLDP (IEEE 802.1AB).
    pub const LLDP: u16 = 0x88cc;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// Part of a frame as words in memory order (network byte order inside each word).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The words. Only the first `Meta::window_end` bytes hold packet data; the rest is stale.
    pub words: [u32; WINDOW_WORDS],
}

impl Window {
    /// Word `index` in host byte order; the index wraps, so callers check against [`Meta::window_end`] first.
    #[inline(always)]
    #[must_use]
    pub fn be32(&self, index: u32) -> u32 {
        u32::from_be(self.words[index as usize & (WINDOW_WORDS - 1)])
    }
}

/// A frame, wherever it lies. Implemented for XDP, for TC and for byte slices.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a frame is empty")]
pub trait Packet: Copy {
    /// Bytes of the frame that can be read.
    fn len(self) -> u32;

    /// The same for a frame that [`Packet::plain`] is going to look at, where that is known for less. Too little where a frame
    /// lies in several buffers whose first one is short; no driver does that.
    #[inline(always)]
    fn short_len(self) -> u32 {
        self.len()
    }

    /// Copies bytes `offset..` of the frame into the window from byte `skip` on, as many as fit and are there.
    /// Returns the end of the data in the window (`skip` plus bytes copied), or 0 if nothing could be read.
    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32;

    /// The same from the frame's begin behind the two bytes that align an Ethernet header; `len` is the frame's [`Packet::len`].
    /// Whole words of the window may be all that is read: every header behind an Ethernet header ends at one.
    #[inline(always)]
    fn load_head(self, len: u32, into: &mut Window) -> u32 {
        let _ = len;
        self.load(0, ETHERNET_SKIP, into)
    }

    /// [`plain::parse`] if the frame's begin can be read in place; false if not.
    #[inline(always)]
    fn plain(self, port_realm: u8, m: &mut Meta) -> bool {
        let _ = (port_realm, m);
        false
    }

    /// [`parse_whole`], or a function that calls it.
    #[inline(always)]
    fn parse_whole(self, link: u8, port_realm: u8, m: &mut Meta) {
        parse_whole(self, link, port_realm, m);
    }

    /// `x`, of whose memory the compiler forgets what it knows: [`black_box`], where that costs nothing.
    #[inline(always)]
    fn opaque<T>(self, x: &mut T) -> &mut T {
        black_box(x)
    }

    /// 0, of which the compiler does not know that.
    #[inline(always)]
    fn zero(self) -> u32 {
        black_box(0)
    }

    /// Interface whose hook runs.
    fn ifindex(self) -> u32;

    /// The VLAN tag control information that the NIC carries beside the packet, or [`NO_TAG`].
    fn tag(self) -> u32;

    /// Segments that this packet stands for: 1, or a GSO super-packet's count.
    fn segments(self) -> u32;

    /// Bytes that this packet takes on the wire; `len` is its [`Packet::len`].
    fn wire_bytes(self, len: u32) -> u32;

    /// True at the egress hook.
    fn egress(self) -> bool;

    /// At the egress hook the interface that the packet came in by; 0 if this machine made it, or at another hook.
    fn came_by(self) -> u32;
}

/// [`Packet::tag`] of an untagged packet.
pub const NO_TAG: u32 = u32::MAX;

/// [`Meta::fragment`] of a fragment with the transport header.
pub const FIRST: u32 = 1;
/// [`Meta::fragment`] of a fragment without.
pub const LATER: u32 = 2;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An IPv4 packet, parsed down to its transport header.
    Ipv4,
    /// An IPv6 packet, parsed down to its transport header.
    Ipv6,
    /// ARP; the window holds it from word `l3` on.
    Arp,
    /// LLDP.
    Lldp,
    /// LACP or another slow protocol.
    Slow,
}

/// All that later stages know of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Part of the frame.
    pub window: Window,
    /// Source address; IPv4 in `src[0]`; host byte order words.
    pub src: [u32; 4],
    /// Destination address, likewise.
    pub dst: [u32; 4],
    /// End of packet data in the window, in bytes.
    pub window_end: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// Segments the packet counts as.
    pub segments: u32,
    /// Bytes the packet counts as.
    pub wire_bytes: u32,
    /// Interface whose hook runs.
    pub ifindex: u32,
    /// Word of the network header in the window.
    pub l3: u32,
    /// Word of the transport header in the window.
    pub l4: u32,
    /// Byte offset of the transport header in the frame.
    pub l4_offset: u32,
    /// Bytes of the transport header and its payload, as the IP header tells.
    pub l4_len: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TCP payload, bytes.
    pub payload: u32,
    /// TCP: what [`crate::tcp::options::parse`] found in a SYN; see [`crate::tcp::Numbers::window`].
    pub option_bits: u32,
    /// TCP: the highest right edge of a SACK block, or the acknowledgement number; valid after the options were parsed.
    pub sack: u32,
    /// TCP: cursor of the option parser.
    pub cursor: u32,
    /// TCP: where the option parser found selective acknowledgements.
    pub sack_at: u32,
    /// TCP window, not scaled.
    pub tcp_window: u16,
    /// Bytes of TCP options that are worth parsing; 0 where there is nothing but a timestamp.
    pub tcp_options: u16,
    /// Result of the last parsing function, see [`parse`].
    pub status: u32,
    /// Realm of the key, 24 bits: the port's realm << 12 | VLAN id, or of two tags [`stacked_realm`].
    pub realm: u32,
    /// Bits of [`crate::abi::Screen`] for what parsing found; not an error by itself.
    pub screens: u32,
    /// 0: a whole packet; [`FIRST`]: a fragment at offset 0 after which more follow; [`LATER`]: any other fragment, which has
    /// no transport header, so its ports and selector are 0.
    pub fragment: u32,
    /// The fragment's identification.
    pub frag_id: u32,
    /// The fragment's offset in its datagram, bytes.
    pub frag_offset: u32,
    /// Bytes of the fragment's payload.
    pub frag_len: u32,
    /// 1 if more fragments follow.
    pub frag_more: u32,
    /// Cursor of a walk: over IPv4 options the byte in the window, over IPv6 extension headers the kinds seen, a bit each.
    pub walk: u32,
    /// Byte offset of the IP header in the frame.
    pub l3_offset: u32,
    /// Source port; the identifier of an ICMP echo request; the first half of an ESP SPI; a folded GRE key; else the first half
    /// of the SPI of an authentication header before it; else 0.
    pub sport: u16,
    /// Destination port; the identifier of an ICMP echo reply; the second half of such an SPI; a folded GRE key; else 0.
    pub dport: u16,
    /// What services are matched on: destination port; ICMP type << 8 | code; else 0.
    pub selector: u16,
    /// Ethernet type after the tags.
    pub ethertype: u16,
    /// VLAN id, of two tags the outer one's; 0: untagged.
    pub vlan: u16,
    /// VLAN id of the inner tag; 0: there is none.
    pub inner_vlan: u16,
    /// Of a fragment the IPv4 header's protocol; 0 in IPv6. See [`crate::fragment::FragmentKey::proto`].
    pub frag_proto: u8,
    /// 4 or 6 if the frame was parsed by [`plain::parse`], and the window is not filled; else 0.
    pub plain: u8,
    /// 4, 6, or 0 before an IP header was seen.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 1 at the egress hook.
    pub egress: u8,
    /// 1 if the packet was already counted when it came in.
    pub forwarded: u8,
    /// 1 if the packet's source is the key's `hi` side.
    pub from_hi: u8,
    /// [`crate::abi::Side`] the packet comes from, as a number.
    pub side: u8,
}

impl Meta {
    /// All zero.
    pub const EMPTY: Self = Self {
        window: Window {
            words: [0; WINDOW_WORDS],
        },
        src: [0; 4],
        dst: [0; 4],
        window_end: 0,
        len: 0,
        segments: 0,
        wire_bytes: 0,
        ifindex: 0,
        l3: 0,
        l4: 0,
        l4_offset: 0,
        l4_len: 0,
        seq: 0,
        ack: 0,
        payload: 0,
        option_bits: 0,
        sack: 0,
        cursor: 0,
        sack_at: 0,
        tcp_window: 0,
        tcp_options: 0,
        status: 0,
        realm: 0,
        screens: 0,
        fragment: 0,
        frag_id: 0,
        frag_offset: 0,
        frag_len: 0,
        frag_more: 0,
        walk: 0,
        l3_offset: 0,
        sport: 0,
        dport: 0,
        selector: 0,
        ethertype: 0,
        vlan: 0,
        inner_vlan: 0,
        frag_proto: 0,
        plain: 0,
        family: 0,
        proto: 0,
        tcp_flags: 0,
        ttl: 0,
        egress: 0,
        forwarded: 0,
        from_hi: 0,
        side: 0,
    };

    /// Word `index` counted from the transport header, host byte order.
    #[inline(always)]
    #[must_use]
    pub fn l4_word(&self, index: u32) -> u32 {
        self.window.be32(self.l4 + index)
    }

    /// True if `bytes` bytes from word `word` on are packet data.
    #[inline(always)]
    #[must_use]
    pub fn holds(&self, word: u32, bytes: u32) -> bool {
        word * 4 + bytes <= self.window_end
    }

    /// Forgets what an earlier packet left in the scratch memory. `zero` is [`Packet::zero`]: of constants LLVM makes a call of
    /// memset, which writes byte by byte on this target.
    #[inline(always)]
    pub(crate) fn reset(&mut self, zero: u32) {
        self.forget(zero);
        self.plain = zero as u8;
        self.family = zero as u8;
        self.proto = zero as u8;
        self.tcp_flags = zero as u8;
        self.sport = zero as u16;
        self.dport = zero as u16;
        self.selector = zero as u16;
        self.ethertype = zero as u16;
        self.realm = zero;
        self.payload = zero;
        self.src = [zero; 4];
        self.dst = [zero; 4];
    }

    /// Forgets what a [`plain`] frame has not.
    #[inline(always)]
    fn forget(&mut self, zero: u32) {
        self.vlan = zero as u16;
        self.inner_vlan = zero as u16;
        self.frag_proto = zero as u8;
        self.screens = zero;
        self.fragment = zero;
        self.frag_id = zero;
        self.frag_offset = zero;
        self.frag_len = zero;
        self.frag_more = zero;
    }
}

/// Set in the result of [`parse`] if the packet was parsed; the low bits are the [`Kind`].
pub const PARSED: u32 = 1 << 16;

/// Parses a frame into `m`; the caller has set `m.egress` and the like. A [`plain`] frame is read in place.
/// Returns [`PARSED`] and the [`Kind`]'s number, or the number of the [`Reason`] for which the packet must be dropped.
#[inline(always)]
pub fn parse<P: Packet>(pkt: P, link: u8, port_realm: u8, m: &mut Meta) -> u32 {
    if !(link == LinkKind::Ethernet as u8 && in_place(pkt, port_realm, m)) {
        core::hint::cold_path();
        pkt.parse_whole(link, port_realm, m);
    }
    m.status
}

/// [`plain::parse`] with the lengths that it wants.
#[inline(always)]
fn in_place<P: Packet>(pkt: P, port_realm: u8, m: &mut Meta) -> bool {
    m.len = pkt.short_len();
    m.wire_bytes = pkt.wire_bytes(m.len);
    pkt.plain(port_realm, m)
}

/// Parses a frame of any shape into `m`. The result goes into `m.status`: see [`crate::classify::classes4`].
#[inline(always)]
pub fn parse_whole<P: Packet>(pkt: P, link: u8, port_realm: u8, m: &mut Meta) {
    m.len = pkt.len();
    m.wire_bytes = pkt.wire_bytes(m.len);
    m.reset(pkt.zero());
    m.segments = pkt.segments();
    m.status = if link == LinkKind::Ethernet as u8 {
        ethernet(pkt, port_realm, m)
    } else {
        raw(pkt, port_realm, m)
    };
}

/// A port without link header: the family comes from the version nibble. Returns what [`parse`] does, as the functions it
/// calls: a `Result` of two words would have the verifier compare pointers that stand in the unused one.
#[inline(always)]
fn raw<P: Packet>(pkt: P, port_realm: u8, m: &mut Meta) -> u32 {
    m.realm = u32::from(port_realm) << 12;
    m.window_end = pkt.load(0, 0, &mut m.window);
    if m.window_end < 20 {
        return Reason::Truncated as u32;
    }
    m.l3 = 0;
    m.l3_offset = 0;
    match m.window.be32(0) >> 28 {
        4 => ip::ipv4(pkt, m),
        6 => ip::ipv6(pkt, m),
        _ => Reason::BadIpv4 as u32,
    }
}

#[inline(always)]
fn ethernet<P: Packet>(pkt: P, port_realm: u8, m: &mut Meta) -> u32 {
    m.window_end = pkt.load_head(m.len, &mut m.window);
    if m.window_end < ETHERNET_SKIP + 14 {
        return Reason::Truncated as u32;
    }
    if let Err(reason) = vlan::tags(m, pkt.tag(), port_realm) {
        return reason as u32;
    }
    // Where the tags left the IP header is read from memory: the verifier follows one way from here on, not one for each
    // number of tags.
    let m = pkt.opaque(m);
    m.l3_offset = m.l3 * 4 - ETHERNET_SKIP;
    match m.ethertype {
        ethertype::IPV4 => ip::ipv4(pkt, m),
        ethertype::IPV6 => ip::ipv6(pkt, m),
        ethertype::ARP => PARSED | Kind::Arp as u32,
        ethertype::LLDP => PARSED | Kind::Lldp as u32,
        ethertype::SLOW => PARSED | Kind::Slow as u32,
        _ => Reason::UnknownEthertype as u32,
    }
}

#[cfg(test)]
mod tests;
