//! The packets of a flow: the one that opens it and the answer.

use std::net::{IpAddr, Ipv6Addr};

use fw_common::abi::Proto;
use fw_lab::packet::Packet;
use fw_policy::Flow;

/// Ethernet addresses of the two sides.
pub(super) const NEAR: [u8; 6] = [2, 0, 0, 0, 0x7e, 1];
pub(super) const FAR: [u8; 6] = [2, 0, 0, 0, 0x7e, 2];
/// First sequence numbers of the two ends.
const CLIENT_ISN: u32 = 1_000;
const SERVER_ISN: u32 = 5_000;
/// A maximum segment size of 1,460 bytes (RFC 9293 section 3.7.1): no SYN comes without.
const MSS: [u8; 4] = [2, 4, 5, 180];
/// An SCTP INIT chunk of one stream each way (RFC 9260 section 3.3.2), behind tag 0 and an empty checksum.
const SCTP_INIT: [u8; 28] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9,
];

/// The packet that opens a flow.
pub(super) fn opening(flow: &Flow) -> Packet {
    let (src, dst, port) = (flow.src, flow.dst, flow.selector);
    let sport = flow.source_port();
    let packet = match flow.proto {
        Proto::TCP => Packet::tcp((src, sport), (dst, port))
            .flags("S")
            .numbers(CLIENT_ISN, 0)
            .tcp_options(&MSS),
        Proto::UDP => Packet::udp((src, sport), (dst, port)).payload(b"dpufw test"),
        Proto::SCTP => {
            let ports = [sport.to_be_bytes(), port.to_be_bytes()].concat();
            Packet::other(Proto::SCTP, src, dst).payload(&[&ports[..], &SCTP_INIT].concat())
        }
        Proto::ICMP | Proto::ICMPV6 => icmp(flow),
        Proto::IGMP => Packet::other(Proto::IGMP, src, dst)
            .payload(&[0x16, 0, 0, 0, 0, 0, 0, 0])
            .hops(1),
        // Version 0 and nothing optional (RFC 2784 section 2.1), carrying IPv4.
        Proto::GRE => Packet::other(Proto::GRE, src, dst).payload(&[0, 0, 8, 0, 0, 0, 0, 0]),
        other => Packet::other(other, src, dst).payload(&[1; 16]),
    };
    packet.macs(NEAR, station(dst)).tags(&tags(flow))
}

/// An ICMP message with the bytes that its type demands (RFC 4861 section 4).
fn icmp(flow: &Flow) -> Packet {
    let (src, dst) = (flow.src, flow.dst);
    let [kind, code] = flow.selector.to_be_bytes();
    let message = Packet::icmp(src, dst, kind, code, [0, 7, 0, 1]);
    if flow.proto == Proto::ICMP {
        return message.payload(b"dpufw test");
    }
    let target = match dst {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    };
    match kind {
        133 => message.hops(255),
        134 => message.payload(&[0; 8]).hops(255),
        135 | 136 => message.payload(&target.octets()).hops(255),
        137 => message
            .payload(&[target.octets(), target.octets()].concat())
            .hops(255),
        130..=132 | 143 => message.payload(&[0; 16]).hops(1),
        _ => message.payload(b"dpufw test"),
    }
}

/// The first packet that answers the one that opens the flow; `None` where nothing says what an answer is.
pub(super) fn answer(flow: &Flow) -> Option<Packet> {
    let echo = |kind: u8| flow.selector.to_be_bytes()[0] == kind;
    let opened = opening(flow);
    let answered = match flow.proto {
        Proto::TCP => opened
            .reversed()
            .flags("A")
            .numbers(SERVER_ISN, CLIENT_ISN.wrapping_add(1)),
        Proto::UDP => opened.reversed(),
        Proto::ICMP if echo(8) => Packet::echo_reply(flow.dst, flow.src, 7, 1).tags(&tags(flow)),
        Proto::ICMPV6 if echo(128) => Packet::echo_reply(flow.dst, flow.src, 7, 1).tags(&tags(flow)),
        _ => return None,
    };
    (!is_group(flow.dst)).then(|| answered.macs(FAR, NEAR))
}

fn tags(flow: &Flow) -> Vec<u16> {
    [flow.vlan, flow.inner_vlan]
        .into_iter()
        .filter(|vlan| *vlan != 0)
        .collect()
}

/// True if the address is one of many stations.
pub(super) fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::from([255, 255, 255, 255])
}

/// The Ethernet address for a destination: of groups by RFC 1112 section 6.4 and RFC 2464 section 7.
fn station(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => [0xff; 6],
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
        _ => FAR,
    }
}
