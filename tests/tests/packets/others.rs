//! UDP, ICMP, and protocols without ports.

use fw_common::abi::Reason::{
    DenyDefault, DenyRedirect, Established, IcmpNoFlow, IcmpType, Rule, TcpInvalid, WrongFamily, WrongSide,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net, v6};

pub fn cases(net: &Net) -> Vec<Case> {
    [
        udp(net),
        rdma(net),
        directions(net),
        echo(net),
        kinds(net),
        lifetimes(net),
    ]
    .concat()
}

#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn udp(net: &Net) -> Vec<Case> {
    let query = Packet::udp((net.client, 5353), (net.server, 53)).payload(b"who?");
    let answer = query.clone().reversed();
    let log = Packet::udp((net.client, 5000), (net.server, 514)).payload(b"log");
    let one_way = |mut case: Case, packets: usize| {
        for _ in 0..packets {
            case = case.outer(log.clone(), Established);
        }
        case
    };
    let one_way_confirmed = one_way(Case::new("").outer(log.clone(), Rule), 7)
        .wait(2)
        .outer(log.clone(), Established);
    // Later than halfway, so that what counts is the answer's time.
    let answered = Case::new("")
        .outer(query.clone(), Rule)
        .wait(29)
        .inner(answer.clone(), Established);
    vec![
        Case::new("a UDP query and its answer")
            .outer(query.clone(), Rule)
            .inner(answer.clone(), Established)
            .flows(0, 1),
        Case::new("the opener's second packet after an answer confirms the flow")
            .outer(query.clone(), Rule)
            .inner(answer.clone(), Established)
            .outer(query.clone(), Established)
            .flows(1, 0),
        Case::new("many packets without an answer confirm nothing soon")
            .outer(query.clone(), Rule)
            .outer(query.clone(), Established)
            .outer(query.clone(), Established)
            .flows(0, 1),
        one_way(
            Case::new("a one-way flow is confirmed after 8 packets and 2 s").outer(log.clone(), Rule),
            7,
        )
        .flows(0, 1)
        .wait(2)
        .outer(log.clone(), Established)
        .flows(1, 0),
        one_way(
            Case::new("8 packets within 2 s are not enough").outer(log.clone(), Rule),
            9,
        )
        .flows(0, 1),
        Case::new("an answer that nobody asked for").inner(answer.clone(), DenyDefault),
        Case::new("an answer from another port")
            .outer(query.clone(), Rule)
            .inner(Packet::udp((net.server, 54), (net.client, 5353)), DenyDefault),
        Case::new("a UDP packet of a known flow from the wrong side")
            .outer(query.clone(), Rule)
            .outer(answer.clone(), WrongSide),
        Case::new("unanswered UDP: alive until 30 s")
            .outer(query.clone(), Rule)
            .wait(29)
            .inner(answer.clone(), Established),
        Case::new("unanswered UDP: over after 30 s")
            .outer(query.clone(), Rule)
            .wait(31)
            .inner(answer.clone(), DenyDefault),
        answered
            .clone()
            .wait(29)
            .inner(answer.clone(), Established)
            .flows(0, 1)
            .named("answered but unconfirmed UDP: alive until 30 s after the answer"),
        answered
            .wait(31)
            .inner(answer.clone(), DenyDefault)
            .named("answered but unconfirmed UDP: over after 30 s"),
        one_way_confirmed
            .clone()
            .wait(29)
            .outer(log.clone(), Established)
            .flows(1, 0)
            .named("one-way UDP: alive until 30 s"),
        one_way_confirmed
            .wait(31)
            .outer(log.clone(), Rule)
            .flows(1, 1)
            .named("one-way UDP: over after 30 s"),
        confirmed(net, 119).inner(answer.clone(), Established),
        confirmed(net, 121).inner(answer, DenyDefault),
    ]
}

const RDMA: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: rdma, allow: [roce], between: [clients, servers] }
"#;

