//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::extension::{authentication4, is_extension, reload, walk};
use super::{Kind, LATER, Meta, PARSED, Packet, fragment, transport};
use crate::abi::{Proto, Reason, Screen};

/// Bytes of the longest IPv4 options (RFC 791 section 3.1: a header of 60 bytes).
const MAX_OPTION_BYTES: u32 = 40;

/// IPv4 options (IANA); the two route options are loose and strict source routing (RFC 791 section 3.1).
mod option {
    pub const END: u32 = 0;
    pub const NOP: u32 = 1;
    pub const LOOSE_ROUTE: u32 = 131;
    pub const STRICT_ROUTE: u32 = 137;
}

/// Bytes of the IP packet: what its header tells, unless a GSO super-packet is too large to tell (BIG TCP: length 0).
#[inline(always)]
fn told_or_real(told: u32, real: u32, segments: u32) -> u32 {
    if told == 0 && segments > 1 { real } else { told }
}

#[inline(always)]
fn note_ttl(m: &mut Meta) {
    if m.ttl == 0 {
        m.screens |= Screen::TtlZero.bit();
    }
}

/// Parses the IPv4 header at word `m.l3`, byte `m.l3_offset` of the frame, and what is behind it down to the transport header.
/// Returns what [`super::parse`] does.
#[inline(always)]
pub(super) fn ipv4<P: Packet>(pkt: P, m: &mut Meta) -> u32 {
    if let Err(reason) = header4(m) {
        return reason as u32;
    }
    if m.l4 > m.l3 + 5 || m.proto == Proto::AH {
        unusual4(pkt, m);
        if m.status != 0 {
            return m.status;
        }
    }
    finish(m, Proto::ICMPV6, Kind::Ipv4)
}

#[inline(always)]
fn header4(m: &mut Meta) -> Result<(), Reason> {
    let (l3, offset) = (m.l3, m.l3_offset);
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
    note_ttl(m);
    m.l4 = l3 + header / 4;
    m.l4_offset = offset + header;
    m.l4_len = total - header;
    let second = m.window.be32(l3 + 1);
    // More-fragments flag or an offset (RFC 791 section 3.1); don't-fragment and the reserved bit do not count.
    if second & 0x3fff != 0 {
        fragment::ipv4(m, second, header)?;
    }
    Ok(())
}

/// The transport header, or of a later fragment the check that it does not reach into one. `other` is the other family's ICMP.
#[inline(always)]
fn finish(m: &mut Meta, other: u8, kind: Kind) -> u32 {
    if m.proto == other {
        return Reason::WrongFamily as u32;
    }
    let parsed = if m.fragment == LATER {
        fragment::behind_header(m)
    } else {
        transport::parse(m)
    };
    match parsed {
        Ok(()) => PARSED | kind as u32,
        Err(reason) => reason as u32,
    }
}

/// What few IPv4 packets have: options and an authentication header. `m.status` is 0, or the number of a [`Reason`].
#[inline(never)]
fn unusual4<P: Packet>(pkt: P, m: &mut Meta) {
    m.status = match options_and_authentication(pkt, m) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    };
}

#[inline(always)]
fn options_and_authentication<P: Packet>(pkt: P, m: &mut Meta) -> Result<(), Reason> {
    options(m)?;
    if m.fragment == LATER {
        return Ok(());
    }
    if m.proto == Proto::AH {
        return authentication4(pkt, m);
    }
    reload(pkt, m);
    Ok(())
}

/// Walks the options between the fixed header and `m.l4` (RFC 791 section 3.1) and notes a source route.
#[inline(always)]
fn options(m: &mut Meta) -> Result<(), Reason> {
    if !m.holds(m.l4, 0) {
        return Err(Reason::Truncated);
    }
    m.walk = m.l3 * 4 + 20;
    m.status = 0;
    let mut octets = 0;
    while octets < MAX_OPTION_BYTES {
        option(m);
        octets += 1;
    }
    if m.status != 0 {
        return Err(Reason::BadIpv4);
    }
    Ok(())
}

/// Octet `at` of the window.
#[inline(always)]
fn octet(m: &Meta, at: u32) -> u32 {
    m.window.be32(at / 4) >> (24 - 8 * (at & 3)) & 0xff
}

/// Steps over the option at `m.walk`, if there is one. The cursor lies in memory, where a verifier forgets it, and there is one
/// way out, so all steps look alike to it. A malformed option sets `m.status`.
#[inline(never)]
fn option(m: &mut Meta) {
    let (at, end) = (m.walk, m.l4 * 4);
    if at >= end {
        return;
    }
    let kind = octet(m, at);
    if kind == option::NOP {
        m.walk = at + 1;
        return;
    }
    // The end of the list, or of what can be read of it.
    m.walk = end;
    if kind == option::END {
        return;
    }
    let length = octet(m, at + 1);
    if at + 1 == end || length < 2 || at + length > end {
        m.status = 1;
        return;
    }
    if kind == option::LOOSE_ROUTE || kind == option::STRICT_ROUTE {
        m.screens |= Screen::SourceRoute.bit();
    }
    m.walk = at + length;
}

/// Parses the IPv6 header at word `m.l3`, byte `m.l3_offset` of the frame, its extension headers and the transport header.
/// Returns what [`super::parse`] does.
#[inline(always)]
pub(super) fn ipv6<P: Packet>(pkt: P, m: &mut Meta) -> u32 {
    if let Err(reason) = header6(m) {
        return reason as u32;
    }
    if is_extension(m.proto) {
        walk(pkt, m, false);
        if m.status != 0 {
            return m.status;
        }
    }
    finish(m, Proto::ICMP, Kind::Ipv6)
}

#[inline(always)]
fn header6(m: &mut Meta) -> Result<(), Reason> {
    let (l3, offset) = (m.l3, m.l3_offset);
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
    note_ttl(m);
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
    Ok(())
}
