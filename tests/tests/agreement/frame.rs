//! Frames from their fields, byte by byte: a million of them must cost little. Checksums stay 0, the data plane judges none.

use std::net::IpAddr;

use fw_common::abi::Proto;

/// Number of an IPv6 routing header in [`Head::extensions`] whose type is 0.
pub const ROUTING_0: u8 = 200;
/// Number of an atomic fragment's header in [`Head::extensions`].
pub const ATOMIC: u8 = 44;
/// IPv4 in [`Head::extensions`]: a loose source route.
pub const SOURCE_ROUTE: u8 = 201;
const ROUTING: u8 = 43;

/// What stands before the transport header.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// VLAN ids, the outer one first.
    pub tags: &'static [u16],
    /// IPv6 extension headers by number; IPv4: an authentication header (51), else options.
    pub extensions: &'static [u8],
    pub ttl: u8,
    /// Identification, offset in bytes, more fragments.
    pub fragment: Option<(u32, u16, bool)>,
    /// No link header.
    pub raw: bool,
    /// Frames to a group of stations.
    pub to_group: bool,
}

impl Head {
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        Self {
            src,
            dst,
            tags: &[],
            extensions: &[],
            ttl: 64,
            fragment: None,
            raw: false,
            to_group: false,
        }
    }

    /// The way back.
    pub fn back(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            ..self
        }
    }

    pub fn v6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// The number of this family's ICMP.
    pub fn icmp(&self) -> u8 {
        if self.v6() { Proto::ICMPV6 } else { Proto::ICMP }
    }
}

/// A whole frame, or on a port without link header a packet.
pub fn frame(head: &Head, proto: u8, payload: &[u8]) -> Vec<u8> {
    let packet = packet(head, proto, payload);
    if head.raw {
        return packet;
    }
    let ethertype = if head.v6() { 0x86dd } else { 0x0800 };
    let mut bytes = ethernet(head.tags, ethertype, head.to_group);
    bytes.extend(packet);
    bytes
}

/// A link header.
pub fn ethernet(tags: &[u16], ethertype: u16, to_group: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend([2 | u8::from(to_group), 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    for (place, tag) in tags.iter().enumerate() {
        let outer_of_two = place == 0 && tags.len() > 1;
        bytes.extend(if outer_of_two { [0x88, 0xa8] } else { [0x81, 0] });
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

/// A packet from its IP header on.
pub fn packet(head: &Head, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (head.src, head.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(head, src.octets(), dst.octets(), proto, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(head, src.octets(), dst.octets(), proto, payload),
        // Addresses come from one family's pool; this never happens.
        _ => Vec::new(),
    }
}

fn ipv4(head: &Head, src: [u8; 4], dst: [u8; 4], proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut options: &[u8] = &[];
    let mut body = Vec::new();
    let mut first = proto;
    for &number in head.extensions {
        match number {
            Proto::AH => {
                body.extend([proto, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
                first = Proto::AH;
            }
            SOURCE_ROUTE => options = &[131, 7, 4, 10, 0, 0, 1, 0],
            _ => options = &[1, 7, 3, 4],
        }
    }
    body.extend(payload);
    let length = 20 + options.len();
    let mut bytes = Vec::with_capacity(length + body.len());
    bytes.extend([0x40 | (length / 4) as u8, 0]);
    bytes.extend(((length + body.len()) as u16).to_be_bytes());
    let (id, field) = match head.fragment {
        Some((id, offset, more)) => (id as u16, (offset / 8) | (u16::from(more) << 13)),
        None => (0, 0x4000),
    };
    bytes.extend(id.to_be_bytes());
    bytes.extend(field.to_be_bytes());
    bytes.extend([head.ttl, first, 0, 0]);
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(options);
    bytes.extend(body);
    bytes
}

fn ipv6(head: &Head, src: [u8; 16], dst: [u8; 16], proto: u8, payload: &[u8]) -> Vec<u8> {
    // From the last to the first: each header names what follows it.
    let mut next = proto;
    let mut rest = payload.to_vec();
    if let Some((id, offset, more)) = head.fragment {
        let field = (offset & !7) | u16::from(more);
        let header = [&[next, 0], &field.to_be_bytes()[..], &id.to_be_bytes()].concat();
        rest.splice(0..0, header);
        next = ATOMIC;
    }
    for &number in head.extensions.iter().rev() {
        let (number, body): (u8, &[u8]) = match number {
            ROUTING => (ROUTING, &[0, 4, 0, 0, 0, 0, 0]),
            ROUTING_0 => (ROUTING, &[0, 0, 0, 0, 0, 0, 0]),
            ATOMIC => (ATOMIC, &[0, 0, 0, 0, 0, 0, 9]),
            Proto::AH => (Proto::AH, &[2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
            other => (other, &[0, 1, 4, 0, 0, 0, 0]),
        };
        rest.splice(0..0, std::iter::once(next).chain(body.iter().copied()));
        next = number;
    }
    let mut bytes = Vec::with_capacity(40 + rest.len());
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([next, head.ttl]);
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(rest);
    bytes
}

/// A TCP segment.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub ports: (u16, u16),
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// In whole words.
    pub options: Vec<u8>,
    pub payload: usize,
}

impl Segment {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.payload);
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((20 + self.options.len()) * 4) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.resize(bytes.len() + self.payload, 0);
        bytes
    }
}

/// A UDP datagram.
pub fn udp(ports: (u16, u16), payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload);
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(((8 + payload) as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.resize(8 + payload, 0);
    bytes
}

/// An ICMP message.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(payload);
    bytes
}
