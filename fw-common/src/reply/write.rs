//! Writing IP headers at fixed words.

use super::{Reply, checksum};
use crate::wire::Meta;

/// Words of an IPv4 header without options.
pub(super) const IPV4_WORDS: usize = 5;
/// Words of an IPv6 header.
pub(super) const IPV6_WORDS: usize = 10;
/// Hops that a reply may take (RFC 1700's default).
const TTL: u32 = 64;
/// Don't-fragment in the second word of an IPv4 header. With it set the identification may be 0 (RFC 6864 section 4.1).
const DONT_FRAGMENT: u32 = 0x4000;

impl Reply {
    /// Writes a word, given in host byte order.
    #[inline(always)]
    pub(super) fn put(&mut self, index: usize, word: u32) {
        self.words[index] = word.to_be();
    }

    /// Writes the IPv4 header of a packet with `payload` bytes behind it, back to the sender of the captured one. The
    /// addresses are read from the captured header: those in `m` may be a quoted packet's.
    #[inline(always)]
    pub(super) fn ipv4(&mut self, m: &Meta, proto: u8, tos: u8, payload: u32) {
        let total = payload + 4 * IPV4_WORDS as u32;
        let first = 0x4500_0000 | (u32::from(tos) << 16) | total;
        let third = (TTL << 24) | (u32::from(proto) << 16);
        let (src, dst) = (m.window.be32(4), m.window.be32(3));
        let sum =
            u64::from(first) + u64::from(DONT_FRAGMENT) + u64::from(third) + u64::from(src) + u64::from(dst);
        self.put(0, first);
        self.put(1, DONT_FRAGMENT);
        self.put(2, third | u32::from(checksum::finish(sum)));
        self.put(3, src);
        self.put(4, dst);
        self.len = total;
    }

    /// The same for IPv6 (RFC 8200 section 3); traffic class and flow label are 0.
    #[inline(always)]
    pub(super) fn ipv6(&mut self, m: &Meta, proto: u8, payload: u32) {
        self.put(0, 0x6000_0000);
        self.put(1, (payload << 16) | (u32::from(proto) << 8) | TTL);
        let mut word = 0;
        while word < 4 {
            self.put(2 + word as usize, m.window.be32(6 + word));
            self.put(6 + word as usize, m.window.be32(2 + word));
            word += 1;
        }
        self.len = payload + 4 * IPV6_WORDS as u32;
    }
}

/// Sum of the pseudo header of a packet with the captured one's addresses (RFC 9293 section 3.1; RFC 8200 section 8.1).
#[inline(always)]
pub(super) fn pseudo_header(m: &Meta, proto: u8, length: u32) -> u64 {
    let mut sum = u64::from(proto) + u64::from(length);
    if m.family == 4 {
        return sum + u64::from(m.window.be32(3)) + u64::from(m.window.be32(4));
    }
    let mut word = 2;
    while word < 10 {
        sum += u64::from(m.window.be32(word));
        word += 1;
    }
    sum
}

/// A TCP header to answer with.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
}

/// Bytes of a TCP header without options.
const TCP_BYTES: u32 = 20;

/// Writes a TCP segment without data, back to the sender of the captured one. Its window is 0.
#[inline(always)]
pub(super) fn tcp(m: &Meta, reply: &mut Reply, segment: Segment) {
    use crate::abi::Proto;
    let at = if m.family == 4 {
        reply.ipv4(m, Proto::TCP, 0, TCP_BYTES);
        IPV4_WORDS
    } else {
        reply.ipv6(m, Proto::TCP, TCP_BYTES);
        IPV6_WORDS
    };
    let ports = (u32::from(m.dport) << 16) | u32::from(m.sport);
    let fourth = (TCP_BYTES / 4) << 28 | u32::from(segment.flags) << 16;
    let sum = pseudo_header(m, Proto::TCP, TCP_BYTES)
        + u64::from(ports)
        + u64::from(segment.seq)
        + u64::from(segment.ack)
        + u64::from(fourth);
    reply.put(at, ports);
    reply.put(at + 1, segment.seq);
    reply.put(at + 2, segment.ack);
    reply.put(at + 3, fourth);
    reply.put(at + 4, u32::from(checksum::finish(sum)) << 16);
}
