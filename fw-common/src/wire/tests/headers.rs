//! IP options, and the protocols in ports' place.

use super::frames::{
    Frame, authentication, cut_everywhere, good, ipv4, ipv6, join, packet4, packet6, parsed_raw, refused,
    tagged, tcp, udp,
};
use crate::abi::{Proto, Reason, Screen};
use crate::wire::{Kind, Meta, ethertype, tcp_flag};

fn with_options(options: &[u8]) -> std::vec::Vec<u8> {
    tagged(
        &[],
        ethertype::IPV4,
        &packet4(options, 0, Proto::TCP, &tcp(tcp_flag::SYN)),
    )
}

fn keys(m: &Meta) -> (u16, u16, u16) {
    (m.sport, m.dport, m.selector)
}

#[test]
fn options_are_walked_and_a_source_route_is_noted() {
    let route = Screen::SourceRoute.bit();
    for (options, screens) in [
        (&[1, 1, 1, 1][..], 0),
        (&[0, 0, 0, 0], 0),
        (&[7, 4, 4, 0], 0),
        (&[148, 4, 0, 0], 0),
        (&[131, 7, 4, 10, 0, 0, 9, 0], route),
        (&[1, 137, 7, 4, 10, 0, 0, 9], route),
        // Behind the end of the list nothing counts.
        (&[0, 131, 7, 4, 10, 0, 0, 9], 0),
        (&[1; 40], 0),
    ] {
        let frame = with_options(options);
        let m = good(&frame);
        assert_eq!((m.screens, keys(&m)), (screens, (4000, 80, 80)), "{options:?}");
        assert_eq!(m.l4_offset as usize, 34 + options.len());
        cut_everywhere(&frame);
    }
    let last: std::vec::Vec<u8> = join(&[&[1; 37], &[131, 3, 4]]);
    assert_eq!(good(&with_options(&last)).screens, route);
}

#[test]
fn malformed_options_are_refused() {
    for options in [
        &[7, 0, 0, 0][..],
        &[7, 1, 0, 0],
        &[7, 5, 4, 0],
        &[1, 1, 1, 7],
        &[131, 8, 4, 0],
        &[1, 1, 131, 3],
        &[148, 255, 0, 0],
    ] {
        assert_eq!(refused(&with_options(options)), Reason::BadIpv4, "{options:?}");
    }
}

#[test]
fn a_time_to_live_of_0_is_noted() {
    let mut four = ipv4(Proto::UDP, &udp(8));
    assert_eq!(good(&four).screens, 0);
    four[22] = 0;
    assert_eq!(good(&four).screens, Screen::TtlZero.bit());
    let mut six = ipv6(Proto::UDP, &udp(8));
    assert_eq!(good(&six).screens, 0);
    six[21] = 0;
    assert_eq!(good(&six).screens, Screen::TtlZero.bit());
}

#[test]
fn a_udp_length_is_screened_when_too_long_and_refused_when_it_cannot_be() {
    let mut datagram = udp(12);
    assert_eq!(good(&ipv4(Proto::UDP, &datagram)).screens, 0);
    for (length, screens) in [(8_u16, 0), (12, 0), (13, Screen::BadLength.bit())] {
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(good(&ipv4(Proto::UDP, &datagram)).screens, screens);
    }
    for length in [0_u16, 7] {
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(refused(&ipv4(Proto::UDP, &datagram)), Reason::BadUdp);
        let bytes = ipv4(Proto::UDP, &datagram);
        let super_packet = Frame {
            segments: 2,
            ..Frame::new(&bytes)
        };
        assert_eq!(super_packet.on_port(0).0, Ok(Kind::Ipv4));
    }
}

#[test]
fn a_tcp_header_ends_inside_of_its_packet() {
    let mut segment = tcp(tcp_flag::SYN);
    segment[12] = 0x40;
    assert_eq!(refused(&ipv4(Proto::TCP, &segment)), Reason::BadTcp);
    segment[12] = 0x60;
    assert_eq!(refused(&ipv4(Proto::TCP, &segment)), Reason::BadTcp);
    segment.extend([1; 4]);
    assert_eq!(good(&ipv4(Proto::TCP, &segment)).payload, 0);
    segment.extend([1; 5]);
    assert_eq!(good(&ipv4(Proto::TCP, &segment)).payload, 5);
}

#[test]
fn esp_has_its_index_as_ports() {
    let esp = [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 1];
    for frame in [ipv4(Proto::ESP, &esp), ipv6(Proto::ESP, &esp)] {
        let m = good(&frame);
        assert_eq!((m.proto, keys(&m)), (Proto::ESP, (0xdead, 0xbeef, 0)));
        cut_everywhere(&frame);
    }
    assert_eq!(refused(&ipv4(Proto::ESP, &esp[..7])), Reason::Truncated);
}

