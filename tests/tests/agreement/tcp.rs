//! TCP connections: two ends that follow a script, and what goes wrong on the way.

use std::collections::VecDeque;

use fastrand::Rng;
use fw_common::abi::Proto;
use fw_common::wire::tcp_flag::{ACK, FIN, PSH, RST, SYN};

use crate::frame::{self, Segment};
use crate::place::{Place, Shot, once_in, one_of};
use crate::twin::Said;
use fw_common::abi::Reason;

/// What an end does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Syn(usize),
    /// A SYN with data, as a fast open sends.
    SynData(usize),
    SynAck(usize),
    Ack(usize),
    Data(usize),
    Fin(usize),
    Rst(usize),
    /// A refusal: RST with ACK.
    Refuse(usize),
    /// The reset that answers a demand for proof.
    Prove(u32),
}

/// A connection.
pub struct Connection {
    pub place: Place,
    ports: (u16, u16),
    /// Next sequence number of each end.
    next: [u32; 2],
    start: [u32; 2],
    windows: [u16; 2],
    /// Window scale that each end announces.
    scale: [Option<u8>; 2],
    script: VecDeque<Act>,
    history: VecDeque<Shot>,
    /// The last IP packet of each end: what errors quote.
    pub last: [Vec<u8>; 2],
    probes: u32,
    asked: u32,
    /// The first packet's fate is known.
    answered: bool,
}

/// Ports that rules of all kinds speak of; the plain ones many times.
const PORTS: [u16; 40] = [
    80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 443, 443, 443, 443, 443, 443, 443, 443,
    85, 85, 8040, 8040, 8080, 8080, 81, 82, 83, 84, 86, 1001, 1002, 1003, 1004, 9,
];

fn script(random: &mut Rng) -> VecDeque<Act> {
    use Act::{Ack, Data, Fin, Refuse, Rst, Syn, SynAck, SynData};
    let mut acts = match random.u8(..40) {
        // Unanswered, refused.
        0 => return [Syn(0), Syn(0), Syn(0)].into(),
        1 => return [Syn(0), Refuse(1), Syn(0)].into(),
        // Simultaneous open.
        2 => vec![Syn(0), Syn(1), SynAck(0), SynAck(1), Ack(0), Ack(1)],
        3 => vec![Syn(0), Syn(1), SynAck(1), Ack(0)],
        // Fast open.
        4 => vec![SynData(0), SynAck(1), Data(1), Ack(0)],
        // Data overtakes the answer.
        5 => vec![Syn(0), Data(1), SynAck(1), Ack(0)],
        // Running already.
        6 => vec![Data(0), Ack(1)],
        7 => vec![Data(1), Ack(0)],
        // The server closes before it is acknowledged.
        8 => vec![Syn(0), SynAck(1), Fin(1), Ack(0)],
        9 => vec![Syn(0), Syn(0), SynAck(1), SynAck(1), Ack(0)],
        _ => vec![Syn(0), SynAck(1), Ack(0)],
    };
    for _ in 0..random.u8(10..80) {
        let from = random.usize(..2);
        acts.push(if once_in(random, 3) { Ack(from) } else { Data(from) });
    }
    let (a, b) = if random.bool() { (0, 1) } else { (1, 0) };
    match random.u8(..8) {
        0 => acts.push(Rst(a)),
        1 => acts.extend([Fin(a), Rst(b)]),
        2 => acts.extend([Fin(a), Fin(b), Ack(a), Ack(b)]),
        3 => acts.extend([Fin(a), Ack(b), Data(b), Ack(a), Data(b), Ack(a), Fin(b), Ack(a)]),
        4 => acts.extend([Fin(a), Fin(b), Ack(a)]),
        // Silence.
        5 => {}
        _ => acts.extend([Fin(a), Ack(b), Fin(b), Ack(a)]),
    }
    acts.into()
}

impl Connection {
    pub fn new(random: &mut Rng) -> Self {
        let place = Place::any(random);
        let ports = (40_000 + random.u16(..400), one_of(random, &PORTS));
        Self::at(place, ports, random)
    }

