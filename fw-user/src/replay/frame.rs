//! A frame for the packet path, and what it is called.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::Proto;
use fw_common::wire::{FIRST, LATER, Meta, NO_TAG, Packet, WINDOW_BYTES, Window};

use crate::telemetry::proto_name;

/// Bytes of a frame, and what surrounds them.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The bytes that are known.
    pub(super) bytes: &'a [u8],
    /// Bytes that it has on the wire, of which the last ones may not be known.
    pub(super) length: u32,
    /// The port.
    pub(super) ifindex: u32,
    /// This machine sends it.
    pub(super) egress: bool,
}

impl Packet for Frame<'_> {
    fn len(self) -> u32 {
        self.length
    }

    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        let Some(rest) = self.bytes.get(offset as usize..) else {
            return 0;
        };
        let count = rest.len().min(WINDOW_BYTES.saturating_sub(skip) as usize);
        if count == 0 {
            return 0;
        }
        for (at, byte) in (skip as usize..).zip(&rest[..count]) {
            let mut word = into.words[at / 4].to_ne_bytes();
            word[at % 4] = *byte;
            into.words[at / 4] = u32::from_ne_bytes(word);
        }
        skip + count as u32
    }

    fn ifindex(self) -> u32 {
        self.ifindex
    }

    fn tag(self) -> u32 {
        NO_TAG
    }

    fn segments(self) -> u32 {
        1
    }

    fn wire_bytes(self, _len: u32) -> u32 {
        self.length
    }

    fn egress(self) -> bool {
        self.egress
    }

    fn came_by(self) -> u32 {
        0
    }
}

/// The packet's source address; none before an IP header was seen.
pub(super) fn source(m: &Meta) -> Option<IpAddr> {
    address(m.family, m.src)
}

fn address(family: u8, words: [u32; 4]) -> Option<IpAddr> {
    match family {
        4 => Some(Ipv4Addr::from_bits(words[0]).into()),
        6 => {
            let bits = words
                .iter()
                .fold(0_u128, |bits, word| bits << 32 | u128::from(*word));
            Some(Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}

/// The packet in one line: `tcp 10.0.0.1:4000 -> 10.0.0.2:22 SYN`; of a link protocol its Ethernet type.
pub(super) fn describe(m: &Meta) -> String {
    let mut text = match (address(m.family, m.src), address(m.family, m.dst)) {
        (Some(src), Some(dst)) => format!(
            "{} {} -> {}",
            proto_name(m.proto),
            end(src, m.sport),
            end(dst, m.dport)
        ),
        _ => link(m.ethertype),
    };
    // Writing to a String cannot fail.
    let _ = match m.proto {
        _ if m.family == 0 => Ok(()),
        _ if m.fragment == LATER => write!(text, " fragment at {}", m.frag_offset),
        Proto::TCP => write!(text, "{}", flags(m.tcp_flags)),
        Proto::ICMP | Proto::ICMPV6 => write!(text, " type {} code {}", m.selector >> 8, m.selector & 0xff),
        _ => Ok(()),
    };
    if m.fragment == FIRST {
        text += " first fragment";
    }
    let _ = match (m.vlan, m.inner_vlan) {
        (0, _) => Ok(()),
        (vlan, 0) => write!(text, " vlan {vlan}"),
        (vlan, inner) => write!(text, " vlan {vlan}.{inner}"),
    };
    text
}

fn end(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (address, 0) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}

/// Ethernet types that the packet path knows by name.
fn link(ethertype: u16) -> String {
    match ethertype {
        0 => "a frame without a type".to_owned(),
        0x0806 => "arp".to_owned(),
        0x88cc => "lldp".to_owned(),
        0x8809 => "lacp".to_owned(),
        0x0800 => "a broken IPv4 packet".to_owned(),
        0x86dd => "a broken IPv6 packet".to_owned(),
        other => format!("ethertype {other:#06x}"),
    }
}

/// TCP's flags by name (RFC 9293, section 3.1).
fn flags(bits: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
    set.fold(String::new(), |text, (_, name)| text + " " + name)
}
