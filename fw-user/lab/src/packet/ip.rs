//! IP headers around a transport.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header};

use super::Packet;

/// Number of the IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT_HEADER: u8 = 44;

/// A part of what follows the IP header, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) id: u32,
}

impl Packet {
    /// The packet from its IP header on, before any edit.
    pub(super) fn assemble(&self) -> Vec<u8> {
        let whole = self.transport.bytes(self.src, self.dst, &self.payload);
        let (part, more) = match self.fragment {
            None => (&whole[..], false),
            Some(Fragment { from, to, .. }) => (&whole[from..to.min(whole.len())], to < whole.len()),
        };
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.assemble_v4(src.octets(), dst.octets(), part, more),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.assemble_v6(src.octets(), dst.octets(), part, more),
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        }
    }

    fn assemble_v4(&self, src: [u8; 4], dst: [u8; 4], part: &[u8], more: bool) -> Vec<u8> {
        let protocol = IpNumber(self.transport.protocol(false));
        let mut header =
            Ipv4Header::new(part.len() as u16, self.hops, protocol, src, dst).expect("a packet below 64 KiB");
        header.options =
            Ipv4Options::try_from(&self.options[..]).expect("IPv4 options in whole words, at most 40 bytes");
        header.total_len = (header.header_len() + part.len()) as u16;
        if let Some(fragment) = self.fragment {
            header.dont_fragment = false;
            header.more_fragments = more;
            header.identification = fragment.id as u16;
            header.fragment_offset =
                IpFragOffset::try_new(fragment.from as u16 / 8).expect("an offset of 13 bits");
        }
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(part);
        bytes
    }

    fn assemble_v6(&self, src: [u8; 16], dst: [u8; 16], part: &[u8], more: bool) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some(fragment) = self.fragment {
            let offset = (fragment.from as u16 & !7 | u16::from(more)).to_be_bytes();
            chain.push((
                FRAGMENT_HEADER,
                [&[0], &offset[..], &fragment.id.to_be_bytes()].concat(),
            ));
        }
        let mut body = Vec::new();
        let mut numbers = chain
            .iter()
            .map(|(number, _)| *number)
            .chain([self.transport.protocol(true)]);
        let first = numbers.next().expect("the chain ends with the transport");
        for ((_, bytes), next) in chain.iter().zip(numbers) {
            assert!(
                (bytes.len() + 1).is_multiple_of(8),
                "an extension header fills multiples of eight bytes"
            );
            body.push(next);
            body.extend_from_slice(bytes);
        }
        body.extend_from_slice(part);
        let header = Ipv6Header {
            payload_length: body.len() as u16,
            next_header: IpNumber(first),
            hop_limit: self.hops,
            source: src,
            destination: dst,
            ..Ipv6Header::default()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(body);
        bytes
    }
}
