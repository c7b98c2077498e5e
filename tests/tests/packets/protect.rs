//! Floods, caps and scans, on a clock that stands still unless a case moves it.

use std::net::IpAddr;

use fw_common::abi::Reason::{
    self, Banned, CapFlows, CapHalfOpen, DenyDefault, Established, IcmpFlood, Rule, Scan, SynProof,
    SynProofOver, TcpNoFlow, UdpFlood,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net, Step};

macro_rules! policy {
    ($protect:literal) => {
        concat!(
            r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  bastion: { addresses: [10.3.0.1, "fd00:3::1"], lifeline: true }
"#,
            $protect,
            r"
rules: [{ name: open, allow: [http, dns, ping, sctp/5000], from: any, to: any }]
"
        )
    };
}

pub const FLOODS: &str = policy!(
    r"protect:
  syn_flood:  { above: 2/s, mode: drop, exempt: [clients] }
  udp_flood:  { above: 2/s, mode: drop }
  icmp_flood: { above: 2/s, mode: drop }
"
);
const COUNTED: &str = policy!(
    r"protect:
  syn_flood:  { above: 2/s, mode: count }
  udp_flood:  { above: 2/s, mode: count }
  icmp_flood: { above: 2/s, mode: count }
  scan: { above: 2/min, mode: count }
"
);
const SKIPPED: &str = policy!(
    r"protect:
  syn_flood:  { above: 2/s, mode: skip }
  udp_flood:  { above: 2/s, mode: skip }
  icmp_flood: { above: 2/s, mode: skip }
  scan: { above: 2/min, mode: skip }
"
);
const SCANS: &str = policy!(
    r"protect:
  scan: { above: 2/min, mode: drop, ban: 10m }
"
);
const CAPS: &str = policy!(
    r"protect:
  caps: { half_open: 3, flows: 2 }
"
);
const NO_CAPS: &str = policy!(
    r"protect:
  caps: { half_open: none, flows: none }
"
);

/// A bastion of the policies.
fn bastion(net: &Net) -> IpAddr {
    if net.ipv6() { "fd00:3::1" } else { "10.3.0.1" }
        .parse()
        .expect("an address")
}

/// Another address in no zone, which has never completed a handshake.
fn bystander(net: &Net) -> IpAddr {
    if net.ipv6() {
        "2001:db8:0:1::9"
    } else {
        "198.51.101.9"
    }
    .parse()
    .expect("an address")
}

fn syn(from: IpAddr, source: u16, net: &Net) -> Packet {
    Packet::tcp((from, source), (net.server, 80))
        .flags("S")
        .numbers(1000, 0)
}

fn udp(from: IpAddr, source: u16, net: &Net) -> Packet {
    Packet::udp((from, source), (net.server, 53))
}

pub fn cases(net: &Net) -> Vec<Case> {
    let mut cases = floods(net);
    cases.extend(other_modes(net));
    cases.extend(scans(net));
    cases.extend(caps(net));
    cases
}

