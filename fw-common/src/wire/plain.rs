//! Frames of the most common shape, read where they lie: an Ethernet header without tags, IPv4 without options or IPv6 without
//! extension headers, no fragment, and UDP or a TCP segment from the middle of a connection whose only option may be a timestamp.
//!
//! What is found is what [`super::parse`] would find, but for the window: it stays empty, because nobody wants more of such a
//! packet than stands in [`Meta`], and an answer to it captures its own. All places are constants here, which takes a third of the instructions.

use super::transport::options_to_parse;
use super::{ETHERNET_SKIP, Kind, Meta, PARSED, ethertype, tcp_flag};
use crate::abi::Proto;

/// Word of the IP header: as in a [`super::Window`].
const L3: u32 = 4;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
/// Bytes of an IPv4 header without options.
const IPV4: u32 = 20;
/// Bytes of an IPv6 header.
const IPV6: u32 = 40;
/// First byte of the one: version 4, five words (RFC 791 section 3.1).
const FIRST_BYTE: u32 = 0x45;

/// Bytes of a frame that must be there for [`parse`] to look at it, and for IPv6 in it.
pub const LEAST: u32 = ETHERNET + IPV4 + 8;
/// As [`LEAST`], for IPv6.
pub const LEAST6: u32 = ETHERNET + IPV6 + 8;

/// The begin of a frame that can be read in place.
pub trait Head: Copy {
    /// True if so many bytes of it can be read.
    fn holds(self, bytes: u32) -> bool;

    /// Word `word` of the window that begins [`ETHERNET_SKIP`] bytes before the frame, in host byte order. The caller has asked
    /// [`Head::holds`] for it.
    fn be32(self, word: u32) -> u32;
}

/// Parses a frame of the common shape into `m`, whose [`Meta::len`] and [`Meta::wire_bytes`] are set. False if it has another
/// shape, or is not right in any way; `m` is half written then, and must be reset. `zero`: [`super::Packet::zero`].
#[inline(always)]
pub fn parse<H: Head>(head: H, port_realm: u8, zero: u32, m: &mut Meta) -> bool {
    if !head.holds(LEAST) {
        return false;
    }
    let family = match head.be32(3) as u16 {
        ethertype::IPV4 if ipv4(head, m) => 4,
        ethertype::IPV6 if head.holds(LEAST6) && ipv6(head, m) => 6,
        _ => return false,
    };
    m.realm = u32::from(port_realm) << 12;
    // What is the same for all frames of the shape stands there already if the last frame had it.
    if m.plain != family {
        core::hint::cold_path();
        constants(family, zero, m);
    }
    true
}

#[inline(always)]
fn ipv4<H: Head>(head: H, m: &mut Meta) -> bool {
    let first = head.be32(L3);
    let third = head.be32(L3 + 2);
    let total = first & 0xffff;
    let (ttl, proto) = (third >> 24, (third >> 16) as u8);
    // More-fragments flag, or an offset.
    let fragment = head.be32(L3 + 1) & 0x3fff;
    if first >> 24 != FIRST_BYTE || fragment != 0 || ttl == 0 || total < IPV4 || total > m.len - ETHERNET {
        return false;
    }
    m.ttl = ttl as u8;
    m.src[0] = head.be32(L3 + 3);
    m.dst[0] = head.be32(L3 + 4);
    m.l4_len = total - IPV4;
    transport::<H, { L3 + IPV4 / 4 }>(head, proto, m)
}

#[inline(always)]
fn ipv6<H: Head>(head: H, m: &mut Meta) -> bool {
    let second = head.be32(L3 + 1);
    let (length, proto, ttl) = (second >> 16, (second >> 8) as u8, second as u8);
    if head.be32(L3) >> 28 != 6 || ttl == 0 || length > m.len - ETHERNET - IPV6 {
        return false;
    }
    m.ttl = ttl;
    let mut word = 0;
    while word < 4 {
        m.src[word as usize] = head.be32(L3 + 2 + word);
        m.dst[word as usize] = head.be32(L3 + 6 + word);
        word += 1;
    }
    m.l4_len = length;
    transport::<H, { L3 + IPV6 / 4 }>(head, proto, m)
}

#[inline(always)]
fn transport<H: Head, const L4: u32>(head: H, proto: u8, m: &mut Meta) -> bool {
    let good = match proto {
        Proto::TCP => tcp::<H, L4>(head, m),
        Proto::UDP => udp::<H, L4>(head, m),
        _ => false,
    };
    let ports = head.be32(L4);
    m.proto = proto;
    m.sport = (ports >> 16) as u16;
    m.dport = ports as u16;
    m.selector = m.dport;
    good
}

#[inline(always)]
fn tcp<H: Head, const L4: u32>(head: H, m: &mut Meta) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    // Bytes up to the end of the fixed header; one word more is the first of the options.
    let fixed = (L4 + 5) * 4 - ETHERNET_SKIP;
    if !head.holds(fixed) {
        return false;
    }
    let word = head.be32(L4 + 3);
    let (flags, header) = ((word >> 16) as u8, (word >> 28) * 4);
    if flags & (FIN | SYN | RST | ACK | URG) != ACK || header < 20 || header > m.l4_len {
        return false;
    }
    if header != 20 && !(head.holds(fixed + 4) && options_to_parse(header, head.be32(L4 + 5)) == 0) {
        return false;
    }
    m.seq = head.be32(L4 + 1);
    m.ack = head.be32(L4 + 2);
    m.tcp_flags = flags;
    m.payload = m.l4_len - header;
    m.tcp_window = word as u16;
    m.tcp_options = 0;
    true
}

#[inline(always)]
fn udp<H: Head, const L4: u32>(head: H, m: &mut Meta) -> bool {
    let told = head.be32(L4 + 1) >> 16;
    m.tcp_flags = 0;
    m.payload = 0;
    m.l4_len >= 8 && told >= 8 && told <= m.l4_len
}

/// What all frames of the shape have in common.
#[inline(always)]
fn constants(family: u8, zero: u32, m: &mut Meta) {
    m.forget(zero);
    let (header, kind) = if family == 4 {
        m.src = [m.src[0], zero, zero, zero];
        m.dst = [m.dst[0], zero, zero, zero];
        m.ethertype = ethertype::IPV4;
        (IPV4, Kind::Ipv4)
    } else {
        m.ethertype = ethertype::IPV6;
        (IPV6, Kind::Ipv6)
    };
    m.plain = family;
    m.family = family;
    m.status = PARSED | kind as u32;
    m.segments = 1;
    m.window_end = 0;
    m.l3 = L3;
    m.l3_offset = ETHERNET;
    m.l4 = L3 + header / 4;
    m.l4_offset = ETHERNET + header;
}
