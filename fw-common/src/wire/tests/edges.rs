//! Borders: where the IP packet ends before its frame, the shortest option, the last tag, ports without link header.

use std::vec;
use std::vec::Vec;

use super::frames::{
    Frame, authentication, fragment6, good, ipv4, ipv6, join, options6, packet4, packet6, parsed_raw,
    refused, routing, tagged, tcp, udp,
};
use crate::abi::{LinkKind, Proto, Reason, Screen};
use crate::wire::{Kind, Meta, PARSED, ethertype, parse, quoted, tcp_flag};

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend([0x50; 60]);
    frame
}

#[test]
fn padding_is_no_header() {
    assert_eq!(refused(&padded(ipv6(60, &[0; 7]))), Reason::Truncated);
    assert_eq!(refused(&padded(ipv4(Proto::AH, &[0; 11]))), Reason::Truncated);
    for (frame, len) in [
        (ipv4(Proto::TCP, &tcp(tcp_flag::ACK)), 20),
        (
            ipv6(60, &join(&[&options6(Proto::TCP, 1), &tcp(tcp_flag::ACK)])),
            20,
        ),
        (ipv6(Proto::UDP, &udp(9)), 9),
    ] {
        let m = good(&padded(frame));
        assert_eq!((m.l4_len, m.payload), (len, 0));
    }
}

/// A transport header that the IP header's length cuts short is truncated, whatever padding stands in its place.
#[test]
fn padding_completes_no_transport_header() {
    for (proto, whole) in [
        (Proto::TCP, 20),
        (Proto::UDP, 8),
        (Proto::SCTP, 12),
        (Proto::ESP, 8),
        (Proto::ICMP, 8),
    ] {
        let header = vec![0x50; whole - 1];
        let reasons = [ipv4(proto, &header), padded(ipv4(proto, &header))].map(|frame| refused(&frame));
        assert_eq!(reasons[0], reasons[1], "protocol {proto}");
    }
}

/// The quote must hold 8 bytes behind its IP header, and padding does not count.
#[test]
fn padding_is_no_quote() {
    for (bytes, status) in [(8, 0), (7, Reason::BadIcmp as u32)] {
        let four = packet4(&[], 0, Proto::UDP, &udp(8)[..bytes]);
        let six = packet6(Proto::UDP, &udp(8)[..bytes]);
        for frame in [
            ipv4(Proto::ICMP, &join(&[&[3, 3, 0, 0, 0, 0, 0, 0], &four])),
            ipv6(Proto::ICMPV6, &join(&[&[1, 4, 0, 0, 0, 0, 0, 0], &six])),
        ] {
            let frame = padded(frame);
            let mut m = good(&frame);
            assert_eq!(quoted(Frame::new(&frame), &mut m), status);
        }
    }
}

fn many(bytes: &[u8]) -> Frame<'_> {
    Frame {
        segments: 2,
        ..Frame::new(bytes)
    }
}

/// Only a super-packet may tell no length, and one that tells a length means it.
#[test]
fn a_super_packet_may_be_too_long_to_tell() {
    for (mut bytes, at) in [
        (ipv4(Proto::TCP, &tcp(tcp_flag::ACK)), 16),
        (ipv6(Proto::TCP, &tcp(tcp_flag::ACK)), 18),
    ] {
        bytes.extend([7; 90]);
        let (result, m) = many(&bytes).on_port(0);
        assert!(result.is_ok());
        assert_eq!((m.l4_len, m.payload), (20, 0));
        bytes[at..at + 2].fill(0);
        let (result, m) = many(&bytes).on_port(0);
        assert!(result.is_ok());
        assert_eq!((m.l4_len, m.payload), (110, 90));
        assert!(Frame::new(&bytes).on_port(0).0.is_err());
    }
}

#[test]
fn a_port_without_link_header_has_its_realm() {
    let bytes = packet4(&[], 0, Proto::UDP, &udp(8));
    let mut m = Meta::EMPTY;
    let word = parse(Frame::new(&bytes), LinkKind::Raw as u8, 3, &mut m);
    assert_eq!((word, m.realm), (PARSED | Kind::Ipv4 as u32, 3 << 12));
    for length in 0..20 {
        let word = parse(Frame::new(&bytes[..length]), LinkKind::Raw as u8, 3, &mut m);
        assert_eq!(word, Reason::Truncated as u32);
    }
}

#[test]
fn an_option_of_two_bytes_is_one() {
    let frame = tagged(
        &[],
        ethertype::IPV4,
        &packet4(&[7, 2, 148, 2], 0, Proto::UDP, &udp(8)),
    );
    assert_eq!(good(&frame).dport, 53);
}

#[test]
fn a_frame_of_a_header_alone_has_a_type() {
    let frame = tagged(&[], ethertype::LLDP, &[]);
    assert_eq!(Frame::new(&frame).on_port(0).0, Ok(Kind::Lldp));
    assert_eq!(refused(&frame[..13]), Reason::Truncated);
}

#[test]
fn a_header_without_options_is_loaded_once() {
    let m = good(&ipv4(Proto::UDP, &udp(8)));
    assert_eq!(m.l4, m.l3 + 5);
}

