//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, and the packet that an ICMP error quotes.

use super::{Kind, Meta, Packet, WINDOW_BYTES, transport};
use crate::abi::{Proto, Reason};

/// Extension headers that are followed.
const MAX_EXTENSIONS: u32 = 2;
/// IPv6 next-header numbers (IANA).
mod next {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const NONE: u8 = 59;
    pub const DESTINATION: u8 = 60;
}

/// Bytes of the IP packet: what its header tells, unless a GSO super-packet is too large to tell (BIG TCP: length 0).
#[inline(always)]
fn told_or_real(told: u32, real: u32, segments: u32) -> u32 {
    if told == 0 && segments > 1 { real } else { told }
}

/// Parses the IPv4 header at word `m.l3`, byte `offset` of the frame, and the transport header behind it.
#[inline(always)]
pub(super) fn ipv4(m: &mut Meta, offset: u32) -> Result<Kind, Reason> {
    let l3 = m.l3;
    if !m.holds(l3, 20) {
        return Err(Reason::Truncated);
    }
    let first = m.window.be32(l3);
    let header = (first >> 24 & 0xf) * 4;
    let real = m.len.saturating_sub(offset);
    let total = told_or_real(first & 0xffff, real, m.segments);
    if first >> 28 != 4 || header < 20 || total < header || total > real {
        return Err(Reason::BadIpv4);
    }
    m.family = 4;
    m.src[0] = m.window.be32(l3 + 3);
    m.dst[0] = m.window.be32(l3 + 4);
    let third = m.window.be32(l3 + 2);
    m.ttl = (third >> 24) as u8;
    m.proto = (third >> 16) as u8;
    // More-fragments flag or a fragment offset (RFC 791 section 3.1); don't-fragment and the reserved bit do not count.
    if m.window.be32(l3 + 1) & 0x3fff != 0 {
        return Err(Reason::Fragment);
    }
    m.l4 = l3 + header / 4;
    m.l4_offset = offset + header;
    m.l4_len = total - header;
    if m.proto == Proto::ICMPV6 {
        return Err(Reason::WrongFamily);
    }
    transport::parse(m)?;
    Ok(Kind::Ipv4)
}

/// Parses the IPv6 header at word `m.l3`, byte `offset` of the frame, its extension headers and the transport header.
#[inline(always)]
pub(super) fn ipv6<P: Packet>(pkt: P, m: &mut Meta, offset: u32) -> Result<Kind, Reason> {
    let l3 = m.l3;
    if !m.holds(l3, 40) {
        return Err(Reason::Truncated);
    }
    let second = m.window.be32(l3 + 1);
    let real = m.len.saturating_sub(offset + 40);
    let length = told_or_real(second >> 16, real, m.segments);
    if m.window.be32(l3) >> 28 != 6 || length > real {
        return Err(Reason::BadIpv6);
    }
    m.family = 6;
    m.ttl = second as u8;
    let mut word = 0;
    while word < 4 {
        m.src[word as usize] = m.window.be32(l3 + 2 + word);
        m.dst[word as usize] = m.window.be32(l3 + 6 + word);
        word += 1;
    }
    m.proto = (second >> 8) as u8;
    m.l4 = l3 + 10;
    m.l4_offset = offset + 40;
    m.l4_len = length;
    if is_extension(m.proto) {
        extensions(pkt, m)?;
    }
    if m.proto == Proto::ICMP {
        return Err(Reason::WrongFamily);
    }
    transport::parse(m)?;
    Ok(Kind::Ipv6)
}

#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        next::HOP_BY_HOP | next::ROUTING | next::FRAGMENT | next::DESTINATION | next::NONE
    )
}

/// Follows at most [`MAX_EXTENSIONS`] extension headers. The window is loaded anew at each header, so that none is too
/// long for it; it ends at the transport header.
#[inline(always)]
fn extensions<P: Packet>(pkt: P, m: &mut Meta) -> Result<(), Reason> {
    let mut seen = 0;
    while seen < MAX_EXTENSIONS {
        extension(pkt, m, seen)?;
        seen += 1;
        if !is_extension(m.proto) {
            break;
        }
    }
    if is_extension(m.proto) {
        return Err(Reason::ExtensionHeaders);
    }
    reload(pkt, m);
    Ok(())
}