/// `RoCEv2`: both sides of a queue pair send to 4791, each from a port of its own (InfiniBand annex A17.9.2), so each direction
/// is a flow that nobody answers.
fn rdma(net: &Net) -> Vec<Case> {
    let case = |name: &str| Case::new(name).with(RDMA);
    // A base transport header: operation, flags, partition, destination queue pair, sequence number.
    let write = |port, pair: u8| {
        Packet::udp((net.client, port), (net.server, 4791))
            .payload(&[0x0a, 0x40, 0xff, 0xff, 0, 0, 0, pair, 0, 0, 0, 1])
    };
    let acks = Packet::udp((net.server, 50_001), (net.client, 4791))
        .payload(&[0x11, 0x40, 0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0]);
    let more = |mut case: Case, packets: usize| {
        for _ in 0..packets {
            case = case.outer(write(49_152, 1), Established);
        }
        case
    };
    vec![
        more(
            case("RDMA one way is confirmed after 2 s and 8 packets")
                .outer(write(49_152, 1), Rule)
                .flows(0, 1),
            6,
        )
        .wait(2)
        .outer(write(49_152, 1), Established)
        .flows(0, 1)
        .outer(write(49_152, 1), Established)
        .flows(1, 0)
        .wait(29)
        .outer(write(49_152, 1), Established),
        case("the way back of a queue pair is a flow of its own")
            .outer(write(49_152, 1), Rule)
            .inner(acks.clone(), Rule)
            .inner(acks.clone(), Established)
            .outer(write(49_152, 1), Established)
            .flows(0, 2),
        case("queue pairs with one source port share a flow; the key is by ports")
            .outer(write(49_152, 1), Rule)
            .outer(write(49_152, 2), Established)
            .outer(write(49_153, 3), Rule)
            .flows(0, 2),
    ]
}

fn confirmed(net: &Net, wait: u64) -> Case {
    let query = Packet::udp((net.client, 5353), (net.server, 53));
    Case::new(&format!("confirmed UDP, {wait} s later"))
        .outer(query.clone(), Rule)
        .inner(query.clone().reversed(), Established)
        .outer(query, Established)
        .wait(wait)
}

/// Everything is allowed between different hosts, in one direction.
const ONE_WAY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
protect: { screens: { land: skip } }
rules:
  - { name: there, allow: [tcp/53, udp/53, udp/54], from: clients, to: servers }
  - { name: back,  allow: [tcp/55, udp/55], from: servers, to: clients }
  - { name: alone, allow: [udp/56, tcp/56, udp/57], from: clients, to: clients }
"#;

/// The direction is the opener's, whatever the key's order says: with equal ports, equal addresses, and either address the
/// lower one.
fn directions(net: &Net) -> Vec<Case> {
    let (client, server) = (net.client, net.server);
    let case = |name: &str| Case::new(name).with(ONE_WAY);
    let there = Packet::udp((client, 53), (server, 53));
    let back = Packet::udp((server, 55), (client, 55));
    let alone = Packet::udp((client, 40_000), (client, 56));
    let connection = crate::case::Connection {
        client: (client, 53),
        server: (server, 53),
    };
    vec![
        case("A:53 to B:53, opened by A")
            .outer(there.clone(), Rule)
            .inner(there.clone().reversed(), Established)
            .outer(there.clone(), Established)
            .flows(1, 0),
        case("A:53 to B:53, opened by B").inner(there.clone().reversed(), DenyDefault),
        case("B:55 to A:55, opened by B")
            .inner(back.clone(), Rule)
            .outer(back.clone().reversed(), Established)
            .inner(back.clone(), Established)
            .flows(1, 0),
        case("B:55 to A:55, opened by A").outer(back.reversed(), DenyDefault),
        connection
            .established(case("TCP with equal ports"))
            .inner(connection.s("A", 5001, 1001).payload(b"x"), Established)
            .inner(connection.s("S", 9000, 0), TcpInvalid),
        case("equal ports after a new policy: judged in the opener's direction")
            .outer(there.clone(), Rule)
            .apply(ONE_WAY)
            .inner(there.clone().reversed(), Established)
            .apply(ONE_WAY)
            .outer(there, Established),
        case("equal addresses, opened by the higher port")
            .outer(alone.clone(), Rule)
            .inner(alone.clone().reversed(), Established)
            .outer(alone, Established)
            .flows(1, 0),
        case("equal addresses, opened by the lower port")
            .outer(Packet::udp((client, 5), (client, 57)), Rule)
            .inner(Packet::udp((client, 57), (client, 5)), Established)
            .outer(Packet::udp((client, 57), (client, 6)), DenyDefault),
    ]
}

