//! IPv6 extension headers (RFC 8200 section 4) and the authentication header of both families (RFC 4302).
//!
//! An authentication header is walked through, and what it protects is judged: whether its check value is right is the
//! ends' affair. Its index stands in the key of what has neither ports nor an index itself. ESP hides what it carries, so it ends the chain and is a protocol of its own.

use super::fragment;
use super::{LATER, Meta, Packet, WINDOW_BYTES};
use crate::abi::{Proto, Reason, Screen};

/// Extension headers that are followed: each kind once, destination options twice (RFC 8200 section 4.1).
const MAX_EXTENSIONS: u32 = 6;

/// IPv6 next-header numbers (IANA).
mod next {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = super::Proto::AH;
    pub const NONE: u8 = 59;
    pub const DESTINATION: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
    pub const EXPERIMENT_1: u8 = 253;
    pub const EXPERIMENT_2: u8 = 254;
}

/// Bits of [`Meta::walk`].
mod seen {
    pub const HOP_BY_HOP: u32 = 1;
    pub const ROUTING: u32 = 2;
    pub const FRAGMENT: u32 = 4;
    pub const AUTHENTICATION: u32 = 8;
    pub const DESTINATION: u32 = 16;
    pub const DESTINATION_AGAIN: u32 = 32;
}

/// True for the extension headers of the IANA list, ESP excepted: those that are followed and those that are refused.
#[inline(always)]
pub(super) fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        next::HOP_BY_HOP
            | next::ROUTING
            | next::FRAGMENT
            | next::AUTHENTICATION
            | next::NONE
            | next::DESTINATION
            | next::MOBILITY
            | next::HIP
            | next::SHIM6
            | next::EXPERIMENT_1
            | next::EXPERIMENT_2
    )
}

/// Loads the window at the header that `m.l4_offset` names. It ends where the IP packet ends.
#[inline(always)]
pub(super) fn reload<P: Packet>(pkt: P, m: &mut Meta) {
    m.window_end = pkt.load(m.l4_offset, 0, &mut m.window);
    m.l4 = 0;
    if m.l4_len < WINDOW_BYTES && m.window_end > m.l4_len {
        m.window_end = m.l4_len;
    }
}

/// Steps over `bytes` bytes, which must be there.
#[inline(always)]
fn advance(m: &mut Meta, bytes: u32, proto: u8) {
    m.proto = proto;
    m.l4_offset += bytes;
    m.l4_len -= bytes;
}

/// Follows the extension headers from `m.proto` at `m.l4_offset` on, to the transport header or to the fragment header of a
/// later fragment. `m.status` is 0, or the number of a [`Reason`].
#[inline(never)]
pub(super) fn walk<P: Packet>(pkt: P, m: &mut Meta, quoted: bool) {
    m.status = 0;
    m.walk = 0;
    let mut headers = 0;
    while headers < MAX_EXTENSIONS {
        stepped(pkt, m, quoted);
        headers += 1;
    }
    if m.fragment != LATER && is_extension(m.proto) && m.status == 0 {
        m.status = Reason::ExtensionHeaders as u32;
    }
    reload(pkt, m);
}

/// One step, into `m.status`. A function of its own: what is known of the packet is in memory before and after, so all ways
/// through a step look alike to a verifier.
#[inline(never)]
fn stepped<P: Packet>(pkt: P, m: &mut Meta, quoted: bool) {
    if is_extension(m.proto)
        && m.fragment != LATER
        && m.status == 0
        && let Err(reason) = step(pkt, m, quoted)
    {
        m.status = reason as u32;
    }
}

/// Notes that a header of this kind was seen.
///
/// # Errors
/// [`Reason::ExtensionHeaders`] for one that may not stand here, or may not be followed.
#[inline(always)]
fn note(m: &mut Meta) -> Result<(), Reason> {
    let bit = match m.proto {
        // Stands first or not at all (RFC 8200 section 4.1).
        next::HOP_BY_HOP if m.walk == 0 => seen::HOP_BY_HOP,
        next::ROUTING => seen::ROUTING,
        next::FRAGMENT => seen::FRAGMENT,
        next::AUTHENTICATION => seen::AUTHENTICATION,
        next::DESTINATION if m.walk & seen::DESTINATION != 0 => seen::DESTINATION_AGAIN,
        next::DESTINATION => seen::DESTINATION,
        _ => return Err(Reason::ExtensionHeaders),
    };
    if m.walk & bit != 0 {
        return Err(Reason::ExtensionHeaders);
    }
    m.walk |= bit;
    Ok(())
}

/// Steps over one extension header.
#[inline(always)]
fn step<P: Packet>(pkt: P, m: &mut Meta, quoted: bool) -> Result<(), Reason> {
    note(m)?;
    reload(pkt, m);
    if !m.holds(0, 8) {
        return Err(fragment::short(m, Reason::Truncated));
    }
    let (proto, first) = (m.proto, m.window.be32(0));
    let length = first >> 16 & 0xff;
    // In units of 8 bytes less one; of the authentication header in units of 4 less two.
    let bytes = match proto {
        next::FRAGMENT => 8,
        next::AUTHENTICATION => (length + 2) * 4,
        _ => (length + 1) * 8,
    };
    if bytes > m.l4_len || (proto == next::AUTHENTICATION && bytes < 12) {
        return Err(fragment::short(m, Reason::BadIpv6));
    }
    if proto == next::ROUTING && (first >> 8) as u8 == 0 {
        return Err(Reason::RoutingHeader0);
    }
    // Segments left: the packet goes on to an address that was not judged.
    if proto == next::ROUTING && first as u8 != 0 {
        m.screens |= Screen::SourceRoute.bit();
    }
    // Neither offset nor more-fragments: an atomic fragment, which is a whole packet (RFC 6946).
    if proto == next::FRAGMENT && first & 0xfff9 != 0 {
        fragment::ipv6(m, first, quoted)?;
    }
    if proto == next::AUTHENTICATION {
        index(m);
    }
    advance(m, bytes, (first >> 24) as u8);
    Ok(())
}

/// The security parameters index of the authentication header at the window's start (RFC 4302 section 2.4), as that of ESP:
/// its halves stand as ports. What is protected replaces them if it has ports or an index of its own.
#[inline(always)]
fn index(m: &mut Meta) {
    let index = m.window.be32(1);
    m.sport = (index >> 16) as u16;
    m.dport = index as u16;
}

/// Walks through the authentication header of an IPv4 packet; the window then begins at what follows.
#[inline(always)]
pub(super) fn authentication4<P: Packet>(pkt: P, m: &mut Meta) -> Result<(), Reason> {
    reload(pkt, m);
    if !m.holds(0, 12) {
        return Err(fragment::short(m, Reason::Truncated));
    }
    let first = m.window.be32(0);
    let bytes = ((first >> 16 & 0xff) + 2) * 4;
    let proto = (first >> 24) as u8;
    if bytes > m.l4_len || bytes < 12 {
        return Err(fragment::short(m, Reason::BadIpv4));
    }
    if proto == Proto::AH {
        return Err(Reason::ExtensionHeaders);
    }
    index(m);
    advance(m, bytes, proto);
    reload(pkt, m);
    Ok(())
}
