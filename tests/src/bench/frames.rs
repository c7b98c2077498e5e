//! The packets of each case, and the policies that judge them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;
use fw_common::abi::{Ip4, Ip6, Key4, Key6, Proto};
use fw_user::dataplane::FlowKey;

use super::stand::mac;
use crate::packet::Packet;

/// Bytes of every frame on a veth: the least that hold the headers of TCP over IPv6, in whole words.
pub const FRAME_BYTES: usize = 80;
/// A frame.
pub type Frame = [u8; FRAME_BYTES];

/// Sequence numbers with which primed TCP flows begin.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;
/// The service that the policy of `established` allows.
pub(super) const SERVICE: u16 = 4791;

/// What the packets of `established` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

impl Traffic {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
        }
    }

    /// True for IPv6.
    #[must_use]
    pub const fn ipv6(self) -> bool {
        matches!(self, Self::Udp6 | Self::Tcp6)
    }

    const fn proto(self) -> u8 {
        match self {
            Self::Udp4 | Self::Udp6 => Proto::UDP,
            Self::Tcp4 | Self::Tcp6 => Proto::TCP,
        }
    }

    /// The key of a flow between the two ports of a pair.
    #[must_use]
    pub fn key(self, flow: u32) -> FlowKey {
        self.key_to(flow, SERVICE)
    }

    /// The same to another port.
    #[must_use]
    pub fn key_to(self, flow: u32, port: u16) -> FlowKey {
        let (client, (server, _)) = self.ends(flow);
        let server = (server, port);
        let ((lo, lo_port), (hi, hi_port)) = (client.min(server), client.max(server));
        let proto = self.proto();
        match (lo, hi) {
            (IpAddr::V4(lo), IpAddr::V4(hi)) => FlowKey::V4(Key4 {
                lo: Ip4(lo.to_bits()),
                hi: Ip4(hi.to_bits()),
                lo_port,
                hi_port,
                proto,
                ..Key4::default()
            }),
            (lo, hi) => {
                let words = |address: IpAddr| match address {
                    IpAddr::V6(address) => Ip6::from_bits(address.to_bits()),
                    IpAddr::V4(address) => Ip6::from_bits(address.to_ipv6_mapped().to_bits()),
                };
                FlowKey::V6(Key6 {
                    lo: words(lo),
                    hi: words(hi),
                    lo_port,
                    hi_port,
                    proto,
                    ..Key6::default()
                })
            }
        }
    }

    /// Client and server of a flow, with their ports.
    #[must_use]
    pub fn ends(self, flow: u32) -> ((IpAddr, u16), (IpAddr, u16)) {
        let low = u16::try_from(flow & 0xffff).unwrap_or(0);
        let high = u16::try_from(flow >> 16).unwrap_or(0);
        let sport = 32768 + low % 16384;
        let (client, server): (IpAddr, IpAddr) = match self {
            Self::Udp4 | Self::Tcp4 => (
                Ipv4Addr::from(0x0a80_0000 + flow).into(),
                Ipv4Addr::from(0x0afa_0100 + flow % 251).into(),
            ),
            Self::Udp6 | Self::Tcp6 => (
                Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, high, low).into(),
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, low % 251 + 1).into(),
            ),
        };
        ((client, sport), (server, SERVICE))
    }

    /// The packets that bring a flow into the main table: from the opener, back, from the opener.
    #[must_use]
    pub fn opening(self, flow: u32) -> [Packet; 3] {
        self.opening_to(flow, SERVICE)
    }

    /// The same to another port.
    #[must_use]
    pub fn opening_to(self, flow: u32, port: u16) -> [Packet; 3] {
        let (client, (server, _)) = self.ends(flow);
        let server = (server, port);
        let packets = match self {
            Self::Udp4 | Self::Udp6 => {
                let asked = Packet::udp(client, server);
                [asked.clone(), asked.clone().reversed(), asked]
            }
            Self::Tcp4 | Self::Tcp6 => {
                let segment = Packet::tcp(client, server);
                let answer = segment
                    .clone()
                    .reversed()
                    .flags("SA")
                    .numbers(SERVER_ISN, CLIENT_ISN + 1);
                let confirmed = segment.clone().flags("A").numbers(CLIENT_ISN + 1, SERVER_ISN + 1);
                [segment.flags("S").numbers(CLIENT_ISN, 0), answer, confirmed]
            }
        };
        let [open, answer, confirm] = packets;
        // To the firewall's ports, so that a router takes them as well.
        [
            open.macs(mac(1), mac(2)),
            answer.macs(mac(4), mac(3)),
            confirm.macs(mac(1), mac(2)),
        ]
    }

    /// The packet that the flow sends from then on.
    ///
    /// # Errors
    /// If it does not fit into a frame.
    pub fn frame(self, flow: u32) -> Result<Frame> {
        let [_, _, packet] = self.opening(flow);
        framed(&packet)
    }
}

/// Pads a packet as Ethernet does.
pub(super) fn framed(packet: &Packet) -> Result<Frame> {
    let mut frame = packet.build();
    ensure!(
        frame.len() <= FRAME_BYTES,
        "a packet of {} bytes for a frame of {FRAME_BYTES}",
        frame.len()
    );
    frame.resize(FRAME_BYTES, 0);
    frame.try_into().map_err(|_| anyhow!("a frame of another size"))
}

/// The zones of the flows, and the service and the rule that allow them.
pub(super) const ZONES: &str = "  a: { addresses: [10.128.0.0/10, \"fd00:1::/32\"] }\n  b: { addresses: [10.250.0.0/16, \"fd00:2::/32\"] }\n";
const RULE: &str = "  - { name: data, allow: [data], from: a, to: b }\n";

fn service() -> String {
    format!("services:\n  data: [udp/{SERVICE}, tcp/{SERVICE}]\n")
}

