//! What rules say beside who and what: limits, reject, log, audit, until, track.

use std::net::IpAddr;

use fw_common::abi::EventKind::{Audit, Log};
use fw_common::abi::Reason::{
    self, DenyDefault, DenyRule, Established, IcmpNoFlow, LimitBytes, LimitFlows, LimitNewFlows,
    LimitPackets, RejectDefault, RejectRule, Rule, RuleExpired, TcpNoFlow, Untracked,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net, Step};

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

const ACTIONS: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: refuse,        reject: [tcp/1100, udp/1100, icmp/8, icmpv6/128, sctp/1100], from: clients, to: servers, log: true }
  - { name: tried,         deny: [udp/1101], from: clients, to: servers, audit: true }
  - { name: tried_reject,  reject: [tcp/1102], from: clients, to: servers, audit: true }
  - { name: logged,        allow: [udp/1103], from: clients, to: servers, log: true }
  - { name: logged_deny,   deny: [udp/1104], from: clients, to: servers, log: true }
  - { name: stateless,     allow: [udp/1105, tcp/1105], from: clients, to: servers, track: false }
  - { name: stateless_log, allow: [udp/1106], from: clients, to: servers, track: false, log: true }
  - { name: ends,          allow: [tcp/1107, udp/1107], from: clients, to: servers, until: "1970-01-06T22:40:00Z" }
  - { name: after,         allow: [tcp/1107, udp/1107], from: clients, to: servers }
  - { name: stateless_end, allow: [udp/1108], from: clients, to: servers, track: false, until: "1970-01-06T22:40:00Z" }
  - { name: answers,       allow: [udp/1109], from: servers, to: clients, track: false }
  - { name: pings,         allow: [icmp/8, icmpv6/128], from: servers, to: clients, track: false }
default: { inside: reject, outside: drop }
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

