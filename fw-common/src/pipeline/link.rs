//! Link protocols, by the policy's `link:` section: a node under default deny must not die of it.

use super::{Outcome, Scratch, Tables};
use crate::abi::{ClassFlags, Ip4, Ip6, LinkFlags, Mode, Proto, Reason, Side};
use crate::classify::{self, Address, CORRUPT, Lines, Walk};
use crate::wire::{Kind, Meta};

/// ARP operations (RFC 826).
const ARP_REQUEST: u32 = 1;
const ARP_REPLY: u32 = 2;
/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP_BYTES: u32 = 28;

/// ICMPv6 types of neighbour discovery (RFC 4861).
mod nd {
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub const REDIRECT: u8 = 137;
}

/// Link flags and RA roles of the set in force, and the packet's realm record.
struct Section<L> {
    lines: L,
    flags: u32,
    ra_roles: u32,
    realm: u32,
}

#[inline(always)]
fn section<'a, T: Tables<'a>>(t: T, s: &Scratch) -> Result<Section<T::Lines>, Reason> {
    let Some(lines) = t.lines(s.generation) else {
        return Err(Reason::TableCorrupt);
    };
    let realm = classify::realm_record(lines, (s.meta.vlan, s.meta.inner_vlan))?;
    let Some(header) = lines.line(1) else {
        return Err(Reason::TableCorrupt);
    };
    Ok(Section {
        lines,
        flags: header.w[10],
        ra_roles: header.w[0],
        realm,
    })
}

/// True if the address is this machine's.
#[inline(always)]
fn own<'a, L: Lines<'a>, A: Address>(section: &Section<L>, addr: A, walk: &mut Walk) -> bool {
    let class = addr.class(section.lines, section.realm, walk);
    class != CORRUPT && classify::class_flags(section.lines, class) & ClassFlags::OWN != 0
}

/// Where a link packet goes: up if it is for this machine, else (inline) through.
#[inline(always)]
fn pass(s: &Scratch, to_own: bool, reason: Reason) -> Outcome {
    let through = if s.port.side == Side::Outer as u8 {
        Side::Inner
    } else {
        Side::Outer
    };
    Outcome::deliver(s, if to_own { Side::Own } else { through }, reason)
}

/// Judges a packet of a link protocol.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let section = match section(t, s) {
        Ok(section) => section,
        Err(reason) => return Outcome::drop(reason),
    };
    if s.meta.family != 0 {
        return if s.meta.proto == Proto::IGMP {
            membership(section.flags, s)
        } else {
            icmpv6(&section, s)
        };
    }
    frame(&section, s)
}

/// ARP, LLDP and the slow protocols.
#[inline(always)]
fn frame<'a, L: Lines<'a>>(section: &Section<L>, s: &mut Scratch) -> Outcome {
    let kind = s.kind;
    let (flag, allow, deny) = match kind {
        k if k == Kind::Lldp as u32 => (LinkFlags::LLDP, Reason::LinkLldp, Reason::DenyLldp),
        k if k == Kind::Slow as u32 => (LinkFlags::LACP, Reason::LinkLacp, Reason::DenyLacp),
        _ => (LinkFlags::ARP, Reason::LinkArp, Reason::DenyArp),
    };
    if section.flags & flag == 0 {
        return Outcome::drop(deny);
    }
    if kind != Kind::Arp as u32 {
        return pass(s, false, allow);
    }
    match arp_target(&mut s.meta) {
        None => Outcome::drop(Reason::BadArp),
        Some(target) => {
            let to_own = s.port.mode == Mode::Inline as u8 && own(section, target, &mut s.class.walk);
            pass(s, to_own, allow)
        }
    }
}

/// Checks an ARP packet (RFC 826: Ethernet, IPv4, lengths 6 and 4) and returns its target address.
#[inline(always)]
fn arp_target(m: &mut Meta) -> Option<Ip4> {
    let l3 = m.l3;
    if !m.holds(l3, ARP_BYTES) {
        return None;
    }
    let operation = m.window.be32(l3 + 1) & 0xffff;
    if m.window.be32(l3) != 0x0001_0800
        || m.window.be32(l3 + 1) >> 16 != 0x0604
        || (operation != ARP_REQUEST && operation != ARP_REPLY)
    {
        return None;
    }
    // Sender's protocol address: bytes 14..18; target's: bytes 24..28.
    m.src[0] = (m.window.be32(l3 + 3) << 16) | (m.window.be32(l3 + 4) >> 16);
    m.dst[0] = m.window.be32(l3 + 6);
    Some(Ip4(m.dst[0]))
}

