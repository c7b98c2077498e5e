//! Frames of questions. A packet of each kind is built once; its addresses, ports and tag are then written over, which takes a
//! tenth of the time of building one anew. Transport checksums are left as they were: nothing judges them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::Proto;
use fw_tests::oracle::Question;
use fw_tests::packet::Packet;

/// Behind the two Ethernet addresses: the tag's two bytes of type, then its id.
const TAG_ID: usize = 14;
/// Bytes of an Ethernet header, of a tag, of IP headers.
const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// A frame for each family, protocol, and with a tag or without.
#[derive(Default)]
pub struct Frames(HashMap<(bool, u8, bool), Vec<u8>>);

impl Frames {
    /// The frame of a question.
    pub fn of(&mut self, question: &Question) -> &[u8] {
        let key = (question.src.is_ipv4(), question.proto, question.vlan != 0);
        let frame = self.0.entry(key).or_insert_with(|| built(question));
        write(frame, question);
        frame
    }
}

fn write(frame: &mut [u8], question: &Question) {
    let mut ip = ETHERNET;
    if question.vlan != 0 {
        frame[TAG_ID..TAG_ID + 2].copy_from_slice(&question.vlan.to_be_bytes());
        ip += TAG;
    }
    let transport = match (question.src, question.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame[ip + 12..ip + 16].copy_from_slice(&src.octets());
            frame[ip + 16..ip + 20].copy_from_slice(&dst.octets());
            frame[ip + 10..ip + 12].fill(0);
            let sum = header_checksum(&frame[ip..ip + IPV4]);
            frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
            ip + IPV4
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame[ip + 8..ip + 24].copy_from_slice(&src.octets());
            frame[ip + 24..ip + 40].copy_from_slice(&dst.octets());
            ip + IPV6
        }
        _ => panic!("a packet of two families: {question:?}"),
    };
    if matches!(question.proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
        frame[transport..transport + 2].copy_from_slice(&question.source_port.to_be_bytes());
        frame[transport + 2..transport + 4].copy_from_slice(&question.selector.to_be_bytes());
    } else if matches!(question.proto, Proto::ICMP | Proto::ICMPV6) {
        frame[transport..transport + 2].copy_from_slice(&question.selector.to_be_bytes());
    }
}

/// The one's complement of the one's complement sum (RFC 791 section 3.1).
fn header_checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The same packet by the builder, with other numbers where they are written over.
fn built(question: &Question) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = if question.src.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into())
    };
    with_ends(question, (src, 0), (dst, 0))
}

fn with_ends(question: &Question, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let packet = match question.proto {
        Proto::TCP => Packet::tcp(src, dst).flags("S"),
        Proto::UDP => Packet::udp(src, dst),
        Proto::ICMP | Proto::ICMPV6 => Packet::echo_request(src.0, dst.0, 7, 1),
        Proto::SCTP => {
            let ([a, b], [c, d]) = (src.1.to_be_bytes(), dst.1.to_be_bytes());
            Packet::other(Proto::SCTP, src.0, dst.0).payload(&[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        other => Packet::other(other, src.0, dst.0).payload(&[1; 8]),
    };
    let tagged = if question.vlan == 0 {
        packet
    } else {
        packet.tags(&[question.vlan])
    };
    tagged.build()
}

#[test]
fn a_frame_written_over_is_the_one_that_the_builder_makes() {
    let mut frames = Frames::default();
    for (src, dst) in [("10.1.2.3", "172.16.255.9"), ("fd00::7", "2001:db8::ffff")] {
        for proto in [
            Proto::TCP,
            Proto::UDP,
            Proto::SCTP,
            Proto::ICMP,
            Proto::ICMPV6,
            Proto::GRE,
        ] {
            for vlan in [0, 101] {
                let (src, dst): (IpAddr, IpAddr) =
                    (src.parse().expect("an address"), dst.parse().expect("an address"));
                let selector = match proto {
                    Proto::ICMP | Proto::ICMPV6 if src.is_ipv4() => 8 << 8,
                    Proto::ICMP | Proto::ICMPV6 => 128 << 8,
                    _ => 443,
                };
                let question = Question {
                    vlan,
                    src,
                    dst,
                    proto,
                    selector,
                    source_port: 50_000,
                };
                let wanted = with_ends(&question, (src, 50_000), (dst, 443));
                let ip = ETHERNET + if vlan == 0 { 0 } else { TAG };
                let transport = ip + if src.is_ipv4() { IPV4 } else { IPV6 };
                let mut got = frames.of(&question).to_vec();
                let checksum = match proto {
                    Proto::TCP => 16,
                    Proto::UDP => 6,
                    Proto::ICMP | Proto::ICMPV6 => 2,
                    _ => 0,
                };
                if checksum > 0 {
                    let at = transport + checksum..transport + checksum + 2;
                    got[at.clone()].copy_from_slice(&wanted[at]);
                }
                assert_eq!(got, wanted, "{question:?}");
            }
        }
    }
}
