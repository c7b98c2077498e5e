//! Frames written as a person would describe them, well-formed or broken on purpose.
//!
//! [`Packet`] builds IP packets with correct lengths and checksums, whatever is asked of it, so that a test which wants
//! something wrong says so with [`Packet::edit`]. [`link`] has the frames of the link protocols.

mod icmp;
mod ip;
pub mod link;
mod refusal;
mod transport;

pub use icmp::Unreachable;
pub use refusal::refuses;

use std::net::IpAddr;

use transport::Transport;

/// The guarded side's address in frames that say nothing else.
pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The other side's address in frames that say nothing else.
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Ethernet type of a VLAN tag (IEEE 802.1Q).
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];

/// An IP packet in an Ethernet frame, in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    macs: [[u8; 6]; 2],
    tags: Vec<u16>,
    src: IpAddr,
    dst: IpAddr,
    hops: u8,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: Option<ip::Fragment>,
    transport: Transport,
    payload: Vec<u8>,
    edits: Vec<(usize, Vec<u8>)>,
    trailer: usize,
}

impl Packet {
    fn new(src: IpAddr, dst: IpAddr, transport: Transport) -> Self {
        Self {
            macs: [MAC_A, MAC_B],
            tags: Vec::new(),
            src,
            dst,
            hops: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport,
            payload: Vec::new(),
            edits: Vec::new(),
            trailer: 0,
        }
    }

    /// A TCP segment without flags, from (address, port) to (address, port).
    #[must_use]
    pub fn tcp<A: Into<IpAddr>, B: Into<IpAddr>>(src: (A, u16), dst: (B, u16)) -> Self {
        Self::new(src.0.into(), dst.0.into(), Transport::tcp(src.1, dst.1))
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp<A: Into<IpAddr>, B: Into<IpAddr>>(src: (A, u16), dst: (B, u16)) -> Self {
        Self::new(
            src.0.into(),
            dst.0.into(),
            Transport::Udp {
                sport: src.1,
                dport: dst.1,
            },
        )
    }

    /// A packet of another IP protocol; its payload follows the IP header at once.
    #[must_use]
    pub fn other(protocol: u8, src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Self {
        Self::new(src.into(), dst.into(), Transport::Other(protocol))
    }

    /// Sets TCP's flags by their first letters (`"SA"`: SYN and ACK; F, S, R, P, A, U, E: ECE, C: CWR).
    ///
    /// # Panics
    /// On any other letter, and if this is not TCP.
    #[must_use]
    pub fn flags(mut self, letters: &str) -> Self {
        self.transport.set_flags(letters);
        self
    }

    /// Sets TCP's sequence and acknowledgement numbers.
    ///
    /// # Panics
    /// If this is not TCP.
    #[must_use]
    pub fn numbers(mut self, sequence: u32, acknowledgement: u32) -> Self {
        self.transport.set_numbers(sequence, acknowledgement);
        self
    }

    /// Sets TCP's window, as it stands in the header. Without it: 65,535.
    ///
    /// # Panics
    /// If this is not TCP.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.transport.set_window(window);
        self
    }

    /// Sets TCP's options; their length must be a multiple of four, at most 40.
    ///
    /// # Panics
    /// If it is not, or this is not TCP.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.transport.set_options(options);
        self
    }

