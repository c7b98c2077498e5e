//! Captured packets, judged on this machine without a data plane: by the packet path's own code over compiled tables and
//! empty flow tables, one after the other, with the capture's own clock.
//!
//! What only an agent does is not replayed: ageing (what is over makes room at once), counts of flows at a time, and caps
//! on them.

mod capture;
mod frame;
mod hex;
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;

use fw_common::abi::{self, Decision, LinkKind, PortConfig, Reason, Side, Verdict};
use fw_common::pipeline::{Scratch, judge};
use fw_common::wire;
use fw_policy::flow::asks_for_address;
use fw_policy::{Environment, Policy, TableSet};
use serde::Serialize;

pub use capture::{Capture, CaptureError, Captured, Link};
use frame::Frame;
pub use hex::from_hex;
use world::World;

/// Where a [`Replay`] keeps its tables.
#[derive(Default)]
pub struct Memory(world::Memory);

/// Interfaces of the replayed machine, with an Ethernet header; without one 2 more.
const OUTER: u32 = 2;
const INNER: u32 = 3;
const RAW: u32 = 2;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The packet in one line.
    pub flow: String,
    /// `pass`, `forward`, `drop`, or `reply`: dropped, and its sender told.
    pub verdict: &'static str,
    /// Machine name of the reason.
    pub reason: &'static str,
    /// The reason as a sentence.
    pub sentence: &'static str,
    /// The rule that decides, or that has allowed its flow; none: the default, or no rule was asked.
    pub rule: Option<String>,
    /// True if the packet passes.
    pub passes: bool,
    /// The capture holds only a part of the packet.
    pub cut: bool,
}

/// The verdict's name.
#[must_use]
pub const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Drop => "drop",
        Verdict::Pass => "pass",
        Verdict::Forward => "forward",
        Verdict::Reply => "reply",
    }
}

/// By which ports the packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Number of the role of the port that they come in by, among those of the environment.
    pub role: u8,
    /// Mode `inline`: of the pair's other port.
    pub peer: Option<u8>,
}

/// What a frame shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The packet in one line.
    pub flow: String,
    /// Its source address; none where no IP header was reached.
    source: Option<IpAddr>,
    /// A DHCP client without an address sends it.
    asks_for_address: bool,
}

impl Seen {
    /// True if a machine with these addresses sends it, see [`fw_policy::Flow::leaves`].
    #[must_use]
    pub fn leaves(&self, own: &[IpAddr]) -> bool {
        self.asks_for_address || self.source.is_some_and(|source| own.contains(&source))
    }
}

/// Parses a frame, which is judged elsewhere.
#[must_use]
pub fn look(bytes: &[u8], link: Link) -> Seen {
    let mut scratch = Box::new(Scratch::EMPTY);
    let frame = Frame {
        bytes,
        length: bytes.len() as u32,
        ifindex: OUTER,
        egress: false,
    };
    wire::parse(frame, link_kind(link) as u8, 0, &mut scratch.meta);
    let meta = &scratch.meta;
    let source = frame::source(meta);
    let ports = (meta.sport, meta.dport);
    Seen {
        flow: frame::describe(meta),
        source,
        asks_for_address: source.is_some_and(|source| asks_for_address(source, meta.proto, ports)),
    }
}

const fn link_kind(link: Link) -> LinkKind {
    match link {
        Link::Ethernet => LinkKind::Ethernet,
        Link::Raw => LinkKind::Raw,
    }
}

/// A machine under one policy, to which packets come.
pub struct Replay<'m> {
    world: World<'m>,
    scratch: Box<Scratch>,
    own: Vec<IpAddr>,
    inline: bool,
    numbers: BTreeMap<u32, String>,
    ids: BTreeMap<u32, String>,
}

impl<'m> Replay<'m> {
    /// A machine without flows. `tables` must be compiled from `policy` and `environment`.
    #[must_use]
    pub fn new(
        memory: &'m Memory,
        policy: &Policy,
        tables: &'m TableSet,
        environment: &Environment,
        ports: Ports,
    ) -> Self {
        let world = World::new(&memory.0, &tables.lines, environment.generation, configs(ports));
        let names = |key: fn(&fw_policy::model::Rule) -> u32| {
            let rules = policy.rules.iter();
            rules.map(|rule| (key(rule), rule.name.clone())).collect()
        };
        Self {
            world,
            scratch: Box::new(Scratch::EMPTY),
            own: environment.own_addresses.clone(),
            inline: ports.peer.is_some(),
            numbers: names(|rule| rule.number),
            ids: names(|rule| rule.id),
        }
    }