#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn floods(net: &Net) -> Vec<Case> {
    let (stranger, server) = (net.stranger, net.server);
    let elsewhere = if net.ipv6() { "fd00:2::99" } else { "10.2.0.99" };
    let elsewhere: IpAddr = elsewhere.parse().expect("an address");
    let echo = |id| Packet::echo_request(stranger, server, id, 1);
    let sctp = Packet::other(132, stranger, server).payload(&[3, 0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0]);
    let case = |name: &str| Case::new(name).with(FLOODS);
    let two = |name: &str| {
        case(name)
            .outer(syn(stranger, 5000, net), Rule)
            .outer(syn(stranger, 5001, net), Rule)
    };
    vec![
        two("SYNs above the threshold are asked for a proof")
            .outer(syn(stranger, 5002, net), SynProof)
            .outer(syn(stranger, 5000, net), Established)
            .flows(0, 2)
            .wait(1)
            .outer(syn(stranger, 5002, net), Rule),
        two("no answers are left")
            .step(Step::Answers(0))
            .outer(syn(stranger, 5002, net), SynProofOver),
        two("a reset that proves nothing").outer(
            Packet::tcp((stranger, 5002), (server, 80))
                .flags("R")
                .numbers(77, 0),
            TcpNoFlow,
        ),
        two("exempt zones, lifelines and this machine itself are not asked")
            .outer(syn(net.client, 5000, net), Rule)
            .outer(syn(net.client, 5001, net), Rule)
            .outer(syn(net.client, 5002, net), Rule)
            .outer(syn(bastion(net), 5000, net), Rule)
            .outer(syn(bastion(net), 5001, net), Rule)
            .outer(syn(bastion(net), 5002, net), Rule)
            .own(Packet::tcp((net.own, 5000), (stranger, 80)).flags("S"), Rule)
            .own(Packet::tcp((net.own, 5001), (stranger, 80)).flags("S"), Rule)
            .own(Packet::tcp((net.own, 5002), (stranger, 80)).flags("S"), Rule),
        two("another destination is not under attack")
            .outer(Packet::tcp((stranger, 5002), (elsewhere, 80)).flags("S"), Rule),
        case("UDP above the threshold is dropped")
            .outer(udp(stranger, 5000, net), Rule)
            .outer(udp(stranger, 5001, net), Rule)
            .outer(udp(stranger, 5002, net), UdpFlood)
            .outer(udp(stranger, 5000, net), Established)
            .outer(udp(net.client, 5002, net), Rule)
            .outer(sctp, UdpFlood)
            .outer(syn(stranger, 5000, net), Rule)
            .wait(1)
            .outer(udp(stranger, 5002, net), Rule),
        case("echoes above the threshold are dropped")
            .outer(echo(1), Rule)
            .outer(echo(2), Rule)
            .outer(echo(3), IcmpFlood)
            .outer(echo(1), Established)
            .outer(udp(stranger, 5000, net), Rule)
            .wait(1)
            .outer(echo(3), Rule),
        completed(
            net,
            "who has completed a handshake is not asked for a proof",
            0,
            Rule,
        ),
        completed(net, "a completed handshake counts until 600 s", 599, Rule),
        completed(
            net,
            "a completed handshake counts no more after 600 s",
            601,
            SynProof,
        ),
    ]
}

/// What becomes of a flood's third SYN if its source has completed a handshake so many seconds before.
fn completed(net: &Net, name: &str, seconds: u64, third: Reason) -> Case {
    let c = connection(net, 4999);
    c.established(Case::new(name).with(FLOODS))
        .wait(seconds)
        .outer(syn(net.stranger, 5000, net), Rule)
        .outer(syn(net.stranger, 5001, net), Rule)
        .outer(syn(net.stranger, 5002, net), third)
        .outer(syn(bystander(net), 5002, net), SynProof)
}

fn connection(net: &Net, source: u16) -> crate::case::Connection {
    crate::case::Connection {
        client: (net.stranger, source),
        server: (net.server, 80),
    }
}

fn other_modes(net: &Net) -> Vec<Case> {
    let from = bystander(net);
    let echo = |id| Packet::echo_request(from, net.server, id, 1);
    let all = |name: &str, policy| {
        (5000..5003).fold(Case::new(name).with(policy), |case, source| {
            case.outer(syn(from, source, net), Rule)
                .outer(udp(from, source, net), Rule)
                .outer(echo(source), Rule)
        })
    };
    vec![
        all("floods that are counted pass", COUNTED)
            .noted(SynProof, 1)
            .noted(UdpFlood, 1)
            .noted(IcmpFlood, 1),
        all("floods that are let alone", SKIPPED)
            .noted(SynProof, 0)
            .noted(UdpFlood, 0)
            .noted(IcmpFlood, 0),
    ]
}