pub fn limits(net: &Net) -> Vec<Case> {
    [rates(net), per(net), several(net), at_a_time(net)].concat()
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

pub fn actions(net: &Net) -> Vec<Case> {
    [reject(net), reports(net), untracked(net), deadlines(net)].concat()
}

fn act(name: &str) -> Case {
    Case::new(name).with(ACTIONS)
}

fn reject(net: &Net) -> Vec<Case> {
    let sctp = Packet::other(132, net.client, net.server).payload(&[3, 0, 4, 76, 0, 0, 0, 0, 0, 0, 0, 0]);
    let others = Packet::udp((net.client, 5000), (net.server, 9));
    vec![
        act("rejected")
            .outer(net.connection(1100).c("S", 1000, 0), RejectRule)
            .told(Log, RejectRule),
        act("rejected UDP").outer(udp(net, 5000, 1100), RejectRule),
        act("rejected SCTP").outer(sctp, RejectRule),
        act("a rejected echo").outer(Packet::echo_request(net.client, net.server, 7, 1), RejectRule),
        act("no answers are left: it is dropped")
            .step(Step::Answers(0))
            .unanswered(net.connection(1100).c("S", 1000, 0), RejectRule)
            .unanswered(others.clone(), RejectDefault),
        act("the default rejects what comes from inside").outer(others.clone(), RejectDefault),
        act("the default drops what comes from outside")
            .outer(Packet::udp((net.stranger, 5000), (net.server, 9)), DenyDefault),
        act("a frame for all stations gets no answer")
            .unanswered(others.macs([2; 6], [0xff; 6]), RejectDefault),
        act("a segment in the middle of nothing is not rejected, but dropped")
            .outer(net.connection(1100).c("A", 1000, 7), TcpNoFlow),
        act("this machine's own packet is rejected too")
            .own(Packet::udp((net.own, 5000), (net.client, 9)), RejectDefault),
    ]
}

fn reports(net: &Net) -> Vec<Case> {
    let tried = net.connection(1102);
    vec![
        act("a denied flow is let through for a trial")
            .outer(udp(net, 5000, 1101), Reason::Audit)
            .told(Audit, Reason::Audit)
            .noted(DenyRule, 1)
            .inner(udp(net, 5000, 1101).reversed(), Established)
            .step(Step::Untold)
            .outer(udp(net, 5000, 1101), Established)
            .noted(DenyRule, 1)
            .flows(1, 0),
        act("a rejected flow is let through for a trial")
            .outer(tried.c("S", 1000, 0), Reason::Audit)
            .told(Audit, Reason::Audit)
            .noted(RejectRule, 1)
            .inner(tried.s("SA", 5000, 1001), Established)
            .outer(tried.c("A", 1001, 5001), Established),
        act("an allowed flow is reported once")
            .outer(udp(net, 5000, 1103), Rule)
            .told(Log, Rule)
            .outer(udp(net, 5000, 1103), Established)
            .step(Step::Untold)
            .outer(udp(net, 5001, 1103), Rule)
            .told(Log, Rule),
        act("a denied packet is reported as a match of its rule")
            .outer(udp(net, 5000, 1104), DenyRule)
            .told(Log, DenyRule),
        act("without an entry each packet is reported")
            .outer(udp(net, 5000, 1106), Untracked)
            .told(Log, Untracked)
            .outer(udp(net, 5000, 1106), Untracked)
            .told(Log, Untracked),
        act("without log nothing is reported")
            .outer(udp(net, 5000, 1105), Untracked)
            .step(Step::Untold),
    ]
}

fn untracked(net: &Net) -> Vec<Case> {
    let c = net.connection(1105);
    vec![
        act("no entry, both ways")
            .outer(udp(net, 5000, 1105), Untracked)
            .inner(udp(net, 5000, 1105).reversed(), Untracked)
            .flows(0, 0),
        act("no entry for TCP, whatever the segment")
            .outer(c.c("S", 1000, 0), Untracked)
            .inner(c.s("SA", 5000, 1001), Untracked)
            .outer(c.c("A", 1001, 5001), Untracked)
            .inner(c.s("A", 77, 99), Untracked)
            .inner(c.s("R", 77, 0), Untracked)
            .flows(0, 0),
        act("the answering side opens nothing")
            .inner(c.s("S", 1000, 0), RejectDefault)
            .inner(Packet::udp((net.server, 5000), (net.client, 1105)), RejectDefault),
        act("a rule of the other direction")
            .inner(Packet::udp((net.server, 5000), (net.client, 1109)), Untracked)
            .outer(Packet::udp((net.client, 1109), (net.server, 5000)), Untracked)
            .outer(Packet::udp((net.client, 1110), (net.server, 5000)), RejectDefault),
        act("an echo without an entry")
            .inner(Packet::echo_request(net.server, net.client, 7, 1), Untracked)
            .outer(Packet::echo_reply(net.client, net.server, 7, 1), Untracked)
            .inner(Packet::echo_reply(net.server, net.client, 7, 1), IcmpNoFlow),
    ]
}

/// The rig applies a policy at midnight of 1970-01-01: these end 513,600 s later.
fn deadlines(net: &Net) -> Vec<Case> {
    let c = net.connection(1107);
    let week = 7 * 86_400;
    vec![
        c.established(act("a rule that ends ends its flows").apply(ACTIONS))
            .wait(300_000)
            .outer(c.c("A", 1001, 5001).payload(b"x"), Established)
            .wait(300_000)
            .outer(c.c("A", 1002, 5001).payload(b"x"), RuleExpired)
            .inner(c.s("A", 5001, 1002).payload(b"x"), RuleExpired),
        act("a rule that has ended opens nothing, and no later rule is asked")
            .apply(ACTIONS)
            .outer(c.c("S", 1000, 0), Rule)
            .wait(week)
            .outer(c.c("S", 1000, 0), RuleExpired)
            .outer(udp(net, 5000, 1107), RuleExpired),
        act("a rule without entries ends too")
            .apply(ACTIONS)
            .outer(udp(net, 5000, 1108), Untracked)
            .wait(week)
            .outer(udp(net, 5000, 1108), RuleExpired),
    ]
}
