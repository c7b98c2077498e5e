//! Who speaks with whom, and by which ports their packets come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use fw_common::abi::Proto;

use crate::frame::{ATOMIC, Head};
use crate::twin::{Via, port};

/// A frame and where it meets the data plane.
#[derive(Clone, Debug)]
pub struct Shot {
    pub bytes: Vec<u8>,
    pub via: Via,
}

/// Two ends: the head of what the first sends, and where the packets of each direction come by.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub head: Head,
    pub vias: [Via; 2],
    /// What the first end sends leaves again by this port.
    pub leaves: Option<usize>,
}

/// Groups of addresses.
#[derive(Clone, Copy, Debug)]
pub enum Group {
    Client,
    Server,
    Known,
    Outside,
    Own,
    Rail,
    Bastion,
    Tenant,
}

/// Address `number` of a group. Of IPv6 most numbers have a /64 of their own, as sources are counted.
pub fn address(group: Group, v6: bool, number: u8) -> IpAddr {
    let n = u16::from(number);
    if v6 {
        let words = match group {
            Group::Client => [0xfd00, 1, 0, n, 0, 0, 0, 1],
            Group::Server => [0xfd00, 2, 0, 0, 0, 0, 0, n],
            Group::Known => [0xfd00, 3, 0, n, 0, 0, 0, 1],
            Group::Outside => [0x2001, 0xdb8, 0xffff, n, 0, 0, 0, 1],
            Group::Own => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
            Group::Rail => [0xfd00, 0x10, 0, n, 0, 0, 0, 1],
            Group::Bastion => [0xfd00, 0x30, 0, 0, 0, 0, 0, 0x10],
            Group::Tenant => [0xfd00, 0xa, 0, 0, 0, 0, 0, n],
        };
        return Ipv6Addr::from(words).into();
    }
    let octets = match group {
        Group::Client => [10, 1, 0, number],
        Group::Server => [10, 2, 0, number],
        Group::Known => [10, 3, 0, number],
        Group::Outside => [198, 51, 100, number],
        Group::Own => [192, 0, 2, 1],
        Group::Rail => [10, 10, 0, number],
        Group::Bastion => [10, 30, 0, 10],
        Group::Tenant => [192, 168, 0, number],
    };
    Ipv4Addr::from(octets).into()
}

/// A random element.
pub fn one_of<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

/// True once in `n` times.
pub fn once_in(random: &mut Rng, n: u32) -> bool {
    random.u32(..n) == 0
}

const INLINE: [Via; 2] = [Via::into(port::OUTER), Via::into(port::INNER)];
const FROM_INNER: [Via; 2] = [Via::into(port::INNER), Via::into(port::OUTER)];

const fn host(port: usize) -> [Via; 2] {
    [Via::into(port), Via::out_of(port)]
}

impl Place {
    /// A random place.
    pub fn any(random: &mut Rng) -> Self {
        let v6 = random.bool();
        let (from, to, vias) = match random.u8(..100) {
            0..26 => (Group::Client, Group::Server, INLINE),
            26..38 => (Group::Client, Group::Outside, FROM_INNER),
            38..58 => (Group::Client, Group::Own, host(port::HOST)),
            58..68 => (
                Group::Own,
                Group::Server,
                [Via::out_of(port::HOST), Via::into(port::HOST)],
            ),
            68..78 => return Self::tagged(random, v6),
            78..82 => (Group::Client, Group::Own, host(port::RAW)),
            82..85 => (Group::Rail, Group::Rail, host(port::RAIL)),
            85..89 => (Group::Client, Group::Server, [Via::into(port::HOST); 2]),
            89..92 => (Group::Client, Group::Own, host(port::OTHER_REALM)),
            92..96 => (Group::Outside, Group::Own, host(port::HOST)),
            96..98 => (Group::Known, Group::Server, INLINE),
            _ => (Group::Bastion, Group::Server, INLINE),
        };
        let numbers = (random.u8(1..=10), random.u8(20..=27));
        let head = Head::new(address(from, v6, numbers.0), address(to, v6, numbers.1));
        let mut place = Self {
            head,
            vias,
            leaves: None,
        };
        let port = vias[0].port;
        place.head.raw = port == port::RAW;
        if vias[1].port == port::HOST && !vias[1].egress && !vias[0].egress {
            place.leaves = Some(port::RAIL);
        }
        place.decorated(random)
    }

    fn tagged(random: &mut Rng, v6: bool) -> Self {
        let numbers = (random.u8(1..=10), random.u8(20..=27));
        let mut head = Head::new(
            address(Group::Tenant, v6, numbers.0),
            address(Group::Tenant, v6, numbers.1),
        );
        head.tags = one_of(random, &[&[101], &[100, 7], &[0, 101]]);
        Self {
            head,
            vias: INLINE,
            leaves: None,
        }
        .decorated(random)
    }

    /// Extension headers, options, and TC in XDP's place.
    fn decorated(mut self, random: &mut Rng) -> Self {
        const CHAINS: [&[u8]; 8] = [
            &[0],
            &[60],
            &[0, 60],
            &[43],
            &[Proto::AH],
            &[ATOMIC],
            &[0, 60, 43, Proto::AH, 60],
            &[60, ATOMIC, 60],
        ];
        if self.head.v6() && once_in(random, 4) {
            self.head.extensions = one_of(random, &CHAINS);
        }
        if !self.head.v6() && once_in(random, 12) {
            self.head.extensions = one_of(random, &[&[1], &[Proto::AH], &[1, Proto::AH]]);
        }
        let tc = once_in(random, 3);
        for via in &mut self.vias {
            via.tc |= tc;
        }
        if tc && once_in(random, 8) {
            self.vias[0].super_packet = Some((random.u32(2..40), random.u32(3000..60_000)));
        }
        self
    }

    /// Head and way of what one end sends.
    pub fn side(&self, direction: usize) -> (Head, Via) {
        let head = if direction == 0 {
            self.head
        } else {
            self.head.back()
        };
        (head, self.vias[direction & 1])
    }
}
