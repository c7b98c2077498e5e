//! The packet that an ICMP error quotes.

use super::extension::{authentication4, is_extension, reload, walk};
use super::{LATER, Meta, Packet, transport};
use crate::abi::{Proto, Reason};

/// Replaces addresses, protocol, ports and (TCP) the sequence number in `m` by those of the packet that the ICMP error in
/// `m` quotes.
///
/// RFC 792 and RFC 4443 section 3: the quote begins 8 bytes after the ICMP header's start and holds the IP header and at
/// least 8 bytes more. Extension headers and the authentication header are walked through; a quoted first fragment has
/// ports, a later one has none.
///
/// Returns 0, or the number of [`Reason::BadIcmp`] if the quote is too short, of the other family, or a later fragment.
#[inline(always)]
pub fn quoted<P: Packet>(pkt: P, m: &mut Meta) -> u32 {
    read_quote(pkt, m);
    m.status
}

/// The result goes into `m.status`: see [`crate::classify::classes4`].
#[inline(never)]
fn read_quote<P: Packet>(pkt: P, m: &mut Meta) {
    m.status = match quote(pkt, m) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    };
}

#[inline(always)]
fn quote<P: Packet>(pkt: P, m: &mut Meta) -> Result<(), Reason> {
    if m.fragment == LATER {
        return Err(Reason::BadIcmp);
    }
    m.sport = 0;
    m.dport = 0;
    m.l4_offset += 8;
    m.l4_len = m.l4_len.saturating_sub(8);
    reload(pkt, m);
    if !m.holds(0, 28) {
        return Err(Reason::BadIcmp);
    }
    let first = m.window.be32(0);
    if m.family == 4 {
        quoted4(pkt, m, first)?;
    } else {
        quoted6(pkt, m, first)?;
    }
    if !m.holds(m.l4, 8) {
        return Err(Reason::BadIcmp);
    }
    transport::quoted_ports(m)
}

#[inline(always)]
fn quoted4<P: Packet>(pkt: P, m: &mut Meta, first: u32) -> Result<(), Reason> {
    let header = first >> 24 & 0xf;
    if first >> 28 != 4 || header < 5 || m.window.be32(1) & 0x1fff != 0 || !m.holds(header, 8) {
        return Err(Reason::BadIcmp);
    }
    m.proto = (m.window.be32(2) >> 16) as u8;
    m.src[0] = m.window.be32(3);
    m.dst[0] = m.window.be32(4);
    m.l4 = header;
    m.l4_offset += header * 4;
    m.l4_len -= header * 4;
    if m.proto == Proto::AH {
        return authentication4(pkt, m).map_err(|_| Reason::BadIcmp);
    }
    Ok(())
}

#[inline(always)]
fn quoted6<P: Packet>(pkt: P, m: &mut Meta, first: u32) -> Result<(), Reason> {
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
    m.l4 = 10;
    m.l4_offset += 40;
    m.l4_len -= 40;
    if is_extension(m.proto) {
        walk(pkt, m, true);
        if m.status != 0 {
            return Err(Reason::BadIcmp);
        }
    }
    Ok(())
}
