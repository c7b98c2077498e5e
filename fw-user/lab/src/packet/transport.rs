//! Transport headers, from their fields.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{TcpHeader, UdpHeader};

#[derive(Clone, Debug)]
pub(super) enum Transport {
    Tcp(Box<TcpHeader>),
    Udp {
        sport: u16,
        dport: u16,
    },
    /// ICMP or ICMPv6, by the family of the addresses.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    Other(u8),
}

impl Transport {
    pub(super) fn tcp(sport: u16, dport: u16) -> Self {
        Self::Tcp(Box::new(TcpHeader::new(sport, dport, 0, 65535)))
    }

    fn header(&mut self) -> &mut TcpHeader {
        let Self::Tcp(header) = self else {
            panic!("{self:?} is not TCP")
        };
        header
    }

    pub(super) fn set_flags(&mut self, letters: &str) {
        let header = self.header();
        for letter in letters.chars() {
            let flag = match letter {
                'F' => &mut header.fin,
                'S' => &mut header.syn,
                'R' => &mut header.rst,
                'P' => &mut header.psh,
                'A' => &mut header.ack,
                'U' => &mut header.urg,
                'E' => &mut header.ece,
                'C' => &mut header.cwr,
                other => panic!("no TCP flag begins with {other}"),
            };
            *flag = true;
        }
    }

    pub(super) fn set_numbers(&mut self, sequence: u32, acknowledgement: u32) {
        let header = self.header();
        (header.sequence_number, header.acknowledgment_number) = (sequence, acknowledgement);
    }

    pub(super) fn set_window(&mut self, window: u16) {
        self.header().window_size = window;
    }

    pub(super) fn set_options(&mut self, options: &[u8]) {
        self.header()
            .set_options_raw(options)
            .expect("at most 40 bytes of options");
    }

    pub(super) fn reverse(&mut self) {
        match self {
            Self::Tcp(header) => std::mem::swap(&mut header.source_port, &mut header.destination_port),
            Self::Udp { sport, dport } => std::mem::swap(sport, dport),
            Self::Icmp { .. } | Self::Other(_) => {}
        }
    }

    /// IP protocol number.
    pub(super) fn protocol(&self, ipv6: bool) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp { .. } => 17,
            Self::Icmp { .. } if ipv6 => 58,
            Self::Icmp { .. } => 1,
            Self::Other(protocol) => *protocol,
        }
    }

    /// Header and payload, checksum included.
    pub(super) fn bytes(&self, src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
        let (mut bytes, checksum_at) = match self {
            Self::Tcp(header) => (header.to_bytes().to_vec(), Some(16)),
            Self::Udp { sport, dport } => {
                let length = (UdpHeader::LEN + payload.len()) as u16;
                let header = UdpHeader {
                    source_port: *sport,
                    destination_port: *dport,
                    length,
                    checksum: 0,
                };
                (header.to_bytes().to_vec(), Some(6))
            }
            Self::Icmp {
                kind,
                code,
                rest: [a, b, c, d],
            } => (vec![*kind, *code, 0, 0, *a, *b, *c, *d], Some(2)),
            Self::Other(_) => (Vec::new(), None),
        };
        bytes.extend_from_slice(payload);
        if let Some(at) = checksum_at {
            bytes[at..at + 2].fill(0);
            let sum = self.pseudo_header(src, dst, bytes.len() as u32).add_slice(&bytes);
            let sum = if matches!(self, Self::Udp { .. }) {
                sum.to_ones_complement_with_no_zero()
            } else {
                sum.ones_complement()
            };
            // The crate sums words as they lie in memory.
            bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        bytes
    }

    fn pseudo_header(&self, src: IpAddr, dst: IpAddr, length: u32) -> Sum16BitWords {
        let protocol = self.protocol(src.is_ipv6());
        let sum = Sum16BitWords::new();
        match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) if matches!(self, Self::Icmp { .. }) => sum,
            (IpAddr::V4(src), IpAddr::V4(dst)) => sum
                .add_slice(&src.octets())
                .add_slice(&dst.octets())
                .add_2bytes([0, protocol])
                .add_slice(&length.to_be_bytes()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => sum
                .add_slice(&src.octets())
                .add_slice(&dst.octets())
                .add_2bytes([0, protocol])
                .add_slice(&length.to_be_bytes()),
            _ => panic!("{src} and {dst} are of two families"),
        }
    }
}
