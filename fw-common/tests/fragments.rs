//! Fragments, extension headers and protocols without ports through the whole pipeline.

mod model;

use fw_common::abi::{PairEntry, Proto, Reason, SetHeader, Verdict};
use fw_common::wire::tcp_flag::{ACK, SYN};
use model::{Frame, SECOND, World};
use proptest::prelude::*;

const A: u8 = 1;
const B: u8 = 2;

/// An IPv4 packet between 10.0.0.`from` and 10.0.0.`to`; `fragment` is the header's second word.
fn ipv4(from: u8, to: u8, fragment: u32, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, proto, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    frame.extend(payload);
    frame
}

fn ipv6(from: u8, to: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    frame.extend(address(from));
    frame.extend(address(to));
    frame.extend(payload);
    frame
}

/// A UDP datagram of 3,000 bytes with these ports.
fn datagram(ports: (u16, u16)) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(ports.0.to_be_bytes());
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend([0x0b, 0xb8, 0, 0]);
    datagram.resize(3000, 7);
    datagram
}

/// The IPv4 header's second word: identification 1, more-fragments flag, offset in units of 8 bytes.
fn place(more: bool, units: u32) -> u32 {
    0x1_0000 | (u32::from(more) << 13) | units
}

/// The datagram in IPv4 fragments of 1,480 bytes.
fn fragments4(from: u8, to: u8, id: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
    let count = datagram.len().div_ceil(1480);
    let piece = |(index, chunk): (usize, &[u8])| {
        let more = u32::from(index + 1 != count) << 13;
        let word = u32::from(id) << 16 | more | (index as u32 * 185);
        ipv4(from, to, word, Proto::UDP, chunk)
    };
    datagram.chunks(1480).enumerate().map(piece).collect()
}

/// Likewise in IPv6, with a destination options header before the datagram.
fn fragments6(from: u8, to: u8, id: u32, datagram: &[u8]) -> Vec<Vec<u8>> {
    let whole = [&[Proto::UDP, 0, 1, 4, 0, 0, 0, 0], datagram].concat();
    let count = whole.len().div_ceil(1440);
    let piece = |(index, chunk): (usize, &[u8])| {
        let offset = (index as u16 * 1440) | u16::from(index + 1 != count);
        let header = [&[60, 0][..], &offset.to_be_bytes(), &id.to_be_bytes(), chunk].concat();
        ipv6(from, to, 44, &header)
    };
    whole.chunks(1440).enumerate().map(piece).collect()
}

fn send(world: &World, bytes: &[u8], port: u32) -> Reason {
    let (verdict, reason) = world.send(Frame::new(bytes, port));
    assert_eq!(verdict != Verdict::Drop, reason.allows(), "{reason:?}");
    reason
}

/// The policy lets fragments pass that come before their first one, and has a rule for these protocols.
fn pass_early(world: &World, protocols: u32) {
    let mut set = world.set.get().to_vec();
    let header = SetHeader::from_lines(&set[0], &set[1]);
    set[header.protect as usize].w[2] = 1;
    set[header.pairs as usize].w[0] |= protocols;
    world.set.set(Vec::leak(set));
}

#[test]
fn the_first_fragment_is_judged_and_the_later_ones_follow_it() {
    for split in [
        |id| fragments4(A, B, id, &datagram((9, 53))),
        |id| fragments6(A, B, u32::from(id), &datagram((9, 53))),
    ] {
        let world = World::new(&[Proto::UDP]);
        let judged: Vec<_> = split(1).iter().map(|bytes| send(&world, bytes, 2)).collect();
        assert_eq!(judged, [Reason::Rule, Reason::Established, Reason::Established]);
        assert_eq!(world.half4.borrow().len() + world.half6.borrow().len(), 1);
        let judged: Vec<_> = split(2).iter().map(|bytes| send(&world, bytes, 2)).collect();
        assert_eq!(judged, [Reason::Established; 3]);
        world.apply(&[]);
        let judged: Vec<_> = split(3).iter().map(|bytes| send(&world, bytes, 2)).collect();
        assert_eq!(
            judged,
            [
                Reason::PolicyRevoked,
                Reason::FragmentDenied,
                Reason::FragmentDenied
            ]
        );
    }
    let world = World::new(&[Proto::TCP]);
    let denied = fragments4(A, B, 1, &datagram((9, 53)));
    assert_eq!(send(&world, &denied[0], 2), Reason::DenyDefault);
    assert_eq!(send(&world, &denied[2], 2), Reason::FragmentDenied);
}

