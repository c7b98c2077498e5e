//! One end of a TCP connection, small but lawful: what it may send by RFC 9293, it sends sooner or later, in any order of
//! retransmissions, probes and keep-alives.
//!
//! Positions in a stream are counted from 0, the SYN, without wrapping; on the wire they become sequence numbers.

use fw_common::tcp::Segment;
use fw_common::tcp::window::{SACK_PERMITTED, SCALED};
use fw_common::wire::tcp_flag::{ACK, FIN, RST, SYN};

use crate::Rng;

/// How an end behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub isn: u32,
    /// Window scale shift offered, if any.
    pub shift: Option<u32>,
    pub sack: bool,
    /// Bytes that the receive buffer holds.
    pub buffer: u64,
    /// Bytes to be sent before the FIN.
    pub total: u64,
    /// Largest segment (a GSO super-packet).
    pub segment: u64,
    /// Bytes of data in the SYN.
    pub fast_open: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Listen,
    SynSent,
    SynReceived,
    /// From here on everything is a matter of positions.
    Open,
    /// Nothing is left; what comes is answered by a reset.
    Closed,
}

pub struct Endpoint {
    pub habits: Habits,
    pub phase: Phase,
    peer_isn: u32,
    /// First position that is not acknowledged, next to be sent, highest sent.
    una: u64,
    max: u64,
    /// Right edge that the peer has offered last.
    edge: u64,
    /// Next position expected, and pieces received beyond it.
    next: u64,
    pieces: Vec<(u64, u64)>,
    /// Position up to which the application has read.
    read: u64,
    /// Right edge offered.
    offered: u64,
    peer_fin: Option<u64>,
    peer_shift: u32,
    own_shift: u32,
    peer_sack: bool,
    crossed: bool,
}

impl Endpoint {
    pub fn new(habits: Habits) -> Self {
        Self {
            habits,
            phase: Phase::Listen,
            peer_isn: 0,
            una: 0,
            max: 0,
            edge: 0,
            next: 0,
            pieces: Vec::new(),
            read: 1,
            offered: 0,
            peer_fin: None,
            peer_shift: 0,
            own_shift: 0,
            peer_sack: false,
            crossed: false,
        }
    }

    /// Position of the FIN.
    fn fin(&self) -> u64 {
        self.habits.total + 1
    }

    pub fn finished(&self) -> bool {
        self.phase == Phase::Closed
            || (self.una > self.fin() && self.peer_fin.is_some_and(|fin| self.next > fin))
    }

    pub fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    fn segment(&mut self, flags: u8, from: u64, payload: u64) -> Segment {
        let syn = flags & SYN != 0;
        let acknowledges = flags & ACK != 0;
        let (window, sack) = (self.window(syn), self.highest_piece());
        let ack = self.peer_isn.wrapping_add(self.next as u32);
        let options = if syn { self.options() } else { 0 };
        Segment {
            flags,
            window,
            seq: self.habits.isn.wrapping_add(from as u32),
            ack: if acknowledges { ack } else { 0 },
            sack: match sack {
                Some(right) if acknowledges && self.peer_sack && self.habits.sack => {
                    self.peer_isn.wrapping_add(right as u32)
                }
                _ if acknowledges => ack,
                _ => 0,
            },
            payload: payload as u32,
            options,
        }
    }

    fn options(&self) -> u32 {
        let scale = self.habits.shift.map_or(0, |shift| SCALED | shift);
        scale | if self.habits.sack { SACK_PERMITTED } else { 0 }
    }

    /// The window to be sent; an edge once offered is not taken back, but for what the shift cuts off.
    fn window(&mut self, syn: bool) -> u16 {
        let shift = if syn { 0 } else { self.own_shift };
        // Before the other's SYN is known, the window counts from behind it.
        let next = self.next.max(1);
        let room = (self.read + self.habits.buffer)
            .max(self.offered)
            .saturating_sub(next);
        let told = (room >> shift).min(0xffff);
        self.offered = self.offered.max(next + (told << shift));
        told as u16
    }

    fn highest_piece(&self) -> Option<u64> {
        self.pieces.iter().map(|piece| piece.1).max()
    }

    /// Where an acknowledgement without data stands: at the end of what was sent, but not outside of the peer's window.
    fn acceptable(&self) -> u64 {
        self.max.min(self.edge.max(self.una))
    }

