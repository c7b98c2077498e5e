//! What is no TCP: datagrams, echoes, other protocols, ICMP errors about anything, floods.

use std::collections::VecDeque;

use fastrand::Rng;
use fw_common::abi::Proto;
use fw_common::wire::tcp_flag::{RST, SYN};

use crate::frame::{self, Head, Segment};
use crate::place::{Group, Place, Shot, address, one_of};
use crate::twin::{Said, Via, port};

const UDP_PORTS: [u16; 20] = [
    53, 53, 53, 123, 514, 81, 82, 83, 86, 4791, 4791, 4792, 1001, 1002, 1003, 1004, 8040, 9, 67, 546,
];

/// Two ends that exchange packets of one protocol.
pub struct Talk {
    place: Place,
    proto: u8,
    ports: (u16, u16),
    left: u32,
    /// Of 8 packets so many come from the first end.
    share: u8,
    last: [Vec<u8>; 2],
}

impl Talk {
    pub fn new(random: &mut Rng) -> Self {
        let place = Place::any(random);
        let proto = match random.u8(..20) {
            0..11 => Proto::UDP,
            11..16 => place.head.icmp(),
            16 => Proto::SCTP,
            17 => Proto::GRE,
            18 => Proto::ESP,
            _ => one_of(random, &[89, 4, 253]),
        };
        let port = match proto {
            Proto::UDP => one_of(random, &UDP_PORTS),
            Proto::SCTP => 3868,
            _ => 0,
        };
        Self {
            place,
            proto,
            ports: (50_000 + random.u16(..100), port),
            left: random.u32(1..16),
            share: one_of(random, &[8, 6, 4]),
            last: [Vec::new(), Vec::new()],
        }
    }

    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    pub fn step(&mut self, random: &mut Rng) -> Shot {
        self.left -= 1;
        let from = usize::from(random.u8(..8) >= self.share);
        let (mut head, via) = self.place.side(from);
        head.extensions = if self.proto == 253 { &[] } else { head.extensions };
        let payload = match random.u16(..400) {
            0 => 5000,
            1..20 => 1400,
            _ => random.usize(..60),
        };
        let bytes = self.payload(from, payload, &head, random);
        self.last[from] = frame::packet(&head, self.proto, &bytes);
        Shot {
            bytes: frame::frame(&head, self.proto, &bytes),
            via,
        }
    }

    fn payload(&self, from: usize, payload: usize, head: &Head, random: &mut Rng) -> Vec<u8> {
        let (a, b) = self.ports;
        let ports = if from == 0 { (a, b) } else { (b, a) };
        match self.proto {
            Proto::UDP => frame::udp(ports, payload),
            Proto::SCTP => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend([0; 8]);
                bytes
            }
            Proto::GRE => [[0x20, 0, 8, 0], [0, 0, (a >> 8) as u8, a as u8]].concat(),
            Proto::ESP => [[0, 0, (a >> 8) as u8, a as u8], [0, 0, 0, 1]].concat(),
            Proto::ICMP | Proto::ICMPV6 => {
                let kinds = if head.v6() { [128, 129] } else { [8, 0] };
                let [high, low] = (a & 7).to_be_bytes();
                frame::icmp(kinds[from], 0, [high, low, 0, random.u8(..)], &[0; 16])
            }
            _ => vec![1; 8],
        }
    }

    /// Both ends' last packets, and where they are.
    pub fn quotable(&self) -> (&Place, &[Vec<u8>; 2]) {
        (&self.place, &self.last)
    }
}

/// An ICMP error about a packet that one of these ends has sent: from the other end or from a router on the way, right or
/// wrong.
pub fn error(place: &Place, last: &[Vec<u8>; 2], random: &mut Rng) -> Option<Shot> {
    let about = random.usize(..2);
    let quote = &last[about];
    if quote.is_empty() {
        return None;
    }
    let (mut head, mut via) = place.side(1 - about);
    via.super_packet = None;
    if random.bool() && !via.egress {
        head.src = address(Group::Outside, head.v6(), 200);
    }
    let (kind, code, rest) = if head.v6() {
        one_of(
            random,
            &[
                (1, 4, [0; 4]),
                (2, 0, [0, 0, 5, 0]),
                (3, 0, [0; 4]),
                (4, 1, [0; 4]),
            ],
        )
    } else {
        one_of(
            random,
            &[
                (3, 3, [0; 4]),
                (3, 4, [0, 0, 5, 0]),
                (11, 0, [0; 4]),
                (12, 0, [0; 4]),
            ],
        )
    };
    let mut quote = quote[..quote.len().min(random.usize(60..130))].to_vec();
    // Where transport begins if nothing stands in between.
    let transport = if head.v6() { 40 } else { 20 };
    match random.u8(..8) {
        // Another port, another sequence number, another address, cut off.
        0 => flip(&mut quote, transport + 1),
        1 => flip(&mut quote, transport + 4),
        2 => flip(&mut quote, transport - 1),
        3 => quote.truncate(random.usize(..transport + 12)),
        _ => {}
    }
    let bytes = frame::icmp(kind, code, rest, &quote);
    Some(Shot {
        bytes: frame::frame(&head, head.icmp(), &bytes),
        via,
    })
}

