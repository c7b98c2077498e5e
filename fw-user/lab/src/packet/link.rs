//! Frames of the link protocols.

use std::net::Ipv4Addr;

use super::{ETHERTYPE_VLAN, MAC_A, Packet};

/// Everybody on the link.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// The nearest bridge (IEEE 802.1AB).
const LLDP_GROUP: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0x0e];
/// Slow protocols (IEEE 802.3 annex 57A).
const SLOW_GROUP: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 2];

/// An Ethernet header with VLAN tags, the outermost first.
#[must_use]
pub fn header([src, dst]: [[u8; 6]; 2], tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut bytes = [dst, src].concat();
    for tag in tags {
        bytes.extend(ETHERTYPE_VLAN);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

/// A frame of any Ethernet type.
#[must_use]
pub fn frame(dst: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header([MAC_A, dst], &[], ethertype);
    bytes.extend_from_slice(payload);
    bytes
}

fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr), dst: [u8; 6]) -> Vec<u8> {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let mut bytes = header([sender.0, dst], &[], 0x0806);
    bytes.extend(ETHERNET_IPV4);
    bytes.extend([0, operation]);
    for (mac, address) in [sender, target] {
        bytes.extend(mac);
        bytes.extend(address.octets());
    }
    bytes
}

/// Who has `target`?
#[must_use]
pub fn arp_request(sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    arp(1, sender, ([0; 6], target), BROADCAST)
}

/// `sender` is here.
#[must_use]
pub fn arp_reply(sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    arp(2, sender, target, target.0)
}

/// An LLDP announcement: chassis, port, time to live, end.
#[must_use]
pub fn lldp() -> Vec<u8> {
    let mut tlvs = vec![0x02, 7, 4];
    tlvs.extend(MAC_A);
    tlvs.extend([0x04, 7, 3]);
    tlvs.extend(MAC_A);
    tlvs.extend([0x06, 2, 0, 120, 0, 0]);
    frame(LLDP_GROUP, 0x88cc, &tlvs)
}

/// A LACPDU of version 1: actor and partner blocks, the rest zero.
#[must_use]
pub fn lacp() -> Vec<u8> {
    let mut unit = vec![0; 110];
    unit[..4].copy_from_slice(&[1, 1, 1, 20]);
    unit[22..24].copy_from_slice(&[2, 20]);
    frame(SLOW_GROUP, 0x8809, &unit)
}

/// A DHCP client asks everybody (RFC 2131; the options begin with the message type, DISCOVER).
#[must_use]
pub fn dhcp_discover() -> Packet {
    Packet::udp((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67))
        .macs(MAC_A, BROADCAST)
        .payload(&bootp(1, 1))
}

/// A DHCP server offers `offered`.
#[must_use]
pub fn dhcp_offer(server: Ipv4Addr, offered: Ipv4Addr) -> Packet {
    Packet::udp((server, 67), (offered, 68)).payload(&bootp(2, 2))
}

fn bootp(operation: u8, message: u8) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[operation, 1, 6, 0]);
    bytes[28..34].copy_from_slice(&MAC_A);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, message, 255]);
    bytes
}