/// Flows of protocols without a state machine of their own.
fn lifetimes(net: &Net) -> Vec<Case> {
    let gre = Packet::other(47, net.client, net.server).payload(&[0; 8]);
    let ask = Packet::echo_request(net.client, net.server, 7, 1);
    let answer = Packet::echo_reply(net.server, net.client, 7, 1);
    let confirmed = |packet: &Packet, answer: &Packet| {
        Case::new("")
            .outer(packet.clone(), Rule)
            .inner(answer.clone(), Established)
            .outer(packet.clone(), Established)
            .flows(1, 0)
    };
    let back = gre.clone().reversed();
    vec![
        Case::new("unanswered GRE: alive until 600 s")
            .outer(gre.clone(), Rule)
            .wait(599)
            .inner(back.clone(), Established),
        Case::new("unanswered GRE: over after 600 s")
            .outer(gre.clone(), Rule)
            .wait(601)
            .inner(back.clone(), DenyDefault),
        confirmed(&gre, &back)
            .wait(599)
            .inner(back.clone(), Established)
            .named("confirmed GRE: alive until 600 s"),
        confirmed(&gre, &back)
            .wait(601)
            .inner(back, DenyDefault)
            .named("confirmed GRE: over after 600 s"),
        confirmed(&ask, &answer)
            .wait(29)
            .inner(answer.clone(), Established)
            .named("a confirmed echo: alive until 30 s"),
        confirmed(&ask, &answer)
            .wait(31)
            .inner(answer, IcmpNoFlow)
            .named("a confirmed echo: over after 30 s"),
    ]
}

fn echo(net: &Net) -> Vec<Case> {
    let (client, server) = (net.client, net.server);
    let ask = Packet::echo_request(client, server, 7, 1);
    let answer = Packet::echo_reply(server, client, 7, 1);
    vec![
        Case::new("an echo and its reply")
            .outer(ask.clone(), Rule)
            .inner(answer.clone(), Established),
        Case::new("a reply that nobody asked for")
            .inner(answer.clone(), IcmpNoFlow)
            .outer(answer.clone(), IcmpNoFlow),
        Case::new("a reply with another identifier")
            .outer(ask.clone(), Rule)
            .inner(Packet::echo_reply(server, client, 8, 1), IcmpNoFlow),
        Case::new("both hosts ask with one identifier: two flows")
            .outer(ask.clone(), Rule)
            .inner(Packet::echo_request(server, client, 7, 1), Rule)
            .inner(answer.clone(), Established)
            .outer(Packet::echo_reply(client, server, 7, 1), Established),
        Case::new("an echo that no rule allows")
            .outer(Packet::echo_request(net.stranger, server, 7, 1), DenyDefault),
        Case::new("an echo: alive until 30 s")
            .outer(ask.clone(), Rule)
            .wait(29)
            .inner(answer.clone(), Established),
        Case::new("an echo: over after 30 s")
            .outer(ask, Rule)
            .wait(31)
            .inner(answer, IcmpNoFlow),
    ]
}

fn kinds(net: &Net) -> Vec<Case> {
    let (client, server) = (net.client, net.server);
    let mut cases = vec![
        Case::new("GRE").outer(Packet::other(47, client, server).payload(&[0; 8]), Rule),
        Case::new("ESP, which no rule allows").outer(
            Packet::other(50, net.stranger, server).payload(&[1; 16]),
            DenyDefault,
        ),
        Case::new("SCTP by its port").outer(
            Packet::other(132, client, server).payload(&[3, 0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0]),
            Rule,
        ),
        Case::new("SCTP to another port").outer(
            Packet::other(132, client, server).payload(&[3, 0, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0]),
            DenyDefault,
        ),
    ];
    if net.ipv6() {
        let other_family = Packet::other(1, client, server).payload(&[8, 0, 0, 0, 0, 7, 0, 1]);
        let redirect = Packet::redirect6(v6(client), v6(server), v6(client), v6(net.stranger));
        cases.push(Case::new("ICMP inside of IPv6").outer(other_family, WrongFamily));
        cases.push(Case::new("an ICMPv6 redirect").outer(redirect, DenyRedirect));
        cases.push(
            Case::new("a node information query")
                .outer(Packet::icmp(client, server, 139, 0, [0; 4]), IcmpType),
        );
    } else {
        let other_family = Packet::other(58, client, server).payload(&[128, 0, 0, 0, 0, 7, 0, 1]);
        cases.push(Case::new("ICMPv6 inside of IPv4").outer(other_family, WrongFamily));
        cases.push(
            Case::new("an ICMP redirect")
                .outer(Packet::icmp(client, server, 5, 1, [10, 1, 0, 1]), DenyRedirect),
        );
        cases.push(
            Case::new("an ICMP timestamp").outer(Packet::icmp(client, server, 13, 0, [0; 4]), IcmpType),
        );
        cases.push(
            Case::new("an obsolete source quench")
                .outer(Packet::icmp(client, server, 4, 0, [0; 4]), IcmpType),
        );
    }
    cases
}
