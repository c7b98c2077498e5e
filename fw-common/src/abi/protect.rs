//! Limits of rules, and what the protect section of a policy says: records of a table set ([`super::SetHeader`]).

use super::LINE_BYTES;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitKind {
    /// Packets (segments of a GSO super-packet).
    Packets = 0,
    /// Bytes as on the wire.
    Bytes = 1,
    /// New flows.
    NewFlows = 2,
    /// Flows at a time: `mantissa` is the number, the rest is 0.
    Flows = 3,
}

/// What has a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitPer {
    /// The rule as a whole.
    Rule = 0,
    /// Each source, masked.
    Source = 1,
    /// Each destination, masked.
    Destination = 2,
    /// Each pair of source and destination, both masked.
    Pair = 3,
}

/// A rate limit: the words of a [`crate::limit::Rate`] and what it is applied to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitRecord {
    /// Stable id, made from the rule's name and the limit's position.
    pub id: u32,
    /// [`LimitKind`] | [`LimitPer`] << 8 | IPv4 prefix length << 16 | IPv6 prefix length << 24.
    pub what: u32,
    /// `Rate::mantissa`.
    pub mantissa: u32,
    /// `Rate::shift`.
    pub shift: u32,
    /// `Rate::burst`, low word.
    pub burst_lo: u32,
    /// `Rate::burst`, high word.
    pub burst_hi: u32,
    /// Always 0.
    pub reserved: [u32; 2],
}

/// Limit records 0 to 3 are thresholds of the protect section.
pub mod threshold {
    /// New TCP flows to a destination above which a SYN proof is demanded.
    pub const SYN: u32 = 0;
    /// New UDP flows to a destination.
    pub const UDP: u32 = 1;
    /// New ICMP flows to a destination.
    pub const ICMP: u32 = 2;
    /// Denied packets of a source.
    pub const SCAN: u32 = 3;
    /// Number of thresholds; the limits of rules follow.
    pub const COUNT: u32 = 4;
}

/// What a protection does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ProtectMode {
    /// Nothing.
    Skip = 0,
    /// Count, report, let pass.
    #[default]
    Count = 1,
    /// Drop (SYN flood: demand a proof; scan: ban).
    Drop = 2,
}

/// The protect section, one line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectRecord {
    /// Bits of the screens ([`Screen`]) that drop.
    pub screens_drop: u32,
    /// Bits of the screens that count only.
    pub screens_count: u32,
    /// 0: a fragment that comes before its first is dropped (`strict`); 1: it passes (`pass_early`) where some rule allows its
    /// protocol between the two addresses.
    pub pass_early: u32,
    /// Unconfirmed flows that a source may open in 34 s; 0: no cap.
    pub half_open_cap: u32,
    /// Confirmed flows that a source may have; 0: no cap.
    pub flows_cap: u32,
    /// [`ProtectMode`] by number of the [`threshold`].
    pub modes: [u32; 4],
    /// Seconds that a ban lasts.
    pub ban_s: u32,
    /// Always 0.
    pub reserved: [u32; 6],
}

/// Screens by number of their bit. The first seven are found while parsing ([`crate::wire`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Screen {
    /// TTL or hop limit 0.
    TtlZero = 0,
    /// IPv4 source route.
    SourceRoute = 1,
    /// No flag at all.
    TcpNull = 2,
    /// FIN, PSH and URG without ACK.
    TcpXmas = 3,
    /// SYN and FIN.
    TcpSynFin = 4,
    /// SYN and RST.
    TcpSynRst = 5,
    /// FIN without ACK.
    TcpFinNoAck = 6,
    /// A UDP length that contradicts the packet.
    BadLength = 7,
    /// Source and destination are one address.
    Land = 8,
    /// A source that no host can have.
    ImpossibleSource = 9,
    /// An address of a plane that is not bound to the port.
    PlaneMismatch = 10,
}

impl Screen {
    /// All screens.
    pub const ALL: [Self; 11] = [
        Self::TtlZero,
        Self::SourceRoute,
        Self::TcpNull,
        Self::TcpXmas,
        Self::TcpSynFin,
        Self::TcpSynRst,
        Self::TcpFinNoAck,
        Self::BadLength,
        Self::Land,
        Self::ImpossibleSource,
        Self::PlaneMismatch,
    ];

    /// The screen's bit.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Number of the [`super::Reason`] of a packet that the screen drops.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> u32 {
        super::Reason::TtlZero as u32 + self as u32
    }
}

const _: () = assert!(Screen::Land.reason() == super::Reason::Land as u32);
const _: () = assert!(Screen::PlaneMismatch.reason() == super::Reason::PlaneMismatch as u32);
const _: () = assert!(size_of::<LimitRecord>() == 32 && size_of::<ProtectRecord>() == LINE_BYTES);
