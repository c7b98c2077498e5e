//! One TCP connection with both its ends.
//!
//! Numbers are counted from the initial sequence number in 64 bits, so that nothing wraps but what is sent.

use fastrand::Rng;

use super::{Ends, Ground, Step};
use crate::packet::{Packet, Unreachable};

/// Bytes of a full segment.
const FULL: u64 = 1448;
/// Segments that an end remembers for sending them again.
const REMEMBERED: usize = 8;

/// What one end knows.
#[derive(Clone, Debug, Default)]
struct End {
    /// Initial sequence number.
    first: u32,
    /// What it sends next.
    next: u64,
    /// Up to where it has the other end's bytes.
    got: u64,
    /// What it has behind a gap.
    held: Vec<(u64, u64)>,
    /// The right edge that it has offered.
    edge: u64,
    /// The highest acknowledgement that it has sent.
    acked: u64,
    /// One it sent before.
    acked_before: u64,
    /// The window of its SYN, which is the same however often it is sent.
    first_window: u64,
    /// Window scale, if it offered one.
    shift: Option<u8>,
    /// It permits selective acknowledgements.
    sack: bool,
    /// It has sent its FIN.
    finished: bool,
    /// What it sent last, from and to.
    sent: Vec<(u64, u64)>,
}

impl End {
    fn new(random: &mut Rng) -> Self {
        Self {
            // Near a wrap as often as not.
            first: if random.bool() {
                random.u32(..)
            } else {
                0_u32.wrapping_sub(random.u32(..20_000))
            },
            first_window: random.u64(1_000..65_536),
            shift: random.bool().then(|| random.u8(0..=9)),
            sack: random.bool(),
            ..Self::default()
        }
    }

    fn number(&self, at: u64) -> u32 {
        self.first.wrapping_add(at as u32)
    }

    fn takes(&mut self, from: u64, to: u64) {
        self.held.push((from, to));
        self.held.sort_unstable();
        for (from, to) in &self.held {
            if *from <= self.got {
                self.got = self.got.max(*to);
            }
        }
        self.held.retain(|(_, to)| *to > self.got);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    /// The client has sent its SYN.
    Asked,
    /// Both have: a simultaneous open, with so many packets of it.
    Crossed(u8),
    /// The server has sent its SYN-ACK.
    Answered,
    Open,
    /// Both FINs are acknowledged.
    Closed,
    /// One more stray packet, then nothing.
    Over,
}

/// A connection.
pub(super) struct Connection {
    ends: Ends,
    /// Client, server.
    sides: [End; 2],
    phase: Phase,
    last: Option<(bool, Packet)>,
    /// How often the ports were used.
    lives: u8,
}

impl Connection {
    pub(super) fn new(random: &mut Rng, ends: Ends) -> Self {
        Self {
            ends,
            sides: [End::new(random), End::new(random)],
            phase: Phase::Begin,
            last: None,
            lives: 1,
        }
    }

    pub(super) fn step(&mut self, random: &mut Rng) -> Option<Step> {
        // An exact copy of the last packet, as a network makes them.
        if let Some((from_client, packet)) = &self.last
            && self.phase != Phase::Over
            && random.u8(..50) == 0
        {
            let step = Step::new(*from_client, "tcp: a duplicate", Ground::Passes, packet.clone());
            return Some(self.told(step));
        }
        let step = loop {
            let step = match self.phase {
                Phase::Begin => Some(self.begin(random)),
                Phase::Asked => self.asked(random),
                Phase::Crossed(count) => Some(self.crossed(count, random)),
                Phase::Answered => Some(self.answered(random)),
                Phase::Open if random.u8(..16) == 0 => self.odd(random),
                Phase::Open => self.open(random),
                Phase::Closed => self.closed(random),
                Phase::Over => return None,
            };
            if let Some(step) = step {
                break step;
            }
            if self.phase == Phase::Over {
                return None;
            }
        };
        if step.ground == Ground::Passes {
            self.last = Some((step.from_client, step.packet.clone()));
        }
        Some(self.told(step))
    }

    /// With the state of both ends, for people.
    fn told(&self, mut step: Step) -> Step {
        let [client, server] = &self.sides;
        step.about = format!(
            "{:?}, client next {} got {} edge {}, server next {} got {} edge {}",
            self.phase, client.next, client.got, client.edge, server.next, server.got, server.edge
        );
        step
    }

