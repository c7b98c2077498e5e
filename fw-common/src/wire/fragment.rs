//! What the IP headers say of fragments. Which bytes have passed is [`crate::fragment`]'s affair.

use super::{FIRST, LATER, Meta};
use crate::abi::{Proto, Reason};

/// More-fragments flag of the IPv4 header's second word (RFC 791 section 3.1).
const MORE4: u32 = 0x2000;

/// The reason for a packet that ends inside a header: of a first fragment it is that the fragment is too small.
#[inline(always)]
pub(super) fn short(m: &Meta, reason: Reason) -> Reason {
    if m.fragment == FIRST {
        Reason::FragmentTiny
    } else {
        reason
    }
}

/// Reads fragmentation from the second word of the IPv4 header, which has `header` bytes. `m.l4_len` is the payload.
#[inline(always)]
pub(super) fn ipv4(m: &mut Meta, word: u32, header: u32) -> Result<(), Reason> {
    m.frag_id = word >> 16;
    m.frag_offset = (word & 0x1fff) * 8;
    m.frag_more = u32::from(word & MORE4 != 0);
    m.frag_proto = m.proto;
    // RFC 791 section 3.1: the total length counts the header too.
    check(m, header)
}

/// Reads fragmentation from the fragment header in the window, whose first word is `first` (RFC 8200 section 4.5). Of a
/// quoted packet only the first fragment has the ports that the quote is looked up by.
#[inline(always)]
pub(super) fn ipv6(m: &mut Meta, first: u32, quoted: bool) -> Result<(), Reason> {
    if quoted {
        return if first & 0xfff8 == 0 {
            Ok(())
        } else {
            Err(Reason::BadIcmp)
        };
    }
    m.frag_id = m.window.be32(1);
    m.frag_offset = first & 0xfff8;
    m.frag_more = first & 1;
    // The payload length of the whole packet counts the headers before the fragment header.
    let before = m.l4_offset - (m.l3_offset + 40);
    m.l4_len -= 8;
    let checked = check(m, before);
    m.l4_len += 8;
    checked
}

/// Sets `m.fragment` and checks the fragment's place: `before` bytes of the whole packet are not payload.
#[inline(always)]
fn check(m: &mut Meta, before: u32) -> Result<(), Reason> {
    m.frag_len = m.l4_len;
    m.fragment = if m.frag_offset == 0 { FIRST } else { LATER };
    if m.frag_len == 0 || (m.frag_more != 0 && m.frag_len & 7 != 0) {
        return Err(Reason::FragmentBad);
    }
    if before + m.frag_offset + m.frag_len > 65_535 {
        return Err(Reason::FragmentOverrun);
    }
    Ok(())
}

/// Refuses a later fragment that would write into the transport header (RFC 1858 section 3.2, RFC 3128).
#[inline(always)]
pub(super) fn behind_header(m: &Meta) -> Result<(), Reason> {
    let header = match m.proto {
        Proto::TCP => 20,
        Proto::SCTP | Proto::AH => 12,
        _ => 8,
    };
    if m.frag_offset < header {
        return Err(Reason::FragmentTiny);
    }
    Ok(())
}