    /// Judges the next packet. A source of this machine's own sends it, as does one that asks for an address by DHCP; else it comes in by the port, or by the pair's other
    /// one if it belongs to a flow that says so.
    pub fn judge(&mut self, packet: &Captured) -> Judged {
        let time = packet.time.unwrap_or_else(jiff::Timestamp::now);
        self.world
            .set_now(u64::try_from(time.as_nanosecond()).unwrap_or_default());
        let raw = if packet.link == Link::Raw { RAW } else { 0 };
        let mut frame = Frame {
            bytes: &packet.bytes,
            length: packet.length,
            ifindex: OUTER + raw,
            egress: self.sends(packet),
        };
        if self.inline && !frame.egress && self.tried(frame) == Reason::WrongSide as u8 {
            frame.ifindex = INNER + raw;
        }
        let outcome = judge(frame, &self.world, &mut self.scratch);
        let reason = Reason::from_number(outcome.reason()).unwrap_or(Reason::Unset);
        let verdict = outcome.verdict();
        Judged {
            flow: frame::describe(&self.scratch.meta),
            verdict: verdict_name(verdict),
            reason: reason.name(),
            sentence: reason.sentence(),
            rule: self.rule(),
            passes: matches!(verdict, Verdict::Pass | Verdict::Forward),
            cut: packet.length as usize > packet.bytes.len(),
        }
    }

    /// Number of the reason that the frame would meet; nothing is written.
    fn tried(&mut self, frame: Frame<'_>) -> u8 {
        self.world.set_dry_run(true);
        let outcome = judge(frame, &self.world, &mut self.scratch);
        self.world.set_dry_run(false);
        outcome.reason()
    }

    /// True if the packet's source is this machine.
    fn sends(&self, packet: &Captured) -> bool {
        look(&packet.bytes, packet.link).leaves(&self.own)
    }

    /// The rule that was found for the packet just judged, or that has allowed its flow.
    fn rule(&self) -> Option<String> {
        let number = Decision(self.scratch.class.decision).rule();
        if number != 0 {
            return self.numbers.get(&number).cloned();
        }
        let flow = self
            .world
            .flow(&self.scratch)
            .filter(|_| self.scratch.meta.family != 0);
        flow.and_then(|flow| self.ids.get(&flow.rule.load()).cloned())
    }
}

/// The ports: with Ethernet headers and without, and of a pair both.
fn configs(ports: Ports) -> Vec<PortConfig> {
    let mut configs = Vec::new();
    for (raw, link) in [(0, LinkKind::Ethernet), (RAW, LinkKind::Raw)] {
        let outer = PortConfig {
            ifindex: OUTER + raw,
            mode: abi::Mode::Host as u8,
            engine: abi::Engine::Tc as u8,
            link: link as u8,
            side: Side::Outer as u8,
            role: ports.role,
            peer_role: ports.role,
            ..PortConfig::default()
        };
        let Some(peer) = ports.peer else {
            configs.push(outer);
            continue;
        };
        let outer = PortConfig {
            mode: abi::Mode::Inline as u8,
            peer_ifindex: INNER + raw,
            peer_role: peer,
            ..outer
        };
        let inner = PortConfig {
            ifindex: INNER + raw,
            peer_ifindex: OUTER + raw,
            side: Side::Inner as u8,
            role: peer,
            peer_role: ports.role,
            ..outer
        };
        configs.extend([outer, inner]);
    }
    configs
}

#[cfg(test)]
mod tests {
    use fw_policy::Environment;

    use super::{Captured, Link, Memory, Ports, Replay};

    const POLICY: &str = "
version: 1
zones: { client: [10.0.0.1], server: [10.0.0.2] }
rules:
  - { name: web, allow: [http], from: client, to: server }
  - { name: closed, reject: [ssh], from: client, to: server }
";

    /// A TCP segment from (last byte, port) to (last byte, port).
    fn segment(from: (u8, u16), to: (u8, u16), flags: u8, numbers: (u32, u32)) -> Captured {
        let mut header = etherparse::TcpHeader::new(from.1, to.1, numbers.0, 1000);
        header.acknowledgment_number = numbers.1;
        (header.syn, header.ack) = (flags & 2 != 0, flags & 16 != 0);
        let step = etherparse::PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4([10, 0, 0, from.0], [10, 0, 0, to.0], 64)
            .tcp_header(header);
        let mut bytes = Vec::new();
        step.write(&mut bytes, &[]).unwrap();
        Captured {
            time: Some("2026-03-01T10:00:00Z".parse().unwrap()),
            link: Link::Ethernet,
            length: bytes.len() as u32,
            bytes,
        }
    }

