//! Datagrams in pieces, in all orders, whole and broken.

use fastrand::Rng;
use fw_common::abi::Proto;
use fw_common::wire::tcp_flag::SYN;

use crate::frame::{self, Head, Segment};
use crate::place::{Place, Shot, once_in, one_of};
use crate::twin::Via;

struct Cut<'a> {
    head: Head,
    via: Via,
    proto: u8,
    id: u32,
    whole: &'a [u8],
}

impl Cut<'_> {
    fn piece(&self, from: usize, to: usize) -> Shot {
        let to = to.min(self.whole.len());
        self.raw(from, &self.whole[from.min(to)..to], to < self.whole.len())
    }

    fn raw(&self, from: usize, bytes: &[u8], more: bool) -> Shot {
        let mut head = self.head;
        head.fragment = Some((self.id, from as u16, more));
        Shot {
            bytes: frame::frame(&head, self.proto, bytes),
            via: self.via,
        }
    }
}

fn datagram(place: &Place, random: &mut Rng) -> (u8, Vec<u8>) {
    let ports = 45_000 + random.u16(..60);
    let length = random.usize(100..500);
    match random.u8(..10) {
        0..5 => {
            let port = one_of(random, &[53, 53, 123, 82, 81, 4791, 4791, 9, 83, 1001]);
            (Proto::UDP, frame::udp((ports, port), length))
        }
        5..7 => {
            let segment = Segment {
                ports: (ports, one_of(random, &[80, 443, 84])),
                flags: SYN,
                seq: random.u32(..),
                window: 1000,
                payload: length,
                ..Segment::default()
            };
            (Proto::TCP, segment.bytes())
        }
        7..9 => {
            let kind = if place.head.v6() { 128 } else { 8 };
            (
                place.head.icmp(),
                frame::icmp(kind, 0, [0, random.u8(..8), 0, 1], &vec![0; length]),
            )
        }
        _ => {
            let mut bytes = [ports.to_be_bytes(), 3868_u16.to_be_bytes()].concat();
            bytes.resize(length, 0);
            (Proto::SCTP, bytes)
        }
    }
}

/// Puts the pieces into another order, and among them pieces that do not belong there.
fn rearrange(pieces: &mut Vec<Shot>, cut: &Cut<'_>, size: usize, random: &mut Rng) {
    match random.u8(..12) {
        0 => pieces.reverse(),
        1 => random.shuffle(pieces),
        2 => {
            let last = pieces.len() - 1;
            pieces.swap(0, last);
        }
        3 => {
            let again = pieces[random.usize(..pieces.len())].clone();
            pieces.insert(random.usize(1..=pieces.len()), again);
        }
        // Overlapping ones.
        4 => {
            let at = 8 * random.usize(1..6);
            pieces.insert(random.usize(1..=pieces.len()), cut.piece(at, at + size + 8));
        }
        // Too many holes.
        5 => {
            let far = (1..=14).map(|number| cut.raw(1000 + 16 * number, &[0; 8], true));
            pieces.truncate(1);
            pieces.extend(far);
        }
        // The end contradicts itself, or lies too far.
        6 => pieces.push(cut.raw(8 * random.usize(1..40), &[0; 13], false)),
        7 => pieces.push(cut.raw(65_528, &[0; 24], random.bool())),
        // Too small: no transport header, or one that is written over.
        8 => {
            pieces.insert(0, cut.piece(0, 8 * usize::from(cut.proto == Proto::TCP) + 4));
            pieces.insert(1, cut.raw(0, &cut.whole[..8.min(cut.whole.len())], true));
            if cut.proto == Proto::TCP {
                pieces.insert(0, cut.piece(8, 24));
            }
        }
        // No bytes, or no multiple of eight.
        9 => pieces.insert(1, cut.raw(size, &[0; 7], true)),
        _ => {}
    }
}

/// The pieces of a random datagram in the order in which they come.
pub fn train(random: &mut Rng) -> Vec<Shot> {
    let mut place = Place::any(random);
    for via in &mut place.vias {
        via.super_packet = None;
    }
    if once_in(random, 2) {
        place.head.extensions = &[];
    }
    let (proto, whole) = datagram(&place, random);
    let (head, via) = place.side(0);
    let cut = Cut {
        head,
        via,
        proto,
        id: random.u32(..4000),
        whole: &whole,
    };
    let size = 8 * random.usize(3..8);
    let mut pieces: Vec<Shot> = (0..whole.len())
        .step_by(size)
        .map(|from| cut.piece(from, from + size))
        .collect();
    rearrange(&mut pieces, &cut, size, random);
    if once_in(random, 4) {
        pieces.truncate(random.usize(1..=pieces.len()));
    }
    // Other answers to the same datagram: it leaves again, or comes by another port.
    if once_in(random, 10) {
        let back = place.vias[1];
        if let Some(piece) = pieces.last_mut() {
            piece.via = back;
        }
    }
    pieces
}
