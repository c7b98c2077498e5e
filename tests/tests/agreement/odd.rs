//! Frames that are wrong in one way, frames of the link, and random damage.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use fw_common::abi::Proto;
use fw_common::wire::tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};

use crate::frame::{self, Head, ROUTING_0, SOURCE_ROUTE, Segment};
use crate::place::{Group, Place, Shot, address, once_in, one_of};
use crate::twin::{Via, port};

/// A wrong frame.
pub fn wrong(random: &mut Rng) -> Shot {
    let mut place = Place::any(random);
    place.head.extensions = &[];
    let (mut head, mut via) = place.side(0);
    via.super_packet = None;
    if via.egress {
        via = Via::into(port::HOST);
        head = head.back();
    }
    let segment = Segment {
        ports: (40_000 + random.u16(..400), one_of(random, &[80, 443, 84])),
        flags: SYN,
        seq: random.u32(..),
        window: 1000,
        payload: random.usize(..20),
        ..Segment::default()
    };
    let bytes = match random.u8(..10) {
        0..2 => return header(head, via, &segment, random),
        2..4 => flags(&head, segment, random),
        4..6 => sources(&mut head, &mut via, &segment, random),
        6 => lengths(&head, &segment, random),
        7..9 => tags_and_ports(head, &mut via, &segment, random),
        _ => messages(&head, random),
    };
    Shot { bytes, via }
}

fn tcp(head: &Head, segment: &Segment) -> Vec<u8> {
    frame::frame(head, Proto::TCP, &segment.bytes())
}

/// IP headers and what follows them.
fn header(mut head: Head, via: Via, segment: &Segment, random: &mut Rng) -> Shot {
    let link = if head.raw { 0 } else { 14 + 4 * head.tags.len() };
    let choice = random.u8(..12);
    if choice < 4 && head.v6() {
        const CHAINS: [&[u8]; 7] = [
            &[60, 60, 60],
            &[60, 0],
            &[139],
            &[59],
            &[43, 43],
            &[0, 60, 43, 51, 60, 253],
            &[135],
        ];
        head.extensions = one_of(random, &CHAINS);
    }
    match choice {
        4 | 5 => head.extensions = if head.v6() { &[ROUTING_0] } else { &[SOURCE_ROUTE] },
        6 => head.ttl = 0,
        _ => {}
    }
    let proto = if choice == 7 {
        if head.v6() { Proto::ICMP } else { Proto::ICMPV6 }
    } else {
        Proto::TCP
    };
    let mut bytes = frame::frame(&head, proto, &segment.bytes());
    match choice {
        8 => bytes[link] = one_of(random, &[0x55, 0x44, 0x41, 0x65, 0x4f]),
        9 => bytes[link + if head.v6() { 4 } else { 2 }] ^= 0x40,
        10 => bytes.truncate(random.usize(14..bytes.len().max(15))),
        11 if !head.v6() => {
            // An option whose length is wrong.
            head.extensions = &[1];
            bytes = frame::frame(&head, proto, &segment.bytes());
            bytes[link + 21] = random.u8(2..40);
            bytes[link + 22] = one_of(random, &[0, 1, 30]);
        }
        _ => {}
    }
    Shot { bytes, via }
}

fn flags(head: &Head, mut segment: Segment, random: &mut Rng) -> Vec<u8> {
    segment.flags = one_of(
        random,
        &[
            0,
            FIN | PSH | URG,
            SYN | FIN,
            SYN | RST,
            FIN,
            RST | FIN | ACK,
            PSH,
            SYN | FIN | ACK,
            URG | PSH,
        ],
    );
    tcp(head, &segment)
}

