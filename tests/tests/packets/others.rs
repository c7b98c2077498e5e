//! UDP, ICMP, errors, and protocols without ports.

use fw_common::abi::Reason::{
    BadIcmp, BadIpv4, BadIpv6, DenyDefault, DenyRedirect, Established, ExtensionHeaders, IcmpBadQuote,
    IcmpNoFlow, IcmpType, IcmpUnrelated, Related, Rule, TcpInvalid, Truncated, WrongFamily, WrongSide,
};
use fw_common::tcp::State;
use fw_tests::packet::{Packet, Unreachable};

use crate::case::{Case, Net, v6};

pub fn cases(net: &Net) -> Vec<Case> {
    [
        udp(net),
        directions(net),
        echo(net),
        errors(net),
        error_quotes(net),
        quoted_segments(net),
        kinds(net),
        tunnels(net),
        lifetimes(net),
    ]
    .concat()
}

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
        confirmed(net, 119).inner(answer.clone(), Established),
        confirmed(net, 121).inner(answer, DenyDefault),
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

/// An error passes only if what it quotes was sent (RFC 5927 section 4.1), whoever reports it.
fn quoted_segments(net: &Net) -> Vec<Case> {
    let (client, server, router) = (net.client, net.server, net.stranger);
    let c = net.connection(80);
    let sent = c.c("A", 1001, 5001).payload(&[7; 1000]);
    let live = |name: &str| c.established(Case::new(name)).outer(sent.clone(), Established);
    let too_big = |quoted: &Packet| Packet::unreachable(router, client, Unreachable::TooBig, quoted);
    let numbered = |number: u32| c.c("A", number, 5001).payload(&[7; 1000]);
    let other_port = crate::case::Connection {
        client: (client, 40_001),
        ..c
    };
    let late = |name: &str| live(name).wait(3600).inner(too_big(&sent), Related);
    vec![
        late("packet too big from a router that nobody knows").state(State::Established),
        live("about the answering side's segment")
            .inner(c.s("A", 5001, 2001).payload(&[7; 1000]), Established)
            .outer(
                Packet::unreachable(
                    router,
                    server,
                    Unreachable::TooBig,
                    &c.s("A", 5001, 2001).payload(&[7; 1000]),
                ),
                Related,
            ),
        live("a sequence number that was not sent yet").inner(too_big(&numbered(3001)), IcmpBadQuote),
        live("a sequence number of half the space away")
            .inner(too_big(&numbered(1001_u32.wrapping_add(1 << 31))), IcmpBadQuote),
        live("a sequence number of long ago").inner(
            too_big(&numbered(1001_u32.wrapping_sub(10_000_000))),
            IcmpBadQuote,
        ),
        live("another port").inner(too_big(&other_port.c("A", 1001, 5001)), IcmpUnrelated),
        live("another protocol").inner(
            too_big(&Packet::udp(c.client, c.server).payload(&[7; 100])),
            IcmpUnrelated,
        ),
        live("another address").inner(
            too_big(
                &Packet::tcp((client, 40_000), (router, 80))
                    .flags("A")
                    .numbers(1001, 5001),
            ),
            IcmpUnrelated,
        ),
        live("another tag").inner(too_big(&sent).tags(&[101]), IcmpUnrelated),
        live("from the wrong side").outer(too_big(&sent), WrongSide),
        live("many errors change nothing")
            .inner(too_big(&sent), Related)
            .inner(too_big(&sent), Related)
            .state(State::Established)
            .flows(1, 0)
            .outer(c.c("A", 2001, 5001), Established),
    ]
}

