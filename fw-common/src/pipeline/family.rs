//! The two address families behind one trait, with a map each.

use super::{Hashed, Scratch, Stage};
use crate::abi::{Ip4, Ip6, Key4, Key6};
use crate::classify::Address;

/// An address family: how its addresses and keys look.
pub trait Family {
    /// An address.
    type Addr: Address;
    /// A flow key.
    type Key: Hashed;
    /// The stage that opens flows.
    const OPEN: Stage;
    /// The stage that creates them.
    const CREATE: Stage;
    /// The stage that judges flows again.
    const AGAIN: Stage;

    /// Source and destination of the packet in `s`.
    fn addresses(s: &Scratch) -> (Self::Addr, Self::Addr);
    /// Makes the packet's key, in canonical order, and notes which side the packet comes from.
    fn make_key(s: &mut Scratch);
    /// The key made last.
    fn key(s: &Scratch) -> &Self::Key;
    /// `(address, port)` of the key's `lo` and `hi` side.
    fn sides(s: &Scratch) -> ((Self::Addr, u16), (Self::Addr, u16));
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub enum V4 {}
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub enum V6 {}

impl Family for V4 {
    type Addr = Ip4;
    type Key = Key4;
    const OPEN: Stage = Stage::Open4;
    const CREATE: Stage = Stage::Create4;
    const AGAIN: Stage = Stage::Again4;

    #[inline(always)]
    fn addresses(s: &Scratch) -> (Ip4, Ip4) {
        (Ip4(s.meta.src[0]), Ip4(s.meta.dst[0]))
    }

    #[inline(always)]
    fn make_key(s: &mut Scratch) {
        let m = &mut s.meta;
        let src = (u64::from(m.src[0]) << 16) | u64::from(m.sport);
        let dst = (u64::from(m.dst[0]) << 16) | u64::from(m.dport);
        m.from_hi = u8::from(src > dst);
        let (lo, hi) = if src > dst { (dst, src) } else { (src, dst) };
        s.key4.lo = Ip4((lo >> 16) as u32);
        s.key4.hi = Ip4((hi >> 16) as u32);
        s.key4.lo_port = lo as u16;
        s.key4.hi_port = hi as u16;
        s.key4.realm = m.realm as u16;
        s.key4.proto = m.proto;
        s.key4.realm_high = (m.realm >> 16) as u8;
    }

    #[inline(always)]
    fn key(s: &Scratch) -> &Key4 {
        &s.key4
    }

    #[inline(always)]
    fn sides(s: &Scratch) -> ((Ip4, u16), (Ip4, u16)) {
        ((s.key4.lo, s.key4.lo_port), (s.key4.hi, s.key4.hi_port))
    }
}

impl Family for V6 {
    type Addr = Ip6;
    type Key = Key6;
    const OPEN: Stage = Stage::Open6;
    const CREATE: Stage = Stage::Create6;
    const AGAIN: Stage = Stage::Again6;

    #[inline(always)]
    fn addresses(s: &Scratch) -> (Ip6, Ip6) {
        (Ip6(s.meta.src), Ip6(s.meta.dst))
    }

    #[inline(always)]
    fn make_key(s: &mut Scratch) {
        let m = &mut s.meta;
        let (src, dst) = (Ip6(m.src), Ip6(m.dst));
        let from_hi = if src.high() != dst.high() {
            src.high() > dst.high()
        } else if src.low() != dst.low() {
            src.low() > dst.low()
        } else {
            m.sport > m.dport
        };
        m.from_hi = u8::from(from_hi);
        let (lo, hi) = if from_hi {
            ((dst, m.dport), (src, m.sport))
        } else {
            ((src, m.sport), (dst, m.dport))
        };
        s.key6.lo = lo.0;
        s.key6.hi = hi.0;
        s.key6.lo_port = lo.1;
        s.key6.hi_port = hi.1;
        s.key6.realm = m.realm as u16;
        s.key6.proto = m.proto;
        s.key6.realm_high = (m.realm >> 16) as u8;
    }

    #[inline(always)]
    fn key(s: &Scratch) -> &Key6 {
        &s.key6
    }

    #[inline(always)]
    fn sides(s: &Scratch) -> ((Ip6, u16), (Ip6, u16)) {
        ((s.key6.lo, s.key6.lo_port), (s.key6.hi, s.key6.hi_port))
    }
}