#[test]
fn what_comes_before_the_first_one_waits_for_nobody() {
    let world = World::new(&[Proto::UDP]);
    let parts = fragments4(A, B, 1, &datagram((9, 53)));
    assert_eq!(send(&world, &parts[1], 2), Reason::FragmentEarly);
    assert_eq!(send(&world, &parts[0], 2), Reason::Rule);
    assert_eq!(
        send(&world, &parts[1], 2),
        Reason::Established,
        "it did not pass before"
    );
    assert_eq!(send(&world, &parts[2], 2), Reason::Established);
    for early in [
        fragments4(A, B, 2, &datagram((9, 53))),
        fragments6(A, B, 2, &datagram((9, 53))),
    ] {
        let world = World::new(&[Proto::UDP]);
        pass_early(&world, 0);
        assert_eq!(send(&world, &early[2], 2), Reason::FragmentEarly, "no rule");
        let world = World::new(&[Proto::UDP]);
        pass_early(&world, PairEntry::proto_bit(Proto::UDP));
        assert_eq!(send(&world, &early[2], 2), Reason::FragmentEarlyPass);
        assert_eq!(send(&world, &early[0], 2), Reason::Rule);
        assert_eq!(send(&world, &early[2], 2), Reason::FragmentDuplicate);
        assert_eq!(send(&world, &early[1], 2), Reason::Established);
    }
}

#[test]
fn the_time_of_a_datagram_ends() {
    let world = World::new(&[Proto::UDP]);
    let parts = fragments4(A, B, 1, &datagram((9, 53)));
    assert_eq!(send(&world, &parts[0], 2), Reason::Rule);
    world.now.set(world.now.get() + 30 * SECOND);
    assert_eq!(send(&world, &parts[1], 2), Reason::Established);
    world.now.set(world.now.get() + 1);
    assert_eq!(send(&world, &parts[2], 2), Reason::FragmentEarly);
}

#[test]
fn overlapping_bytes_lose_the_datagram() {
    let world = World::new(&[Proto::UDP]);
    let parts = fragments4(A, B, 1, &datagram((9, 53)));
    assert_eq!(send(&world, &parts[0], 2), Reason::Rule);
    assert_eq!(send(&world, &parts[0], 2), Reason::FragmentDuplicate);
    let over = ipv4(A, B, place(true, 184), Proto::UDP, &[0; 80]);
    assert_eq!(send(&world, &over, 2), Reason::FragmentOverlap);
    assert_eq!(send(&world, &parts[1], 2), Reason::FragmentOverlap);
    // Another datagram of the same flow goes on.
    let next = fragments4(A, B, 2, &datagram((9, 53)));
    assert_eq!(send(&world, &next[0], 2), Reason::Established);
}

#[test]
fn the_same_identification_may_come_again_when_all_has_passed() {
    let world = World::new(&[Proto::UDP]);
    for round in 0..10 {
        for (index, bytes) in fragments4(A, B, 1, &datagram((9, 53))).iter().enumerate() {
            let first = round == 0 && index == 0;
            let expected = if first { Reason::Rule } else { Reason::Established };
            assert_eq!(send(&world, bytes, 2), expected);
        }
    }
    assert_eq!(world.datagrams.borrow().len(), 1);
}

#[test]
fn nine_separate_ranges_are_one_too_many() {
    let world = World::new(&[Proto::UDP]);
    let first = ipv4(A, B, place(true, 0), Proto::UDP, &datagram((9, 53))[..8]);
    assert_eq!(send(&world, &first, 2), Reason::Rule);
    for slot in 1..=8 {
        let part = ipv4(A, B, place(true, slot * 2), Proto::UDP, &[0; 8]);
        let expected = if slot < 8 {
            Reason::Established
        } else {
            Reason::FragmentRanges
        };
        assert_eq!(send(&world, &part, 2), expected);
    }
}