/// Loads the window at the header that `m.l4_offset` names.
#[inline(always)]
fn reload<P: Packet>(pkt: P, m: &mut Meta) {
    m.window_end = pkt.load(m.l4_offset, 0, &mut m.window);
    m.l4 = 0;
}

/// Steps over one extension header (RFC 8200 section 4): next header, length in units of 8 bytes less one.
#[inline(always)]
fn extension<P: Packet>(pkt: P, m: &mut Meta, position: u32) -> Result<(), Reason> {
    let proto = m.proto;
    // Hop-by-hop options stand first or not at all (RFC 8200 section 4.1); no-next-header has nothing to judge.
    if proto == next::NONE || (proto == next::HOP_BY_HOP && position != 0) {
        return Err(Reason::ExtensionHeaders);
    }
    reload(pkt, m);
    if !m.holds(0, 8) || m.l4_len < 8 {
        return Err(Reason::Truncated);
    }
    let first = m.window.be32(0);
    if proto == next::ROUTING && (first >> 8) as u8 == 0 {
        return Err(Reason::RoutingHeader0);
    }
    let mut bytes = ((first >> 16 & 0xff) + 1) * 8;
    if proto == next::FRAGMENT {
        // Offset or more-fragments: a fragment. Neither: an atomic fragment, which is a whole packet (RFC 6946).
        if first & 0xfff9 != 0 {
            return Err(Reason::Fragment);
        }
        bytes = 8;
    }
    if bytes > m.l4_len {
        return Err(Reason::BadIpv6);
    }
    m.proto = (first >> 24) as u8;
    m.l4_offset += bytes;
    m.l4_len -= bytes;
    Ok(())
}

/// Replaces addresses, protocol and ports in `m` by those of the packet that the ICMP error in `m` quotes.
///
/// RFC 792 and RFC 4443 section 3: the quote begins 8 bytes after the ICMP header's start and holds the IP header and
/// at least 8 bytes more. Extension headers in a quote are not followed.
///
/// Returns 0, or the number of [`Reason::BadIcmp`] if the quote is too short or of the other family.
#[inline(always)]
pub fn quoted<P: Packet>(pkt: P, m: &mut Meta) -> u32 {
    read_quote(pkt, m);
    m.status
}

/// The result goes into `m.status`: see [`crate::classify::class4`].
#[inline(never)]
fn read_quote<P: Packet>(pkt: P, m: &mut Meta) {
    m.status = match quote(pkt, m) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    };
}

#[inline(always)]
fn quote<P: Packet>(pkt: P, m: &mut Meta) -> Result<(), Reason> {
    m.l4_offset += 8;
    m.l4_len = m.l4_len.saturating_sub(8);
    reload(pkt, m);
    if m.l4_len < WINDOW_BYTES && m.window_end > m.l4_len {
        m.window_end = m.l4_len;
    }
    if !m.holds(0, 28) {
        return Err(Reason::BadIcmp);
    }
    let first = m.window.be32(0);
    let header = if m.family == 4 {
        quoted4(m, first)?
    } else {
        quoted6(m, first)?
    };
    if !m.holds(header, 8) {
        return Err(Reason::BadIcmp);
    }
    m.l4 = header;
    transport::quoted_ports(m)
}

#[inline(always)]
fn quoted4(m: &mut Meta, first: u32) -> Result<u32, Reason> {
    let header = first >> 24 & 0xf;
    // A quoted later fragment has no ports.
    if first >> 28 != 4 || header < 5 || m.window.be32(1) & 0x1fff != 0 {
        return Err(Reason::BadIcmp);
    }
    m.proto = (m.window.be32(2) >> 16) as u8;
    m.src[0] = m.window.be32(3);
    m.dst[0] = m.window.be32(4);
    Ok(header)
}

#[inline(always)]
fn quoted6(m: &mut Meta, first: u32) -> Result<u32, Reason> {
    if first >> 28 != 6 || !m.holds(0, 48) {
        return Err(Reason::BadIcmp);
    }
    m.proto = (m.window.be32(1) >> 8) as u8;
    let mut word = 0;
    while word < 4 {
        m.src[word as usize] = m.window.be32(2 + word);
        m.dst[word as usize] = m.window.be32(6 + word);
        word += 1;
    }
    Ok(10)
}