/// Judges MLD and neighbour discovery. Hop limit 255 proves that no router forwarded it (RFC 4861 section 7.1; not
/// asked of MLD, which uses 1).
#[inline(always)]
fn icmpv6<'a, L: Lines<'a>>(section: &Section<L>, s: &mut Scratch) -> Outcome {
    let (kind, code) = ((s.meta.selector >> 8) as u8, s.meta.selector as u8);
    let discovery = (nd::ROUTER_SOLICITATION..=nd::REDIRECT).contains(&kind);
    if discovery && (s.meta.ttl != 255 || code != 0) {
        return Outcome::drop(Reason::BadNd);
    }
    match kind {
        nd::NEIGHBOUR_SOLICITATION | nd::NEIGHBOUR_ADVERTISEMENT => neighbour(section, s, kind),
        nd::ROUTER_SOLICITATION | nd::ROUTER_ADVERTISEMENT => router(section, s, kind),
        nd::REDIRECT => Outcome::drop(Reason::DenyRedirect),
        _ => membership(section.flags, s),
    }
}

#[inline(always)]
fn neighbour<'a, L: Lines<'a>>(section: &Section<L>, s: &mut Scratch, kind: u8) -> Outcome {
    if section.flags & LinkFlags::ND == 0 {
        return Outcome::drop(Reason::DenyNd);
    }
    // 8 bytes of header, 16 of target address (RFC 4861 sections 4.3 and 4.4).
    if s.meta.l4_len < 24 || !s.meta.holds(s.meta.l4, 24) {
        return Outcome::drop(Reason::BadNd);
    }
    let target = if kind == nd::NEIGHBOUR_SOLICITATION {
        Ip6([
            s.meta.l4_word(2),
            s.meta.l4_word(3),
            s.meta.l4_word(4),
            s.meta.l4_word(5),
        ])
    } else {
        Ip6(s.meta.dst)
    };
    let to_own = s.port.mode == Mode::Inline as u8 && own(section, target, &mut s.class.walk);
    pass(s, to_own, Reason::LinkNd)
}

/// Solicitations pass where advertisements may come back; advertisements by the port's role.
#[inline(always)]
fn router<L>(section: &Section<L>, s: &Scratch, kind: u8) -> Outcome {
    let by_role = section.ra_roles >> (s.port.role & 31) & 1 != 0;
    let sending = s.meta.side == Side::Own as u8;
    let allowed = if kind == nd::ROUTER_SOLICITATION {
        section.ra_roles != 0
    } else {
        by_role && !sending
    };
    if allowed {
        pass(s, false, Reason::LinkRa)
    } else {
        Outcome::drop(Reason::DenyRa)
    }
}

/// True if the destination is a multicast address (224.0.0.0/4, `ff00::/8`).
#[inline(always)]
fn is_multicast(s: &Scratch) -> bool {
    if s.meta.family == 4 {
        s.meta.dst[0] >> 28 == 0xe
    } else {
        s.meta.dst[0] >> 24 == 0xff
    }
}

#[inline(always)]
fn membership(flags: u32, s: &Scratch) -> Outcome {
    if flags & LinkFlags::MULTICAST == 0 || !is_multicast(s) {
        return Outcome::drop(Reason::DenyMulticast);
    }
    pass(s, false, Reason::LinkMulticast)
}

/// DHCP of a client (RFC 2131 section 4.1: ports 67 and 68; RFC 8415 section 7.2: 546 and 547), where the policy allows
/// it: requests from this machine or from the guarded side, answers from the network. `None`: not DHCP, or not allowed
/// as such; then the rules decide.
#[inline(always)]
pub(super) fn dhcp<'a, L: Lines<'a>>(lines: L, s: &Scratch) -> Option<Outcome> {
    let (client, server) = if s.meta.family == 4 { (68, 67) } else { (546, 547) };
    if s.meta.proto != Proto::UDP || !matches!(s.meta.dport, 67 | 68 | 546 | 547) {
        return None;
    }
    if lines.line(1)?.w[10] & LinkFlags::DHCP_CLIENT == 0 {
        return None;
    }
    let from_network = s.meta.side == Side::Outer as u8;
    // Requests go to everybody (RFC 2131 section 4.1: broadcast; RFC 8415 section 7.1: ff02::1:2); what a client sends to
    // one server is for the rules. Answers come from the server's port, in IPv6 from any port of a link-local exchange.
    let to_all = if s.meta.family == 4 {
        s.meta.dst[0] == u32::MAX
    } else {
        is_multicast(s)
    };
    let link_local = s.meta.dst[0] >> 22 == 0x3fa;
    let request = s.meta.sport == client && s.meta.dport == server && !from_network && to_all;
    let from_server = if s.meta.family == 4 {
        s.meta.sport == server
    } else {
        link_local
    };
    let answer = s.meta.dport == client && from_server && from_network;
    if request || answer {
        Some(pass(s, false, Reason::LinkDhcp))
    } else {
        None
    }
}