    /// A connection between given ends.
    pub fn at(place: Place, ports: (u16, u16), random: &mut Rng) -> Self {
        let mut new = Self {
            place,
            ports,
            next: [0; 2],
            start: [0; 2],
            windows: [0; 2],
            scale: [None; 2],
            script: VecDeque::new(),
            history: VecDeque::new(),
            last: [Vec::new(), Vec::new()],
            probes: 0,
            asked: 0,
            answered: false,
        };
        new.start = [random.u32(..), random.u32(..)];
        new.begin(random);
        new
    }

    fn begin(&mut self, random: &mut Rng) {
        self.next = self.start;
        self.script = script(random);
        self.answered = false;
        self.probes = random.u32(..10);
        for end in 0..2 {
            self.windows[end] = one_of(random, &[65_535, 65_535, 30_000, 4000, 600]);
            self.scale[end] = one_of(random, &[None, Some(0), Some(7), Some(14)]);
        }
    }

    /// The same ports once more, with a newer or an older number.
    pub fn again(&mut self, random: &mut Rng) {
        let distance = one_of(random, &[1, 1000, 1 << 20, 1 << 30, 0x9000_0000]);
        self.start = [self.next[0].wrapping_add(distance), random.u32(..)];
        self.begin(random);
    }

    /// True if nothing is left to be sent.
    pub fn is_over(&self) -> bool {
        self.script.is_empty() && self.probes == 0
    }

    /// The next packet.
    pub fn step(&mut self, random: &mut Rng) -> Shot {
        if once_in(random, 7) || self.script.is_empty() {
            self.probes = self.probes.saturating_sub(u32::from(self.script.is_empty()));
            return self.strange(random);
        }
        match self.script.pop_front() {
            Some(act) => self.act(act, random),
            None => self.strange(random),
        }
    }

    /// What the data plane said of the last packet.
    pub fn hear(&mut self, said: &Said, random: &mut Rng) {
        if said.reason == Reason::SynProof
            && let Some(number) = said.proof
            && self.asked < 3
        {
            self.asked += 1;
            self.next[0] = self.start[0];
            self.script.push_front(Act::Syn(0));
            let number = if once_in(random, 8) { number ^ 1 } else { number };
            self.script.push_front(Act::Prove(number));
            return;
        }
        // Who is refused or cut off gives up soon, most of the time.
        let lost = match said.reason {
            Reason::PolicyRevoked | Reason::TcpNoFlow => once_in(random, 2),
            reason => !self.answered && !reason.allows() && !once_in(random, 4),
        };
        if lost {
            let rest = self.script.len().saturating_sub(random.usize(1..4));
            self.script.drain(..rest);
            self.probes = self.probes.min(2);
        }
        self.answered = true;
    }

    fn act(&mut self, act: Act, random: &mut Rng) -> Shot {
        let (from, flags, payload) = match act {
            Act::Syn(from) => (from, SYN, 0),
            Act::SynData(from) => (from, SYN, random.usize(1..100)),
            Act::SynAck(from) => (from, SYN | ACK, 0),
            Act::Ack(from) => (from, ACK, 0),
            Act::Data(from) => (from, ACK | PSH, random.usize(1..160)),
            Act::Fin(from) => (from, FIN | ACK, random.usize(..2) * 20),
            Act::Rst(from) => (from, RST | (ACK * random.u8(..2)), 0),
            Act::Refuse(from) => (from, RST | ACK, 0),
            Act::Prove(_) => (0, RST, 0),
        };
        if flags & SYN != 0 {
            self.next[from] = self.start[from];
        }
        let mut segment = self.segment(from, flags, payload, random);
        match act {
            Act::Prove(number) => (segment.seq, segment.ack) = (number, 0),
            Act::Refuse(_) => segment.seq = 0,
            _ => {}
        }
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        if flags & RST == 0 {
            self.next[from] = segment.seq.wrapping_add(controls + payload as u32);
        }
        self.shot(from, &segment, random)
    }

