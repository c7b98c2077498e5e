//! Saying no: a reset to TCP, an ICMP error to everything else.

use core::hint::black_box;

use super::write::{self, IPV4_WORDS, IPV6_WORDS};
use super::{Reply, checksum};
use crate::abi::Proto;
use crate::wire::{LATER, Meta, WINDOW_WORDS, tcp_flag};

/// Destination unreachable, communication administratively prohibited (RFC 1812 section 5.2.7.1).
const ICMP_PROHIBITED: u32 = 3 << 24 | 13 << 16;
/// Destination unreachable, communication with destination administratively prohibited (RFC 4443 section 3.1).
const ICMPV6_PROHIBITED: u32 = 1 << 24 | 1 << 16;
/// Internetwork control (RFC 1812 section 4.3.2.5).
const ICMP_TOS: u8 = 0xc0;
/// Bytes of an ICMP or ICMPv6 header.
const ICMP_BYTES: u32 = 8;

/// Writes the answer to a rejected packet that [`super::capture`] has read, or none (`reply.len` is 0).
#[inline(always)]
pub fn reject(m: &Meta, reply: &mut Reply) {
    reply.len = 0;
    if !may_answer(m, reply) {
        return;
    }
    if m.proto == Proto::TCP {
        reset(m, reply);
    } else if m.family == 4 {
        icmp(m, reply);
    } else {
        icmpv6(m, reply);
    }
}

/// False for packets that no station may answer with an error (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)), or with
/// a segment (RFC 1122 section 4.2.3.10).
#[inline(always)]
pub(super) fn may_answer(m: &Meta, reply: &Reply) -> bool {
    // A packet of the link's group is for many, a super-packet is the sum of several, a later fragment has no ports.
    if reply.to_group != 0 || m.segments > 1 || m.fragment == LATER {
        return false;
    }
    match m.family {
        4 => may_answer4(m),
        6 => may_answer6(m),
        _ => false,
    }
}

#[inline(always)]
fn may_answer4(m: &Meta) -> bool {
    let (src, dst) = (m.window.be32(3), m.window.be32(4));
    // `m` may hold what an ICMP error quotes: the header's own protocol and addresses tell.
    let whole = m.holds(0, 20) && src == m.src[0] && dst == m.dst[0];
    whole && (m.window.be32(2) >> 16 & 0xff) as u8 == m.proto && single_host4(src) && single_host4(dst)
}

/// False for addresses that name no single host: this network, loopback, multicast, reserved, broadcast (RFC 1122
/// section 3.2.1.3, RFC 6890).
#[inline(always)]
fn single_host4(address: u32) -> bool {
    let first = address >> 24;
    first != 0 && first != 127 && first < 224
}

#[inline(always)]
fn may_answer6(m: &Meta) -> bool {
    let mut same = m.holds(0, 48);
    let mut word = 0;
    while word < 4 {
        same &= m.window.be32(2 + word) == m.src[word as usize];
        same &= m.window.be32(6 + word) == m.dst[word as usize];
        word += 1;
    }
    same && single_host6(m.src) && single_host6(m.dst)
}

/// False for multicast, the unspecified address and loopback (RFC 4291 section 2.5).
#[inline(always)]
fn single_host6(address: [u32; 4]) -> bool {
    address[0] >> 24 != 0xff && (address[0] | address[1] | address[2] | (address[3] >> 1)) != 0
}

/// RFC 9293 section 3.10.7.1: the reset takes its number from the acknowledgement, or acknowledges all of the segment.
/// A reset is never answered.
#[inline(always)]
fn reset(m: &Meta, reply: &mut Reply) {
    use tcp_flag::{ACK, FIN, RST, SYN};
    if m.tcp_flags & RST != 0 {
        return;
    }
    let numbers = u32::from(m.tcp_flags & SYN != 0) + u32::from(m.tcp_flags & FIN != 0);
    let segment = if m.tcp_flags & ACK != 0 {
        write::Segment {
            seq: m.ack,
            ack: 0,
            flags: RST,
        }
    } else {
        write::Segment {
            seq: 0,
            ack: m.seq.wrapping_add(m.payload).wrapping_add(numbers),
            flags: RST | ACK,
        }
    };
    write::tcp(m, reply, segment);
}

/// True for ICMP types that report an error or redirect: 3, 4, 5, 11, 12 (RFC 792).
#[inline(always)]
fn icmp_reports(kind: u8) -> bool {
    matches!(kind, 3..=5 | 11 | 12)
}

/// True for ICMPv6 errors, known or not, and redirects (RFC 4443 section 2.4 (e)).
#[inline(always)]
fn icmpv6_reports(kind: u8) -> bool {
    kind < 128 || kind == 137
}

#[inline(always)]
fn icmp(m: &Meta, reply: &mut Reply) {
    if m.proto == Proto::ICMP && icmp_reports((m.selector >> 8) as u8) {
        return;
    }
    let quoted = quotable(m, m.window.be32(0) & 0xffff);
    reply.quoted = quoted;
    let sum = quote::<{ IPV4_WORDS + 2 }>(m, reply) + u64::from(ICMP_PROHIBITED);
    reply.put(IPV4_WORDS, ICMP_PROHIBITED | u32::from(checksum::finish(sum)));
    reply.put(IPV4_WORDS + 1, 0);
    reply.ipv4(m, Proto::ICMP, ICMP_TOS, ICMP_BYTES + quoted);
}

#[inline(always)]
fn icmpv6(m: &Meta, reply: &mut Reply) {
    if m.proto == Proto::ICMPV6 && icmpv6_reports((m.selector >> 8) as u8) {
        return;
    }
    let quoted = quotable(m, (m.window.be32(1) >> 16) + 4 * IPV6_WORDS as u32);
    reply.quoted = quoted;
    let sum = quote::<{ IPV6_WORDS + 2 }>(m, reply)
        + u64::from(ICMPV6_PROHIBITED)
        + write::pseudo_header(m, Proto::ICMPV6, ICMP_BYTES + quoted);
    reply.put(IPV6_WORDS, ICMPV6_PROHIBITED | u32::from(checksum::finish(sum)));
    reply.put(IPV6_WORDS + 1, 0);
    reply.ipv6(m, Proto::ICMPV6, ICMP_BYTES + quoted);
}

/// Bytes to quote: what the window holds of the packet. The link's padding is no part of it.
#[inline(always)]
fn quotable(m: &Meta, total: u32) -> u32 {
    let held = if m.window_end < total { m.window_end } else { total };
    let room = 4 * WINDOW_WORDS as u32;
    if held < room { held } else { room }
}

/// Copies the first `reply.quoted` bytes of the window to word `AT` on, with zeros behind them, and returns their sum.
#[inline(always)]
fn quote<const AT: usize>(m: &Meta, reply: &mut Reply) -> u64 {
    let mut sum = 0;
    let mut word = 0;
    while word < WINDOW_WORDS {
        // Read anew each time, from memory of which the verifier knows nothing: it would follow every length by itself.
        let left = black_box(&*reply).quoted.saturating_sub(4 * word as u32);
        let kept = m.window.be32(word as u32) & head_mask(left);
        reply.put(AT + word, kept);
        sum += u64::from(kept);
        word += 1;
    }
    sum
}

/// Mask of the first `bytes` bytes of a word.
#[inline(always)]
const fn head_mask(bytes: u32) -> u32 {
    let missing = 4_u32.saturating_sub(bytes);
    (0xffff_ffff_u64 << (8 * missing)) as u32
}
