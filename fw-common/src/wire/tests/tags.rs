//! VLAN tags: none, one, two, three; in the frame and beside it.

use super::frames::{Frame, cut_everywhere, good, packet4, packet6, parsed, refused, tagged, tcp, udp};
use crate::abi::{Proto, Reason};
use crate::wire::{Kind, Meta, ethertype, stacked_realm, tcp_flag};

const C: u16 = ethertype::VLAN;
const S: u16 = ethertype::QINQ;

fn frame(tags: &[(u16, u16)]) -> std::vec::Vec<u8> {
    tagged(tags, ethertype::IPV4, &packet4(&[], 0, Proto::UDP, &udp(8)))
}

fn ids(m: &Meta) -> (u16, u16, u32) {
    (m.vlan, m.inner_vlan, m.realm)
}

#[test]
fn two_tags_are_followed_whatever_their_types() {
    assert_eq!(ids(&good(&frame(&[]))), (0, 0, 0));
    for kind in [C, S] {
        assert_eq!(ids(&good(&frame(&[(kind, 7)]))), (7, 0, 7));
        for inner in [C, S] {
            let m = good(&frame(&[(kind, 7), (inner, 9)]));
            assert_eq!(ids(&m), (7, 9, 65_536 + 6 * 4094 + 8));
            assert_eq!((m.l3_offset, m.l4_offset, m.sport, m.dport), (22, 42, 4000, 53));
        }
    }
    let six = tagged(
        &[(S, 7), (C, 9)],
        ethertype::IPV6,
        &packet6(Proto::TCP, &tcp(tcp_flag::SYN)),
    );
    let m = good(&six);
    assert_eq!((m.l4_offset, m.family, m.dport), (62, 6, 80));
    cut_everywhere(&six);
    assert_eq!(
        parsed(&tagged(&[(S, 7), (C, 9)], ethertype::ARP, &[0; 28])).0,
        Ok(Kind::Arp)
    );
}

#[test]
fn three_tags_are_too_many() {
    assert_eq!(refused(&frame(&[(S, 7), (C, 8), (C, 9)])), Reason::TooManyTags);
    assert_eq!(refused(&frame(&[(S, 0), (C, 0), (C, 9)])), Reason::TooManyTags);
    let bytes = frame(&[(S, 7), (C, 8)]);
    let beside = Frame {
        tag: 6,
        ..Frame::new(&bytes)
    };
    assert_eq!(beside.on_port(0).0, Err(Reason::TooManyTags));
}

#[test]
fn the_tag_beside_the_packet_is_the_outer_one() {
    let bytes = frame(&[(C, 9)]);
    let beside = Frame {
        tag: 0xe007,
        ..Frame::new(&bytes)
    };
    let (result, m) = beside.on_port(0);
    assert_eq!(
        (result, ids(&m)),
        (Ok(Kind::Ipv4), (7, 9, stacked_realm(7, 9).unwrap()))
    );
    let bytes = frame(&[]);
    let beside = Frame {
        tag: 0xe007,
        ..Frame::new(&bytes)
    };
    assert_eq!(ids(&beside.on_port(3).1), (7, 0, 3 << 12 | 7));
}

#[test]
fn priority_tags_count_but_name_no_vlan() {
    assert_eq!(ids(&good(&frame(&[(C, 0xe000)]))), (0, 0, 0));
    assert_eq!(ids(&good(&frame(&[(S, 0xe000), (C, 9)]))), (9, 0, 9));
    assert_eq!(ids(&good(&frame(&[(S, 7), (C, 0xe000)]))), (7, 0, 7));
    assert_eq!(ids(&good(&frame(&[(S, 0), (C, 0)]))), (0, 0, 0));
}

#[test]
fn two_tags_have_a_realm_on_ports_of_realm_0_only() {
    assert_eq!(refused(&frame(&[(S, 4081), (C, 9)])), Reason::UnknownRealm);
    assert_eq!(refused(&frame(&[(S, 7), (C, 4095)])), Reason::UnknownRealm);
    let bytes = frame(&[(S, 7), (C, 9)]);
    assert_eq!(Frame::new(&bytes).on_port(1).0, Err(Reason::UnknownRealm));
}

#[test]
fn stacked_realms_are_distinct_and_fit_the_key() {
    assert_eq!(stacked_realm(1, 1), Some(65_536));
    assert_eq!(stacked_realm(1, 4094), Some(65_536 + 4093));
    assert_eq!(stacked_realm(2, 1), Some(65_536 + 4094));
    assert_eq!(stacked_realm(4080, 4094), Some((1 << 24) - 8_161));
    for (outer, inner) in [(0, 1), (1, 0), (4081, 1), (1, 4095), (u16::MAX, u16::MAX)] {
        assert_eq!(stacked_realm(outer, inner), None);
    }
}
