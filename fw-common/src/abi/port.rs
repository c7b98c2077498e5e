//! Ports: the interfaces that the data plane is attached to.

/// Slots of the `PORTS` map. A port lives in slot `ifindex % PORT_SLOTS` or in the next one (see [`port_slot`]).
pub const PORT_SLOTS: u32 = 1024;

/// The `try_`-th (0 or 1) slot where the port with this index may live.
#[inline(always)]
#[must_use]
pub const fn port_slot(ifindex: u32, try_: u32) -> u32 {
    (ifindex ^ try_) & (PORT_SLOTS - 1)
}

/// What the data plane does with an allowed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Filter what this machine's NIC receives and sends.
    Host = 1,
    /// Bump in the wire: what is allowed leaves by the pair's other port.
    Inline = 2,
}

/// Which hook judges the packets that a port receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Engine {
    /// Native XDP.
    Xdp = 1,
    /// TC ingress (TCX, or clsact before kernel 6.6).
    Tc = 2,
}

/// What a packet starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkKind {
    /// An Ethernet header (`ARPHRD_ETHER`).
    Ethernet = 1,
    /// The IP header itself (`ARPHRD_NONE`: tun, `WireGuard`).
    Raw = 2,
}

/// One port. An all-zero slot is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortConfig {
    /// Index of this interface; a look-up compares it.
    pub ifindex: u32,
    /// Mode `inline`: where allowed packets leave; 0 otherwise.
    pub peer_ifindex: u32,
    /// [`Mode`] as a number.
    pub mode: u8,
    /// [`Engine`] as a number.
    pub engine: u8,
    /// [`LinkKind`] as a number.
    pub link: u8,
    /// [`crate::abi::Side`] as a number.
    pub side: u8,
    /// The port's realm, 0..=15; becomes the top 4 bits of the key's realm.
    pub realm: u8,
    /// Number of the port's role, 0..=31, in the agent's list of roles.
    pub role: u8,
    /// Mode `inline`: the role of the pair's other port; else the port's own.
    pub peer_role: u8,
    /// Always 0.
    pub pad: u8,
}

const _: () = assert!(size_of::<PortConfig>() == 16);