    /// What it sends next, of all that it may send.
    pub fn send(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        match self.phase {
            Phase::Listen | Phase::Closed => {}
            Phase::SynSent => out.push(self.syn(rng)),
            Phase::SynReceived => self.send_received(rng, out),
            Phase::Open => self.send_open(rng, out),
        }
    }

    pub fn open(&mut self) {
        self.phase = Phase::SynSent;
    }

    /// The SYN; sent again, it may leave its data out (RFC 7413 section 4.1.3).
    fn syn(&mut self, rng: &mut Rng) -> Segment {
        let payload = if self.max > 0 && rng.one_in(2) {
            0
        } else {
            self.habits.fast_open
        };
        self.max = self.max.max(1 + payload);
        self.segment(SYN, 0, payload)
    }

    fn send_received(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        self.max = self.max.max(1);
        let early = self.habits.fast_open > 0 && !self.crossed;
        if !early || rng.one_in(2) || self.max == 1 && rng.one_in(2) {
            out.push(self.segment(SYN | ACK, 0, 0));
        } else {
            self.send_data(rng, out);
        }
    }

    fn send_open(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        if rng.one_in(3) {
            let unread = self.next - self.read.min(self.next);
            self.read += rng.below(unread + 1);
        }
        match rng.below(8) {
            0 => {
                let at = self.acceptable();
                out.push(self.segment(ACK, at, 0));
            }
            1 => self.retransmit(rng, out),
            2 => self.probe(rng, out),
            _ => self.send_data(rng, out),
        }
    }

    /// New data, as much as the window takes; a FIN at its end.
    fn send_data(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        let from = self.max;
        if from > self.fin() || from == 0 {
            return;
        }
        let room = self.edge.saturating_sub(from).min(self.habits.segment);
        let payload = room.min(self.fin() - from);
        let payload = if rng.one_in(2) {
            payload
        } else {
            rng.below(payload + 1)
        };
        let last = from + payload == self.fin() && self.edge > self.fin();
        if payload == 0 && !last {
            return;
        }
        self.max = from + payload + u64::from(last);
        let flags = if last { FIN | ACK } else { ACK };
        out.push(self.segment(flags, from, payload));
    }

    /// Any part of what is not acknowledged and lies in the peer's window.
    fn retransmit(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        if self.una == self.max || self.una == 0 {
            return;
        }
        let limit = self.max.min(self.edge.max(self.una + 1));
        let skipped = if rng.one_in(3) {
            rng.below(limit - self.una)
        } else {
            0
        };
        let from = self.una + skipped;
        let end = (from + 1 + rng.below(self.habits.segment)).min(limit);
        let fin = end > self.fin();
        let flags = if fin { FIN | ACK } else { ACK };
        out.push(self.segment(flags, from, end - from - u64::from(fin)));
    }

    /// A keep-alive with or without a byte (RFC 1122 section 4.2.3.6), or a probe of a closed window (RFC 9293 section
    /// 3.8.6.1).
    fn probe(&mut self, rng: &mut Rng, out: &mut Vec<Segment>) {
        let closed = self.edge == self.una && self.una == self.max && self.una > 0;
        if closed && self.max < self.fin() && rng.one_in(2) {
            let from = self.max;
            self.max += 1;
            out.push(self.segment(ACK, from, 1));
        } else if self.una == self.max && self.una > 1 && self.max <= self.fin() {
            let (from, payload) = (self.una - 1, rng.below(2));
            out.push(self.segment(ACK, from, payload));
        }
    }

    /// Takes a segment from the network.
    pub fn receive(&mut self, segment: Segment, out: &mut Vec<Segment>) {
        if self.phase == Phase::Closed {
            if segment.flags & RST == 0 && segment.flags & ACK != 0 {
                out.push(Segment {
                    flags: RST,
                    seq: segment.ack,
                    ack: 0,
                    sack: 0,
                    payload: 0,
                    options: 0,
                    window: 0,
                });
            }
        } else if segment.flags & RST != 0 {
            self.reset(segment);
        } else if segment.flags & SYN != 0 {
            self.receive_syn(segment, out);
        } else if self.phase == Phase::SynReceived || self.phase == Phase::Open {
            self.receive_open(segment, out);
        }
    }

