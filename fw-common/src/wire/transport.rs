//! Transport headers: TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792), ICMPv6 (RFC 4443), SCTP (RFC 9260), and what stands in
//! their place: ESP (RFC 4303), GRE (RFC 2784, RFC 2890).

use super::fragment::short;
use super::{FIRST, Meta, tcp_flag};
use crate::abi::{Proto, Reason, Screen};

/// ICMP types (IANA).
mod icmp {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const ECHO_REQUEST: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (IANA).
mod icmp6 {
    pub const LAST_ERROR: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
}

/// Bits of the GRE header's first word (RFC 2784 section 2.1, RFC 2890 section 2; routing: RFC 1701).
mod gre_bit {
    pub const CHECKSUM: u32 = 0x8000_0000;
    pub const ROUTING: u32 = 0x4000_0000;
    pub const KEY: u32 = 0x2000_0000;
    pub const VERSION: u32 = 0x0007_0000;
}

/// Parses the transport header at `m.l4`. What has neither ports nor an index keeps those in `m`: 0, or the index of the
/// authentication header before it.
#[inline(always)]
pub(super) fn parse(m: &mut Meta) -> Result<(), Reason> {
    match m.proto {
        Proto::TCP => tcp(m),
        Proto::UDP => udp(m),
        Proto::ICMP | Proto::ICMPV6 => icmp(m),
        Proto::SCTP => sctp(m),
        Proto::ESP => esp(m),
        Proto::GRE => gre(m),
        _ => Ok(()),
    }
}

#[inline(always)]
fn ports(m: &mut Meta) {
    let word = m.l4_word(0);
    m.sport = (word >> 16) as u16;
    m.dport = word as u16;
    m.selector = m.dport;
}

/// True if `bytes` bytes of transport header are there, both in the frame and by the IP header's word.
#[inline(always)]
fn has(m: &Meta, bytes: u32) -> bool {
    m.l4_len >= bytes && m.holds(m.l4, bytes)
}

#[inline(always)]
fn tcp(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 20) {
        return Err(short(m, Reason::Truncated));
    }
    ports(m);
    m.seq = m.l4_word(1);
    m.ack = m.l4_word(2);
    let word = m.l4_word(3);
    m.tcp_flags = (word >> 16) as u8;
    let header = (word >> 28) * 4;
    if header > m.l4_len {
        return Err(short(m, Reason::BadTcp));
    }
    let screens = tcp_screens(m.tcp_flags);
    if header < 20 || (screens == 0 && !tcp_flags_valid(m.tcp_flags)) {
        return Err(Reason::BadTcp);
    }
    m.screens |= screens;
    m.payload = m.l4_len - header;
    m.tcp_window = word as u16;
    m.tcp_options = options_to_parse(header, m.l4_word(5));
    Ok(())
}

/// Bytes of TCP options that are worth parsing: none where there are none, and none of a timestamp alone, whose first
/// word (two NOPs, kind 8, length 10) RFC 7323 appendix A recommends. `word`: the first word after the fixed header.
#[inline(always)]
pub(super) const fn options_to_parse(header: u32, word: u32) -> u16 {
    const TIMESTAMP: u32 = 0x0101_080a;
    if header == 32 && word == TIMESTAMP {
        0
    } else {
        (header - 20) as u16
    }
}

/// Bits of the screens that a segment's flags meet. ECE and CWR do not count (RFC 3168).
#[inline(always)]
#[must_use]
pub const fn tcp_screens(flags: u8) -> u32 {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    const fn bit(met: bool, screen: Screen) -> u32 {
        met as u32 * screen.bit()
    }
    bit(flags & (FIN | SYN | RST | PSH | ACK | URG) == 0, Screen::TcpNull)
        | bit(
            flags & (FIN | PSH | URG | ACK) == FIN | PSH | URG,
            Screen::TcpXmas,
        )
        | bit(flags & (SYN | FIN) == SYN | FIN, Screen::TcpSynFin)
        | bit(flags & (SYN | RST) == SYN | RST, Screen::TcpSynRst)
        | bit(flags & (FIN | ACK) == FIN, Screen::TcpFinNoAck)
}

/// True for the flag combinations that a TCP may send, PSH, ECE and CWR aside: SYN, SYN+ACK, RST, RST+ACK, FIN+ACK,
/// ACK, with URG where data may stand (the table of `nf_conntrack_proto_tcp.c`, `tcp_valid_flags`).
#[inline(always)]
#[must_use]
pub const fn tcp_flags_valid(flags: u8) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    // One bit for each value of the six low flags with PSH taken out.
    const fn bit(flags: u8) -> u64 {
        1 << flags
    }
    const VALID: u64 = bit(SYN)
        | bit(SYN | URG)
        | bit(SYN | ACK)
        | bit(RST)
        | bit(RST | ACK)
        | bit(FIN | ACK)
        | bit(FIN | ACK | URG)
        | bit(ACK)
        | bit(ACK | URG);
    VALID >> (flags & (FIN | SYN | RST | ACK | URG)) & 1 != 0
}

#[inline(always)]
fn udp(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 8) {
        return Err(short(m, Reason::Truncated));
    }
    ports(m);
    let told = m.l4_word(1) >> 16;
    // A GSO super-packet's UDP length is that of one segment or of all, by kernel version: not judged.
    if m.segments > 1 {
        return Ok(());
    }
    if told < 8 {
        return Err(Reason::BadUdp);
    }
    // A first fragment tells the length of the whole datagram.
    if told > m.l4_len && m.fragment != FIRST {
        m.screens |= Screen::BadLength.bit();
    }
    Ok(())
}

