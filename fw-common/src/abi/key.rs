//! Flow keys: one key for both directions of a connection, in canonical order.

/// An IPv4 address as a number in host byte order (`10.0.0.1` is `0x0a00_0001`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip4(pub u32);

/// An IPv6 address as four words in host byte order, the most significant first.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip6(pub [u32; 4]);

impl Ip6 {
    /// The first 64 bits (the network half).
    #[inline(always)]
    #[must_use]
    pub const fn high(self) -> u64 {
        ((self.0[0] as u64) << 32) | self.0[1] as u64
    }

    /// The last 64 bits (the interface half).
    #[inline(always)]
    #[must_use]
    pub const fn low(self) -> u64 {
        ((self.0[2] as u64) << 32) | self.0[3] as u64
    }

    /// From the numeric value of the address.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self([
            (bits >> 96) as u32,
            (bits >> 64) as u32,
            (bits >> 32) as u32,
            bits as u32,
        ])
    }

    /// The numeric value of the address.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        ((self.high() as u128) << 64) | self.low() as u128
    }
}

/// IP protocol numbers that the packet path knows by name (IANA protocol numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proto;

impl Proto {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IGMP (RFC 3376).
    pub const IGMP: u8 = 2;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// AH (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// Key of an IPv4 flow. `(lo, lo_port) <= (hi, hi_port)`, so both directions have the same key.
///
/// For TCP and UDP the ports are the ports. An ICMP echo has its identifier as the asking side's port and 0 as the
/// answering side's, so that two hosts that ping each other with one identifier have two flows. ESP has the two halves of
/// its SPI, GRE its folded key (RFC 2890); other protocols have the halves of the SPI of an authentication header before them
/// (RFC 4302), or 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// The lower of the two (address, port) pairs: address.
    pub lo: Ip4,
    /// The higher pair's address.
    pub hi: Ip4,
    /// The lower pair's port.
    pub lo_port: u16,
    /// The higher pair's port.
    pub hi_port: u16,
    /// Realm, low 16 bits: the port's realm << 12 | VLAN id (0: untagged); two tags: see
    /// [`crate::wire::stacked_realm`].
    pub realm: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Realm, bits 16..24: not 0 for two tags only.
    pub realm_high: u8,
}

/// Key of an IPv6 flow; see [`Key4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// The lower of the two (address, port) pairs: address.
    pub lo: Ip6,
    /// The higher pair's address.
    pub hi: Ip6,
    /// The lower pair's port.
    pub lo_port: u16,
    /// The higher pair's port.
    pub hi_port: u16,
    /// Realm, low 16 bits; see [`Key4`].
    pub realm: u16,
    /// IP protocol number (an extension header never stands here).
    pub proto: u8,
    /// Realm, bits 16..24.
    pub realm_high: u8,
}

impl Key4 {
    /// All 24 bits of the realm.
    #[must_use]
    pub const fn full_realm(&self) -> u32 {
        self.realm as u32 | ((self.realm_high as u32) << 16)
    }
}

impl Key6 {
    /// All 24 bits of the realm.
    #[must_use]
    pub const fn full_realm(&self) -> u32 {
        self.realm as u32 | ((self.realm_high as u32) << 16)
    }
}

const _: () = assert!(size_of::<Key4>() == 16 && align_of::<Key4>() == 4);
const _: () = assert!(size_of::<Key6>() == 40 && align_of::<Key6>() == 4);
