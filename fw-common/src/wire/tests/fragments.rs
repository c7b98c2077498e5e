//! Fragments: what parsing tells of them, and those that it refuses.

use std::vec::Vec;

use super::frames::{
    authentication, fragment6, good, ipv6, join, options6, packet4, parsed, refused, tagged, tcp, udp,
};
use crate::abi::{Proto, Reason};
use crate::fragment::FragmentKey;
use crate::wire::{FIRST, LATER, Meta, ethertype, tcp_flag};

const DESTINATION: u8 = 60;
const FRAGMENT: u8 = 44;

/// An IPv4 fragment with identification 0xbeef.
fn four(proto: u8, offset: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let word = 0xbeef_0000 | (u32::from(more) << 13) | (offset / 8);
    tagged(&[], ethertype::IPV4, &packet4(&[], word, proto, payload))
}

fn six(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    ipv6(FRAGMENT, &join(&[&fragment6(next, offset, more), payload]))
}

fn place(m: &Meta) -> (u32, u32, u32, u32) {
    (m.fragment, m.frag_offset, m.frag_len, m.frag_more)
}

#[test]
fn a_first_fragment_has_ports() {
    let mut datagram = udp(4000);
    datagram.truncate(16);
    let m = good(&four(Proto::UDP, 0, true, &datagram));
    assert_eq!(
        (place(&m), m.frag_id, m.frag_proto),
        ((FIRST, 0, 16, 1), 0xbeef, Proto::UDP)
    );
    assert_eq!((m.sport, m.dport, m.selector, m.screens), (4000, 53, 53, 0));
    let m = good(&six(Proto::UDP, 0, true, &datagram));
    assert_eq!(
        (place(&m), m.frag_id, m.frag_proto),
        ((FIRST, 0, 16, 1), 0xdead_beef, 0)
    );
    assert_eq!((m.sport, m.dport, m.selector, m.screens), (4000, 53, 53, 0));
    let segment = join(&[&tcp(tcp_flag::ACK), &[0; 12]]);
    for frame in [
        four(Proto::TCP, 0, true, &segment),
        six(Proto::TCP, 0, true, &segment),
    ] {
        assert_eq!((good(&frame).payload, good(&frame).seq), (12, 7));
    }
    let echo = [8, 0, 0, 0, 0, 5, 0, 0];
    assert_eq!(good(&four(Proto::ICMP, 0, true, &echo)).sport, 5);
}

#[test]
fn a_later_fragment_has_none() {
    for (more, len) in [(true, 24), (false, 24), (false, 1)] {
        let payload = std::vec![0xff; len];
        for frame in [
            four(Proto::UDP, 1480, more, &payload),
            six(Proto::UDP, 1480, more, &payload),
        ] {
            let m = good(&frame);
            assert_eq!(place(&m), (LATER, 1480, len as u32, u32::from(more)));
            assert_eq!(
                (m.sport, m.dport, m.selector, m.tcp_flags, m.payload),
                (0, 0, 0, 0, 0)
            );
            assert_eq!((m.proto, m.screens), (Proto::UDP, 0));
        }
    }
    // Its next header may be an extension header that lies in the first fragment.
    let m = good(&six(DESTINATION, 1480, false, &[0xff; 8]));
    assert_eq!((m.fragment, m.proto, m.l4_len), (LATER, DESTINATION, 8));
    let behind = join(&[
        &options6(FRAGMENT, 1),
        &fragment6(Proto::TCP, 800, false),
        &[1; 5],
    ]);
    assert_eq!(place(&good(&ipv6(DESTINATION, &behind))), (LATER, 800, 5, 0));
}

#[test]
fn the_key_of_ipv6_has_no_protocol() {
    let key = |frame: &[u8]| {
        let mut key = FragmentKey::default();
        key.set(&good(frame));
        key
    };
    let mut datagram = udp(4000);
    datagram.truncate(16);
    let first = six(
        DESTINATION,
        0,
        true,
        &join(&[&options6(Proto::UDP, 1), &datagram]),
    );
    assert_eq!(key(&first), key(&six(Proto::UDP, 1480, false, &[0; 8])));
    assert_eq!(key(&first).family, 6);
    let first = four(Proto::UDP, 0, true, &datagram);
    assert_eq!(key(&first), key(&four(Proto::UDP, 1480, false, &[0; 8])));
    assert_ne!(key(&first), key(&four(Proto::TCP, 1480, false, &[0; 8])));
    // Behind an authentication header the protocol is another than the IP header's.
    let first = four(
        Proto::AH,
        0,
        true,
        &join(&[&authentication(Proto::UDP, 4), &datagram]),
    );
    assert_eq!(key(&first), key(&four(Proto::AH, 1480, false, &[0; 8])));
    assert_eq!((good(&first).proto, good(&first).dport), (Proto::UDP, 53));
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let m = good(&six(Proto::TCP, 0, false, &tcp(tcp_flag::SYN)));
    assert_eq!((m.fragment, m.frag_id, m.dport), (0, 0, 80));
    // Don't-fragment alone, and the reserved bit.
    for word in [0x4000, 0x8000] {
        let frame = tagged(&[], ethertype::IPV4, &packet4(&[], word, Proto::UDP, &udp(8)));
        assert_eq!(good(&frame).fragment, 0);
    }
}

