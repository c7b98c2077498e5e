//! Records that the kernel sends to the agent through the ring buffer.

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was dropped.
    Drop = 1,
    /// A rule with `log: true` matched.
    Log = 2,
    /// A rule with `audit: true` would have denied the flow; it was let through.
    Audit = 3,
    /// A screen in mode `count` would have dropped the packet.
    Noted = 4,
}

/// One event. User space treats every field as hostile input: any number may stand anywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// Coarse monotonic time, ns.
    pub time: u64,
    /// Source address; an IPv4 address in `src[0]`; host byte order words.
    pub src: [u32; 4],
    /// Destination address, likewise.
    pub dst: [u32; 4],
    /// Interface whose packet this was.
    pub ifindex: u32,
    /// Stable id of the rule; 0: the default, or no rule was asked.
    pub rule: u32,
    /// Stable id of the source's most specific zone; 0: none or not looked up.
    pub src_zone: u32,
    /// Stable id of the destination's most specific zone.
    pub dst_zone: u32,
    /// Generation of the policy in force.
    pub generation: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// Realm (24 bits).
    pub realm: u32,
    /// Source port, or the ICMP echo identifier.
    pub sport: u16,
    /// Destination port; for ICMP type << 8 | code.
    pub dport: u16,
    /// Ethernet type of the payload (after tags); 0 if it was not reached.
    pub ethertype: u16,
    /// Errno of the map update that failed (positive); else 0.
    pub errno: u16,
    /// [`EventKind`] as a number.
    pub kind: u8,
    /// [`crate::abi::Reason`] as a number.
    pub reason: u8,
    /// 4, 6, or 0 where no IP header was reached.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags (RFC 9293 section 3.1, low 8 bits); 0 otherwise.
    pub tcp_flags: u8,
    /// 0: the port received the packet; 1: this machine was sending it.
    pub egress: u8,
    /// VLAN id of the inner tag of two, low 12 bits; else 0.
    pub inner_vlan: u16,
    /// Always 0.
    pub pad: u32,
}

const _: () = assert!(size_of::<Event>() == 88);