    /// What follows the transport header.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        bytes.clone_into(&mut self.payload);
        self
    }

    /// VLAN ids, the outermost first.
    #[must_use]
    pub fn tags(mut self, tags: &[u16]) -> Self {
        tags.clone_into(&mut self.tags);
        self
    }

    /// Ethernet addresses, source and destination.
    #[must_use]
    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        self.macs = [src, dst];
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// IPv4 options; their length must be a multiple of four, at most 40.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// Appends an IPv6 extension header: its number, and its bytes from the length field on (the next header's number
    /// is put before them). They must fill a multiple of eight bytes together.
    #[must_use]
    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    /// An extension header of eight bytes that says nothing: number 0 (hop by hop) or 60 (destination options).
    #[must_use]
    pub fn padding_extension(self, number: u8) -> Self {
        self.extension(number, &[0, 1, 4, 0, 0, 0, 0])
    }

    /// Keeps only bytes `from..to` of what follows the IP header, as a fragment. `from` must be a multiple of eight; the
    /// last fragment is the one that ends at or behind the packet's end.
    #[must_use]
    pub fn fragment(mut self, from: usize, to: usize, id: u32) -> Self {
        self.fragment = Some(ip::Fragment { from, to, id });
        self
    }

    /// Overwrites bytes, counted from the IP header's first, after lengths and checksums are filled in.
    #[must_use]
    pub fn edit(mut self, at: usize, bytes: &[u8]) -> Self {
        self.edits.push((at, bytes.to_vec()));
        self
    }

    /// Appends bytes behind the IP packet's end, as Ethernet does with short frames.
    #[must_use]
    pub fn trailer(mut self, bytes: usize) -> Self {
        self.trailer = bytes;
        self
    }

    /// The way back: addresses and ports exchanged, everything else kept.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.src, &mut self.dst);
        self.macs.reverse();
        self.transport.reverse();
        self
    }

    /// True for IPv6.
    #[must_use]
    pub fn ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// The frame, from the Ethernet header on.
    ///
    /// # Panics
    /// If addresses of both families were given, or an option's or extension's length cannot be expressed.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let ethertype = if self.ipv6() { 0x86dd } else { 0x0800 };
        let mut frame = link::header(self.macs, &self.tags, ethertype);
        frame.extend(self.ip_packet());
        frame.resize(frame.len() + self.trailer, 0);
        frame
    }

    /// The packet from its IP header on.
    ///
    /// # Panics
    /// As [`Packet::build`].
    #[must_use]
    pub fn ip_packet(&self) -> Vec<u8> {
        let mut bytes = self.assemble();
        for (at, edit) in &self.edits {
            bytes[*at..*at + edit.len()].copy_from_slice(edit);
        }
        bytes
    }
}

impl From<Packet> for Vec<u8> {
    fn from(packet: Packet) -> Self {
        packet.build()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use etherparse::{SlicedPacket, TransportSlice};

    use super::{Packet, Unreachable};

    const A4: [u8; 4] = [10, 0, 0, 1];
    const B4: [u8; 4] = [10, 0, 0, 2];
    const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    #[test]
    fn an_independent_parser_reads_what_was_meant() {
        let plain = Packet::tcp((A4, 1000), (B4, 80))
            .flags("SA")
            .numbers(7, 9)
            .payload(b"xyz");
        let v6 = Packet::tcp((A6, 1000), (B6, 80))
            .flags("SA")
            .numbers(7, 9)
            .payload(b"xyz");
        for packet in [
            plain.clone().tags(&[5, 6]),
            plain.ip_options(&[1; 8]),
            v6.clone(),
            v6.padding_extension(0).padding_extension(60),
        ] {
            let frame = packet.build();
            let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("no TCP in {sliced:?}")
            };
            assert_eq!((tcp.source_port(), tcp.destination_port()), (1000, 80));
            assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (7, 9));
            assert_eq!(
                (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()),
                (true, true, false, false)
            );
            assert_eq!(tcp.payload(), b"xyz");
        }
    }

    #[test]
    fn checksums_are_right() {
        let frame = Packet::tcp((A4, 1000), (B4, 80))
            .flags("PA")
            .tcp_options(&[1; 4])
            .payload(b"xyz")
            .build();
        let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("no TCP in {sliced:?}")
        };
        assert_eq!(tcp.calc_checksum_ipv4(A4, B4), Ok(tcp.checksum()));
        let frame = Packet::udp((A6, 1000), (B6, 53)).payload(b"abc").build();
        let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
        let Some(TransportSlice::Udp(udp)) = sliced.transport else {
            panic!("no UDP in {sliced:?}")
        };
        assert_eq!(
            udp.to_header()
                .calc_checksum_ipv6_raw(A6.octets(), B6.octets(), b"abc"),
            Ok(udp.checksum())
        );
        let frame =
            Packet::unreachable(B6, A6, Unreachable::Port, &Packet::udp((A6, 1000), (B6, 53))).build();
        let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
            panic!("no ICMPv6 in {sliced:?}")
        };
        assert!(icmp.is_checksum_valid(B6.octets(), A6.octets()));
    }
}