#[inline(always)]
fn sctp(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 12) {
        return Err(short(m, Reason::Truncated));
    }
    ports(m);
    Ok(())
}

/// ESP: security parameters index and sequence number (RFC 4303 section 2). Each direction has an index of its own, which
/// its receiver has chosen: its halves stand as ports, so the flow has one way.
#[inline(always)]
fn esp(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 8) {
        return Err(short(m, Reason::Truncated));
    }
    let index = m.l4_word(0);
    m.sport = (index >> 16) as u16;
    m.dport = index as u16;
    Ok(())
}

/// GRE. Both directions use one key (RFC 2890 section 2.1): folded to 16 bits it stands as both ports. Version 1 (PPTP,
/// RFC 2637) has a call id in the key's place, which differs by direction and does not count.
#[inline(always)]
fn gre(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 4) {
        return Err(short(m, Reason::Truncated));
    }
    let first = m.l4_word(0);
    if first & gre_bit::VERSION != 0 || first & gre_bit::KEY == 0 {
        return Ok(());
    }
    let at = 1 + u32::from(first & (gre_bit::CHECKSUM | gre_bit::ROUTING) != 0);
    if !has(m, 4 * at + 4) {
        return Err(short(m, Reason::Truncated));
    }
    let key = m.l4_word(at);
    m.sport = (key ^ (key >> 16)) as u16;
    m.dport = m.sport;
    Ok(())
}

/// ICMP and ICMPv6. The identifier of an echo is the asking side's port; the answering side's is 0.
#[inline(always)]
fn icmp(m: &mut Meta) -> Result<(), Reason> {
    if !has(m, 8) {
        return Err(short(m, Reason::BadIcmp));
    }
    m.selector = (m.l4_word(0) >> 16) as u16;
    // Neighbour discovery is never fragmented (RFC 6980 section 5).
    if m.fragment == FIRST && m.proto == Proto::ICMPV6 && matches!(m.selector >> 8, 133..=137) {
        return Err(Reason::BadNd);
    }
    echo_ports(m);
    Ok(())
}

#[inline(always)]
fn echo_ports(m: &mut Meta) {
    let id = (m.l4_word(1) >> 16) as u16;
    let kind = (m.selector >> 8) as u8;
    let (request, reply) = if m.proto == Proto::ICMP {
        (icmp::ECHO_REQUEST, icmp::ECHO_REPLY)
    } else {
        (icmp6::ECHO_REQUEST, icmp6::ECHO_REPLY)
    };
    m.sport = if kind == request { id } else { 0 };
    m.dport = if kind == reply { id } else { 0 };
}

/// The selector of an echo request in this protocol.
#[inline(always)]
#[must_use]
pub const fn echo_request(proto: u8) -> u16 {
    if proto == Proto::ICMP {
        (icmp::ECHO_REQUEST as u16) << 8
    } else {
        (icmp6::ECHO_REQUEST as u16) << 8
    }
}

/// True if this ICMP or ICMPv6 selector is an echo request or reply.
#[inline(always)]
#[must_use]
pub const fn is_echo(proto: u8, selector: u16) -> bool {
    let kind = (selector >> 8) as u8;
    if proto == Proto::ICMP {
        matches!(kind, icmp::ECHO_REQUEST | icmp::ECHO_REPLY)
    } else {
        matches!(kind, icmp6::ECHO_REQUEST | icmp6::ECHO_REPLY)
    }
}

/// True if this ICMP or ICMPv6 selector is an error that quotes a packet. Source quench is obsolete (RFC 6633) and is
/// not one.
#[inline(always)]
#[must_use]
pub const fn icmp_error(proto: u8, selector: u16) -> bool {
    let kind = (selector >> 8) as u8;
    if proto == Proto::ICMP {
        matches!(
            kind,
            icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM
        )
    } else {
        kind >= 1 && kind <= icmp6::LAST_ERROR
    }
}

/// True for the ICMPv6 types that belong to the link: MLD (130 to 132, 143) and neighbour discovery (133 to 137).
#[inline(always)]
#[must_use]
pub const fn icmpv6_is_link(selector: u16) -> bool {
    let kind = (selector >> 8) as u8;
    matches!(kind, 130..=137 | 143)
}

/// Ports of a quoted transport header, of which only 8 bytes need to be there, and the sequence number of a TCP segment.
#[inline(always)]
pub(super) fn quoted_ports(m: &mut Meta) -> Result<(), Reason> {
    m.selector = 0;
    match m.proto {
        Proto::TCP => {
            ports(m);
            m.seq = m.l4_word(1);
        }
        Proto::UDP | Proto::SCTP => ports(m),
        Proto::ESP => esp(m)?,
        Proto::GRE => return gre(m).map_err(|_| Reason::BadIcmp),
        Proto::ICMP | Proto::ICMPV6 => {
            m.selector = (m.l4_word(0) >> 16) as u16;
            // An error about an error is never sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
            if icmp_error(m.proto, m.selector) {
                return Err(Reason::BadIcmp);
            }
            echo_ports(m);
        }
        _ => {}
    }
    Ok(())
}