fn segment(flags: u8, seq: u32, ack: u32, ports: [u8; 4]) -> Vec<u8> {
    let (seq, ack) = (seq.to_be_bytes(), ack.to_be_bytes());
    [&ports[..], &seq, &ack, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

/// A header of each kind in front of a TCP segment.
const ROUTING: [u8; 8] = [Proto::TCP, 0, 4, 0, 0, 0, 0, 0];
const ROUTING_0: [u8; 8] = [Proto::TCP, 0, 0, 0, 0, 0, 0, 0];
const ATOMIC: [u8; 8] = [Proto::TCP, 0, 0, 0, 0, 0, 0, 9];
const AUTHENTICATION: [u8; 12] = [Proto::TCP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];

#[test]
fn extension_headers_do_not_part_a_packet_from_its_flow() {
    let world = World::new(&[Proto::TCP]);
    let opener = |next, header: &[u8], flags, seq, ack| {
        let segment = segment(flags, seq, ack, [0x0f, 0xa0, 0, 80]);
        send(&world, &ipv6(A, B, next, &[header, &segment].concat()), 2)
    };
    let answer = |next, header: &[u8], flags, seq, ack| {
        let segment = segment(flags, seq, ack, [0, 80, 0x0f, 0xa0]);
        send(&world, &ipv6(B, A, next, &[header, &segment].concat()), 3)
    };
    assert_eq!(opener(43, &ROUTING, SYN, 99, 0), Reason::Rule);
    assert_eq!(
        answer(51, &AUTHENTICATION, SYN | ACK, 500, 100),
        Reason::Established
    );
    assert_eq!(opener(44, &ATOMIC, ACK, 100, 501), Reason::Established);
    assert_eq!(answer(Proto::TCP, &[], ACK, 501, 100), Reason::Established);
    assert_eq!(opener(43, &ROUTING_0, ACK, 100, 501), Reason::RoutingHeader0);
    assert_eq!(world.main6.borrow().len(), 1);
}

#[test]
fn esp_flows_have_one_way_and_gre_tunnels_two() {
    let world = World::new(&[Proto::ESP, Proto::GRE]);
    let esp = |from, to, index: u32| ipv4(from, to, 0, Proto::ESP, &[index.to_be_bytes(), [0; 4]].concat());
    assert_eq!(send(&world, &esp(A, B, 0x0001_0002), 2), Reason::Rule);
    assert_eq!(send(&world, &esp(A, B, 0x0001_0002), 2), Reason::Established);
    assert_eq!(
        send(&world, &esp(A, B, 0x0001_0003), 2),
        Reason::Rule,
        "another index"
    );
    assert_eq!(
        send(&world, &esp(B, A, 0x0001_0002), 3),
        Reason::Rule,
        "the other direction"
    );
    let gre = |from, to, key: u8| ipv4(from, to, 0, Proto::GRE, &[0x20, 0, 8, 0, 0, 0, 0, key]);
    assert_eq!(send(&world, &gre(A, B, 7), 2), Reason::Rule);
    assert_eq!(send(&world, &gre(B, A, 7), 3), Reason::Established);
    assert_eq!(send(&world, &gre(B, A, 8), 3), Reason::Rule, "another tunnel");
    assert_eq!(world.half4.borrow().len() + world.main4.borrow().len(), 5);
}

proptest! {
    #[test]
    fn fragments_in_any_order_get_one_reason_each_and_no_byte_passes_twice(
        order in prop::collection::vec((0..8_u32, 1..4_u32, any::<bool>()), 1..30),
        early: bool,
    ) {
        let world = World::new(&[Proto::UDP]);
        if early {
            pass_early(&world, PairEntry::ANY);
        }
        let bytes = datagram((9, 53));
        let (mut passed, mut end) = ([false; 16], None);
        for (at, units, more) in order {
            prop_assume!(more || at != 0);
            let word = place(more, at);
            let part = ipv4(A, B, word, Proto::UDP, &bytes[..units as usize * 8]);
            let range = at as usize..(at + units) as usize;
            if send(&world, &part, 2).allows() {
                prop_assert!(passed[range.clone()].iter().all(|unit| !unit), "{at} {units}");
                passed[range.clone()].fill(true);
                if !more {
                    end = Some(range.end);
                }
            }
            if end.is_some_and(|end| passed[..end].iter().all(|unit| *unit)) {
                (passed, end) = ([false; 16], None);
            }
        }
        // A later fragment alone makes no entry unless it may pass.
        prop_assert!(world.datagrams.borrow().len() <= 1);
    }
}
