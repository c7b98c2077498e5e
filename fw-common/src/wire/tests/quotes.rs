//! The packet that an ICMP error quotes.

use std::vec::Vec;

use super::frames::{
    Frame, authentication, fragment6, ipv4, ipv6, join, options6, packet4, packet6, parsed, routing, tcp, udp,
};
use crate::abi::{Proto, Reason};
use crate::wire::{Meta, quoted, tcp_flag};

/// An ICMP error of the packet's family that quotes it.
fn error(packet: &[u8]) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        ipv4(Proto::ICMP, &join(&[&[3, 4, 0, 0, 0, 0, 5, 0], packet]))
    } else {
        ipv6(Proto::ICMPV6, &join(&[&[2, 0, 0, 0, 0, 0, 5, 0], packet]))
    }
}

/// What is quoted, or that it cannot be read.
fn quote(frame: &[u8]) -> Result<Meta, Reason> {
    let (result, mut m) = parsed(frame);
    result.expect("an ICMP error");
    m.seq = 0;
    match quoted(Frame::new(frame), &mut m) {
        0 => Ok(m),
        number => Err(Reason::from_number(number as u8).unwrap()),
    }
}

#[track_caller]
fn is_tcp(packet: &[u8]) {
    let m = quote(&error(packet)).expect("a quote");
    assert_eq!((m.proto, m.sport, m.dport, m.seq), (Proto::TCP, 4000, 80, 7));
    assert_eq!((m.src[3] | m.src[0]) & 0xff, 1);
    assert_eq!((m.dst[3] | m.dst[0]) & 0xff, 2);
}

#[test]
fn eight_bytes_of_a_segment_are_enough() {
    let segment = tcp(tcp_flag::SYN);
    is_tcp(&packet4(&[], 0x4000, Proto::TCP, &segment[..8]));
    is_tcp(&packet4(&[1; 40], 0, Proto::TCP, &segment[..8]));
    is_tcp(&packet6(Proto::TCP, &segment[..8]));
    for packet in [
        packet4(&[], 0, Proto::TCP, &segment[..7]),
        packet6(Proto::TCP, &segment[..7]),
    ] {
        assert!(matches!(quote(&error(&packet)), Err(Reason::BadIcmp)));
    }
}

#[test]
fn extension_headers_are_followed() {
    let segment = &tcp(tcp_flag::SYN)[..8];
    is_tcp(&packet6(0, &join(&[&options6(Proto::TCP, 1), segment])));
    is_tcp(&packet6(
        0,
        &join(&[
            &options6(60, 3),
            &options6(43, 1),
            &routing(44, 4),
            &fragment6(Proto::AH, 0, true),
            &authentication(60, 6),
            &options6(Proto::TCP, 30),
            segment,
        ]),
    ));
    is_tcp(&packet4(
        &[],
        0,
        Proto::AH,
        &join(&[&authentication(Proto::TCP, 6), segment]),
    ));
    for packet in [
        packet6(0, &options6(Proto::TCP, 1)),
        packet6(60, &join(&[&options6(0, 1), &options6(Proto::TCP, 1), segment])),
        packet6(43, &join(&[&routing(Proto::TCP, 0), segment])),
        packet6(59, segment),
        packet4(&[], 0, Proto::AH, &authentication(Proto::TCP, 6)),
    ] {
        assert!(
            matches!(quote(&error(&packet)), Err(Reason::BadIcmp)),
            "{packet:?}"
        );
    }
}

#[test]
fn a_quoted_first_fragment_has_ports_and_a_later_one_has_not() {
    let segment = tcp(tcp_flag::SYN);
    is_tcp(&packet4(&[], 0x2000, Proto::TCP, &segment));
    is_tcp(&packet6(44, &join(&[&fragment6(Proto::TCP, 0, true), &segment])));
    let later = packet4(&[], 0x2001, Proto::TCP, &segment);
    assert!(matches!(quote(&error(&later)), Err(Reason::BadIcmp)));
    let later = packet6(44, &join(&[&fragment6(Proto::TCP, 8, true), &segment]));
    assert!(matches!(quote(&error(&later)), Err(Reason::BadIcmp)));
    // What is quoted does not make a fragment of the error itself.
    let m = quote(&error(&packet6(
        44,
        &join(&[&fragment6(Proto::TCP, 0, true), &segment]),
    )))
    .unwrap();
    assert_eq!((m.fragment, m.frag_id), (0, 0));
}

#[test]
fn a_quote_of_the_other_family_or_of_an_error_is_bad() {
    let four = packet4(&[], 0, Proto::UDP, &udp(8));
    let six = packet6(Proto::UDP, &udp(8));
    assert!(matches!(
        quote(&ipv4(Proto::ICMP, &join(&[&[3, 4, 0, 0, 0, 0, 0, 0], &six]))),
        Err(Reason::BadIcmp)
    ));
    assert!(matches!(
        quote(&ipv6(Proto::ICMPV6, &join(&[&[2, 0, 0, 0, 0, 0, 0, 0], &four]))),
        Err(Reason::BadIcmp)
    ));
    let of_error = packet4(&[], 0, Proto::ICMP, &[3, 4, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(quote(&error(&of_error)), Err(Reason::BadIcmp)));
    let of_echo = packet4(&[], 0, Proto::ICMP, &[8, 0, 0, 0, 0, 5, 0, 0]);
    assert_eq!(quote(&error(&of_echo)).unwrap().sport, 5);
}

#[test]
fn quoted_protocols_without_ports_have_the_keys_of_their_flows() {
    let m = quote(&error(&packet4(&[], 0, Proto::ESP, &[1, 2, 3, 4, 0, 0, 0, 1]))).unwrap();
    assert_eq!((m.sport, m.dport, m.selector), (0x0102, 0x0304, 0));
    let m = quote(&error(&packet4(&[], 0, Proto::GRE, &[0x20, 0, 8, 0, 0, 1, 0, 2]))).unwrap();
    assert_eq!((m.sport, m.dport, m.selector), (3, 3, 0));
    let mut ospf = join(&[&authentication(89, 6), &[2, 1, 0, 8, 0, 0, 0, 1]]);
    ospf[4..8].copy_from_slice(&[1, 2, 3, 4]);
    for packet in [packet4(&[], 0, Proto::AH, &ospf), packet6(Proto::AH, &ospf)] {
        let m = quote(&error(&packet)).unwrap();
        assert_eq!((m.proto, m.sport, m.dport, m.selector), (89, 0x0102, 0x0304, 0));
    }
    let short = packet4(&[], 0, Proto::GRE, &[0xa0, 0, 8, 0, 9, 9, 9, 9]);
    assert!(matches!(quote(&error(&short)), Err(Reason::BadIcmp)));
}

#[test]
fn a_quote_cut_anywhere_is_bad() {
    let packet = packet6(60, &join(&[&options6(Proto::TCP, 2), &tcp(tcp_flag::SYN)[..8]]));
    for length in 0..packet.len() {
        assert!(matches!(
            quote(&error(&join(&[&[0x60], &packet[1..length.max(1)]]))),
            Err(Reason::BadIcmp)
        ));
    }
}