/// Where the quoted transport header lies, with IP options and an authentication header before it.
#[test]
fn a_quote_is_found_behind_all_its_headers() {
    let protected = join(&[&authentication(Proto::UDP, 6), &udp(8)]);
    for (frame, at) in [
        (packet4(&[], 0, Proto::UDP, &udp(8)), 62),
        (packet4(&[1; 8], 0, Proto::UDP, &udp(8)), 70),
        (packet4(&[1; 8], 0, Proto::AH, &protected), 94),
    ] {
        let frame = ipv4(Proto::ICMP, &join(&[&[3, 3, 0, 0, 0, 0, 0, 0], &frame]));
        let mut m = good(&frame);
        assert_eq!(quoted(Frame::new(&frame), &mut m), 0);
        assert_eq!((m.l4_offset, m.l4_len, m.sport, m.dport), (at, 8, 4000, 53));
    }
    let frame = packet6(51, &protected);
    let frame = ipv6(Proto::ICMPV6, &join(&[&[1, 4, 0, 0, 0, 0, 0, 0], &frame]));
    let mut m = good(&frame);
    assert_eq!(quoted(Frame::new(&frame), &mut m), 0);
    assert_eq!((m.l4_offset, m.l4_len, m.sport, m.dport), (126, 8, 4000, 53));
}

/// Two tags and the type of a third are enough to say so.
#[test]
fn a_third_tag_is_refused_unread() {
    let tags = [(ethertype::QINQ, 7), (ethertype::VLAN, 8)];
    assert_eq!(refused(&tagged(&tags, ethertype::VLAN, &[])), Reason::TooManyTags);
}

/// A routing header with segments left names a further way, as a source route of IPv4 does.
#[test]
fn segments_left_are_a_source_route() {
    for (left, screens) in [
        (0, 0),
        (1, Screen::SourceRoute.bit()),
        (255, Screen::SourceRoute.bit()),
    ] {
        let mut header = routing(Proto::UDP, 4);
        header[3] = left;
        let m = good(&ipv6(43, &join(&[&header, &udp(8)])));
        assert_eq!(m.screens, screens);
    }
}

/// Slow protocols (IEEE 802.3 annex 57A) are told apart from what nobody knows.
#[test]
fn every_link_protocol_has_its_kind() {
    for (kind, found) in [
        (ethertype::ARP, Ok(Kind::Arp)),
        (ethertype::LLDP, Ok(Kind::Lldp)),
        (ethertype::SLOW, Ok(Kind::Slow)),
        (0x88b5, Err(Reason::UnknownEthertype)),
    ] {
        assert_eq!(Frame::new(&tagged(&[], kind, &[0; 50])).on_port(0).0, found);
    }
}

/// The version and the header's length are judged each by itself.
#[test]
fn a_header_of_another_version_or_length_is_refused() {
    let frame = ipv4(Proto::UDP, &udp(8));
    for first in [0x44, 0x40, 0x55, 0x35] {
        let mut frame = frame.clone();
        frame[14] = first;
        assert_eq!(refused(&frame), Reason::BadIpv4, "{first:#x}");
    }
}

/// A header alone, of a protocol that has none behind it.
#[test]
fn a_port_without_link_header_takes_a_header_alone() {
    assert_eq!(parsed_raw(&packet4(&[], 0, 89, &[])).0, Ok(Kind::Ipv4));
}

/// Reserved bytes of a fragment header are no length (RFC 8200 section 4.5).
#[test]
fn a_fragment_header_has_8_bytes_whatever_its_reserved_one_says() {
    let mut header = fragment6(Proto::UDP, 0, false);
    header[1] = 3;
    assert_eq!(good(&ipv6(44, &join(&[&header, &udp(8)]))).dport, 53);
}

/// The shortest authentication header (RFC 4302 section 2.2), and one with nothing behind it.
#[test]
fn an_authentication_header_may_be_short_and_last() {
    let shortest = join(&[&authentication(Proto::UDP, 3), &udp(8)]);
    assert_eq!(good(&ipv6(51, &shortest)).dport, 53);
    for frame in [
        ipv4(Proto::AH, &authentication(89, 3)),
        ipv6(51, &authentication(89, 3)),
    ] {
        let m = good(&frame);
        assert_eq!((m.proto, m.l4_len), (89, 0));
    }
}

/// What follows a no-operation or another option is looked at.
#[test]
fn an_option_behind_another_is_one() {
    for options in [&[1, 131, 3, 4][..], &[7, 4, 0, 0, 131, 4, 0, 0]] {
        let packet = packet4(options, 0, Proto::UDP, &udp(8));
        let m = good(&tagged(&[], ethertype::IPV4, &packet));
        assert_eq!(m.screens, Screen::SourceRoute.bit());
    }
}

#[test]
fn every_word_of_an_address_is_its_own() {
    let mut packet = packet6(Proto::UDP, &udp(8));
    for (value, byte) in (1..).zip(&mut packet[8..40]) {
        *byte = value;
    }
    let m = good(&tagged(&[], ethertype::IPV6, &packet));
    assert_eq!(m.src, [0x0102_0304, 0x0506_0708, 0x090a_0b0c, 0x0d0e_0f10]);
    assert_eq!(m.dst, [0x1112_1314, 0x1516_1718, 0x191a_1b1c, 0x1d1e_1f20]);
}