    /// What this end would send now.
    fn segment(&self, from: usize, flags: u8, payload: usize, random: &mut Rng) -> Segment {
        let (own, peer) = (self.next[from], self.next[1 - from]);
        let ports = if from == 0 {
            self.ports
        } else {
            (self.ports.1, self.ports.0)
        };
        let late = if once_in(random, 10) { random.u32(..300) } else { 0 };
        let options = if flags & SYN != 0 {
            self.syn_options(from, random)
        } else {
            Self::options(peer, random)
        };
        Segment {
            ports,
            flags,
            seq: own,
            ack: if flags & ACK != 0 {
                peer.wrapping_sub(if flags & SYN == 0 { late } else { 0 })
            } else {
                0
            },
            window: if once_in(random, 40) {
                0
            } else {
                self.windows[from]
            },
            options,
            payload,
        }
    }

    fn syn_options(&self, from: usize, random: &mut Rng) -> Vec<u8> {
        let mut options = vec![2, 4, 5, 0xb4];
        if let Some(shift) = self.scale[from] {
            options.extend([3, 3, shift, 1]);
        }
        if random.bool() {
            options.extend([4, 2, 1, 1]);
        }
        if once_in(random, 3) {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        if once_in(random, 30) {
            options.extend([3, 0, 0, 0]);
        }
        options
    }

    fn options(peer: u32, random: &mut Rng) -> Vec<u8> {
        match random.u8(..12) {
            0..3 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            3 => {
                let edge = peer
                    .wrapping_sub(random.u32(..200))
                    .wrapping_add(random.u32(..40));
                let mut options = vec![1, 1, 5, 10];
                options.extend(edge.wrapping_sub(10).to_be_bytes());
                options.extend(edge.to_be_bytes());
                options
            }
            4 if once_in(random, 4) => (0..4 * random.usize(1..10)).map(|_| random.u8(..)).collect(),
            _ => Vec::new(),
        }
    }

    /// Again, out of order, out of window, out of place.
    fn strange(&mut self, random: &mut Rng) -> Shot {
        if once_in(random, 3)
            && let Some(shot) = self.history.get(random.usize(..self.history.len().max(1)))
        {
            return shot.clone();
        }
        let from = random.usize(..2);
        let flags = one_of(random, &[SYN, SYN | ACK, FIN | ACK, ACK, RST, RST | ACK]);
        let payload = if flags & (SYN | RST) == 0 {
            random.usize(..100)
        } else {
            0
        };
        let mut segment = self.segment(from, flags, payload, random);
        let own = self.next[from];
        segment.seq = match random.u8(..10) {
            0..4 => own,
            4 => own.wrapping_sub(1),
            5 => own.wrapping_sub(random.u32(..2000)),
            6 => own.wrapping_add(random.u32(..2000)),
            7 => self.start[from],
            8 => own.wrapping_add(1 << 20),
            _ => random.u32(..),
        };
        if flags & ACK != 0 {
            let peer = self.next[1 - from];
            segment.ack = match random.u8(..8) {
                0..5 => segment.ack,
                5 => self.start[1 - from].wrapping_add(1),
                6 => peer.wrapping_add(random.u32(..3000)),
                _ => random.u32(..),
            };
        }
        if flags & RST != 0 && segment.seq == own && !self.script.is_empty() {
            if once_in(random, 8) {
                // It ends the connection.
                self.script.clear();
            } else {
                segment.seq = own.wrapping_add(random.u32(1..400));
            }
        }
        let mut shot = self.shot(from, &segment, random);
        if once_in(random, 30) {
            shot.via = self.place.vias[1 - from];
        }
        shot
    }

    fn shot(&mut self, from: usize, segment: &Segment, random: &mut Rng) -> Shot {
        let (head, via) = self.place.side(from);
        let bytes = segment.bytes();
        self.last[from] = frame::packet(&head, Proto::TCP, &bytes);
        let mut via = via;
        if segment.flags & SYN != 0 {
            via.super_packet = None;
        }
        let shot = Shot {
            bytes: frame::frame(&head, Proto::TCP, &bytes),
            via,
        };
        if self.history.len() >= 8 {
            self.history.remove(random.usize(..8));
        }
        self.history.push_back(shot.clone());
        shot
    }
}
