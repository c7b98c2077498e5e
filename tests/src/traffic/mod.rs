//! Plausible connections, packet by packet: each packet with what must become of it, as far as its two ends know.
//!
//! Ends behave as real ones do: they send within each other's windows, lose packets behind the firewall, send again, answer
//! out of order, close in every order. Between their packets come those of strangers and of broken stacks. Both families,
//! TCP, UDP, ICMP. The traffic is the same for the same seed.

mod explained;
mod others;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use crate::packet::Packet;

pub use explained::{DISTURBED, EXPLAINED};

/// What must become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// One of the ends sent it in good order.
    Passes,
    /// It belongs to nothing that the policy allows.
    Dropped,
    /// A stranger's, or a broken stack's: a firewall may see it this way or that.
    Open,
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Number of its connection.
    pub talk: u64,
    /// The client's side sends it.
    pub from_client: bool,
    /// What it is.
    pub kind: &'static str,
    /// What must become of it.
    pub ground: Ground,
    /// The packet.
    pub packet: Packet,
    /// The same in short, for people.
    pub about: String,
}

/// Ports that the policy must allow from clients to servers: TCP and UDP.
pub const OPEN: u16 = 5001;
/// A port that it must not allow.
pub const CLOSED: u16 = 5999;

/// Address of a client, 1 to 4, or of something else in its network.
#[must_use]
pub fn client(number: u8, ipv6: bool) -> IpAddr {
    address(0, number, ipv6)
}

/// Address of a server, 1 to 4, or of something else in its network.
#[must_use]
pub fn server(number: u8, ipv6: bool) -> IpAddr {
    address(1, number, ipv6)
}

fn address(network: u8, number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 9, 0, u16::from(network), 0, 0, 0, u16::from(number)).into()
    } else {
        Ipv4Addr::new(10, 9, network, number).into()
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
}

impl Ends {
    fn new(random: &mut Rng, port: u16) -> Self {
        let ipv6 = random.bool();
        Self {
            client: (client(random.u8(1..=4), ipv6), port),
            server: (server(random.u8(1..=4), ipv6), OPEN),
        }
    }

    /// Sender and receiver.
    fn way(&self, from_client: bool) -> [(IpAddr, u16); 2] {
        if from_client {
            [self.client, self.server]
        } else {
            [self.server, self.client]
        }
    }

    /// Something on the way behind this side, which no policy names.
    fn router(&self, at_client: bool) -> IpAddr {
        let ipv6 = self.client.0.is_ipv6();
        if at_client {
            client(200, ipv6)
        } else {
            server(200, ipv6)
        }
    }
}

/// What a connection hands over.
struct Step {
    from_client: bool,
    kind: &'static str,
    ground: Ground,
    packet: Packet,
    about: String,
}

impl Step {
    fn new(from_client: bool, kind: &'static str, ground: Ground, packet: Packet) -> Self {
        Self {
            from_client,
            kind,
            ground,
            packet,
            about: String::new(),
        }
    }
}

enum Talk {
    Tcp(Box<tcp::Connection>),
    Other(others::Exchange),
}

impl Talk {
    fn step(&mut self, random: &mut Rng) -> Option<Step> {
        match self {
            Self::Tcp(connection) => connection.step(random),
            Self::Other(exchange) => exchange.step(random),
        }
    }
}

/// An endless stream of packets.
pub struct Traffic {
    random: Rng,
    talks: Vec<(u64, Talk)>,
    opened: u64,
}

/// Connections at a time.
const AT_ONCE: usize = 32;

impl Traffic {
    /// Traffic that follows from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            talks: Vec::new(),
            opened: 0,
        }
    }

    /// The next packet of any connection.
    pub fn packet(&mut self) -> Sent {
        loop {
            while self.talks.len() < AT_ONCE {
                self.open();
            }
            let at = self.random.usize(..self.talks.len());
            let (number, talk) = &mut self.talks[at];
            let number = *number;
            match talk.step(&mut self.random) {
                None => drop(self.talks.swap_remove(at)),
                Some(step) => {
                    return Sent {
                        talk: number,
                        from_client: step.from_client,
                        kind: step.kind,
                        ground: step.ground,
                        packet: step.packet,
                        about: step.about,
                    };
                }
            }
        }
    }

    /// Sends no more of this connection.
    pub fn abandon(&mut self, talk: u64) {
        self.talks.retain(|(number, _)| *number != talk);
    }

    /// Connections so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened
    }

    fn open(&mut self) {
        // Ports come back after 40,000 connections.
        let port = 10_000 + (self.opened % 40_000) as u16;
        let ends = Ends::new(&mut self.random, port);
        let talk = match self.random.u8(..100) {
            0..75 => Talk::Tcp(Box::new(tcp::Connection::new(&mut self.random, ends))),
            75..85 => Talk::Other(others::Exchange::udp(ends)),
            85..92 => Talk::Other(others::Exchange::echo(ends)),
            _ => Talk::Other(others::Exchange::stray(ends)),
        };
        self.talks.push((self.opened, talk));
        self.opened += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Ground, Traffic};

    #[test]
    fn the_same_seed_is_the_same_traffic_and_every_kind_occurs() {
        let (mut one, mut two) = (Traffic::new(7), Traffic::new(7));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let mut passes = 0;
        for _ in 0..60_000 {
            let (a, b) = (one.packet(), two.packet());
            assert_eq!(a.packet.build(), b.packet.build());
            *kinds.entry(a.kind).or_default() += 1;
            passes += usize::from(a.ground == Ground::Passes);
        }
        assert!(kinds.len() > 40, "{kinds:?}");
        assert!(kinds.values().all(|count| *count > 3), "{kinds:?}");
        assert!(passes > 45_000, "{passes} of 60,000 are in good order");
    }
}
