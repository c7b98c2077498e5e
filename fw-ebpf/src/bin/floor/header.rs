//! A packet's headers, read in place: what the look-up wants of them.

use fw_common::abi::{Ip4, Ip6, Key4, Key6, Proto};

use super::ETH;

/// A packet's first bytes, read in place.
#[derive(Clone, Copy)]
pub struct Header {
    pub start: usize,
    pub end: usize,
}

impl Header {
    /// True if the packet has `bytes` bytes.
    #[inline(always)]
    fn holds(self, bytes: usize) -> bool {
        self.start + bytes <= self.end
    }

    /// The 16 bits at an even offset.
    #[inline(always)]
    pub fn half(self, at: usize) -> Option<u16> {
        if !self.holds(at + 2) {
            return None;
        }
        // SAFETY: checked against the packet's end just now, as the verifier demands; frames begin at even addresses.
        Some(u16::from_be(unsafe { *((self.start + at) as *const u16) }))
    }

    /// The 32 bits at an even offset.
    #[inline(always)]
    pub fn word(self, at: usize) -> Option<u32> {
        Some((u32::from(self.half(at)?) << 16) | u32::from(self.half(at + 2)?))
    }

    #[inline(always)]
    fn address6(self, at: usize) -> Option<Ip6> {
        Some(Ip6([
            self.word(at)?,
            self.word(at + 4)?,
            self.word(at + 8)?,
            self.word(at + 12)?,
        ]))
    }

    /// The key of a TCP or UDP packet in an IPv4 packet without options.
    #[inline(always)]
    pub fn key4(self) -> Option<Key4> {
        if !self.holds(ETH + 24) || self.half(ETH)? >> 8 != 0x45 {
            return None;
        }
        let proto = self.half(ETH + 8)? as u8;
        if proto != Proto::TCP && proto != Proto::UDP {
            return None;
        }
        let src = (u64::from(self.word(ETH + 12)?) << 16) | u64::from(self.half(ETH + 20)?);
        let dst = (u64::from(self.word(ETH + 16)?) << 16) | u64::from(self.half(ETH + 22)?);
        let (lo, hi) = if src > dst { (dst, src) } else { (src, dst) };
        Some(Key4 {
            lo: Ip4((lo >> 16) as u32),
            hi: Ip4((hi >> 16) as u32),
            lo_port: lo as u16,
            hi_port: hi as u16,
            realm: 0,
            proto,
            realm_high: 0,
        })
    }

    /// The key of a TCP or UDP packet in an IPv6 packet without extension headers.
    #[inline(always)]
    pub fn key6(self) -> Option<Key6> {
        if !self.holds(ETH + 44) || self.half(ETH)? >> 12 != 6 {
            return None;
        }
        let proto = (self.half(ETH + 6)? >> 8) as u8;
        if proto != Proto::TCP && proto != Proto::UDP {
            return None;
        }
        let (src, sport) = (self.address6(ETH + 8)?, self.half(ETH + 40)?);
        let (dst, dport) = (self.address6(ETH + 24)?, self.half(ETH + 42)?);
        let from_hi = if src.high() != dst.high() {
            src.high() > dst.high()
        } else if src.low() != dst.low() {
            src.low() > dst.low()
        } else {
            sport > dport
        };
        let ((lo, lo_port), (hi, hi_port)) = if from_hi {
            ((dst, dport), (src, sport))
        } else {
            ((src, sport), (dst, dport))
        };
        Some(Key6 {
            lo,
            hi,
            lo_port,
            hi_port,
            realm: 0,
            proto,
            realm_high: 0,
        })
    }
}
