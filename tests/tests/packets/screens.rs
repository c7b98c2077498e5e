//! Screens: each in mode drop, count and skip, and a packet beside it that none of them meets.

use std::net::IpAddr;

use fw_common::abi::EventKind::Noted;
use fw_common::abi::Reason::{
    self, BadLength, DenyDefault, Established, ImpossibleSource, Land, OwnSource, PlaneMismatch, Rule,
    SourceRoute, TcpFinNoAck, TcpNoFlow, TcpNull, TcpSynFin, TcpSynRst, TcpXmas, TtlZero,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net, Step};

/// Everything is allowed but what a screen meets; one plane belongs to the network's port, one to the guarded host's,
/// one to a port that this machine has not.
macro_rules! policy {
    ($protect:literal) => {
        concat!(
            r#"
version: 1
zones:
  training: { addresses: [10.1.0.0/24, "fd00:1::/80"], plane: training, ports: [uplink] }
  misplaced: { addresses: [10.1.1.0/24, "fd00:1:0:0:1::/80"], plane: management, ports: [host] }
  nowhere:  { addresses: [10.1.2.0/24, "fd00:1:0:0:2::/80"], plane: storage, ports: [rail] }
  unbound:  { addresses: [10.1.3.0/24, "fd00:1:0:0:3::/80"], plane: lab }
"#,
            $protect,
            r"
rules: [{ name: all, allow: all, from: any, to: any }]
"
        )
    };
}

const DROP: &str = policy!("");
const COUNT: &str = policy!("protect: { spoofed: count, invalid: count }");
const SKIP: &str = policy!("protect: { spoofed: skip, invalid: skip }");
/// One by one.
const MIXED: &str = policy!("protect: { screens: { ttl_zero: count, land: skip, tcp_null: drop } }");

/// A packet, the screen that it meets, and what becomes of it where the screen lets it pass.
struct Row {
    name: &'static str,
    packet: Packet,
    screen: Reason,
    otherwise: Reason,
}

fn rows(net: &Net) -> Vec<Row> {
    let c = net.connection(80);
    let udp_length = if net.ipv6() { 44 } else { 24 };
    let query = Packet::udp((net.client, 5353), (net.server, 53)).payload(b"who?");
    let row = |name, packet, screen, otherwise| Row {
        name,
        packet,
        screen,
        otherwise,
    };
    let mut rows = vec![
        row("hop limit 0", c.c("S", 1000, 0).hops(0), TtlZero, Rule),
        row("no flag", c.c("", 1, 1), TcpNull, TcpNoFlow),
        row("all lights on", c.c("FPU", 1, 1), TcpXmas, TcpNoFlow),
        row("SYN and FIN", c.c("SF", 1000, 0), TcpSynFin, Rule),
        row("SYN and RST", c.c("SR", 1000, 0), TcpSynRst, Rule),
        row("FIN without ACK", c.c("F", 1, 1), TcpFinNoAck, TcpNoFlow),
        row(
            "a UDP length beyond the packet",
            query.edit(udp_length, &[0, 13]),
            BadLength,
            Rule,
        ),
        row("from an address to itself", land(net), Land, Rule),
        row(
            "a plane that is bound to another port",
            planar(net, 1),
            PlaneMismatch,
            Rule,
        ),
        row(
            "a plane that is bound to a port that is not there",
            planar(net, 2),
            PlaneMismatch,
            Rule,
        ),
    ];
    if !net.ipv6() {
        let routed = c.c("S", 1000, 0).ip_options(&[131, 7, 4, 10, 0, 0, 9, 0]);
        rows.push(row("a source route", routed, SourceRoute, Rule));
    }
    for source in impossible(net) {
        let packet = Packet::udp(
            (source.parse::<IpAddr>().expect("an address"), 5353),
            (net.server, 53),
        );
        rows.push(row("an impossible source", packet, ImpossibleSource, Rule));
    }
    rows
}

fn impossible(net: &Net) -> &'static [&'static str] {
    if net.ipv6() {
        &["::", "::1", "ff02::1", "::ffff:10.1.0.7"]
    } else {
        &[
            "0.0.0.1",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ]
    }
}

/// An address of the plane with this number.
fn of_plane(net: &Net, plane: u8) -> IpAddr {
    let text = if net.ipv6() {
        format!("fd00:1:0:0:{plane:x}::7")
    } else {
        format!("10.1.{plane}.7")
    };
    text.parse().expect("an address")
}

/// A SYN from the plane with this number.
fn planar(net: &Net, plane: u8) -> Packet {
    Packet::tcp((of_plane(net, plane), 40_000), (net.server, 80)).flags("S")
}

/// A SYN from an address, of a plane that may use any port, to itself.
fn land(net: &Net) -> Packet {
    let address = of_plane(net, 3);
    Packet::tcp((address, 40_000), (address, 80)).flags("S")
}

pub fn cases(net: &Net) -> Vec<Case> {
    let mut cases = neighbours(net);
    for row in rows(net) {
        cases.push(
            Case::new(row.name)
                .with(DROP)
                .outer(row.packet, row.screen)
                .noted(row.screen, 0),
        );
    }
    for row in rows(net) {
        let case = Case::new(&format!("{}, counted", row.name))
            .with(COUNT)
            .outer(row.packet, row.otherwise)
            .noted(row.screen, 1);
        cases.push(case.told(Noted, row.screen));
    }
    for row in rows(net) {
        let case = Case::new(&format!("{}, let alone", row.name))
            .with(SKIP)
            .outer(row.packet, row.otherwise)
            .noted(row.screen, 0);
        cases.push(if row.otherwise.allows() {
            case.step(Step::Untold)
        } else {
            case
        });
    }
    cases.extend(mixed(net));
    cases
}

fn neighbours(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    vec![
        c.established(Case::new("what no screen meets").with(DROP))
            .outer(c.c("A", 1001, 5001).hops(1), Established)
            .outer(c.c("FPA", 1001, 5001), Established),
        Case::new("a plane on its port")
            .with(DROP)
            .outer(planar(net, 0), Rule),
        Case::new("a plane without ports")
            .with(DROP)
            .outer(planar(net, 3), Rule),
        Case::new("no plane at all")
            .with(DROP)
            .outer(Packet::tcp((net.stranger, 40_000), c.server).flags("S"), Rule),
        Case::new("screens do not open what is this machine's")
            .with(SKIP)
            .outer(
                Packet::tcp((net.own, 40_000), (net.client, 80)).flags("S"),
                OwnSource,
            ),
    ]
}

fn mixed(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    vec![
        Case::new("one screen counts, one is skipped, one drops")
            .with(MIXED)
            .outer(c.c("S", 1000, 0).hops(0), Rule)
            .noted(TtlZero, 1)
            .outer(land(net), Rule)
            .noted(Land, 0)
            .outer(c.c("", 1, 1), TcpNull),
        Case::new("two screens: the one that drops decides")
            .with(MIXED)
            .outer(c.c("", 1, 1).hops(0), TcpNull)
            .noted(TtlZero, 0),
        Case::new("what a screen counts is judged by the rules")
            .outer(net.connection(81).c("S", 1, 0), DenyDefault),
    ]
}