/// Addresses that cannot be, or not here.
fn sources(head: &mut Head, via: &mut Via, segment: &Segment, random: &mut Rng) -> Vec<u8> {
    let v6 = head.v6();
    match random.u8(..5) {
        0 => head.src = head.dst,
        1 => {
            let (four, six): ([u8; 4], [u16; 8]) = one_of(
                random,
                &[
                    ([0, 1, 2, 3], [0; 8]),
                    ([127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]),
                    ([224, 0, 0, 9], [0xff02, 0, 0, 0, 0, 0, 0, 9]),
                    ([255, 255, 255, 255], [0, 0, 0, 0, 0, 0xffff, 1, 2]),
                ],
            );
            head.src = if v6 {
                Ipv6Addr::from(six).into()
            } else {
                Ipv4Addr::from(four).into()
            };
        }
        2 => head.src = address(Group::Own, v6, 1),
        _ => {
            *via = Via::into(one_of(
                random,
                &[port::HOST, port::OUTER, port::INNER, port::RAIL],
            ));
            (head.raw, head.tags) = (false, &[]);
            let group = one_of(random, &[Group::Rail, Group::Client]);
            head.src = address(group, v6, random.u8(1..9));
            head.dst = address(Group::Rail, v6, random.u8(20..27));
        }
    }
    tcp(head, segment)
}

fn lengths(head: &Head, segment: &Segment, random: &mut Rng) -> Vec<u8> {
    match random.u8(..6) {
        0 => {
            let mut bytes = segment.bytes();
            bytes[12] = one_of(random, &[0x40, 0xf0, 0]);
            frame::frame(head, Proto::TCP, &bytes)
        }
        1 => frame::frame(head, Proto::TCP, &segment.bytes()[..random.usize(..20)]),
        2 | 3 => {
            let mut bytes = frame::udp((50_000, 53), 10);
            bytes[5] = one_of(random, &[0, 7, 200, 9]);
            frame::frame(head, Proto::UDP, &bytes)
        }
        4 => frame::frame(
            head,
            head.icmp(),
            &frame::icmp(8, 0, [0; 4], &[])[..random.usize(..8)],
        ),
        _ => {
            let proto = one_of(
                random,
                &[Proto::UDP, Proto::SCTP, Proto::ESP, Proto::GRE, Proto::AH],
            );
            frame::frame(head, proto, &vec![0x20; random.usize(..12)])
        }
    }
}

fn tags_and_ports(mut head: Head, via: &mut Via, segment: &Segment, random: &mut Rng) -> Vec<u8> {
    (head.raw, *via) = (false, Via::into(port::HOST));
    match random.u8(..6) {
        0 => head.tags = &[1, 2, 3],
        1 => head.tags = one_of(random, &[&[55], &[100, 8], &[7, 100], &[4095, 1], &[101, 7]]),
        2 => {
            let kind = one_of(random, &[0x0842, 0x88f7, 0x8863, 0xffff]);
            let mut bytes = frame::ethernet(head.tags, kind, false);
            bytes.resize(60, 0);
            return bytes;
        }
        3 => via.port = port::UNKNOWN,
        4 => {
            head.tags = &[100, 7];
            via.port = port::OTHER_REALM;
        }
        _ => head.to_group = true,
    }
    tcp(&head, segment)
}

/// ICMP messages that ask nothing and belong to nothing.
fn messages(head: &Head, random: &mut Rng) -> Vec<u8> {
    let kind = if head.v6() {
        one_of(random, &[129, 127, 138, 200, 1, 2])
    } else {
        one_of(random, &[0, 5, 13, 17, 4, 3, 11])
    };
    frame::frame(
        head,
        head.icmp(),
        &frame::icmp(kind, 0, [0, random.u8(..8), 0, 1], &[0; 40]),
    )
}

/// A frame of a link protocol.
pub fn link(random: &mut Rng) -> Shot {
    let mut via = Via::into(one_of(
        random,
        &[port::HOST, port::OUTER, port::INNER, port::RAIL, port::HOST],
    ));
    if once_in(random, 4) {
        via = Via::out_of(port::HOST);
    }
    let mut bytes = match random.u8(..10) {
        0..2 => arp(random),
        2 => frame::ethernet(&[], one_of(random, &[0x88cc, 0x8809]), true),
        3..6 => discovery(random),
        6 => groups(random),
        _ => dhcp(&mut via, random),
    };
    bytes.resize(bytes.len().max(60), 0);
    Shot { bytes, via }
}

