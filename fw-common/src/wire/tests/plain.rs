//! Frames that are read in place: what is found is what the parser finds, whatever frame came before.

use std::vec::Vec;

use proptest::prelude::*;

use super::frames::{
    Frame, authentication, fragment6, ipv4, ipv6, join, options6, packet4, packet6, tagged, tcp, udp,
};
use crate::abi::{LinkKind, Proto};
use crate::wire::{
    ETHERNET_SKIP, FIRST, LATER, Meta, NO_TAG, PARSED, Packet, Window, ethertype, parse, plain, tcp_flag,
};

/// A frame of which the first bytes lie in one piece.
#[derive(Clone, Copy)]
struct InPlace<'a> {
    frame: Frame<'a>,
    piece: &'a [u8],
}

impl plain::Head for InPlace<'_> {
    fn holds(self, bytes: u32) -> bool {
        self.piece.len() >= bytes as usize
    }

    fn be32(self, word: u32) -> u32 {
        let at = (4 * word - ETHERNET_SKIP) as usize;
        u32::from_be_bytes(self.piece[at..at + 4].try_into().unwrap())
    }
}

impl Packet for InPlace<'_> {
    fn len(self) -> u32 {
        self.frame.len()
    }
    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        self.frame.load(offset, skip, into)
    }
    fn plain(self, port_realm: u8, m: &mut Meta) -> bool {
        plain::parse(self, port_realm, 0, m)
    }
    fn ifindex(self) -> u32 {
        1
    }
    fn tag(self) -> u32 {
        NO_TAG
    }
    fn segments(self) -> u32 {
        1
    }
    fn wire_bytes(self, len: u32) -> u32 {
        len
    }
    fn egress(self) -> bool {
        false
    }
    fn came_by(self) -> u32 {
        0
    }
}

/// What must be the same; words that a packet of this protocol does not set are left over from an earlier one.
fn compared(mut m: Meta, word: u32) -> std::string::String {
    m.plain = 0;
    m.walk = 0;
    (m.option_bits, m.sack, m.cursor, m.sack_at) = (0, 0, 0, 0);
    if word & PARSED == 0 || m.proto != Proto::TCP || m.fragment == LATER {
        (m.seq, m.ack, m.tcp_window, m.tcp_options) = (0, 0, 0, 0);
    }
    if word & PARSED == 0 || m.family == 0 {
        // Nobody asks where the headers of a packet lie that is none of IP, or is refused.
        (m.l4, m.l4_offset, m.l4_len, m.ttl) = (0, 0, 0, 0);
    }
    if word & PARSED == 0 {
        (m.l3, m.l3_offset) = (0, 0);
    }
    // Behind the end of the data lies what was there before.
    for index in m.window_end.div_ceil(4)..32 {
        m.window.words[index as usize] = 0;
    }
    std::format!("{word:x} {m:?}")
}

/// Parses the frame in memory that an earlier packet has used, and compares. True if it was read in place.
fn same(frame: &[u8], piece: usize, realm: u8, m: &mut Meta) -> bool {
    let pkt = InPlace {
        frame: Frame::new(frame),
        piece: &frame[..piece.min(frame.len())],
    };
    let word = parse(pkt, LinkKind::Ethernet as u8, realm, m);
    let in_place = m.plain != 0;
    let mut other = Meta::EMPTY;
    let expected = parse(pkt.frame, LinkKind::Ethernet as u8, realm, &mut other);
    if in_place {
        assert_eq!(m.window_end, 0, "nobody may take the window for filled");
        other.window_end = 0;
    }
    // A refused packet is counted and reported by what was known by then: the same again.
    assert_eq!(compared(*m, word), compared(other, expected));
    in_place
}

/// A segment with these options.
fn with_options(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = tcp(flags);
    segment[12] = (((20 + options.len()) / 4) << 4) as u8;
    join(&[&segment, options])
}

const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];

fn common() -> Vec<Vec<u8>> {
    use tcp_flag::{ACK, PSH};
    let mut frames = Vec::new();
    for payload in [
        tcp(ACK),
        tcp(ACK | PSH),
        join(&[&tcp(ACK | PSH), b"data"]),
        with_options(ACK, &TIMESTAMP),
    ] {
        frames.push(ipv4(Proto::TCP, &payload));
        frames.push(ipv6(Proto::TCP, &payload));
    }
    for bytes in [8, 9, 30, 200] {
        frames.push(ipv4(Proto::UDP, &udp(bytes)));
        frames.push(ipv6(Proto::UDP, &udp(bytes)));
    }
    frames.push(join(&[&ipv4(Proto::UDP, &udp(8)), &[0; 18]]));
    frames
}

