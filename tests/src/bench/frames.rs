//! The packets of each case, and the policies that judge them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;

use crate::packet::Packet;

/// Bytes of every frame on a veth: the least that Ethernet carries, check sequence aside.
pub const FRAME_BYTES: usize = 64;
/// A frame.
pub type Frame = [u8; FRAME_BYTES];

/// Sequence numbers with which primed TCP flows begin.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;
/// The service that the policy of `established` allows.
const SERVICE: u16 = 4791;

/// What the packets of `established` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// TCP over IPv4.
    Tcp4,
}

impl Traffic {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Tcp4 => "tcp4",
        }
    }

    fn ends(self, flow: u32) -> ((IpAddr, u16), (IpAddr, u16)) {
        let low = u16::try_from(flow & 0xffff).unwrap_or(0);
        let high = u16::try_from(flow >> 16).unwrap_or(0);
        let sport = 32768 + low % 16384;
        let (client, server): (IpAddr, IpAddr) = match self {
            Self::Udp4 | Self::Tcp4 => (
                Ipv4Addr::from(0x0a01_0100 + flow).into(),
                Ipv4Addr::from(0x0a02_0100 + flow % 251).into(),
            ),
            Self::Udp6 => (
                Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, high, low + 1).into(),
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, low % 251 + 1).into(),
            ),
        };
        ((client, sport), (server, SERVICE))
    }

    /// The packets that bring a flow into the main table: from the opener, back, from the opener.
    #[must_use]
    pub fn opening(self, flow: u32) -> [Packet; 3] {
        let (client, server) = self.ends(flow);
        match self {
            Self::Udp4 | Self::Udp6 => {
                let asked = Packet::udp(client, server);
                [asked.clone(), asked.clone().reversed(), asked]
            }
            Self::Tcp4 => {
                let segment = Packet::tcp(client, server);
                let answer = segment
                    .clone()
                    .reversed()
                    .flags("SA")
                    .numbers(SERVER_ISN, CLIENT_ISN + 1);
                let confirmed = segment.clone().flags("A").numbers(CLIENT_ISN + 1, SERVER_ISN + 1);
                [segment.flags("S").numbers(CLIENT_ISN, 0), answer, confirmed]
            }
        }
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

/// The policy of `established`.
#[must_use]
pub fn allowing() -> String {
    format!(
        "version: 1\n\
         zones:\n  a: {{ addresses: [10.1.0.0/16, \"fd00:1::/32\"] }}\n  b: {{ addresses: [10.2.0.0/16, \"fd00:2::/32\"] }}\n\
         services:\n  data: [udp/{SERVICE}, tcp/{SERVICE}]\n\
         rules:\n  - {{ name: data, allow: [data], from: a, to: b }}\n"
    )
}

/// Rules of `deny` use even ports below, the packets odd ones: none is allowed, and no rule is far from matching.
const FIRST_PORT: u16 = 1000;
const PORTS: u32 = 100;

/// A policy with this many rules between `zones` zones of a /16 and a /48 each; each rule allows one pair one port.
#[must_use]
pub fn denying(rules: u32, zones: u32) -> String {
    let mut text = String::from("version: 1\nzones:\n");
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    for zone in 0..zones {
        line(format!(
            "  z{zone}: {{ addresses: [10.{zone}.0.0/16, \"fd00:0:{zone:x}::/48\"] }}"
        ));
    }
    line("rules:".to_owned());
    for rule in 0..rules {
        let (from, to) = (rule / zones % zones, rule % zones);
        let port = u32::from(FIRST_PORT) + 2 * (rule * 7 % PORTS);
        line(format!(
            "  - {{ name: r{rule}, allow: [tcp/{port}, udp/{port}], from: z{from}, to: z{to} }}"
        ));
    }
    text
}

/// UDP packets of `sources` random sources in 100 of the zones of [`denying`] to random destinations there, to ports that
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
            framed(&Packet::udp((from, random.u16(1024..)), (to, port)))
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
                Ok((policy, _)) => assert_eq!(policy.rules.len(), rules as usize),
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
