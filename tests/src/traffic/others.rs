//! UDP, echoes, and packets that belong to nothing.

use fastrand::Rng;

use super::{CLOSED, Ends, Ground, OPEN, Step};
use crate::packet::{Packet, Unreachable};

/// A short exchange of datagrams or echoes, or a single stray packet.
pub(super) struct Exchange {
    ends: Ends,
    what: What,
    /// Packets sent so far.
    sent: u8,
    answered: bool,
}

#[derive(Clone, Copy)]
enum What {
    Udp,
    Echo,
    Stray,
}

impl Exchange {
    pub(super) fn udp(ends: Ends) -> Self {
        Self::new(ends, What::Udp)
    }

    pub(super) fn echo(ends: Ends) -> Self {
        Self::new(ends, What::Echo)
    }

    pub(super) fn stray(ends: Ends) -> Self {
        Self::new(ends, What::Stray)
    }

    fn new(ends: Ends, what: What) -> Self {
        Self {
            ends,
            what,
            sent: 0,
            answered: false,
        }
    }

    pub(super) fn step(&mut self, random: &mut Rng) -> Option<Step> {
        if self.sent >= 8 || (self.sent > 0 && random.u8(..8) == 0) {
            return None;
        }
        self.sent += 1;
        match self.what {
            What::Udp => Some(self.udp_step(random)),
            What::Echo => Some(self.echo_step(random)),
            What::Stray => {
                self.sent = u8::MAX;
                Some(stray(&self.ends, random))
            }
        }
    }

    fn datagram(&self, from_client: bool) -> Packet {
        let [from, to] = self.ends.way(from_client);
        Packet::udp(from, to).payload(b"datagram")
    }

    fn udp_step(&mut self, random: &mut Rng) -> Step {
        let step = |from_client, kind, ground, packet| Step::new(from_client, kind, ground, packet);
        if self.sent == 1 {
            // Now and then the answer comes before the question.
            if random.u8(..10) == 0 {
                return step(
                    false,
                    "udp: an answer that nobody asked for",
                    Ground::Dropped,
                    self.datagram(false),
                )
                .without_question(self);
            }
            return step(true, "udp: a question", Ground::Passes, self.datagram(true));
        }
        match random.u8(..10) {
            0..5 => {
                self.answered = true;
                step(false, "udp: an answer", Ground::Passes, self.datagram(false))
            }
            5..8 => step(true, "udp: another question", Ground::Passes, self.datagram(true)),
            8 => {
                let error = Packet::unreachable(
                    self.ends.server.0,
                    self.ends.client.0,
                    Unreachable::Port,
                    &self.datagram(true),
                );
                step(false, "udp: port unreachable", Ground::Passes, error)
            }
            _ => {
                let mut other = self.ends;
                other.client.1 = other.client.1.wrapping_add(20_000);
                let [from, to] = other.way(true);
                let error = Packet::unreachable(
                    other.server.0,
                    other.client.0,
                    Unreachable::Port,
                    &Packet::udp(from, to).payload(b"datagram"),
                );
                step(
                    false,
                    "udp: unreachable, about no known flow",
                    Ground::Dropped,
                    error,
                )
            }
        }
    }

    fn echo_step(&mut self, random: &mut Rng) -> Step {
        let (client, server, id) = (self.ends.client.0, self.ends.server.0, self.ends.client.1);
        let number = u16::from(self.sent);
        if self.sent == 1 {
            let request = Packet::echo_request(client, server, id, number);
            return match random.u8(..12) {
                0 => {
                    let packet = Packet::echo_request(server, client, id, number);
                    Step::new(
                        false,
                        "echo: a request that no rule allows",
                        Ground::Dropped,
                        packet,
                    )
                    .without_question(self)
                }
                1 => {
                    let packet = Packet::echo_reply(server, client, id, number);
                    Step::new(
                        false,
                        "echo: a reply that nobody asked for",
                        Ground::Dropped,
                        packet,
                    )
                    .without_question(self)
                }
                _ => Step::new(true, "echo: a request", Ground::Passes, request),
            };
        }
        if random.bool() {
            let packet = Packet::echo_reply(server, client, id, number - 1);
            Step::new(false, "echo: a reply", Ground::Passes, packet)
        } else {
            let packet = Packet::echo_request(client, server, id, number);
            Step::new(true, "echo: another request", Ground::Passes, packet)
        }
    }
}

impl Step {
    /// Ends the exchange: what came was not its beginning.
    fn without_question(self, exchange: &mut Exchange) -> Self {
        exchange.sent = u8::MAX;
        self
    }
}

/// A packet that belongs to nothing.
fn stray(ends: &Ends, random: &mut Rng) -> Step {
    let from_client = random.bool();
    let [from, to] = ends.way(from_client);
    let tcp = |flags: &str| Packet::tcp(from, to).flags(flags).numbers(7000, 9000);
    let (from_client, kind, packet) = match random.u8(..9) {
        0 => (from_client, "stray: an acknowledgement", tcp("A")),
        1 => (from_client, "stray: data", tcp("PA").payload(b"data")),
        2 => (from_client, "stray: a SYN-ACK", tcp("SA")),
        3 => (from_client, "stray: a reset", tcp("R")),
        4 => (from_client, "stray: a FIN", tcp("FA")),
        5 => {
            let [from, to] = ends.way(false);
            (
                false,
                "stray: a SYN that no rule allows",
                Packet::tcp(from, to).flags("S"),
            )
        }
        6 => {
            let to = (ends.server.0, CLOSED);
            (
                true,
                "stray: a SYN to a closed port",
                Packet::tcp(ends.client, to).flags("S"),
            )
        }
        7 => {
            let to = (ends.server.0, CLOSED);
            (
                true,
                "stray: a datagram to a closed port",
                Packet::udp(ends.client, to),
            )
        }
        _ => {
            let about = Packet::tcp((ends.client.0, 1), (ends.server.0, OPEN)).flags("A");
            let error = Packet::unreachable(ends.router(false), ends.client.0, Unreachable::TooBig, &about);
            (false, "stray: too big, about no known flow", error)
        }
    };
    Step::new(from_client, kind, Ground::Dropped, packet)
}
