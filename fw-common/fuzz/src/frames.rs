//! Frames from a few numbers, so that a mutated input is still a plausible packet.

use arbitrary::Arbitrary;

/// One frame.
#[derive(Arbitrary, Clone, Debug)]
pub struct Spec {
    /// Number of the sender's address: few, so that packets meet.
    pub from: u8,
    /// Number of the receiver's address.
    pub to: u8,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// VLAN tags in the frame, outer first.
    pub tags: Tags,
    /// IPv6 extension headers, or IPv4 options.
    pub extensions: [Extension; 2],
    /// A fragment of a larger datagram.
    pub fragment: Option<Fragment>,
    /// What IP carries.
    pub carries: Carries,
    /// Time to live, or hop limit, if it is not 64.
    pub ttl: Option<u8>,
    /// A byte written over: where and what.
    pub patch: Option<(u8, u8)>,
    /// Bytes cut off at the end.
    pub cut: u8,
}

/// VLAN tags.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Tags {
    /// None.
    None,
    /// 802.1Q.
    One(u8),
    /// 802.1ad and 802.1Q.
    Two(u8, u8),
}

/// What stands between the IP header and the transport header.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Extension {
    /// Nothing.
    None,
    /// Hop-by-hop options; IPv4: four bytes of padding.
    HopByHop,
    /// Destination options.
    Destination,
    /// A routing header of this type; IPv4: a loose source route.
    Routing(u8),
    /// An authentication header.
    Authentication,
    /// A mobility header, or anything else by its number.
    Other(u8),
}

/// Where a fragment lies.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification, few values.
    pub id: u8,
    /// Offset in units of 8 bytes.
    pub offset: u16,
    /// More follow.
    pub more: bool,
}

/// Transport.
#[derive(Arbitrary, Clone, Debug)]
pub enum Carries {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram between two ports, with as many bytes.
    Udp {
        /// Port numbers are 0..=3 and 50 above.
        ports: (u8, u8),
        /// Bytes of payload.
        len: u8,
    },
    /// An ICMP message of either family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo.
        id: u8,
    },
    /// An ICMP error that quotes a packet: the types are 3, 4, 11, 12, or 1 to 4.
    Error {
        /// Type.
        kind: u8,
        /// What it quotes, as sent by the receiver of the error.
        quotes: Box<Quote>,
    },
    /// Any other protocol, with these bytes.
    Other {
        /// Protocol number.
        proto: u8,
        /// Its header.
        bytes: [u8; 12],
    },
}

/// What an ICMP error quotes.
#[derive(Arbitrary, Clone, Debug)]
pub struct Quote {
    /// Number of the quoted sender's address.
    pub from: u8,
    /// Number of the quoted receiver's address.
    pub to: u8,
    /// An IPv6 extension header in it.
    pub extension: bool,
    /// TCP instead of UDP.
    pub tcp: bool,
    /// Ports.
    pub ports: (u8, u8),
    /// Sequence number.
    pub seq: u32,
    /// Bytes cut off at the end of the quote.
    pub cut: u8,
}

/// A TCP segment.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Port numbers are 0..=3 and 50 above.
    pub ports: (u8, u8),
    /// Flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window.
    pub window: u16,
    /// Bytes of payload.
    pub payload: u16,
    /// Options.
    pub options: Options,
}

/// TCP options.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub enum Options {
    /// None.
    #[default]
    None,
    /// Window scale.
    Scale(u8),
    /// Window scale and selective acknowledgements permitted, as a SYN has.
    ScaleAndSack(u8),
    /// A timestamp.
    Timestamp,
    /// One block of a selective acknowledgement.
    Sack(u32, u32),
    /// Any bytes.
    Raw([u8; 8]),
}

/// The IPv4 address with this number; the last one is the guarded machine's own.
pub fn address4(number: u8) -> [u8; 4] {
    match number & 3 {
        3 => [192, 0, 2, 1],
        number => [10, 0, 0, number + 1],
    }
}

/// The IPv6 address with this number.
pub fn address6(number: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[15] = (number & 3) + 1;
    address
}

fn port(number: u8) -> u16 {
    50 + u16::from(number & 3)
}

