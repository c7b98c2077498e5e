//! Builders of frames, and a byte slice as a [`Packet`].

use std::vec::Vec;

use crate::abi::{LinkKind, Proto, Reason};
use crate::wire::{
    ETHERNET_SKIP, Kind, Meta, NO_TAG, PARSED, Packet, WINDOW_BYTES, Window, ethertype, parse,
};

/// A frame, and what the NIC tells beside it.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    pub tag: u32,
    pub segments: u32,
}

impl Packet for Frame<'_> {
    fn len(self) -> u32 {
        self.bytes.len() as u32
    }

    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        // What an earlier load left must not be taken for data.
        into.words = [0xa5a5_a5a5; 32];
        let Some(rest) = self.bytes.get(offset as usize..) else {
            return 0;
        };
        let count = rest.len().min((WINDOW_BYTES - skip) as usize);
        if count == 0 {
            return 0;
        }
        for (index, byte) in rest[..count].iter().enumerate() {
            let at = index + skip as usize;
            let mut word = into.words[at / 4].to_ne_bytes();
            word[at % 4] = *byte;
            into.words[at / 4] = u32::from_ne_bytes(word);
        }
        skip + count as u32
    }

    fn ifindex(self) -> u32 {
        1
    }

    fn tag(self) -> u32 {
        self.tag
    }

    fn segments(self) -> u32 {
        self.segments
    }

    fn wire_bytes(self, _len: u32) -> u32 {
        self.len()
    }

    fn egress(self) -> bool {
        false
    }

    fn came_by(self) -> u32 {
        0
    }
}

impl<'a> Frame<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            tag: NO_TAG,
            segments: 1,
        }
    }

    /// Parses it on an Ethernet port of this realm.
    pub fn on_port(self, realm: u8) -> (Result<Kind, Reason>, Meta) {
        let mut m = dirty();
        let word = parse(self, LinkKind::Ethernet as u8, realm, &mut m);
        (result(word), m)
    }
}

/// What a packet before left in the scratch memory.
fn dirty() -> Meta {
    let mut m = Meta::EMPTY;
    m.vlan = 9;
    m.inner_vlan = 9;
    m.realm = 9;
    m.screens = u32::MAX;
    m.fragment = 2;
    m.frag_id = 9;
    m.frag_offset = 9;
    m.frag_len = 9;
    m.frag_more = 1;
    m.frag_proto = 9;
    m.walk = 9;
    m.sport = 9;
    m.dport = 9;
    m.selector = 9;
    m.tcp_flags = 0xff;
    m.payload = 9;
    m
}

fn result(word: u32) -> Result<Kind, Reason> {
    if word & PARSED == 0 {
        return Err(Reason::from_number(word as u8).unwrap());
    }
    let kinds = [Kind::Ipv4, Kind::Ipv6, Kind::Arp, Kind::Lldp, Kind::Slow];
    Ok(kinds[(word & !PARSED) as usize])
}

/// Parses a frame on an Ethernet port of realm 0.
pub fn parsed(bytes: &[u8]) -> (Result<Kind, Reason>, Meta) {
    Frame::new(bytes).on_port(0)
}

/// Parses a packet on a port without link header.
pub fn parsed_raw(bytes: &[u8]) -> (Result<Kind, Reason>, Meta) {
    let mut m = dirty();
    let word = parse(Frame::new(bytes), LinkKind::Raw as u8, 0, &mut m);
    (result(word), m)
}

/// The parsed packet; it must be one.
pub fn good(bytes: &[u8]) -> Meta {
    let (result, m) = parsed(bytes);
    assert!(result.is_ok(), "{result:?}");
    m
}

/// The reason for which a frame is refused.
pub fn refused(bytes: &[u8]) -> Reason {
    parsed(bytes).0.expect_err("refused")
}

/// An Ethernet frame with tags (their type and id).
pub fn tagged(tags: &[(u16, u16)], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = std::vec![2; 12];
    for (tag, vlan) in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet without Ethernet header. `fragment` is the header's second word.
pub fn packet4(options: &[u8], fragment: u32, proto: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = std::vec![0x40 + (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet without Ethernet header.
pub fn packet6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

pub fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype::IPV4, &packet4(&[], 0, proto, payload))
}

pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype::IPV6, &packet6(next, payload))
}

/// A TCP header, ports 4000 and 80.
pub fn tcp(flags: u8) -> Vec<u8> {
    let mut segment = std::vec![0x0f, 0xa0, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags];
    segment.extend([0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// A UDP datagram of `len` bytes that says so, ports 4000 and 53.
pub fn udp(len: u16) -> Vec<u8> {
    let mut datagram = std::vec![0x0f, 0xa0, 0, 53];
    datagram.extend(len.to_be_bytes());
    datagram.resize(usize::from(len.max(8)), 0);
    datagram
}

/// An IPv6 options header of 8 bytes times `units`, followed by `next`.
pub fn options6(next: u8, units: u8) -> Vec<u8> {
    let mut header = std::vec![0; usize::from(units) * 8];
    header[0] = next;
    header[1] = units - 1;
    header
}

/// A routing header of this type.
pub fn routing(next: u8, kind: u8) -> Vec<u8> {
    std::vec![next, 0, kind, 0, 0, 0, 0, 0]
}

/// A fragment header: offset in bytes, more-fragments bit.
pub fn fragment6(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut header = std::vec![next, 0];
    header.extend((offset | u16::from(more)).to_be_bytes());
    header.extend([0xde, 0xad, 0xbe, 0xef]);
    header
}

/// An authentication header of `words` words (3 and the check value's).
pub fn authentication(next: u8, words: u8) -> Vec<u8> {
    let mut header = std::vec![0; usize::from(words) * 4];
    header[0] = next;
    header[1] = words - 2;
    header
}

/// Byte slices in a row.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Nothing parses a frame cut short, and no cut makes it panic.
pub fn cut_everywhere(bytes: &[u8]) {
    for length in 0..bytes.len() {
        assert!(parsed(&bytes[..length]).0.is_err(), "{length} bytes");
    }
}

#[test]
fn a_frame_begins_two_bytes_into_the_window() {
    let m = good(&ipv4(Proto::UDP, &udp(8)));
    assert_eq!(m.l3 * 4 - ETHERNET_SKIP, m.l3_offset);
    assert_eq!((m.l3_offset, m.l4_offset, m.l4_len), (14, 34, 8));
}