    fn reasons(ports: Ports, packets: &[Captured]) -> Vec<(String, Option<String>)> {
        let (policy, _) = fw_policy::check(POLICY, "p.yaml").unwrap();
        let environment = Environment::sample();
        let tables = fw_policy::compile(&policy, &environment).unwrap();
        let memory = Memory::default();
        let mut replay = Replay::new(&memory, &policy, &tables, &environment, ports);
        let judged = packets.iter().map(|packet| replay.judge(packet));
        judged
            .map(|judged| (judged.reason.to_owned(), judged.rule))
            .collect()
    }

    #[test]
    fn a_connection_is_followed_through_both_ports_of_a_pair() {
        let (client, server) = ((1, 4000), (2, 80));
        let packets = [
            segment(client, server, 2, (100, 0)),
            segment(server, client, 18, (500, 101)),
            segment(client, server, 16, (101, 501)),
            segment((1, 4001), (2, 22), 2, (1, 0)),
            segment((2, 80), (1, 4009), 16, (1, 1)),
        ];
        let ports = Ports {
            role: 0,
            peer: Some(0),
        };
        let web = Some("web".to_owned());
        let wanted = [
            ("rule", web.clone()),
            ("established", web.clone()),
            ("established", web),
            ("reject_rule", Some("closed".to_owned())),
            ("tcp_no_flow", None),
        ];
        let wanted = wanted.map(|(reason, rule)| (reason.to_owned(), rule));
        assert_eq!(reasons(ports, &packets), wanted);
    }

    /// A UDP datagram over IPv4.
    fn datagram(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Captured {
        let step = etherparse::PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4(from.0, to.0, 64)
            .udp(from.1, to.1);
        let mut bytes = Vec::new();
        step.write(&mut bytes, &[1; 8]).unwrap();
        Captured {
            time: None,
            link: Link::Ethernet,
            length: bytes.len() as u32,
            bytes,
        }
    }

    /// What is asked by notation and what is asked as a frame is decided the same.
    #[test]
    fn dhcp_by_notation_is_dhcp_in_hexadecimal() {
        let text = POLICY.replace("rules:", "link: { dhcp: client }\nrules:");
        let (policy, _) = fw_policy::check(&text, "p.yaml").unwrap();
        let environment = Environment::sample();
        let tables = fw_policy::compile(&policy, &environment).unwrap();
        let (nobody, all, own, far) = ([0; 4], [255; 4], [192, 0, 2, 1], [10, 0, 0, 2]);
        for (from, to, host) in [
            ((nobody, 68), (all, 67), "link_dhcp"),
            ((own, 68), (all, 67), "link_dhcp"),
            ((own, 68), (far, 67), "deny_default"),
            ((far, 67), (own, 68), "link_dhcp"),
            ((far, 67), (all, 68), "link_dhcp"),
            ((far, 68), (all, 67), "deny_default"),
            ((far, 99), (own, 68), "deny_default"),
        ] {
            let address = |end: ([u8; 4], u16)| std::net::SocketAddr::from(end);
            let flow = format!("udp {} {}", address(from), address(to)).parse().unwrap();
            for peer in [None, Some(0)] {
                let asked = fw_policy::Asked {
                    flow: &flow,
                    tags: None,
                    role: None,
                    peer: peer.map(|_| "out"),
                    guarded: false,
                };
                let told = fw_policy::ask(&policy, &tables, &environment, &asked).unwrap();
                let memory = Memory::default();
                let ports = Ports { role: 0, peer };
                let mut replay = Replay::new(&memory, &policy, &tables, &environment, ports);
                let judged = replay.judge(&datagram(from, to));
                assert_eq!(told.reason, judged.reason, "{from:?} {to:?} {peer:?}");
                if peer.is_none() {
                    assert_eq!(told.reason, host, "{from:?} {to:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_cut_off_is_said_and_a_short_frame_has_its_reason() {
        let mut packet = segment((1, 4000), (2, 80), 2, (100, 0));
        packet.length = 1500;
        let ports = Ports { role: 0, peer: None };
        let (policy, _) = fw_policy::check(POLICY, "p.yaml").unwrap();
        let environment = Environment::sample();
        let tables = fw_policy::compile(&policy, &environment).unwrap();
        let memory = Memory::default();
        let mut replay = Replay::new(&memory, &policy, &tables, &environment, ports);
        assert!(replay.judge(&packet).cut);
        packet.bytes.truncate(20);
        packet.length = 20;
        let judged = replay.judge(&packet);
        assert_eq!(
            (judged.reason, judged.passes, judged.cut),
            ("truncated", false, false)
        );
    }
}
