//! Limits of rules: packets, bytes, new flows, flows at a time; per rule, source, destination, pair.

use std::net::IpAddr;

use fw_common::abi::Reason::{
    self, Established, FragmentDenied, LimitBytes, LimitFlows, LimitNewFlows, LimitPackets, Rule, Untracked,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net};

/// The last rule would allow what the others limit.
const LIMITS: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/48"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: packets,     allow: [udp/1000], from: clients, to: servers, limit: [{ packets: 10/s, burst: 5 }] }
  - { name: bytes,       allow: [udp/1001], from: clients, to: servers, limit: [{ bytes: 10 kB/s, burst: 10 kB }] }
  - { name: new_flows,   allow: [udp/1002], from: clients, to: servers, limit: [{ new_flows: 1/s, burst: 2 }] }
  - { name: flows,       allow: [tcp/1003], from: clients, to: servers, limit: [{ flows: 2 }] }
  - { name: source,      allow: [udp/1004], from: clients, to: servers, limit: [{ new_flows: 1/s, burst: 1, per: source }] }
  - { name: net,         allow: [udp/1005], from: clients, to: servers, limit: [{ new_flows: 1/s, burst: 1, per: source/24 }] }
  - { name: destination, allow: [udp/1006], from: clients, to: servers, limit: [{ new_flows: 1/s, burst: 1, per: destination }] }
  - { name: pair,        allow: [udp/1007], from: clients, to: servers, limit: [{ new_flows: 1/s, burst: 1, per: pair }] }
  - name: several
    allow: [udp/1008]
    from: clients
    to: servers
    limit: [{ new_flows: 1/min, burst: 3 }, { packets: 1/s, burst: 4, per: source }, { bytes: 1 MB/s, per: rule }, { flows: 100 }]
  - { name: stateless,   allow: [udp/1009], from: clients, to: servers, track: false, limit: [{ packets: 1/s, burst: 2 }] }
  - { name: rest,        allow: [udp/1000-1009, tcp/1003], from: clients, to: servers }
"#;

fn udp(net: &Net, source: u16, port: u16) -> Packet {
    Packet::udp((net.client, source), (net.server, port))
}

/// Another address of the same kind: `last` replaces the last byte, `third` the third (IPv6: the fourth word).
fn near(address: IpAddr, third: u8, last: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            [a, b, third, last].into()
        }
        IpAddr::V6(address) => {
            let mut words = address.segments();
            (words[3], words[7]) = (u16::from(third), u16::from(last));
            words.into()
        }
    }
}

pub fn cases(net: &Net) -> Vec<Case> {
    [
        rates(net),
        per(net),
        several(net),
        at_a_time(net),
        after_a_change(net),
        fragments(net),
    ]
    .concat()
}

fn limited(name: &str) -> Case {
    Case::new(name).with(LIMITS)
}

/// The same packet `times` times.
fn times(mut case: Case, times: usize, packet: &Packet, reason: Reason) -> Case {
    for _ in 0..times {
        case = case.outer(packet.clone(), reason);
    }
    case
}

fn rates(net: &Net) -> Vec<Case> {
    let packet = udp(net, 5000, 1000);
    let opened = || limited("").outer(packet.clone(), Rule);
    // As on the wire: 14 bytes of Ethernet, the IP header, 8 bytes of UDP.
    let headers = if net.ipv6() { 62 } else { 42 };
    let large = udp(net, 5000, 1001).payload(&vec![7; 2500 - headers]);
    vec![
        times(opened(), 4, &packet, Established)
            .outer(packet.clone(), LimitPackets)
            .named("packets: a burst of 5, the first of the flow counts"),
        times(opened(), 4, &packet, Established)
            .wait_ns(99_000_000)
            .outer(packet.clone(), LimitPackets)
            .wait_ns(2_000_000)
            .outer(packet.clone(), Established)
            .outer(packet.clone(), LimitPackets)
            .named("packets: 10/s is one in 100 ms"),
        times(
            times(opened(), 4, &packet, Established).wait(60),
            0,
            &packet,
            Rule,
        )
        .outer(packet.clone(), Rule)
        .named("packets: the flow is over after 30 s, and opens again"),
        times(opened(), 3, &packet, Established)
            .inner(packet.clone().reversed(), Established)
            .inner(packet.clone().reversed(), LimitPackets)
            .outer(packet.clone(), LimitPackets)
            .named("packets: both directions count"),
        times(opened(), 2, &packet, Established)
            .outer(udp(net, 5001, 1000), Rule)
            .outer(udp(net, 5002, 1000), Rule)
            .outer(udp(net, 5003, 1000), LimitPackets)
            .flows(0, 3)
            .named("packets: a new flow over the limit is not opened, and meets no other rule"),
        limited("bytes: 10,000 at once, 10,000 a second")
            .outer(large.clone(), Rule)
            .outer(large.clone(), Established)
            .outer(large.clone(), Established)
            .outer(large.clone(), Established)
            .outer(large.clone(), LimitBytes)
            .wait_ns(251_000_000)
            .outer(large.clone(), Established)
            .outer(large, LimitBytes),
        limited("new flows: 2 at once, 1 a second; packets are free")
            .outer(udp(net, 5000, 1002), Rule)
            .outer(udp(net, 5001, 1002), Rule)
            .outer(udp(net, 5002, 1002), LimitNewFlows)
            .outer(udp(net, 5000, 1002), Established)
            .wait(1)
            .outer(udp(net, 5002, 1002), Rule)
            .outer(udp(net, 5003, 1002), LimitNewFlows),
        limited("without an entry packets are measured one by one")
            .outer(udp(net, 5000, 1009), Untracked)
            .outer(udp(net, 5001, 1009), Untracked)
            .outer(udp(net, 5000, 1009), LimitPackets)
            .inner(udp(net, 5000, 1009).reversed(), LimitPackets)
            .wait(1)
            .inner(udp(net, 5000, 1009).reversed(), Untracked)
            .outer(udp(net, 5000, 1009), LimitPackets),
    ]
}

