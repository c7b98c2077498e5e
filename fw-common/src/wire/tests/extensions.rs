//! IPv6 extension headers: order, number, kinds.

use super::frames::{
    authentication, cut_everywhere, fragment6, good, ipv6, join, options6, refused, routing, tcp, udp,
};
use crate::abi::{Proto, Reason};
use crate::wire::tcp_flag;

const HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NONE: u8 = 59;
const DESTINATION: u8 = 60;

/// A packet with these headers in a row, and TCP behind them.
fn chain(kinds: &[u8]) -> std::vec::Vec<u8> {
    let mut payload = std::vec::Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(Proto::TCP);
        payload.extend(match *kind {
            ROUTING => routing(next, 4),
            FRAGMENT => fragment6(next, 0, false),
            Proto::AH => authentication(next, 6),
            _ => options6(next, 1 + index as u8),
        });
    }
    payload.extend(tcp(tcp_flag::SYN));
    ipv6(kinds[0], &payload)
}

#[test]
fn any_legal_order_is_followed() {
    for kinds in [
        &[HOP][..],
        &[DESTINATION],
        &[ROUTING],
        &[Proto::AH],
        &[FRAGMENT],
        &[HOP, DESTINATION, ROUTING, FRAGMENT, Proto::AH, DESTINATION],
        &[DESTINATION, DESTINATION],
        &[Proto::AH, FRAGMENT, ROUTING, DESTINATION],
        &[HOP, Proto::AH],
    ] {
        let frame = chain(kinds);
        let m = good(&frame);
        assert_eq!(
            (m.proto, m.sport, m.dport, m.fragment),
            (Proto::TCP, 4000, 80, 0),
            "{kinds:?}"
        );
        assert_eq!((m.seq, m.payload, m.l4_len), (7, 0, 20));
        assert_eq!(m.l4_offset + 20, m.len);
        cut_everywhere(&frame);
    }
}

#[test]
fn a_long_header_is_stepped_over() {
    let payload = join(&[&options6(DESTINATION, 200), &options6(Proto::UDP, 255), &udp(8)]);
    let m = good(&ipv6(HOP, &payload));
    assert_eq!((m.dport, m.l4_offset), (53, 54 + 455 * 8));
}

#[test]
fn what_may_not_stand_there_is_refused() {
    for kinds in [
        &[DESTINATION, HOP][..],
        &[HOP, HOP],
        &[ROUTING, ROUTING],
        &[FRAGMENT, FRAGMENT],
        &[Proto::AH, Proto::AH],
        &[DESTINATION, DESTINATION, DESTINATION],
        &[NONE],
        &[HOP, NONE],
        &[135],
        &[139],
        &[140],
        &[253],
        &[DESTINATION, 254],
        &[
            HOP,
            DESTINATION,
            ROUTING,
            FRAGMENT,
            Proto::AH,
            DESTINATION,
            DESTINATION,
        ],
    ] {
        assert_eq!(refused(&chain(kinds)), Reason::ExtensionHeaders, "{kinds:?}");
    }
    let zero = join(&[&routing(Proto::TCP, 0), &tcp(tcp_flag::SYN)]);
    assert_eq!(refused(&ipv6(ROUTING, &zero)), Reason::RoutingHeader0);
}

#[test]
fn a_header_that_ends_behind_the_packet_is_refused() {
    let mut payload = join(&[&options6(Proto::UDP, 1), &udp(8)]);
    payload[1] = 2;
    assert_eq!(refused(&ipv6(DESTINATION, &payload)), Reason::BadIpv6);
    let mut payload = join(&[&authentication(Proto::UDP, 3), &udp(8)]);
    payload[1] = 0;
    assert_eq!(refused(&ipv6(Proto::AH, &payload)), Reason::BadIpv6);
    assert_eq!(refused(&ipv6(DESTINATION, &[0; 7])), Reason::Truncated);
    assert_eq!(
        refused(&ipv6(DESTINATION, &options6(Proto::TCP, 1))),
        Reason::Truncated
    );
    assert_eq!(
        refused(&ipv6(DESTINATION, &options6(Proto::ICMP, 1))),
        Reason::WrongFamily
    );
}

#[test]
fn esp_ends_the_chain() {
    let payload = join(&[&options6(Proto::ESP, 1), &[1, 2, 3, 4, 0, 0, 0, 1]]);
    let m = good(&ipv6(DESTINATION, &payload));
    assert_eq!((m.proto, m.sport, m.dport), (Proto::ESP, 0x0102, 0x0304));
}
