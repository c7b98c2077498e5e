//! The packet that opens a flow, as a frame: what the kernel is asked about a flow by test-run.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpHeader};
use fw_common::abi::Proto;
use fw_common::wire::{echo_request, icmp_error};
use fw_policy::Flow;

/// Ethernet addresses of both ends: locally administered (IEEE 802, section 8.2), so no NIC's.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
/// Ethernet types: a VLAN tag (IEEE 802.1Q), the outer one of two (IEEE 802.1ad), IPv4 (RFC 894), IPv6 (RFC 2464).
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// What an ordinary stack sets.
const HOPS: u8 = 64;
/// What neighbour discovery demands (RFC 4861, section 7.1).
const LINK_HOPS: u8 = 255;
/// Ends a chain of headers (RFC 8200, section 4.7).
const NO_NEXT_HEADER: u8 = 59;
/// Words of four bytes in an authentication header with an empty check value of 96 bits, less two (RFC 4302, section 2.2).
const AH_LENGTH: u8 = 4;
/// Room for the target and destination addresses that neighbour discovery carries behind its first eight bytes.
const DISCOVERY_BODY: [u8; 32] = [0; 32];

/// Where the IP header begins in [`frame`]'s result.
#[must_use]
pub const fn ip_offset(flow: &Flow) -> usize {
    let tags = (flow.vlan != 0) as usize + (flow.inner_vlan != 0) as usize;
    14 + 4 * tags
}

/// The flow's first packet as an Ethernet frame with its VLAN tags: a SYN of TCP, an INIT's header of SCTP, a datagram, an
/// ICMP message (an error quotes a packet of the opposite direction), and for other protocols their least header with
/// SPI, key and sequence number 0. Lengths and checksums are right; addresses of Ethernet mean nothing.
///
/// A flow of mixed address families, which no packet can have, becomes one of IPv6.
#[must_use]
pub fn frame(flow: &Flow) -> Vec<u8> {
    let mut bytes = link(flow);
    bytes.extend(ip(flow, hops(flow)));
    bytes
}

