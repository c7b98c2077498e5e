//! ICMP and ICMPv6: echo, errors, neighbour discovery.

use std::net::{IpAddr, Ipv6Addr};

use super::Packet;
use super::transport::Transport;

/// The usual errors that quote the packet they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The packet is larger than the next link; carries an MTU of 1400.
    TooBig,
    /// The hop limit ran out.
    TimeExceeded,
}

impl Unreachable {
    /// (type, code) and the last half of the header (RFC 792, 1191; RFC 4443).
    fn numbers(self, ipv6: bool) -> (u8, u8, [u8; 4]) {
        match (self, ipv6) {
            (Self::Port, false) => (3, 3, [0; 4]),
            (Self::Port, true) => (1, 4, [0; 4]),
            (Self::TooBig, false) => (3, 4, 1400_u32.to_be_bytes()),
            (Self::TooBig, true) => (2, 0, 1400_u32.to_be_bytes()),
            (Self::TimeExceeded, false) => (11, 0, [0; 4]),
            (Self::TimeExceeded, true) => (3, 0, [0; 4]),
        }
    }
}

/// Messages of neighbour discovery by type (RFC 4861).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

impl Packet {
    /// Any ICMP (between IPv4 addresses) or ICMPv6 message: type, code, and the header's last four bytes.
    #[must_use]
    pub fn icmp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        Self::new(src.into(), dst.into(), Transport::Icmp { kind, code, rest })
    }

    /// An echo request.
    #[must_use]
    pub fn echo_request(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16, sequence: u16) -> Self {
        let src = src.into();
        Self::icmp(
            src,
            dst,
            if src.is_ipv6() { 128 } else { 8 },
            0,
            echo(id, sequence),
        )
    }

    /// An echo reply.
    #[must_use]
    pub fn echo_reply(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16, sequence: u16) -> Self {
        let src = src.into();
        Self::icmp(
            src,
            dst,
            if src.is_ipv6() { 129 } else { 0 },
            0,
            echo(id, sequence),
        )
    }

    /// An error about `quoted`, which it quotes whole.
    #[must_use]
    pub fn unreachable(
        src: impl Into<IpAddr>,
        dst: impl Into<IpAddr>,
        what: Unreachable,
        quoted: &Self,
    ) -> Self {
        let src = src.into();
        let (kind, code, rest) = what.numbers(src.is_ipv6());
        Self::icmp(src, dst, kind, code, rest).payload(&quoted.ip_packet())
    }

    /// Who has `target`? Asked of the target's solicited-node group; from the unspecified address it is duplicate
    /// address detection (RFC 4862 section 5.4).
    #[must_use]
    pub fn neighbour_solicitation(src: Ipv6Addr, target: Ipv6Addr) -> Self {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::new(
            0xff02,
            0,
            0,
            0,
            0,
            1,
            0xff00 | u16::from(a),
            u16::from_be_bytes([b, c]),
        );
        Self::icmp(src, group, NEIGHBOUR_SOLICITATION, 0, [0; 4])
            .payload(&target.octets())
            .hops(255)
    }

    /// `src` is here.
    #[must_use]
    pub fn neighbour_advertisement(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        const SOLICITED_OVERRIDE: [u8; 4] = [0x60, 0, 0, 0];
        Self::icmp(src, dst, NEIGHBOUR_ADVERTISEMENT, 0, SOLICITED_OVERRIDE)
            .payload(&src.octets())
            .hops(255)
    }

    /// Is there a router?
    #[must_use]
    pub fn router_solicitation(src: Ipv6Addr) -> Self {
        Self::icmp(src, ALL_ROUTERS, ROUTER_SOLICITATION, 0, [0; 4]).hops(255)
    }

    /// There is a router.
    #[must_use]
    pub fn router_advertisement(src: Ipv6Addr) -> Self {
        Self::icmp(src, ALL_NODES, ROUTER_ADVERTISEMENT, 0, [64, 0, 7, 8])
            .payload(&[0; 8])
            .hops(255)
    }

    /// There is a better router (RFC 4861 section 4.5).
    #[must_use]
    pub fn redirect6(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, about: Ipv6Addr) -> Self {
        let body = [target.octets(), about.octets()].concat();
        Self::icmp(src, dst, REDIRECT, 0, [0; 4]).payload(&body).hops(255)
    }
}

fn echo(id: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}
