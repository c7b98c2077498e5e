//! ICMP errors: they pass for what they quote, and for nothing else.

use fw_common::abi::Reason::{
    BadIcmp, Established, IcmpBadQuote, IcmpUnrelated, PlaneMismatch, Related, Rule, RuleExpired, Untracked,
    WrongSide,
};
use fw_common::tcp::State;
use fw_tests::packet::{Packet, Unreachable};

use crate::case::{Case, Connection, Net};

pub fn cases(net: &Net) -> Vec<Case> {
    [
        errors(net),
        error_quotes(net),
        quoted_segments(net),
        without_entries(net),
        strangers_quotes(net),
    ]
    .concat()
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
            Packet::icmp(router, client, if net.ipv6() { 4 } else { 12 }, 0, [0; 4])
                .payload(&query.ip_packet()),
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

/// An error passes only if what it quotes was sent (RFC 5927 section 4.1), whoever reports it.
fn quoted_segments(net: &Net) -> Vec<Case> {
    let (client, server, router) = (net.client, net.server, net.stranger);
    let c = net.connection(80);
    let sent = c.c("A", 1001, 5001).payload(&[7; 1000]);
    let live = |name: &str| c.established(Case::new(name)).outer(sent.clone(), Established);
    let too_big = |quoted: &Packet| Packet::unreachable(router, client, Unreachable::TooBig, quoted);
    let numbered = |number: u32| c.c("A", number, 5001).payload(&[7; 1000]);
    let other_port = Connection {
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

/// Traffic without entries beside traffic that is denied, that has entries, and whose time is over on 1970-01-06.
const STATELESS: &str = r#"
version: 1
zones:
  clients:   { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers:   { addresses: [10.2.0.0/16, "fd00:2::/64"] }
  misplaced: { addresses: [10.7.0.0/16, "fd00:7::/64"], plane: management, ports: [rail] }
  tenant:    { addresses: [10.1.0.0/16, 10.2.0.0/16, "fd00:1::/64", "fd00:2::/64"], vlan: 101 }
rules:
  - { name: closed,    deny: [udp/1201], from: clients, to: servers }
  - { name: ends,      allow: [udp/1204], from: clients, to: servers, track: false, until: "1970-01-06T22:40:00Z" }
  - { name: stateless, allow: [roce, udp/1200-1201, tcp/1200, esp, ping], from: clients, to: servers, track: false }
  - { name: tracked,   allow: [udp/1203], from: clients, to: servers }
  - { name: planar,    allow: [udp/1205], from: misplaced, to: servers, track: false }
"#;

/// What a rule with `track: false` allows has no flow by which an error could be known, but needs path MTU discovery as well
/// (RFC 1191, RFC 8201).
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn without_entries(net: &Net) -> Vec<Case> {
    let (client, server, router) = (net.client, net.server, net.stranger);
    let case = |name: &str| Case::new(name).with(STATELESS);
    let write = Packet::udp((client, 50_000), (server, 4791)).payload(&[7; 1000]);
    let answer = Packet::udp((client, 5000), (server, 1200))
        .reversed()
        .payload(&[7; 1000]);
    let c = net.connection(1200);
    let about = |what, to, quoted: &Packet| Packet::unreachable(router, to, what, quoted);
    let too_big = |to, quoted: &Packet| about(Unreachable::TooBig, to, quoted);
    vec![
        case("packet too big about an RDMA write, from a router that nobody knows")
            .outer(write.clone(), Untracked)
            .inner(too_big(client, &write), Related)
            .flows(0, 0)
            .outer(write.clone(), Untracked),
        case("about the answering side's packet")
            .inner(answer.clone(), Untracked)
            .outer(too_big(server, &answer), Related)
            .flows(0, 0),
        case("other errors")
            .inner(about(Unreachable::Port, client, &write), Related)
            .inner(about(Unreachable::TimeExceeded, client, &write), Related)
            .outer(about(Unreachable::Port, server, &answer), Related),
        case("about TCP without entries, both ways")
            .inner(
                too_big(client, &c.c("A", 1001, 5001).payload(&[7; 1000])),
                Related,
            )
            .outer(
                too_big(server, &c.s("A", 5001, 1001).payload(&[7; 1000])),
                Related,
            ),
        case("about ESP, whose answers have an SPI of their own")
            .inner(
                too_big(client, &Packet::other(50, client, server).payload(&[9; 40])),
                Related,
            )
            .outer(
                too_big(server, &Packet::other(50, server, client).payload(&[9; 40])),
                IcmpUnrelated,
            ),
        case("about an echo and its answer")
            .inner(
                too_big(client, &Packet::echo_request(client, server, 7, 1)),
                Related,
            )
            .outer(
                too_big(server, &Packet::echo_reply(server, client, 7, 1)),
                Related,
            ),
        case("until the rule's time is over")
            .apply(STATELESS)
            .inner(
                too_big(client, &Packet::udp((client, 5000), (server, 1204))),
                Related,
            )
            .wait(7 * 86_400)
            .outer(Packet::udp((client, 5000), (server, 1204)), RuleExpired)
            .inner(
                too_big(client, &Packet::udp((client, 5000), (server, 1204))),
                IcmpUnrelated,
            ),
    ]
}

/// Errors that quote what no rule without entries allows.
fn strangers_quotes(net: &Net) -> Vec<Case> {
    let (client, server, router) = (net.client, net.server, net.stranger);
    let case = |name: &str| Case::new(name).with(STATELESS);
    let too_big = |to, quoted: &Packet| Packet::unreachable(router, to, Unreachable::TooBig, quoted);
    let udp = |port| Packet::udp((client, 5000), (server, port)).payload(&[7; 100]);
    let planar = if net.ipv6() { "fd00:7::1" } else { "10.7.0.1" };
    let planar: std::net::IpAddr = planar.parse().expect("an address");
    vec![
        case("a quote of what a rule denies, although a later one allows it without entries")
            .inner(too_big(client, &udp(1201)), IcmpUnrelated),
        case("a quote of what no rule allows")
            .inner(too_big(client, &udp(1202)), IcmpUnrelated)
            .outer(too_big(server, &udp(1202).reversed()), IcmpUnrelated)
            .inner(
                too_big(client, &Packet::tcp((client, 5000), (server, 4791)).flags("A")),
                IcmpUnrelated,
            ),
        case("a quote of what a rule allows with entries, without one")
            .inner(too_big(client, &udp(1203)), IcmpUnrelated)
            .outer(too_big(server, &udp(1203).reversed()), IcmpUnrelated),
        case("a quote of the other direction")
            .outer(
                too_big(server, &Packet::udp((server, 5000), (client, 1200))),
                IcmpUnrelated,
            )
            .outer(
                too_big(server, &Packet::echo_request(server, client, 7, 1)),
                IcmpUnrelated,
            )
            .inner(
                too_big(client, &Packet::echo_reply(client, server, 7, 1)),
                IcmpUnrelated,
            ),
        case("a quote of a stranger's packet")
            .inner(
                too_big(router, &Packet::udp((router, 5000), (server, 1200))),
                IcmpUnrelated,
            )
            .outer(
                too_big(server, &Packet::udp((server, 1200), (router, 5000))),
                IcmpUnrelated,
            ),
        case("an error to somebody else").inner(too_big(router, &udp(1200)), IcmpUnrelated),
        case("another tag").inner(too_big(client, &udp(1200)).tags(&[101]), IcmpUnrelated),
        case("no echo").inner(
            too_big(client, &Packet::icmp(client, server, 13, 0, [0; 4])),
            IcmpUnrelated,
        ),
        // Inline without planes nothing says which side an address lives on.
        case("a quote of what this machine has received, from somebody else").outer(
            too_big(client, &udp(1200)),
            if net.own == net.server { WrongSide } else { Related },
        ),
        case("a quote of a plane that is bound to another port").inner(
            too_big(planar, &Packet::udp((planar, 5000), (server, 1205))),
            PlaneMismatch,
        ),
        Case::new("a policy without such a rule").inner(too_big(client, &udp(4791)), IcmpUnrelated),
    ]
}