    /// A segment of this side: flags, from where, how long; it acknowledges up to `ack` and offers a window.
    fn segment(
        &mut self,
        side: usize,
        flags: &str,
        at: u64,
        length: u64,
        ack: u64,
        random: &mut Rng,
    ) -> Packet {
        let scaled = self.sides.iter().all(|end| end.shift.is_some());
        let peer_sack = self.sides[1 - side].sack;
        let syn = flags.contains('S');
        let peer_first = self.sides[1 - side].first;
        let end = &mut self.sides[side];
        let shift = if scaled && !syn { end.shift.unwrap_or(0) } else { 0 };
        // A window never shrinks; now and then it does not grow either, down to zero.
        let window = if syn {
            end.first_window
        } else {
            let wish = match random.u8(..8) {
                0 => 0,
                1 => random.u64(..4_000),
                _ => random.u64(..65_536 << shift),
            };
            let least = end.edge.saturating_sub(ack);
            ((wish.max(least) + (1 << shift) - 1) >> shift).min(65_535)
        };
        end.edge = end.edge.max(ack + (window << shift));
        if flags.contains('A') && ack > end.acked {
            end.acked_before = end.acked;
            end.acked = ack;
        }
        let mut options = Vec::new();
        if syn {
            options.extend([2, 4, 5, 0xb4]);
            if let Some(shift) = end.shift {
                options.extend([1, 3, 3, shift]);
            }
            if end.sack {
                options.extend([1, 1, 4, 2]);
            }
        } else if let Some((from, to)) = end.held.first()
            && end.sack
            && peer_sack
        {
            options.extend([1, 1, 5, 10]);
            options.extend(peer_first.wrapping_add(*from as u32).to_be_bytes());
            options.extend(peer_first.wrapping_add(*to as u32).to_be_bytes());
        }
        let number = if flags.contains('A') {
            peer_first.wrapping_add(ack as u32)
        } else {
            0
        };
        let [from, to] = self.ends.way(side == 0);
        Packet::tcp(from, to)
            .flags(flags)
            .numbers(self.sides[side].number(at), number)
            .window(window as u16)
            .tcp_options(&options)
            .payload(&vec![0x55; length as usize])
    }

    fn begin(&mut self, random: &mut Rng) -> Step {
        self.phase = Phase::Asked;
        self.sides[0].next = 1;
        let mut packet = self.segment(0, "S", 0, 0, 0, random);
        let kind = if random.u8(..10) == 0 {
            packet = packet.flags("EC");
            "tcp: a SYN with ECN"
        } else {
            "tcp: a SYN"
        };
        // The window counts from the first byte of data on.
        self.sides[0].edge += 1;
        Step::new(true, kind, Ground::Passes, packet)
    }

    fn asked(&mut self, random: &mut Rng) -> Option<Step> {
        let passes = |from_client, kind, packet| Some(Step::new(from_client, kind, Ground::Passes, packet));
        match random.u8(..40) {
            0..4 => {
                let packet = self.segment(0, "S", 0, 0, 0, random);
                passes(true, "tcp: the SYN again", packet)
            }
            4..6 => {
                self.phase = Phase::Over;
                let [from, to] = self.ends.way(false);
                let number = self.sides[0].number(1);
                let packet = Packet::tcp(from, to).flags("RA").numbers(0, number).window(0);
                passes(false, "tcp: the SYN is refused", packet)
            }
            6 => {
                self.phase = Phase::Crossed(0);
                self.sides[1].next = 1;
                let packet = self.segment(1, "S", 0, 0, 0, random);
                self.sides[1].edge += 1;
                passes(false, "tcp: a simultaneous open", packet)
            }
            7 => {
                let number = self.sides[0].number(1).wrapping_add(random.u32(1..1 << 31));
                let [from, to] = self.ends.way(false);
                let packet = Packet::tcp(from, to).flags("SA").numbers(random.u32(..), number);
                Some(Step::new(
                    false,
                    "tcp: a SYN-ACK for another SYN",
                    Ground::Open,
                    packet,
                ))
            }
            8 => {
                let [from, to] = self.ends.way(true);
                let numbers = (self.sides[0].number(1), random.u32(..));
                let packet = Packet::tcp(from, to).flags("PA").numbers(numbers.0, numbers.1);
                Some(Step::new(
                    true,
                    "tcp: data before the answer",
                    Ground::Open,
                    packet,
                ))
            }
            9 => {
                let [from, to] = self.ends.way(false);
                let number = self.sides[0].number(1).wrapping_add(random.u32(1..1 << 31));
                let packet = Packet::tcp(from, to).flags("RA").numbers(0, number);
                Some(Step::new(false, "tcp: a blind refusal", Ground::Open, packet))
            }
            _ => {
                self.phase = Phase::Answered;
                self.sides[1].next = 1;
                self.sides[1].got = 1;
                let packet = self.segment(1, "SA", 0, 0, 1, random);
                passes(false, "tcp: a SYN-ACK", packet)
            }
        }
    }

