//! UDP, ICMP, errors, and protocols without ports.

use fw_common::abi::Reason::{
    BadIcmp, DenyDefault, DenyRedirect, Established, IcmpNoFlow, IcmpType, IcmpUnrelated, Related, Rule,
    WrongFamily, WrongSide,
};
use fw_tests::packet::{Packet, Unreachable};

use crate::case::{Case, Net, v6};

pub fn cases(net: &Net) -> Vec<Case> {
    [udp(net), echo(net), errors(net), error_quotes(net), kinds(net)].concat()
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
        Case::new("ESP, which no rule allows")
            .outer(Packet::other(50, net.stranger, server).payload(&[1; 16]), DenyDefault),
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