impl Spec {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        match self.tags {
            Tags::None => {}
            Tags::One(id) => frame.extend([0x81, 0, 0, id]),
            Tags::Two(outer, inner) => frame.extend([0x88, 0xa8, 0, outer, 0x81, 0, 0, inner]),
        }
        let (proto, payload) = self.transport();
        if self.v6 {
            frame.extend([0x86, 0xdd]);
            frame.extend(self.ipv6(proto, &payload));
        } else {
            frame.extend([8, 0]);
            frame.extend(self.ipv4(proto, &payload));
        }
        if let Some((at, value)) = self.patch
            && let Some(byte) = frame.get_mut(usize::from(at))
        {
            *byte = value;
        }
        frame.truncate(frame.len() - usize::from(self.cut).min(frame.len()));
        frame
    }

    fn ipv4(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut options = Vec::new();
        for extension in self.extensions {
            match extension {
                Extension::None | Extension::Authentication | Extension::Destination => {}
                Extension::HopByHop => options.extend([1, 1, 1, 1]),
                Extension::Routing(kind) => options.extend([0x83 | (kind & 8), 7, 4, 10, 0, 0, 1, 0]),
                Extension::Other(number) => options.extend([number, 4, 0, 0]),
            }
        }
        let header = 20 + options.len();
        let field = self
            .fragment
            .map_or(0x4000, |f| (f.offset & 0x1fff) | (u16::from(f.more) << 13));
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend([0, self.fragment.map_or(0, |f| f.id)]);
        packet.extend(field.to_be_bytes());
        packet.extend([self.ttl.unwrap_or(64), proto, 0, 0]);
        packet.extend(address4(self.from));
        packet.extend(address4(self.to));
        packet.extend(options);
        packet.extend(payload);
        packet
    }

    fn ipv6(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        // Written from the last to the first: each names what follows it.
        let mut next = proto;
        let mut rest = payload.to_vec();
        if let Some(fragment) = self.fragment {
            let field = (fragment.offset << 3) | u16::from(fragment.more);
            let mut header = vec![next, 0];
            header.extend(field.to_be_bytes());
            header.extend([0, 0, 0, fragment.id]);
            rest.splice(0..0, header);
            next = 44;
        }
        for extension in self.extensions.iter().rev() {
            let (number, body) = match *extension {
                Extension::None => continue,
                Extension::HopByHop => (0, [0, 1, 4, 0, 0, 0, 0]),
                Extension::Destination => (60, [0, 1, 4, 0, 0, 0, 0]),
                Extension::Routing(kind) => (43, [0, kind, 0, 0, 0, 0, 0]),
                // Its length counts words of four bytes, minus two.
                Extension::Authentication => (51, [0, 0, 0, 0, 0, 0, 1]),
                Extension::Other(number) => (number, [0; 7]),
            };
            rest.splice(0..0, std::iter::once(next).chain(body));
            next = number;
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((rest.len() as u16).to_be_bytes());
        packet.extend([next, self.ttl.unwrap_or(64)]);
        packet.extend(address6(self.from));
        packet.extend(address6(self.to));
        packet.extend(rest);
        packet
    }

    /// Protocol number and bytes.
    fn transport(&self) -> (u8, Vec<u8>) {
        let icmp = if self.v6 { 58 } else { 1 };
        match &self.carries {
            Carries::Tcp(segment) => (6, segment.bytes()),
            Carries::Udp { ports, len } => (17, udp(*ports, *len)),
            Carries::Icmp { kind, code, id } => (icmp, vec![*kind, *code, 0, 0, 0, *id, 0, 1]),
            Carries::Error { kind, quotes } => (icmp, quotes.error(*kind, self.v6)),
            Carries::Other { proto, bytes } => (*proto, bytes.to_vec()),
        }
    }
}

fn udp((sport, dport): (u8, u8), len: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(port(sport).to_be_bytes());
    bytes.extend(port(dport).to_be_bytes());
    bytes.extend((8 + u16::from(len)).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(8 + usize::from(len), 0);
    bytes
}

impl Quote {
    fn error(&self, kind: u8, v6: bool) -> Vec<u8> {
        let kind = if v6 {
            1 + (kind & 3)
        } else {
            [3, 4, 11, 12][usize::from(kind & 3)]
        };
        let carries = if self.tcp {
            Carries::Tcp(Segment {
                ports: self.ports,
                flags: 0x10,
                seq: self.seq,
                ..Segment::default()
            })
        } else {
            Carries::Udp {
                ports: self.ports,
                len: 4,
            }
        };
        let extension = if self.extension {
            Extension::Destination
        } else {
            Extension::None
        };
        let quoted = Spec {
            from: self.from,
            to: self.to,
            v6,
            tags: Tags::None,
            extensions: [extension, Extension::None],
            fragment: None,
            carries,
            ttl: None,
            patch: None,
            cut: self.cut & 31,
        };
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(quoted.frame().get(14..).unwrap_or_default());
        bytes
    }
}

impl Segment {
    /// Header and payload.
    pub fn bytes(&self) -> Vec<u8> {
        let mut options = match self.options {
            Options::None => Vec::new(),
            Options::Scale(shift) => vec![3, 3, shift, 1],
            Options::ScaleAndSack(shift) => vec![4, 2, 3, 3, shift, 1, 1, 1],
            Options::Timestamp => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            Options::Sack(from, to) => {
                let mut option = vec![1, 1, 5, 10];
                option.extend(from.to_be_bytes());
                option.extend(to.to_be_bytes());
                option
            }
            Options::Raw(bytes) => bytes.to_vec(),
        };
        let mut bytes = Vec::new();
        bytes.extend(port(self.ports.0).to_be_bytes());
        bytes.extend(port(self.ports.1).to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((5 + options.len() / 4) as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.append(&mut options);
        bytes.resize(bytes.len() + usize::from(self.payload % 1500), 0);
        bytes
    }
}