    /// SYN and SYN have crossed: each answers with a SYN-ACK, and an acknowledgement shows that they arrived.
    fn crossed(&mut self, count: u8, random: &mut Rng) -> Step {
        if count == 2 {
            self.phase = Phase::Open;
            let packet = self.segment(0, "A", 1, 0, 1, random);
            return Step::new(
                true,
                "tcp: the last packet of a simultaneous open",
                Ground::Passes,
                packet,
            );
        }
        let side = usize::from(count);
        self.sides[side].got = 1;
        let packet = self.segment(side, "SA", 0, 0, 1, random);
        self.phase = Phase::Crossed(count + 1);
        Step::new(
            side == 0,
            "tcp: an answer in a simultaneous open",
            Ground::Passes,
            packet,
        )
    }

    fn answered(&mut self, random: &mut Rng) -> Step {
        let (from_client, kind, ground, packet) = match random.u8(..40) {
            0..4 => {
                let packet = self.segment(1, "SA", 0, 0, 1, random);
                (false, "tcp: the SYN-ACK again", Ground::Passes, packet)
            }
            4..6 => {
                let packet = self.segment(0, "S", 0, 0, 0, random);
                (
                    true,
                    "tcp: the SYN again, after its answer",
                    Ground::Passes,
                    packet,
                )
            }
            6 => {
                let number = self.sides[1].number(1 + random.u64(1..1 << 20));
                let [from, to] = self.ends.way(true);
                let packet = Packet::tcp(from, to)
                    .flags("A")
                    .numbers(self.sides[0].number(1), number);
                (
                    true,
                    "tcp: an acknowledgement of another SYN-ACK",
                    Ground::Open,
                    packet,
                )
            }
            7 => {
                let packet = self.reset(1, 1 << 20);
                (
                    false,
                    "tcp: a blind reset after the SYN-ACK",
                    Ground::Open,
                    packet,
                )
            }
            8 => {
                self.phase = Phase::Over;
                let packet = self.reset(0, 0);
                (true, "tcp: the client gives up", Ground::Passes, packet)
            }
            _ => {
                self.phase = Phase::Open;
                self.sides[0].got = 1;
                let packet = self.segment(0, "A", 1, 0, 1, random);
                (true, "tcp: the handshake's last packet", Ground::Passes, packet)
            }
        };
        Step::new(from_client, kind, ground, packet)
    }

    /// A bare reset so far from the right number.
    fn reset(&self, side: usize, off: u32) -> Packet {
        let [from, to] = self.ends.way(side == 0);
        let end = &self.sides[side];
        Packet::tcp(from, to)
            .flags("R")
            .numbers(end.number(end.next).wrapping_add(off), 0)
            .window(0)
    }

    fn open(&mut self, random: &mut Rng) -> Option<Step> {
        let side = random.usize(..2);
        let (kind, packet) = match random.u8(..100) {
            0..40 => self.data(side, random)?,
            40..60 => self.acknowledge(side, random),
            60..72 => self.again(side, random)?,
            72..76 => self.probe(side, random)?,
            76..84 => self.finish(side, random)?,
            84..88 => self.selective_hole(side, random)?,
            88 if self.settled() => {
                self.phase = Phase::Over;
                let ack = self.sides[side].got;
                let at = self.sides[side].next;
                ("tcp: a reset", self.segment(side, "RA", at, 0, ack, random))
            }
            89..91 => return self.error(side, random),
            _ => self.old_acknowledgement(side, random)?,
        };
        self.settle();
        Some(Step::new(side == 0, kind, Ground::Passes, packet))
    }

    /// True if nothing is on its way: the next number is the same for both ends.
    fn settled(&self) -> bool {
        (0..2).all(|side| self.sides[1 - side].acked == self.sides[side].next)
    }

    /// Both have finished and know it of each other.
    fn settle(&mut self) {
        if self.sides.iter().all(|end| end.finished) && self.settled() {
            self.phase = Phase::Closed;
        }
    }