fn per(net: &Net) -> Vec<Case> {
    let from = |third, last, port| Packet::udp((near(net.client, third, last), 5000), (net.server, port));
    let to = |last, source, port| Packet::udp((net.client, source), (near(net.server, 0, last), port));
    // Each IPv6 site has as many addresses as it likes: its /64 is one source.
    let neighbour = if net.ipv6() { LimitNewFlows } else { Rule };
    vec![
        limited("per source")
            .outer(from(0, 7, 1004), Rule)
            .outer(from(0, 8, 1004), neighbour)
            .outer(from(1, 7, 1004), Rule)
            .outer(udp(net, 5001, 1004), LimitNewFlows),
        limited("per source prefix")
            .outer(from(0, 7, 1005), Rule)
            .outer(from(0, 8, 1005), LimitNewFlows)
            .outer(from(1, 7, 1005), Rule)
            .outer(from(1, 200, 1005), LimitNewFlows),
        limited("per destination")
            .outer(to(1, 5000, 1006), Rule)
            .outer(to(1, 5001, 1006), LimitNewFlows)
            .outer(to(2, 5002, 1006), Rule)
            .outer(from(1, 7, 1006), LimitNewFlows),
        limited("per pair")
            .outer(to(1, 5000, 1007), Rule)
            .outer(to(1, 5001, 1007), LimitNewFlows)
            .outer(from(1, 7, 1007), Rule)
            .outer(to(2, 5002, 1007), neighbour),
    ]
}

fn several(net: &Net) -> Vec<Case> {
    let flow = |source| udp(net, source, 1008);
    vec![
        limited("several limits: the packets run out first")
            .outer(flow(5000), Rule)
            .outer(flow(5001), Rule)
            .outer(flow(5000), Established)
            .outer(flow(5000), Established)
            .outer(flow(5000), LimitPackets)
            .outer(flow(5001), LimitPackets),
        limited("several limits: the new flows run out first")
            .outer(flow(5000), Rule)
            .outer(flow(5001), Rule)
            .outer(flow(5002), Rule)
            .outer(flow(5003), LimitNewFlows)
            .outer(flow(5000), Established)
            .outer(flow(5000), LimitPackets),
    ]
}

fn at_a_time(net: &Net) -> Vec<Case> {
    let flow = |source: u16| {
        let mut c = net.connection(1003);
        c.client.1 = source;
        c
    };
    let two = flow(5001).established(flow(5000).established(limited("flows at a time")));
    vec![
        two.outer(flow(5002).c("S", 1, 0), LimitFlows)
            .outer(flow(5000).c("A", 1001, 5001).payload(b"x"), Established),
        flow(5000)
            .established(limited("a SYN that is sent again is no second flow"))
            .outer(flow(5001).c("S", 1000, 0), Rule)
            .outer(flow(5001).c("S", 1000, 0), Established)
            .outer(flow(5002).c("S", 1000, 0), LimitFlows),
    ]
}

/// Each fragment counts as a packet, and what follows a first one over the limit is lost.
fn fragments(net: &Net) -> Vec<Case> {
    let large = udp(net, 5000, 1000).payload(&[7; 4992]);
    let part = |from: usize| large.clone().fragment(from, from + 1000, 9);
    vec![
        limited("five fragments of a burst of five")
            .outer(part(0), Rule)
            .outer(part(1000), Established)
            .outer(part(2000), Established)
            .outer(part(3000), Established)
            .outer(part(4000), Established)
            .outer(udp(net, 5001, 1000), LimitPackets),
        times(
            limited("a first fragment over the limit").outer(udp(net, 5000, 1000), Rule),
            4,
            &udp(net, 5000, 1000),
            Established,
        )
        .outer(part(0), LimitPackets)
        .outer(part(1000), FragmentDenied),
    ]
}

/// A limit of a new policy holds for the flows of the old one, and what it took away it gives back.
fn after_a_change(net: &Net) -> Vec<Case> {
    const FREE: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/48"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules: [{ name: free, allow: [udp/1000, udp/1009], from: clients, to: servers }]
"#;
    let packet = udp(net, 5000, 1000);
    vec![
        times(
            Case::new("a limit that comes with a policy, and goes with one")
                .with(FREE)
                .outer(packet.clone(), Rule),
            20,
            &packet,
            Established,
        )
        .apply(LIMITS)
        .inner(packet.clone().reversed(), Established)
        .outer(packet.clone(), Established)
        .outer(packet.clone(), Established)
        .outer(packet.clone(), Established)
        .outer(packet.clone(), Established)
        .outer(packet.clone(), LimitPackets)
        .inner(packet.clone().reversed(), LimitPackets)
        .apply(FREE)
        .outer(packet.clone(), Established)
        .outer(packet.clone(), Established),
        // Nobody wrote down who opened what no entry was made for.
        Case::new("a flow under a rule that follows none goes on")
            .with(FREE)
            .outer(udp(net, 5000, 1009), Rule)
            .apply(LIMITS)
            .outer(udp(net, 5000, 1009), Established),
    ]
}