#[test]
fn a_first_fragment_holds_its_transport_header() {
    for (proto, payload) in [
        (Proto::TCP, &tcp(tcp_flag::SYN)[..16]),
        (Proto::SCTP, &[0; 8][..]),
        (Proto::GRE, &[0xa0, 0, 8, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(refused(&four(proto, 0, true, payload)), Reason::FragmentTiny);
        assert_eq!(refused(&six(proto, 0, true, payload)), Reason::FragmentTiny);
    }
    // Its options too.
    let mut segment = join(&[&tcp(tcp_flag::SYN), &[1; 4]]);
    segment[12] = 0x70;
    assert_eq!(
        refused(&four(Proto::TCP, 0, true, &segment)),
        Reason::FragmentTiny
    );
    segment[12] = 0x60;
    assert_eq!(good(&four(Proto::TCP, 0, true, &segment)).dport, 80);
    // And all extension headers (RFC 7112).
    let mut options = options6(Proto::UDP, 2);
    assert_eq!(
        refused(&six(DESTINATION, 0, true, &options[..8])),
        Reason::FragmentTiny
    );
    assert_eq!(
        refused(&six(DESTINATION, 0, true, &options)),
        Reason::FragmentTiny
    );
    options[0] = DESTINATION;
    assert_eq!(
        refused(&six(DESTINATION, 0, true, &options)),
        Reason::FragmentTiny
    );
    assert_eq!(
        refused(&four(Proto::AH, 0, true, &authentication(Proto::UDP, 4))),
        Reason::FragmentTiny
    );
    assert_eq!(
        refused(&four(Proto::AH, 0, true, &[Proto::UDP, 9, 0, 0, 0, 0, 0, 0])),
        Reason::FragmentTiny
    );
    let wide = [Proto::UDP, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(&four(Proto::AH, 0, true, &wide)), Reason::FragmentTiny);
}

#[test]
fn a_later_fragment_does_not_reach_into_the_transport_header() {
    for (proto, offset, reason) in [
        (Proto::TCP, 8, true),
        (Proto::TCP, 16, true),
        (Proto::TCP, 24, false),
        (Proto::SCTP, 8, true),
        (Proto::SCTP, 16, false),
        (Proto::UDP, 8, false),
    ] {
        for frame in [
            four(proto, offset, false, &[0; 8]),
            six(proto, offset as u16, false, &[0; 8]),
        ] {
            if reason {
                assert_eq!(refused(&frame), Reason::FragmentTiny);
            } else {
                assert_eq!(good(&frame).frag_offset, offset);
            }
        }
    }
    assert_eq!(refused(&four(Proto::AH, 8, false, &[0; 8])), Reason::FragmentTiny);
}

#[test]
fn empty_and_uneven_fragments_are_bad() {
    for (more, len) in [(true, 0), (false, 0), (true, 7), (true, 9)] {
        let payload = std::vec![0; len];
        for offset in [0, 1480] {
            // At offset 0 the last fragment is a whole packet.
            if offset == 0 && !more {
                continue;
            }
            assert_eq!(
                refused(&four(Proto::UDP, offset, more, &payload)),
                Reason::FragmentBad
            );
            assert_eq!(
                refused(&six(Proto::UDP, offset as u16, more, &payload)),
                Reason::FragmentBad
            );
        }
    }
}

#[test]
fn nothing_ends_behind_65535_bytes() {
    let last = 65_528;
    assert_eq!(
        refused(&four(Proto::UDP, last, false, &[0; 1])),
        Reason::FragmentOverrun
    );
    // 20 bytes of header count: 65,512 + 3 + 20 = 65,535.
    assert_eq!(good(&four(Proto::UDP, 65_512, false, &[0; 3])).frag_len, 3);
    assert_eq!(
        refused(&four(Proto::UDP, 65_512, false, &[0; 4])),
        Reason::FragmentOverrun
    );
    let bytes = tagged(
        &[],
        ethertype::IPV4,
        &packet4(&[1; 8], 0xbeef_0000 | (65_504 / 8), Proto::UDP, &[0; 4]),
    );
    assert_eq!(refused(&bytes), Reason::FragmentOverrun);
    // In IPv6 the headers before the fragment header count.
    assert_eq!(good(&six(Proto::UDP, last as u16, false, &[0; 7])).frag_len, 7);
    assert_eq!(
        refused(&six(Proto::UDP, last as u16, false, &[0; 8])),
        Reason::FragmentOverrun
    );
    let behind = |len: usize| {
        let payload = std::vec![0; len];
        ipv6(
            DESTINATION,
            &join(&[
                &options6(FRAGMENT, 1),
                &fragment6(Proto::UDP, 65_520, false),
                &payload,
            ]),
        )
    };
    assert_eq!(good(&behind(7)).frag_len, 7);
    assert_eq!(refused(&behind(8)), Reason::FragmentOverrun);
}

#[test]
fn the_other_familys_icmp_is_refused_in_fragments_too() {
    assert_eq!(
        refused(&four(Proto::ICMPV6, 1480, false, &[0; 8])),
        Reason::WrongFamily
    );
    assert_eq!(
        refused(&six(Proto::ICMP, 1480, false, &[0; 8])),
        Reason::WrongFamily
    );
}

#[test]
fn neighbour_discovery_is_never_fragmented() {
    for (kind, reason) in [
        (133, true),
        (135, true),
        (137, true),
        (132, false),
        (143, false),
        (128, false),
    ] {
        let message = [kind, 0, 0, 0, 0, 0, 0, 0];
        let frame = six(Proto::ICMPV6, 0, true, &message);
        assert_eq!(parsed(&frame).0 == Err(Reason::BadNd), reason, "{kind}");
        assert_eq!(
            good(&six(Proto::ICMPV6, 0, false, &message)).selector,
            u16::from(kind) << 8
        );
    }
}