    fn data(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let (own, peer) = (&self.sides[side], &self.sides[1 - side]);
        let room = peer.edge.saturating_sub(own.next);
        if own.finished || room == 0 {
            return None;
        }
        let (at, ack) = (own.next, own.got);
        let length = random.u64(1..=FULL).min(room);
        // Nine tenths arrive; a few are lost before the firewall, a few behind it.
        let fate = random.u8(..40);
        let end = &mut self.sides[side];
        end.next += length;
        end.sent.push((at, at + length));
        if end.sent.len() > REMEMBERED {
            end.sent.remove(0);
        }
        if fate == 0 {
            // The firewall sees a gap when the next one comes.
            return None;
        }
        let packet = self.segment(side, "PA", at, length, ack, random);
        if fate == 1 {
            return Some(("tcp: data that is lost behind the firewall", packet));
        }
        let gap = at > self.sides[1 - side].got;
        self.sides[1 - side].takes(at, at + length);
        Some((
            if gap {
                "tcp: data behind a gap"
            } else {
                "tcp: data"
            },
            packet,
        ))
    }

    fn acknowledge(&mut self, side: usize, random: &mut Rng) -> (&'static str, Packet) {
        let (at, ack) = (self.sides[side].next, self.sides[side].got);
        let selective = !self.sides[side].held.is_empty();
        let kind = if selective {
            "tcp: an acknowledgement with a gap"
        } else {
            "tcp: an acknowledgement"
        };
        (kind, self.segment(side, "A", at, 0, ack, random))
    }

    /// One of the last segments once more.
    fn again(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let own = &self.sides[side];
        let (at, to) = own.sent.get(random.usize(..own.sent.len().max(1))).copied()?;
        let ack = own.got;
        let fin = own.finished && to == own.next;
        let old = to <= self.sides[1 - side].acked;
        self.sides[1 - side].takes(at, to);
        let packet = if fin {
            self.segment(side, "FA", at, to - at - 1, ack, random)
        } else {
            self.segment(side, "PA", at, to - at, ack, random)
        };
        let kind = if old {
            "tcp: sent again although it was acknowledged"
        } else {
            "tcp: sent again"
        };
        Some((kind, packet))
    }

    /// A keep-alive or a zero window probe: the number before the next one.
    fn probe(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let own = &self.sides[side];
        if own.finished || self.sides[1 - side].acked != own.next {
            return None;
        }
        let (at, ack) = (own.next - 1, own.got);
        let length = if own.next > 1 { random.u64(..2) } else { 0 };
        Some((
            "tcp: a keep-alive",
            self.segment(side, "A", at, length, ack, random),
        ))
    }

    fn finish(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let own = &self.sides[side];
        if own.finished || self.sides[1 - side].edge <= own.next {
            return None;
        }
        let (at, ack) = (own.next, own.got);
        let packet = self.segment(side, "FA", at, 0, ack, random);
        let own = &mut self.sides[side];
        own.finished = true;
        own.next += 1;
        own.sent.push((at, at + 1));
        self.sides[1 - side].takes(at, at + 1);
        Some(("tcp: a FIN", packet))
    }

    /// What fills the other end's first gap.
    fn selective_hole(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let from = self.sides[1 - side].got;
        let to = self.sides[1 - side].held.first()?.0.min(from + FULL);
        let ack = self.sides[side].got;
        self.sides[1 - side].takes(from, to);
        Some((
            "tcp: what was missing",
            self.segment(side, "PA", from, to - from, ack, random),
        ))
    }

    /// An acknowledgement that a later one has overtaken.
    fn old_acknowledgement(&mut self, side: usize, random: &mut Rng) -> Option<(&'static str, Packet)> {
        let own = &self.sides[side];
        let (at, ack) = (own.next, own.acked_before);
        if ack == 0 || own.acked - ack > 60_000 {
            return None;
        }
        Some((
            "tcp: an acknowledgement that was overtaken",
            self.segment(side, "A", at, 0, ack, random),
        ))
    }

    /// An ICMP error to this side about a segment that it sent, or did not send.
    fn error(&mut self, side: usize, random: &mut Rng) -> Option<Step> {
        let own = &self.sides[side];
        let (at, _) = own.sent.last().copied()?;
        let off = if random.bool() { 0 } else { 1 << 30 };
        let [from, to] = self.ends.way(side == 0);
        let about = Packet::tcp(from, to)
            .flags("PA")
            .numbers(own.number(at).wrapping_add(off), 0)
            .payload(&[0; 8]);
        let what = random.choice([Unreachable::TooBig, Unreachable::TimeExceeded])?;
        let error = Packet::unreachable(self.ends.router(side != 0), from.0, what, &about);
        let (kind, ground) = if off == 0 {
            ("tcp: an ICMP error about a segment", Ground::Passes)
        } else {
            (
                "tcp: an ICMP error about a segment that was never sent",
                Ground::Open,
            )
        };
        Some(Step::new(side != 0, kind, ground, error))
    }