/// The policy of `established`.
#[must_use]
pub fn allowing() -> String {
    format!("version: 1\nzones:\n{ZONES}{}rules:\n{RULE}", service())
}

/// The same for nftables.
#[must_use]
pub fn allowing_nft() -> String {
    let rule = |family: &str, from: &str, to: &str| {
        format!(
            "{family} saddr {from} {family} daddr {to} meta l4proto {{ tcp, udp }} th dport {SERVICE} ct state new accept\n"
        )
    };
    format!(
        "table inet fw {{\nchain forward {{\ntype filter hook forward priority filter; policy drop;\nct state \
         established,related accept\n{}{}}}\n}}\n",
        rule("ip", "10.128.0.0/10", "10.250.0.0/16"),
        rule("ip6", "fd00:1::/32", "fd00:2::/32")
    )
}

/// The same for iptables-restore, IPv4 and IPv6.
#[must_use]
pub fn allowing_iptables() -> [String; 2] {
    let rules = |from: &str, to: &str| {
        let one = |proto: &str| {
            format!(
                "-A FORWARD -s {from} -d {to} -p {proto} --dport {SERVICE} -m conntrack --ctstate NEW -j ACCEPT\n"
            )
        };
        format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate \
             ESTABLISHED,RELATED -j ACCEPT\n{}{}COMMIT\n",
            one("udp"),
            one("tcp")
        )
    };
    [
        rules("10.128.0.0/10", "10.250.0.0/16"),
        rules("fd00:1::/32", "fd00:2::/32"),
    ]
}

/// Rules of `deny` use even ports below, the packets odd ones: none is allowed, and no rule is far from matching.
const FIRST_PORT: u16 = 1000;
const PORTS: u32 = 100;

/// A rule of `deny`: from which zone to which one, to which port.
const fn denying_rule(rule: u32, zones: u32) -> (u32, u32, u32) {
    (
        rule / zones % zones,
        rule % zones,
        FIRST_PORT as u32 + 2 * (rule / (zones * zones) * 7 + rule * 7) % (2 * PORTS),
    )
}

/// A policy with this many rules between `zones` zones of a /16 and a /48 each, and one for the flows of `established`; each
/// rule allows one pair one port.
#[must_use]
pub fn denying(rules: u32, zones: u32) -> String {
    let mut text = format!("version: 1\nzones:\n{ZONES}");
    for zone in 0..zones {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "  z{zone}: {{ addresses: [10.{zone}.0.0/16, \"fd00:0:{zone:x}::/48\"] }}"
        );
    }
    text += &service();
    text += "rules:\n";
    text += RULE;
    for rule in 0..rules {
        let (from, to, port) = denying_rule(rule, zones);
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, allow: [tcp/{port}, udp/{port}], from: z{from}, to: z{to} }}"
        );
    }
    text
}

/// The same for nftables, without connection tracking: a list, for UDP over IPv4, which is all that is sent.
#[must_use]
pub fn denying_nft(rules: u32, zones: u32) -> String {
    let mut text = String::from(RAW);
    for rule in 0..rules {
        let (from, to, port) = denying_rule(rule, zones);
        let _ = writeln!(
            text,
            "ip saddr 10.{from}.0.0/16 ip daddr 10.{to}.0.0/16 udp dport {port} accept"
        );
    }
    text + "}\n}\n"
}

/// The same as one set that holds the rules.
#[must_use]
pub fn denying_nft_set(rules: u32, zones: u32) -> String {
    let mut elements: Vec<String> = (0..rules)
        .map(|rule| {
            let (from, to, port) = denying_rule(rule, zones);
            format!("10.{from}.0.0/16 . 10.{to}.0.0/16 . {port}")
        })
        .collect();
    elements.sort_unstable();
    elements.dedup();
    let (head, rest) = RAW.split_once('\n').unwrap_or((RAW, ""));
    format!(
        "{head}\nset open {{\ntypeof ip saddr . ip daddr . udp dport\nflags interval\nelements = {{ {} }}\n}}\n{rest}ip saddr . \
         ip daddr . udp dport @open accept\n}}\n}}\n",
        elements.join(", ")
    )
}

/// How a table begins whose chain drops before connection tracking what no rule accepts.
const RAW: &str = "table inet fw {\nchain raw {\ntype filter hook prerouting priority raw; policy drop;\n";

/// UDP packets of so many random sources in 100 of the zones of [`denying`] to random destinations there, to ports that
/// no rule has. The same in every run.
///
/// # Errors
/// Never: they fit.
pub fn denied(sources: usize) -> Result<Vec<Frame>> {
    let mut random = Rng::with_seed(0x0dea_dbee);
    let address = |random: &mut Rng| Ipv4Addr::new(10, random.u8(..100), random.u8(..), random.u8(1..255));
    (0..sources)
        .map(|_| {
            let (from, to) = (address(&mut random), address(&mut random));
            let port = FIRST_PORT + 2 * random.u16(..PORTS as u16) + 1;
            framed(&Packet::udp((from, random.u16(1024..)), (to, port)).macs(mac(1), mac(2)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use fw_policy::check;

    use super::{allowing, denied, denying};

    #[test]
    fn the_policies_are_valid_and_as_large_as_said() {
        assert!(check(&allowing(), "allowing").is_ok());
        for (rules, zones) in [(10, 10), (10_000, 100)] {
            match check(&denying(rules, zones), "denying") {
                Ok((policy, _)) => assert_eq!(policy.rules.len(), rules as usize + 1),
                Err(findings) => panic!("{findings}"),
            }
        }
    }

    #[test]
    fn denied_packets_differ() {
        let mut frames = denied(1000).expect("they fit");
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), 1000);
    }
}