#[test]
fn gre_has_its_folded_key_as_both_ports() {
    let key = 0xdead ^ 0xbeef;
    for (header, port) in [
        (&[0, 0, 8, 0][..], 0),
        (&[0x20, 0, 8, 0, 0xde, 0xad, 0xbe, 0xef], key),
        (&[0xa0, 0, 8, 0, 9, 9, 9, 9, 0xde, 0xad, 0xbe, 0xef], key),
        (&[0x80, 0, 8, 0, 9, 9, 9, 9], 0),
        (&[0x30, 0, 8, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 7], key),
        (&[0x30, 1, 0x88, 0x0b, 0, 0, 0, 7], 0),
    ] {
        for frame in [ipv4(Proto::GRE, header), ipv6(Proto::GRE, header)] {
            assert_eq!(keys(&good(&frame)), (port, port, 0), "{header:?}");
        }
    }
    for header in [
        &[0x20, 0, 8][..],
        &[0x20, 0, 8, 0, 0xde, 0xad, 0xbe],
        &[0xa0, 0, 8, 0, 9, 9, 9, 9, 0xde],
    ] {
        assert_eq!(
            refused(&ipv4(Proto::GRE, header)),
            Reason::Truncated,
            "{header:?}"
        );
    }
}

#[test]
fn sctp_has_ports() {
    let header = [0x0f, 0xa0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(keys(&good(&ipv4(Proto::SCTP, &header))), (4000, 99, 99));
    assert_eq!(refused(&ipv4(Proto::SCTP, &header[..11])), Reason::Truncated);
}

#[test]
fn the_authentication_header_of_ipv4_is_walked_through() {
    for words in [3, 6, 20] {
        let payload = join(&[&authentication(Proto::TCP, words), &tcp(tcp_flag::SYN)]);
        let frame = ipv4(Proto::AH, &payload);
        let m = good(&frame);
        assert_eq!((m.proto, keys(&m)), (Proto::TCP, (4000, 80, 80)));
        assert_eq!(m.l4_offset, 34 + u32::from(words) * 4);
        cut_everywhere(&frame);
        let options = tagged(&[], ethertype::IPV4, &packet4(&[1; 40], 0, Proto::AH, &payload));
        assert_eq!(good(&options).dport, 80);
    }
    let twice = join(&[
        &authentication(Proto::AH, 3),
        &authentication(Proto::TCP, 3),
        &tcp(tcp_flag::SYN),
    ]);
    assert_eq!(refused(&ipv4(Proto::AH, &twice)), Reason::ExtensionHeaders);
    let mut short = join(&[&authentication(Proto::TCP, 3), &tcp(tcp_flag::SYN)]);
    short[1] = 0;
    assert_eq!(refused(&ipv4(Proto::AH, &short)), Reason::BadIpv4);
    short[1] = 255;
    assert_eq!(refused(&ipv4(Proto::AH, &short)), Reason::BadIpv4);
    assert_eq!(refused(&ipv4(Proto::AH, &short[..11])), Reason::Truncated);
    let wrong = join(&[&authentication(Proto::ICMPV6, 3), &[128, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(refused(&ipv4(Proto::AH, &wrong)), Reason::WrongFamily);
}

/// RFC 4302 section 2.4: the index stands in the key where what is protected has neither ports nor an index.
#[test]
fn the_index_of_an_authentication_header_is_the_key_of_what_has_none() {
    let protected = |proto: u8, inside: &[u8]| {
        let mut header = authentication(proto, 6);
        header[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        join(&[&header, inside])
    };
    let inside: [(u8, &[u8], _); 6] = [
        (89, &[2, 1, 0, 8, 0, 0, 0, 1], (0xdead, 0xbeef, 0)),
        (Proto::GRE, &[0; 8], (0xdead, 0xbeef, 0)),
        (Proto::GRE, &[0x20, 0, 8, 0, 0, 0, 0, 9], (9, 9, 0)),
        (Proto::ESP, &[0, 1, 0, 2, 0, 0, 0, 1], (1, 2, 0)),
        (Proto::UDP, &udp(8), (4000, 53, 53)),
        (Proto::SCTP, &[0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0], (7, 8, 8)),
    ];
    for (proto, bytes, expected) in inside {
        for frame in [
            ipv4(Proto::AH, &protected(proto, bytes)),
            ipv6(Proto::AH, &protected(proto, bytes)),
        ] {
            let m = good(&frame);
            assert_eq!((m.proto, keys(&m)), (proto, expected));
        }
    }
    let ping = good(&ipv4(
        Proto::AH,
        &protected(Proto::ICMP, &[8, 0, 0, 0, 0, 5, 0, 1]),
    ));
    assert_eq!((ping.sport, ping.dport), (5, 0));
    let lost = good(&ipv4(
        Proto::AH,
        &protected(Proto::ICMP, &[3, 1, 0, 0, 0, 5, 0, 1]),
    ));
    assert_eq!((lost.sport, lost.dport), (0, 0));
}

#[test]
fn ports_without_link_header_parse_the_same() {
    for packet in [
        packet4(&[1; 4], 0, Proto::UDP, &udp(8)),
        packet6(Proto::UDP, &udp(8)),
        packet6(0, &join(&[&super::frames::options6(Proto::UDP, 1), &udp(8)])),
        packet4(
            &[],
            0,
            Proto::AH,
            &join(&[&authentication(Proto::UDP, 3), &udp(8)]),
        ),
    ] {
        let (result, m) = parsed_raw(&packet);
        assert!(result.is_ok());
        assert_eq!((m.l3_offset, keys(&m)), (0, (4000, 53, 53)));
    }
    assert_eq!(parsed_raw(&[0x10; 40]).0, Err(Reason::BadIpv4));
}