fn arp(random: &mut Rng) -> Vec<u8> {
    let mut bytes = frame::ethernet(one_of(random, &[&[], &[], &[101], &[55]]), 0x0806, true);
    bytes.extend([0, 1, 8, 0, 6, 4, 0, random.u8(..4)]);
    let target = one_of(random, &[[192, 0, 2, 1], [10, 2, 0, 20]]);
    bytes.extend([2, 0, 0, 0, 0, 1, 10, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(target);
    if once_in(random, 6) {
        bytes.truncate(random.usize(18..bytes.len()));
        // Ethernet pads what is short; the ARP packet then has zeros where they do not belong.
        bytes[17] ^= 1;
    }
    bytes
}

const ALL_NODES: [u16; 8] = [0xff02, 0, 0, 0, 0, 0, 0, 1];

fn discovery(random: &mut Rng) -> Vec<u8> {
    let local = IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9));
    let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let to = one_of(random, &[Ipv6Addr::from(ALL_NODES), own]);
    let mut head = Head::new(local, to.into());
    head.ttl = if once_in(random, 8) { 64 } else { 255 };
    if once_in(random, 20) {
        head.fragment = Some((random.u32(..50), 0, true));
    }
    let kind = random.u8(133..=137);
    let code = u8::from(once_in(random, 12));
    let body = if once_in(random, 12) {
        vec![0; 8]
    } else {
        one_of(random, &[own.octets(), Ipv6Addr::from(ALL_NODES).octets()]).to_vec()
    };
    frame::frame(&head, Proto::ICMPV6, &frame::icmp(kind, code, [0; 4], &body))
}

/// IGMP and MLD.
fn groups(random: &mut Rng) -> Vec<u8> {
    if random.bool() {
        let to = one_of(random, &[[224, 0, 0, 22], [10, 2, 0, 20]]);
        let head = Head::new(address(Group::Client, false, 1), Ipv4Addr::from(to).into());
        return frame::frame(&head, Proto::IGMP, &[0x22, 0, 0, 0, 0, 0, 0, 0]);
    }
    let to = one_of(
        random,
        &[
            Ipv6Addr::from(ALL_NODES),
            Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 20),
        ],
    );
    let head = Head::new(address(Group::Client, true, 1), to.into());
    let kind = one_of(random, &[130, 131, 132, 143]);
    frame::frame(&head, Proto::ICMPV6, &frame::icmp(kind, 0, [0; 4], &[0; 16]))
}

fn dhcp(via: &mut Via, random: &mut Rng) -> Vec<u8> {
    let request = random.bool();
    if random.bool() {
        let (src, dst, ports) = if request {
            (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, (68, 67))
        } else {
            (
                Ipv4Addr::new(10, 2, 0, 20),
                one_of(random, &[Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 1)]),
                (67, 68),
            )
        };
        *via = sides(request, random);
        return frame::frame(
            &Head::new(src.into(), dst.into()),
            Proto::UDP,
            &frame::udp(ports, 240),
        );
    }
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let (src, dst, ports) = if request {
        (local, servers, (546, 547))
    } else {
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), local, (547, 546))
    };
    *via = sides(request, random);
    let mut head = Head::new(src.into(), dst.into());
    let whole = frame::udp(ports, 64);
    if once_in(random, 4) {
        head.fragment = Some((random.u32(..200), 0, true));
        return frame::frame(&head, Proto::UDP, &whole[..40]);
    }
    frame::frame(&head, Proto::UDP, &whole)
}

/// Requests come from this machine or the guarded side, answers from the network; sometimes not.
fn sides(request: bool, random: &mut Rng) -> Via {
    if request == once_in(random, 8) {
        one_of(random, &[Via::into(port::HOST), Via::into(port::OUTER)])
    } else {
        one_of(random, &[Via::out_of(port::HOST), Via::into(port::INNER)])
    }
}

/// Damages a frame at random.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.u8(1..4) {
        let head = bytes.len().min(90);
        let at = random.usize(..head.max(1));
        match random.u8(..6) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes[at] = one_of(random, &[0, 1, 4, 6, 17, 43, 44, 51, 58, 60, 255]),
            3 => bytes.truncate(random.usize(14..=bytes.len().max(14))),
            4 => bytes.extend(std::iter::repeat_n(random.u8(..), random.usize(1..40))),
            _ => {
                let value = random.u8(..);
                if let Some(byte) = bytes.get_mut(at + 1) {
                    *byte = value;
                }
            }
        }
    }
    bytes.resize(bytes.len().max(14), 0);
}