    fn reset(&mut self, segment: Segment) {
        if self.phase == Phase::Open && segment.seq == self.peer_isn.wrapping_add(self.next as u32) {
            self.phase = Phase::Closed;
        }
    }

    fn receive_syn(&mut self, segment: Segment, out: &mut Vec<Segment>) {
        let acknowledges = segment.flags & ACK != 0;
        match self.phase {
            Phase::Listen | Phase::SynSent => {
                if acknowledges && !self.acknowledged(segment) {
                    return;
                }
                self.peer_isn = segment.seq;
                self.next = 1;
                if self.habits.fast_open > 0 && !self.crossed && self.phase == Phase::Listen {
                    self.next += u64::from(segment.payload);
                }
                self.read = self.next;
                self.learn(segment.options);
                if acknowledges {
                    self.edge = self.una + u64::from(segment.window);
                    self.max = self.max.max(self.una);
                    self.phase = Phase::Open;
                    let at = self.acceptable();
                    out.push(self.segment(ACK, at, 0));
                } else {
                    self.crossed = self.phase == Phase::SynSent;
                    self.edge = 1 + u64::from(segment.window);
                    self.phase = Phase::SynReceived;
                    self.max = self.max.max(1);
                    out.push(self.segment(SYN | ACK, 0, 0));
                }
            }
            Phase::SynReceived if acknowledges && self.crossed => {
                if !self.acknowledged(segment) {
                    return;
                }
                self.edge = self.una + u64::from(segment.window);
                self.phase = Phase::Open;
                let at = self.acceptable();
                out.push(self.segment(ACK, at, 0));
            }
            Phase::SynReceived => out.push(self.segment(SYN | ACK, 0, 0)),
            // Once more what acknowledges it, or a challenge: the same segment (RFC 5961 section 4).
            _ => {
                let at = self.acceptable();
                out.push(self.segment(ACK, at, 0));
            }
        }
    }

    fn learn(&mut self, options: u32) {
        if let (Some(own), true) = (self.habits.shift, options & SCALED != 0) {
            self.own_shift = own;
            self.peer_shift = options & 0xf;
        }
        self.peer_sack = options & SACK_PERMITTED != 0;
    }

    /// Takes the acknowledgement; false if it is for something that was never sent.
    fn acknowledged(&mut self, segment: Segment) -> bool {
        let ahead = segment
            .ack
            .wrapping_sub(self.habits.isn.wrapping_add(self.una as u32))
            .cast_signed();
        let to = self.una.wrapping_add_signed(i64::from(ahead));
        if ahead > 0 && to <= self.max {
            self.una = to;
        }
        to <= self.max && self.una > 0
    }

    fn receive_open(&mut self, segment: Segment, out: &mut Vec<Segment>) {
        if !self.acknowledged(segment) {
            return;
        }
        self.phase = Phase::Open;
        let acknowledged = segment
            .ack
            .wrapping_sub(self.habits.isn.wrapping_add(self.una as u32));
        if acknowledged == 0 {
            self.edge = self
                .edge
                .max(self.una + (u64::from(segment.window) << self.peer_shift));
        }
        let offset = segment
            .seq
            .wrapping_sub(self.peer_isn.wrapping_add(self.next as u32))
            .cast_signed();
        let from = self.next.wrapping_add_signed(i64::from(offset));
        let mut end = from.wrapping_add(u64::from(segment.payload));
        if segment.flags & FIN != 0 {
            self.peer_fin = Some(end);
            end += 1;
        }
        let before = (self.next, self.pieces.len());
        if offset >= -(1 << 30) && from <= self.offered.max(self.next) && end > self.next {
            let room = (self.read + self.habits.buffer).max(self.offered) + 1;
            self.insert(from.max(self.next), end.min(room));
        }
        let carried = segment.payload > 0 || segment.flags & FIN != 0 || offset < 0;
        if carried || before != (self.next, self.pieces.len()) {
            let at = self.acceptable();
            out.push(self.segment(ACK, at, 0));
        }
    }

    fn insert(&mut self, from: u64, end: u64) {
        if end > from {
            self.pieces.push((from, end));
        }
        self.pieces.sort_unstable();
        while let Some(&(from, end)) = self.pieces.first()
            && from <= self.next
        {
            self.next = self.next.max(end);
            self.pieces.remove(0);
        }
    }
}