/// The Ethernet header and the tags.
fn link(flow: &Flow) -> Vec<u8> {
    let mut bytes = MACS.to_vec();
    for (ethertype, id) in [
        (if flow.inner_vlan == 0 { VLAN } else { SERVICE_VLAN }, flow.vlan),
        (VLAN, flow.inner_vlan),
    ] {
        if id != 0 {
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
    }
    bytes.extend((if is_ipv4(flow) { IPV4 } else { IPV6 }).to_be_bytes());
    bytes
}

const fn is_ipv4(flow: &Flow) -> bool {
    flow.src.is_ipv4() && flow.dst.is_ipv4()
}

fn hops(flow: &Flow) -> u8 {
    let discovery = flow.proto == Proto::ICMPV6 && matches!(flow.selector >> 8, 133..=137);
    if discovery { LINK_HOPS } else { HOPS }
}

/// The packet from its IP header on.
fn ip(flow: &Flow, hops: u8) -> Vec<u8> {
    let step = PacketBuilder::ip(headers(flow, hops));
    match flow.proto {
        Proto::TCP => written(step.tcp_header(syn(flow)), &[]),
        Proto::UDP => written(step.udp(flow.source_port(), flow.selector), &[]),
        Proto::ICMP if is_ipv4(flow) => icmp(step, flow),
        Proto::ICMPV6 if !is_ipv4(flow) => icmp(step, flow),
        _ => bare(flow, hops, &others(flow)),
    }
}

/// An IP header that names the flow's protocol, whatever that is, and what follows it. (The builder takes no number of an
/// IPv6 extension header.)
fn bare(flow: &Flow, hops: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = match headers(flow, hops) {
        IpHeaders::Ipv4(mut header, _) => {
            header.protocol = IpNumber(flow.proto);
            header.total_len = (Ipv4Header::MIN_LEN + body.len()) as u16;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        IpHeaders::Ipv6(mut header, _) => {
            header.next_header = IpNumber(flow.proto);
            header.payload_length = body.len() as u16;
            header.to_bytes().to_vec()
        }
    };
    bytes.extend_from_slice(body);
    bytes
}

/// What a finished builder makes.
trait Written {
    fn into_bytes(self, payload: &[u8]) -> Vec<u8>;
}

macro_rules! written {
    ($($step:ty),*) => {$(
        impl Written for PacketBuilderStep<$step> {
            fn into_bytes(self, payload: &[u8]) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(self.size(payload.len()));
                // Writing to memory does not fail, no body is longer than a packet, and ICMP has its own family.
                let _ = self.write(&mut bytes, payload);
                bytes
            }
        }
    )*};
}

written!(
    TcpHeader,
    etherparse::UdpHeader,
    etherparse::Icmpv4Header,
    etherparse::Icmpv6Header
);

fn written(step: impl Written, payload: &[u8]) -> Vec<u8> {
    step.into_bytes(payload)
}

fn headers(flow: &Flow, hops: u8) -> IpHeaders {
    match (flow.src, flow.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = Ipv4Header {
                time_to_live: hops,
                source: src.octets(),
                destination: dst.octets(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        (src, dst) => {
            let header = Ipv6Header {
                hop_limit: hops,
                source: v6(src).octets(),
                destination: v6(dst).octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        }
    }
}

const fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn syn(flow: &Flow) -> TcpHeader {
    let mut header = TcpHeader::new(flow.source_port(), flow.selector, 1, u16::MAX);
    header.syn = true;
    header
}

fn icmp(step: PacketBuilderStep<IpHeaders>, flow: &Flow) -> Vec<u8> {
    let (kind, code) = ((flow.selector >> 8) as u8, flow.selector as u8);
    let body = if icmp_error(flow.proto, flow.selector) {
        quote(flow)
    } else if flow.proto == Proto::ICMPV6 && flow.selector != echo_request(flow.proto) {
        DISCOVERY_BODY.to_vec()
    } else {
        Vec::new()
    };
    // The identifier of an echo, where one was written.
    let [high, low] = flow.sport.unwrap_or(0).to_be_bytes();
    let rest = [high, low, 0, 0];
    if flow.proto == Proto::ICMP {
        written(step.icmpv4_raw(kind, code, rest), &body)
    } else {
        written(step.icmpv6_raw(kind, code, rest), &body)
    }
}

/// What an error tells about: a datagram that its receiver has sent to its sender.
fn quote(flow: &Flow) -> Vec<u8> {
    let about = Flow {
        src: flow.dst,
        dst: flow.src,
        proto: Proto::UDP,
        sport: None,
        selector: fw_policy::flow::DYNAMIC_PORT,
        ..*flow
    };
    ip(&about, HOPS)
}

/// Headers of protocols that have no builder.
fn others(flow: &Flow) -> Vec<u8> {
    match flow.proto {
        Proto::SCTP => {
            // Ports, verification tag 0 as an INIT has it, checksum (RFC 9260, section 3.1); nobody here judges that.
            let ports = [flow.source_port(), flow.selector].map(u16::to_be_bytes);
            [ports.as_flattened(), &[0; 8]].concat()
        }
        Proto::AH => {
            let mut header = vec![0; (usize::from(AH_LENGTH) + 2) * 4];
            header[..2].copy_from_slice(&[NO_NEXT_HEADER, AH_LENGTH]);
            header
        }
        _ => vec![0; 16],
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};
    use fw_common::abi::Proto;
    use fw_policy::Flow;

    use super::{frame, ip_offset};

    fn flow(proto: u8, src: &str, dst: &str, selector: u16) -> Flow {
        Flow {
            vlan: 0,
            inner_vlan: 0,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto,
            sport: None,
            selector,
        }
    }

    #[test]
    fn an_independent_parser_reads_a_syn_with_its_tags() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for (vlan, inner_vlan) in [(0, 0), (101, 0), (100, 7)] {
                let asked = Flow {
                    vlan,
                    inner_vlan,
                    sport: Some(1234),
                    ..flow(Proto::TCP, src, dst, 443)
                };
                let bytes = frame(&asked);
                let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
                let tags: Vec<u16> = packet.vlan_ids().iter().map(|id| id.value()).collect();
                let wanted: Vec<u16> = [vlan, inner_vlan].into_iter().filter(|id| *id != 0).collect();
                assert_eq!(tags, wanted);
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
                    panic!("no TCP: {bytes:02x?}");
                };
                assert_eq!((tcp.source_port(), tcp.destination_port()), (1234, 443));
                assert!(tcp.syn() && !tcp.ack());
                let version = bytes[ip_offset(&asked)] >> 4;
                assert_eq!(version, if src.contains(':') { 6 } else { 4 });
            }
        }
    }

    #[test]
    fn every_protocol_has_a_frame_of_its_own_length() {
        for proto in 0..=u8::MAX {
            for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
                for selector in [0, 0x0300, 0x0800, 0x8000, 0x8700] {
                    let bytes = frame(&flow(proto, src, dst, selector));
                    let length = if src.contains(':') {
                        40 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]]))
                    } else {
                        usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))
                    };
                    assert_eq!(
                        bytes.len(),
                        14 + length,
                        "protocol {proto}, selector {selector:#x}"
                    );
                }
            }
        }
    }
}
