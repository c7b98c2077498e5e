//! Parsing: from a frame to [`Meta`], once. Later stages see no raw bytes.
//!
//! A frame is read through a [`Window`] of words that [`Packet::load`] fills, so one parser serves XDP (fragmented
//! buffers too), TC and plain byte slices. The window begins two bytes before an Ethernet header, which aligns every
//! IP header, tagged or not, to a word.

mod ip;
mod transport;

pub use ip::quoted;
pub use transport::{echo_request, icmp_error, icmpv6_is_link, is_echo, tcp_flags_valid};

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
pub trait Packet: Copy {
    /// Bytes of the frame that can be read.
    fn len(self) -> u32;

    /// True if there is no byte to read.
    fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Copies bytes `offset..` of the frame into the window from byte `skip` on, as many as fit and are there.
    /// Returns the end of the data in the window (`skip` plus bytes copied), or 0 if nothing could be read.
    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32;

    /// Interface whose hook runs.
    fn ifindex(self) -> u32;

    /// The VLAN tag control information that the NIC carries beside the packet, or [`NO_TAG`].
    fn tag(self) -> u32;

    /// Segments that this packet stands for: 1, or a GSO super-packet's count.
    fn segments(self) -> u32;

    /// Bytes that this packet takes on the wire.
    fn wire_bytes(self) -> u32;

    /// True at the egress hook.
    fn egress(self) -> bool;

    /// At the egress hook the interface that the packet came in by; 0 if this machine made it, or at another hook.
    fn came_by(self) -> u32;
}

/// [`Packet::tag`] of an untagged packet.
pub const NO_TAG: u32 = u32::MAX;

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
    /// Result of the last parsing function, see [`parse`].
    pub status: u32,
    /// Source port; the identifier of an ICMP echo request; else 0.
    pub sport: u16,
    /// Destination port; the identifier of an ICMP echo reply; else 0.
    pub dport: u16,
    /// What services are matched on: destination port; ICMP type << 8 | code; else 0.
    pub selector: u16,
    /// Ethernet type after the tags.
    pub ethertype: u16,
    /// VLAN id; 0: untagged.
    pub vlan: u16,
    /// Realm of the key: the port's realm << 12 | VLAN id.
    pub realm: u16,
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
        status: 0,
        sport: 0,
        dport: 0,
        selector: 0,
        ethertype: 0,
        vlan: 0,
        realm: 0,
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

    /// Forgets what an earlier packet left in the scratch memory.
    #[inline(always)]
    pub(crate) fn reset(&mut self) {
        // An opaque zero: of constants LLVM makes a call of memset, which writes byte by byte on this target.
        let zero = core::hint::black_box(0_u32);
        self.family = zero as u8;
        self.proto = zero as u8;
        self.tcp_flags = zero as u8;
        self.sport = zero as u16;
        self.dport = zero as u16;
        self.selector = zero as u16;
        self.ethertype = zero as u16;
        self.vlan = zero as u16;
        self.realm = zero as u16;
        self.src = [zero; 4];
        self.dst = [zero; 4];
    }
}

/// Set in the result of [`parse`] if the packet was parsed; the low bits are the [`Kind`].
pub const PARSED: u32 = 1 << 16;

/// Parses a frame into `m`; the caller has set `m.egress` and the like. Returns [`PARSED`] and the [`Kind`]'s number, or
/// the number of the [`Reason`] for which the packet must be dropped.
#[inline(always)]
pub fn parse<P: Packet>(pkt: P, link: u8, port_realm: u8, m: &mut Meta) -> u32 {
    parse_frame(pkt, link, port_realm, m);
    m.status
}

/// The result goes into `m.status`: see [`crate::classify::class4`].
#[inline(never)]
fn parse_frame<P: Packet>(pkt: P, link: u8, port_realm: u8, m: &mut Meta) {
    m.reset();
    m.len = pkt.len();
    m.segments = pkt.segments();
    m.wire_bytes = pkt.wire_bytes();
    let result = if link == LinkKind::Ethernet as u8 {
        ethernet(pkt, port_realm, m)
    } else {
        raw(pkt, port_realm, m)
    };
    m.status = match result {
        Ok(kind) => PARSED | kind as u32,
        Err(reason) => reason as u32,
    };
}

/// A port without link header: the family comes from the version nibble.
#[inline(always)]
fn raw<P: Packet>(pkt: P, port_realm: u8, m: &mut Meta) -> Result<Kind, Reason> {
    m.realm = u16::from(port_realm) << 12;
    m.window_end = pkt.load(0, 0, &mut m.window);
    if m.window_end < 20 {
        return Err(Reason::Truncated);
    }
    m.l3 = 0;
    match m.window.be32(0) >> 28 {
        4 => ip::ipv4(m, 0),
        6 => ip::ipv6(pkt, m, 0),
        _ => Err(Reason::BadIpv4),
    }
}

#[inline(always)]
fn ethernet<P: Packet>(pkt: P, port_realm: u8, m: &mut Meta) -> Result<Kind, Reason> {
    m.window_end = pkt.load(0, ETHERNET_SKIP, &mut m.window);
    if m.window_end < ETHERNET_SKIP + 14 {
        return Err(Reason::Truncated);
    }
    let mut tags = 0_u32;
    let tag = pkt.tag();
    if tag != NO_TAG {
        m.vlan = tag as u16 & 0xfff;
        tags = 1;
    }
    let mut ethertype = m.window.be32(3) as u16;
    m.l3 = 4;
    if ethertype == ethertype::VLAN || ethertype == ethertype::QINQ {
        if !m.holds(4, 4) {
            return Err(Reason::Truncated);
        }
        let word = m.window.be32(4);
        m.vlan = (word >> 16) as u16 & 0xfff;
        ethertype = word as u16;
        tags += 1;
        m.l3 = 5;
    }
    m.ethertype = ethertype;
    m.realm = (u16::from(port_realm) << 12) | m.vlan;
    if tags > 1 || ethertype == ethertype::VLAN || ethertype == ethertype::QINQ {
        return Err(Reason::TooManyTags);
    }
    let offset = m.l3 * 4 - ETHERNET_SKIP;
    match ethertype {
        ethertype::IPV4 => ip::ipv4(m, offset),
        ethertype::IPV6 => ip::ipv6(pkt, m, offset),
        ethertype::ARP => Ok(Kind::Arp),
        ethertype::LLDP => Ok(Kind::Lldp),
        ethertype::SLOW => Ok(Kind::Slow),
        _ => Err(Reason::UnknownEthertype),
    }
}

#[cfg(test)]
mod tests;