/// GRE keys, security associations, authentication headers.
fn tunnels(net: &Net) -> Vec<Case> {
    let (client, server) = (net.client, net.server);
    let gre = |key: [u8; 4]| {
        Packet::other(47, client, server).payload(&[&[0x20, 0, 8, 0][..], &key, &[7; 20]].concat())
    };
    let esp = |index: [u8; 4]| Packet::other(50, client, server).payload(&[&index[..], &[0; 20]].concat());
    let pptp = |call: u8| Packet::other(47, client, server).payload(&[0x30, 1, 0x88, 0x0b, 0, 0, 0, call]);
    let sctp = Packet::other(132, client, server).payload(&[3, 0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0]);
    let answer = Packet::other(132, server, client).payload(&[0x13, 0x88, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut cases = vec![
        Case::new("two GRE keys are two flows, each with its own way back")
            .outer(gre([0, 0, 0, 1]), Rule)
            .outer(gre([0, 0, 0, 2]), Rule)
            .flows(0, 2)
            .inner(gre([0, 0, 0, 1]).reversed(), Established)
            .outer(gre([0, 0, 0, 1]), Established)
            .flows(1, 1)
            .inner(gre([0, 0, 0, 3]).reversed(), DenyDefault),
        Case::new("GRE without a key is another flow")
            .outer(gre([0, 0, 0, 1]), Rule)
            .outer(Packet::other(47, client, server).payload(&[0; 8]), Rule)
            .flows(0, 2),
        Case::new("call ids of PPTP differ by direction and do not count")
            .outer(pptp(1), Rule)
            .outer(pptp(2), Established)
            .inner(pptp(3).reversed(), Established),
        Case::new("a GRE key that is cut").outer(
            Packet::other(47, client, server).payload(&[0x20, 0, 8, 0, 0]),
            Truncated,
        ),
        Case::new("two security associations are two flows; the way back has its own")
            .outer(esp([0, 1, 0, 2]), Rule)
            .outer(esp([0, 1, 0, 3]), Rule)
            .outer(esp([0, 1, 0, 2]), Established)
            .flows(0, 2)
            .inner(esp([0, 1, 0, 4]).reversed(), DenyDefault),
        Case::new("ESP that is cut").outer(Packet::other(50, client, server).payload(&[0; 7]), Truncated),
        Case::new("SCTP and its answer")
            .outer(sctp.clone(), Rule)
            .inner(answer, Established)
            .outer(sctp, Established)
            .flows(1, 0),
        Case::new("SCTP that is cut").outer(Packet::other(132, client, server).payload(&[3; 11]), Truncated),
    ];
    cases.extend(authenticated(net));
    cases
}

/// An authentication header is walked through (RFC 4302), in both families.
fn authenticated(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let wrapped = |packet: &Packet, next: u8| {
        let header = if net.ipv6() { 40 } else { 20 };
        // Twelve bytes and a check value of twelve (IPv6: to a multiple of eight).
        [
            &[next, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..],
            &[9; 12],
            &packet.ip_packet()[header..],
        ]
        .concat()
    };
    let to =
        |packet: &Packet, next| Packet::other(51, net.client, net.server).payload(&wrapped(packet, next));
    let from = |packet: &Packet| Packet::other(51, net.server, net.client).payload(&wrapped(packet, 6));
    vec![
        Case::new("TCP behind an authentication header")
            .outer(to(&c.c("S", 1000, 0), 6), Rule)
            .inner(from(&c.s("SA", 5000, 1001)), Established)
            .outer(to(&c.c("A", 1001, 5001), 6), Established)
            .outer(c.c("A", 1001, 5001).payload(b"x"), Established),
        Case::new("a denied port behind an authentication header")
            .outer(to(&net.connection(81).c("S", 1, 0), 6), DenyDefault),
        Case::new("an authentication header inside of another")
            .outer(to(&c.c("S", 1000, 0), 51), ExtensionHeaders),
        Case::new("an authentication header that is cut").outer(
            Packet::other(51, net.client, net.server).payload(&[6, 4, 0, 0, 0, 0, 0, 1]),
            if net.ipv6() { BadIpv6 } else { Truncated },
        ),
        Case::new("an authentication header that reaches beyond the packet").outer(
            Packet::other(51, net.client, net.server).payload(&[6, 200, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            if net.ipv6() { BadIpv6 } else { BadIpv4 },
        ),
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

fn errors(net: &Net) -> Vec<Case> {
    let (client, server, router) = (net.client, net.server, net.stranger);
    let query = Packet::udp((client, 5353), (server, 53)).payload(b"who?");
    let answer = query.clone().reversed();
    let syn = net.connection(80);
    let known = || Case::new("").outer(query.clone(), Rule);
    let named = |name: &str, case: Case| Case {
        name: name.to_owned(),
        ..case
    };
    let port = Unreachable::Port;
    vec![
        named("port unreachable about a known flow", known())
            .inner(Packet::unreachable(server, client, port, &query), Related),
        named("any router on the way may report", known()).inner(
            Packet::unreachable(router, client, Unreachable::TimeExceeded, &query),
            Related,
        ),
        named("the opener may report about the answer", known())
            .inner(answer.clone(), Established)
            .outer(Packet::unreachable(client, server, port, &answer), Related),
        named("an error from the wrong side", known())
            .outer(Packet::unreachable(server, client, port, &query), WrongSide),
        named("an error to somebody else", known())
            .inner(Packet::unreachable(server, router, port, &query), IcmpUnrelated),
        named("an error about the flow when it is over", known())
            .wait(31)
            .inner(Packet::unreachable(server, client, port, &query), IcmpUnrelated),
        Case::new("an error about nothing known")
            .inner(Packet::unreachable(server, client, port, &query), IcmpUnrelated),
        syn.established(Case::new("packet too big, about TCP"))
            .outer(syn.c("A", 1001, 5001).payload(&[7; 1000]), Established)
            .inner(
                Packet::unreachable(
                    router,
                    client,
                    Unreachable::TooBig,
                    &syn.c("A", 1001, 5001).payload(&[7; 1000]),
                ),
                Related,
            ),
        syn.syn(Case::new("an error about a SYN")).inner(
            Packet::unreachable(router, client, port, &syn.c("S", 1000, 0)),
            Related,
        ),
        Case::new("an error about an echo request")
            .outer(Packet::echo_request(client, server, 7, 1), Rule)
            .inner(
                Packet::unreachable(router, client, port, &Packet::echo_request(client, server, 7, 1)),
                Related,
            ),
        named("a parameter problem", known()).inner(
            Packet::icmp(router, client, if net.ipv6() { 4 } else { 12 }, 0, [0; 4]).payload(&query.ip_packet()),
            Related,
        ),
        named("an error makes no flow and changes none", known())
            .inner(Packet::unreachable(server, client, port, &query), Related)
            .flows(0, 1),
    ]
}

fn error_quotes(net: &Net) -> Vec<Case> {
    let (client, server) = (net.client, net.server);
    let query = Packet::udp((client, 5353), (server, 53));
    let error = Packet::unreachable(server, client, Unreachable::Port, &query);
    let short = |bytes: usize| {
        let quote = query.ip_packet();
        error.clone().payload(&quote[..bytes])
    };
    let header = if net.ipv6() { 40 } else { 20 };
    vec![
        Case::new("a quote of the header and 8 bytes is enough")
            .outer(query.clone(), Rule)
            .inner(short(header + 8), Related),
        Case::new("a quote of the header and 7 bytes is not")
            .outer(query.clone(), Rule)
            .inner(short(header + 7), BadIcmp),
        Case::new("an error without a quote")
            .outer(query.clone(), Rule)
            .inner(short(0), BadIcmp),
        Case::new("an error about an error")
            .outer(query.clone(), Rule)
            .inner(
                Packet::unreachable(server, client, Unreachable::Port, &error),
                BadIcmp,
            ),
        Case::new("a quote of the other version")
            .outer(query.clone(), Rule)
            .inner(
                error
                    .clone()
                    .edit(header + 8, &[if net.ipv6() { 0x45 } else { 0x60 }]),
                BadIcmp,
            ),
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