    /// What strangers and broken stacks send into a connection. The ends ignore it, or answer as if it were old.
    fn odd(&mut self, random: &mut Rng) -> Option<Step> {
        let side = random.usize(..2);
        let (own, peer) = (self.sides[side].clone(), self.sides[1 - side].clone());
        let [from, to] = self.ends.way(side == 0);
        let packet = |flags: &str, at: u64, ack: u64| {
            Packet::tcp(from, to)
                .flags(flags)
                .numbers(own.number(at), peer.number(ack))
        };
        let room = peer.edge.saturating_sub(own.next);
        let (kind, packet) = match random.u8(..15) {
            0 => ("tcp: a reset far outside", packet("R", own.next + (1 << 30), 0)),
            1 if room > 2 => (
                "tcp: a reset inside of the window",
                packet("R", own.next + random.u64(1..room), 0),
            ),
            2 => (
                "tcp: a SYN in a connection",
                packet("S", random.u64(..1 << 32), 0),
            ),
            3 => (
                "tcp: a SYN-ACK in a connection",
                packet("SA", random.u64(..1 << 32), own.got),
            ),
            4 => (
                "tcp: data far outside",
                packet("PA", own.next + (1 << 30), own.got).payload(b"far"),
            ),
            5 => (
                "tcp: data just behind the window",
                packet("PA", peer.edge + 1 + random.u64(..100), own.got).payload(b"behind"),
            ),
            6 => {
                // Whoever takes it believes that more was sent than was: the ports are not used again.
                self.lives = u8::MAX;
                (
                    "tcp: data over the window's edge",
                    packet("PA", own.next, own.got).payload(&vec![0; (room as usize).min(1_300) + 100]),
                )
            }
            7 => (
                "tcp: acknowledges what was never sent",
                packet("A", own.next, peer.next + random.u64(1..1 << 20)),
            ),
            8 => (
                "tcp: a very old acknowledgement",
                packet("A", own.next, peer.next.wrapping_sub(1 << 30)),
            ),
            9 => ("tcp: no flags", packet("", own.next, 0)),
            10 => ("tcp: FIN, PSH and URG", packet("FPU", own.next, 0)),
            11 => ("tcp: SYN and FIN", packet("SF", own.next, 0)),
            12 => ("tcp: SYN and RST", packet("SR", own.next, 0)),
            13 => ("tcp: a FIN without ACK", packet("F", own.next, 0)),
            14 => (
                "tcp: data long before the window",
                packet("PA", own.next.wrapping_sub(1 << 30), own.got).payload(b"old"),
            ),
            _ => return None,
        };
        Some(Step::new(side == 0, kind, Ground::Open, packet))
    }

    /// Both FINs are acknowledged.
    fn closed(&mut self, random: &mut Rng) -> Option<Step> {
        let passes = |from_client, kind, packet| Some(Step::new(from_client, kind, Ground::Passes, packet));
        match random.u8(..8) {
            0 => {
                let (at, ack) = (self.sides[1].next - 1, self.sides[1].got);
                let packet = self.segment(1, "FA", at, 0, ack, random);
                passes(false, "tcp: the FIN again, after the end", packet)
            }
            1 => {
                let (at, ack) = (self.sides[0].next, self.sides[0].got);
                let packet = self.segment(0, "A", at, 0, ack, random);
                passes(true, "tcp: the last acknowledgement again", packet)
            }
            2 if self.lives < 3 => {
                let next = self.sides[0].number(self.sides[0].next);
                self.sides = [End::new(random), End::new(random)];
                // Higher than before, as RFC 6191 lets a server accept it out of TIME_WAIT.
                self.sides[0].first = next.wrapping_add(random.u32(1..1 << 20));
                self.lives += 1;
                let mut step = self.begin(random);
                step.kind = "tcp: a SYN of the same ports after the end";
                Some(step)
            }
            3 => {
                self.phase = Phase::Over;
                let [from, to] = self.ends.way(true);
                let end = &self.sides[0];
                let packet = Packet::tcp(from, to).flags("PA").payload(b"late");
                let packet = packet.numbers(end.number(end.next + (1 << 30)), self.sides[1].number(1));
                Some(Step::new(
                    true,
                    "tcp: foreign data after the end",
                    Ground::Open,
                    packet,
                ))
            }
            _ => {
                self.phase = Phase::Over;
                None
            }
        }
    }
}