fn scans(net: &Net) -> Vec<Case> {
    let closed = |from: IpAddr, port: u16| Packet::udp((from, 5000), (net.server, port));
    let scanned = |from: IpAddr, case: Case| {
        (1..=3).fold(case, |case, port| case.outer(closed(from, port), DenyDefault))
    };
    let c = connection(net, 4999);
    let site = if net.ipv6() {
        "2001:db8::77"
    } else {
        "198.51.100.77"
    };
    let site: IpAddr = site.parse().expect("an address");
    // Of IPv6 a site's /64 is banned.
    let shared = if net.ipv6() { Banned } else { Rule };
    vec![
        scanned(
            bystander(net),
            Case::new("without a handshake nobody is counted, for anybody can write his address").with(SCANS),
        )
        .noted(Scan, 0)
        .outer(udp(bystander(net), 5001, net), Rule),
        scanned(
            net.stranger,
            c.established(Case::new("a scanner is banned, his flows go on").with(SCANS)),
        )
        .noted(Scan, 1)
        .outer(udp(net.stranger, 5001, net), Banned)
        .outer(syn(net.stranger, 5001, net), Banned)
        .outer(udp(site, 5001, net), shared)
        .outer(udp(bystander(net), 5001, net), Rule)
        .outer(c.c("A", 1001, 5001).payload(b"x"), Established)
        .wait(599)
        .outer(udp(net.stranger, 5001, net), Banned)
        .wait(2)
        .outer(udp(net.stranger, 5001, net), Rule),
        c.established(Case::new("two denied packets are no scan").with(SCANS))
            .outer(closed(net.stranger, 1), DenyDefault)
            .outer(closed(net.stranger, 2), DenyDefault)
            .noted(Scan, 0)
            .wait(30)
            .outer(closed(net.stranger, 3), DenyDefault)
            .noted(Scan, 0)
            .outer(udp(net.stranger, 5001, net), Rule),
        scanned(
            net.client,
            Case::new("who is in a zone is no scanner").with(SCANS),
        )
        .noted(Scan, 0)
        .outer(udp(net.client, 5001, net), Rule),
        scanned(
            net.stranger,
            c.established(Case::new("a scan that is counted bans nobody").with(COUNTED)),
        )
        .noted(Scan, 1)
        .outer(udp(net.stranger, 5001, net), Rule),
        scanned(
            net.stranger,
            c.established(Case::new("a scan that is let alone").with(SKIPPED)),
        )
        .noted(Scan, 0),
    ]
}

fn caps(net: &Net) -> Vec<Case> {
    let flow = |source| udp(net.client, source, net);
    let case = |name: &str| Case::new(name).with(CAPS);
    let confirmed = |case: Case, source: u16| {
        case.outer(flow(source), Rule)
            .inner(flow(source).reversed(), Established)
            .outer(flow(source), Established)
    };
    let three = |case: Case, from: IpAddr| {
        (5000..5003).fold(case, |case, source| case.outer(udp(from, source, net), Rule))
    };
    let neighbour = if net.ipv6() { "fd00:1::8" } else { "10.1.0.8" };
    let shared = if net.ipv6() { CapHalfOpen } else { Rule };
    vec![
        three(case("three unconfirmed flows of a source"), net.client)
            .outer(flow(5003), CapHalfOpen)
            .outer(flow(5000), Established)
            .outer(udp(neighbour.parse().expect("an address"), 5003, net), shared)
            .wait(35)
            .outer(flow(5003), Rule),
        three(case("a confirmed flow makes room for another"), net.client)
            .inner(flow(5000).reversed(), Established)
            .outer(flow(5000), Established)
            .outer(flow(5003), Rule)
            .outer(flow(5004), CapHalfOpen),
        confirmed(confirmed(case("two flows of a source"), 5000), 5001)
            .outer(flow(5002), CapFlows)
            .outer(flow(5000), Established)
            .outer(udp(net.stranger, 5002, net), Rule),
        three(case("lifelines have no caps"), bastion(net))
            .outer(udp(bastion(net), 5003, net), Rule)
            .outer(udp(bastion(net), 5004, net), Rule),
        (5000..5010).fold(Case::new("no caps").with(NO_CAPS), |case, source| {
            case.outer(flow(source), Rule)
        }),
    ]
}