fn uncommon() -> Vec<Vec<u8>> {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    let mut frames = Vec::new();
    for flags in [SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK | URG, 0] {
        frames.push(ipv4(Proto::TCP, &tcp(flags)));
        frames.push(ipv6(Proto::TCP, &tcp(flags)));
    }
    for segment in [with_options(ACK, &SACK), with_options(ACK, &[1, 1, 1, 0])] {
        frames.push(ipv4(Proto::TCP, &segment));
        frames.push(ipv6(Proto::TCP, &segment));
    }
    let datagram = udp(12);
    frames.push(tagged(
        &[(0x8100, 5)],
        ethertype::IPV4,
        &packet4(&[], 0, Proto::UDP, &datagram),
    ));
    frames.push(tagged(
        &[(0x88a8, 5), (0x8100, 6)],
        ethertype::IPV6,
        &packet6(Proto::UDP, &datagram),
    ));
    frames.push(tagged(
        &[],
        ethertype::IPV4,
        &packet4(&[1; 4], 0, Proto::UDP, &datagram),
    ));
    frames.push(tagged(
        &[],
        ethertype::IPV4,
        &packet4(&[], 0x2000, Proto::UDP, &[0; 16]),
    ));
    frames.push(tagged(
        &[],
        ethertype::IPV4,
        &packet4(&[], 0x2002, Proto::UDP, &[0; 16]),
    ));
    frames.push(ipv6(0, &join(&[&options6(Proto::UDP, 1), &datagram])));
    frames.push(ipv6(44, &join(&[&fragment6(Proto::UDP, 16, true), &[0; 16]])));
    frames.push(ipv4(
        Proto::AH,
        &join(&[&authentication(Proto::UDP, 3), &datagram]),
    ));
    frames.push(ipv4(Proto::ICMP, &[8, 0, 0, 0, 0, 5, 0, 1]));
    frames.push(ipv4(Proto::UDP, &[0x0f, 0xa0, 0, 53, 0, 7, 0, 0]));
    frames.push(ipv4(Proto::UDP, &[0x0f, 0xa0, 0, 53, 0, 9, 0, 0]));
    frames.push(tagged(&[], ethertype::ARP, &[0; 28]));
    let mut no_hops = ipv4(Proto::UDP, &datagram);
    no_hops[22] = 0;
    frames.push(no_hops);
    let mut no_hops = ipv6(Proto::UDP, &datagram);
    no_hops[21] = 0;
    frames.push(no_hops);
    frames
}

#[test]
fn common_frames_are_read_in_place_and_others_are_not() {
    let mut m = Meta::EMPTY;
    for frame in common() {
        assert!(same(&frame, frame.len(), 0, &mut m), "{frame:x?}");
    }
    for frame in uncommon() {
        assert!(!same(&frame, frame.len(), 0, &mut m), "{frame:x?}");
    }
}

/// Nothing of the frame before is left: each kind behind each other.
#[test]
fn whatever_came_before_is_forgotten() {
    let (common, uncommon) = (common(), uncommon());
    let mut m = Meta::EMPTY;
    for first in common.iter().chain(&uncommon) {
        for second in common.iter().chain(&uncommon) {
            same(first, first.len(), 1, &mut m);
            same(second, second.len(), 0, &mut m);
        }
    }
}

/// A frame in several buffers, or cut: what is not in the first one is not read in place.
#[test]
fn only_what_lies_in_the_first_piece_is_read_in_place() {
    for frame in common() {
        let mut m = Meta::EMPTY;
        for piece in 0..frame.len() {
            same(&frame, piece, 0, &mut m);
            same(&frame[..piece], piece, 0, &mut m);
        }
    }
    let long = ipv4(
        Proto::TCP,
        &join(&[&with_options(tcp_flag::ACK, &TIMESTAMP), &[7; 900]]),
    );
    assert!(same(&long, 58, 0, &mut Meta::EMPTY.clone()));
    assert!(!same(&long, 57, 0, &mut Meta::EMPTY.clone()));
}

/// Lengths that the frame does not hold, or that hold no transport header, in every header that says one.
#[test]
fn lengths_are_judged_alike() {
    let mut m = Meta::EMPTY;
    for frame in common() {
        let (at, real) = match frame[12] {
            0x08 => (16, frame.len() - 14),
            _ => (18, frame.len() - 54),
        };
        for length in (0..=real as u16 + 2).chain([u16::MAX - 1, u16::MAX]) {
            let mut told = frame.clone();
            told[at..at + 2].copy_from_slice(&length.to_be_bytes());
            same(&told, told.len(), 0, &mut m);
        }
    }
}

#[test]
fn a_first_fragment_in_between_leaves_no_mark() {
    let mut m = Meta::EMPTY;
    let fragment = tagged(&[], ethertype::IPV4, &packet4(&[], 0x2000, Proto::UDP, &[0; 16]));
    same(&fragment, fragment.len(), 0, &mut m);
    assert_eq!(m.fragment, FIRST);
    let whole = ipv4(Proto::UDP, &udp(12));
    assert!(same(&whole, whole.len(), 0, &mut m));
    assert_eq!((m.fragment, m.frag_more), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Frames in a row, each with a few bytes changed and cut somewhere, in the same memory.
    #[test]
    fn the_parser_finds_the_same(
        row in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((0_usize..80, any::<u8>()), 0..3), 0_usize..120, 0_u8..3),
            1..6,
        ),
    ) {
        let frames: Vec<Vec<u8>> = common().into_iter().chain(uncommon()).collect();
        let mut m = Meta::EMPTY;
        for (which, changes, cut, realm) in row {
            let mut frame = which.get(&frames).clone();
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if cut < 60 {
                frame.truncate(cut);
            }
            same(&frame, if cut % 2 == 0 { frame.len() } else { cut }, realm, &mut m);
        }
    }
}