fn flip(bytes: &mut [u8], at: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0x55;
    }
}

/// Many new flows to one destination at once.
pub struct Flood {
    via: Via,
    proto: u8,
    source: Option<u8>,
    to: u8,
    v6: bool,
    port: u16,
    /// Of the sources that are asked for a proof, every second gives one.
    last: Option<(Head, Segment)>,
    answers: VecDeque<Shot>,
    left: u32,
}

impl Flood {
    pub fn new(random: &mut Rng) -> Self {
        Self {
            via: Via::into(one_of(random, &[port::OUTER, port::HOST])),
            proto: one_of(random, &[Proto::TCP, Proto::UDP, Proto::ICMP]),
            source: random.bool().then(|| random.u8(100..104)),
            to: random.u8(20..=27),
            v6: random.bool(),
            port: one_of(random, &[80, 80, 53, 1001, 1002, 1003, 1004]),
            last: None,
            answers: VecDeque::new(),
            left: random.u32(20..50),
        }
    }

    /// More SYNs than demands for proof may be sent.
    pub fn storm(random: &mut Rng) -> Self {
        Self {
            proto: Proto::TCP,
            source: None,
            port: 80,
            left: 600,
            ..Self::new(random)
        }
    }

    pub fn is_over(&self) -> bool {
        self.left == 0 && self.answers.is_empty()
    }

    /// A source was asked for a proof: it gives it and sends its SYN again.
    pub fn hear(&mut self, said: &Said, random: &mut Rng) {
        let Some((head, mut segment)) = self.last.take() else {
            return;
        };
        let Some(number) = said.proof.filter(|_| random.bool() && self.left < 50) else {
            return;
        };
        let mut shot = |segment: &Segment| {
            self.answers.push_back(Shot {
                bytes: frame::frame(&head, Proto::TCP, &segment.bytes()),
                via: self.via,
            });
        };
        let again = segment.clone();
        (segment.flags, segment.seq) = (RST, number);
        shot(&segment);
        shot(&again);
    }

    pub fn step(&mut self, random: &mut Rng) -> Shot {
        if let Some(shot) = self.answers.pop_front() {
            return shot;
        }
        self.left -= 1;
        let number = self.source.unwrap_or_else(|| random.u8(100..160));
        let head = Head::new(
            address(Group::Client, self.v6, number),
            address(Group::Server, self.v6, self.to),
        );
        let ports = (random.u16(30_000..), self.port);
        let (proto, bytes) = match self.proto {
            Proto::TCP => {
                let segment = Segment {
                    ports,
                    flags: SYN,
                    seq: random.u32(..),
                    window: 1000,
                    ..Segment::default()
                };
                let bytes = segment.bytes();
                self.last = Some((head, segment));
                (Proto::TCP, bytes)
            }
            Proto::UDP => (Proto::UDP, frame::udp(ports, 60)),
            _ => {
                let kind = if self.v6 { 128 } else { 8 };
                let [a, b] = ports.0.to_be_bytes();
                (head.icmp(), frame::icmp(kind, 0, [a, b, 0, 1], &[]))
            }
        };
        Shot {
            bytes: frame::frame(&head, proto, &bytes),
            via: self.via,
        }
    }
}

/// A source outside of all zones that finishes a handshake and then asks for what is denied, again and again.
pub struct Scan {
    from: u8,
    v6: bool,
    port: u16,
    pub left: u32,
}

impl Scan {
    pub fn new(random: &mut Rng) -> Self {
        Self {
            from: random.u8(1..=6),
            v6: random.bool(),
            port: random.u16(20_000..30_000),
            left: 40,
        }
    }

    pub fn step(&mut self, random: &mut Rng) -> Shot {
        use fw_common::wire::tcp_flag::ACK;
        let number = 40 - self.left;
        self.left -= 1;
        let head = Head::new(
            address(Group::Outside, self.v6, self.from),
            address(Group::Own, self.v6, 1),
        );
        let mut segment = Segment {
            ports: (self.port, 80),
            flags: SYN,
            seq: 1,
            ack: 0,
            window: 1000,
            ..Segment::default()
        };
        let mut out = false;
        match number {
            0 => {}
            1 => {
                out = true;
                segment = Segment {
                    ports: (80, self.port),
                    flags: SYN | ACK,
                    seq: 7,
                    ack: 2,
                    ..segment
                };
            }
            2 => (segment.flags, segment.seq, segment.ack) = (ACK, 2, 8),
            30.. => segment.ports = (random.u16(30_000..), 80),
            _ => segment.ports = (self.port, random.u16(2000..3000)),
        }
        let head = if out { head.back() } else { head };
        Shot {
            bytes: frame::frame(&head, Proto::TCP, &segment.bytes()),
            via: if out {
                Via::out_of(port::HOST)
            } else {
                Via::into(port::HOST)
            },
        }
    }

    /// True while the clock should hardly move.
    pub fn hurries(&self) -> bool {
        self.left != 0
    }
}
