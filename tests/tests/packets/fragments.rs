//! Fragments: their datagram decides, no byte passes twice (RFC 1858, 3128, 5722, 6946, 8200).

use fw_common::abi::Reason::{
    BadIpv6, BadNd, DenyDefault, Established, FragmentBad, FragmentDenied, FragmentDuplicate, FragmentEarly,
    FragmentEarlyPass, FragmentOverlap, FragmentOverrun, FragmentPass, FragmentRanges, FragmentTiny,
    PolicyRevoked, Rule, TcpOutOfWindow, Truncated, Untracked,
};
use fw_common::tcp::State;
use fw_tests::packet::Packet;

use crate::case::{Case, Net, POLICY, v6};

const DESTINATION: u8 = 60;

/// As the common policy, but fragments may come in any order, and syslog is not followed.
const EARLY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
fragments: pass_early
rules:
  - { name: log, allow: [syslog], from: clients, to: servers, track: false }
  - { name: dns, allow: [dns, ping], from: clients, to: servers }
"#;

/// As the common policy without DNS.
const WITHOUT: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules: [{ name: web, allow: [http], from: clients, to: servers }]
"#;

fn large(net: &Net, port: u16) -> Packet {
    Packet::udp((net.client, 5353), (net.server, port)).payload(&[7; 2992])
}

pub fn cases(net: &Net) -> Vec<Case> {
    [
        order(net),
        overlaps(net),
        lives(net),
        bounds(net),
        kinds(net),
        headers(net),
    ]
    .concat()
}

fn order(net: &Net) -> Vec<Case> {
    let part = |from: usize, to: usize| large(net, 53).fragment(from, to, 9);
    vec![
        Case::new("three fragments in order")
            .outer(part(0, 1000), Rule)
            .outer(part(1000, 2000), Established)
            .outer(part(2000, 9000), Established)
            .flows(0, 1),
        Case::new("the first one first, the others in any order")
            .outer(part(0, 1000), Rule)
            .outer(part(2000, 9000), Established)
            .outer(part(1000, 2000), Established),
        Case::new("strict: what comes before the first is dropped, and passes when sent again")
            .outer(part(1000, 2000), FragmentEarly)
            .outer(part(2000, 9000), FragmentEarly)
            .outer(part(0, 1000), Rule)
            .outer(part(1000, 2000), Established)
            .outer(part(2000, 9000), Established),
        Case::new("the answer may be fragmented too")
            .outer(Packet::udp((net.client, 5353), (net.server, 53)), Rule)
            .inner(answer(net).fragment(0, 1000, 7), Established)
            .inner(answer(net).fragment(1000, 9000, 7), Established),
        Case::new("another identification is another datagram")
            .outer(part(0, 1000), Rule)
            .outer(large(net, 53).fragment(1000, 2000, 10), FragmentEarly),
        Case::new("another tag is another datagram")
            .outer(part(0, 1000), Rule)
            .outer(part(1000, 2000).tags(&[101]), FragmentEarly),
        Case::new("pass_early: what comes before the first passes where some rule allows its protocol")
            .with(EARLY)
            .outer(part(1000, 2000), FragmentEarlyPass)
            .outer(part(2000, 9000), FragmentEarlyPass)
            .outer(part(0, 1000), Rule),
        Case::new("pass_early: also of an answer")
            .with(EARLY)
            .inner(answer(net).fragment(1000, 9000, 7), FragmentEarlyPass),
        Case::new("pass_early: not between strangers").with(EARLY).outer(
            Packet::udp((net.stranger, 5353), (net.server, 53))
                .payload(&[7; 2000])
                .fragment(1000, 2000, 9),
            FragmentEarly,
        ),
        Case::new("pass_early: a denied first fragment stops the rest")
            .with(EARLY)
            .outer(large(net, 54).fragment(1000, 2000, 9), FragmentEarlyPass)
            .outer(large(net, 54).fragment(0, 1000, 9), DenyDefault)
            .outer(large(net, 54).fragment(2000, 9000, 9), FragmentDenied),
    ]
}

fn answer(net: &Net) -> Packet {
    Packet::udp((net.server, 53), (net.client, 5353)).payload(&[7; 2992])
}

fn overlaps(net: &Net) -> Vec<Case> {
    let part = |from: usize, to: usize| large(net, 53).fragment(from, to, 9);
    let spaced = |count: usize| {
        let mut case = Case::new(&format!("{count} separate ranges")).outer(part(0, 16), Rule);
        for number in 1..count {
            let from = 24 * number + 8;
            let fits = number < 8;
            case = case.outer(
                part(from, from + 8),
                if fits { Established } else { FragmentRanges },
            );
        }
        case
    };
    vec![
        Case::new("a fragment twice is dropped once")
            .outer(part(0, 1000), Rule)
            .outer(part(0, 1000), FragmentDuplicate)
            .outer(part(1000, 2000), Established)
            .outer(part(1000, 2000), FragmentDuplicate)
            .outer(part(1496, 1504), FragmentDuplicate)
            .outer(part(2000, 9000), Established),
        Case::new("an overlap by 8 bytes spoils the datagram")
            .outer(part(0, 1000), Rule)
            .outer(part(992, 2000), FragmentOverlap)
            .outer(part(1000, 2000), FragmentOverlap)
            .outer(part(0, 1000), FragmentOverlap),
        Case::new("a fragment around another")
            .outer(part(0, 1000), Rule)
            .outer(part(1496, 1504), Established)
            .outer(part(1000, 2000), FragmentOverlap),
        Case::new("two ends")
            .outer(part(0, 1000), Rule)
            .outer(part(2000, 9000), Established)
            .outer(
                large(net, 53).payload(&[7; 2000]).fragment(1000, 9000, 9),
                FragmentOverlap,
            ),
        Case::new("bytes behind the end")
            .outer(part(0, 1000), Rule)
            .outer(
                large(net, 53).payload(&[7; 1992]).fragment(1000, 9000, 9),
                Established,
            )
            .wait(1)
            .outer(part(0, 1000), Established)
            .outer(part(2000, 2200), Established)
            .outer(
                large(net, 53).payload(&[7; 1992]).fragment(1000, 9000, 9),
                FragmentOverlap,
            ),
        spaced(8),
        spaced(9),
        spaced(9)
            .named("a hole that is filled makes room for another range")
            .outer(part(16, 32), Established)
            .outer(part(1000, 1008), Established),
    ]
}

fn lives(net: &Net) -> Vec<Case> {
    let part = |from: usize, to: usize| large(net, 53).fragment(from, to, 9);
    let life = if net.ipv6() { 60 } else { 30 };
    let (first, second) = (large(net, 53).fragment(0, 1000, 9), part(1000, 9000));
    vec![
        Case::new("the identification comes again after the datagram is whole")
            .outer(first.clone(), Rule)
            .outer(second.clone(), Established)
            .outer(first.clone(), Established)
            .outer(second.clone(), Established),
        kept_alive(
            net,
            Case::new("the rest within the datagram's life").outer(first.clone(), Rule),
            life - 1,
        )
        .outer(second.clone(), Established),
        kept_alive(
            net,
            Case::new("the rest comes too late").outer(first.clone(), Rule),
            life + 1,
        )
        .outer(second.clone(), FragmentEarly),
        Case::new("the rest of a datagram whose flow a new policy ends")
            .outer(first.clone(), Rule)
            .apply(WITHOUT)
            .outer(second.clone(), PolicyRevoked)
            .apply(POLICY),
        Case::new("the rest of a datagram without a flow, after a new policy")
            .with(EARLY)
            .outer(unfollowed(net).fragment(0, 1000, 9), Untracked)
            .outer(unfollowed(net).fragment(1000, 2000, 9), FragmentPass)
            .apply(WITHOUT)
            .outer(unfollowed(net).fragment(2000, 9000, 9), FragmentDenied),
    ]
}

/// Time passes, and the datagram's flow, which alone would be over after 30 s, goes on: only the datagram's own life counts.
fn kept_alive(net: &Net, mut case: Case, seconds: u64) -> Case {
    const STEP: u64 = 20;
    for _ in 0..seconds / STEP {
        case = case.wait(STEP).outer(
            Packet::udp((net.client, 5353), (net.server, 53)).payload(b"whole"),
            Established,
        );
    }
    case.wait(seconds % STEP)
}

/// Of a rule with `track: false`.
fn unfollowed(net: &Net) -> Packet {
    large(net, 514)
}

fn bounds(net: &Net) -> Vec<Case> {
    // The flags and the offset, in words of eight bytes.
    let offset_at = if net.ipv6() { 42 } else { 6 };
    let far = |units: u16, more: bool| {
        let word = if net.ipv6() {
            units << 3 | u16::from(more)
        } else {
            units | u16::from(more) << 13
        };
        large(net, 53)
            .fragment(8, 1008, 9)
            .edit(offset_at, &word.to_be_bytes())
    };
    let syn = net.connection(80).c("S", 1000, 0).tcp_options(&[1; 8]);
    vec![
        Case::new("a fragment that ends behind 65,535 bytes").outer(far(8180, true), FragmentOverrun),
        Case::new("the last possible offset").outer(far(8191, false), FragmentOverrun),
        Case::new("a fragment that ends before 65,535 bytes")
            .outer(large(net, 53).fragment(0, 1000, 9), Rule)
            .outer(far(8060, true), Established),
        Case::new("uneven bytes before the last").outer(large(net, 53).fragment(0, 1001, 9), FragmentBad),
        Case::new("no bytes at all").outer(large(net, 53).fragment(1000, 1000, 9), FragmentBad),
        Case::new("a first fragment inside of the TCP header")
            .outer(syn.clone().fragment(0, 16, 9), FragmentTiny),
        Case::new("a first fragment inside of TCP's options (RFC 1858)")
            .outer(syn.clone().fragment(0, 24, 9), FragmentTiny),
        Case::new("a later fragment over the TCP header").outer(syn.clone().fragment(8, 16, 9), FragmentTiny),
        Case::new("a later fragment over TCP's flags (RFC 3128)")
            .outer(syn.fragment(16, 28, 9), FragmentTiny),
    ]
}

fn kinds(net: &Net) -> Vec<Case> {
    let ping = Packet::echo_request(net.client, net.server, 7, 1).payload(&[7; 2000]);
    let c = net.connection(80);
    let segment = c.c("A", 1001, 5001).payload(&[7; 2000]);
    let last = c.c("FA", 1001, 5001).payload(&[7; 2000]);
    let strange = c.c("S", 1001, 0).payload(&[7; 2000]);
    vec![
        Case::new("a large echo")
            .outer(ping.clone().fragment(0, 1000, 9), Rule)
            .outer(ping.clone().fragment(1000, 9000, 9), Established)
            .inner(
                Packet::echo_reply(net.server, net.client, 7, 1)
                    .payload(&[7; 2000])
                    .fragment(0, 1000, 4),
                Established,
            )
            .inner(
                Packet::echo_reply(net.server, net.client, 7, 1)
                    .payload(&[7; 2000])
                    .fragment(1000, 9000, 4),
                Established,
            ),
        c.established(Case::new(
            "a TCP segment in fragments, acknowledged when all of it was sent",
        ))
        .outer(segment.clone().fragment(0, 1000, 9), Established)
        .inner(c.s("A", 5001, 3001), TcpOutOfWindow)
        .outer(segment.fragment(1000, 9000, 9), Established)
        .inner(c.s("A", 5001, 3002), TcpOutOfWindow)
        .inner(c.s("A", 5001, 3001), Established)
        .outer(c.c("A", 3001, 5001), Established),
        // Any number passes in a SYN, without effect: what follows it must not have any either.
        c.established(Case::new("a stranger's SYN in fragments, which moves nothing"))
            .outer(strange.clone().fragment(0, 1000, 9), Established)
            .outer(strange.fragment(1000, 9000, 9), Established)
            .inner(c.s("A", 5001, 3001), TcpOutOfWindow)
            .inner(c.s("A", 5001, 1001), Established),
        c.established(Case::new("a FIN at the end of a segment in fragments"))
            .outer(last.clone().fragment(0, 1000, 9), Established)
            .outer(last.clone().fragment(1000, 1496, 9), Established)
            .outer(last.fragment(1496, 9000, 9), Established)
            .inner(c.s("A", 5001, 3003), TcpOutOfWindow)
            .inner(c.s("FA", 5001, 3002), Established)
            .outer(c.c("A", 3002, 5002), Established)
            .state(State::TimeWait),
        Case::new("without an entry")
            .with(EARLY)
            .outer(unfollowed(net).fragment(0, 1000, 9), Untracked)
            .outer(unfollowed(net).fragment(1000, 9000, 9), FragmentPass)
            .flows(0, 0),
    ]
}

fn headers(net: &Net) -> Vec<Case> {
    if !net.ipv6() {
        let part = |from, to| large(net, 53).ip_options(&[148, 4, 0, 0]).fragment(from, to, 9);
        return vec![
            Case::new("fragments with IPv4 options")
                .outer(part(0, 1000), Rule)
                .outer(part(1000, 9000), Established),
            Case::new("the protocol is part of an IPv4 datagram's identity")
                .outer(large(net, 53).fragment(0, 1000, 9), Rule)
                .outer(
                    Packet::other(132, net.client, net.server)
                        .payload(&[7; 2000])
                        .fragment(1000, 2000, 9),
                    FragmentEarly,
                ),
        ];
    }
    let before = |from, to| {
        large(net, 53)
            .padding_extension(0)
            .padding_extension(DESTINATION)
            .fragment(from, to, 9)
    };
    let atomic =
        |id: u8| Packet::udp((net.client, 5353), (net.server, 53)).extension(44, &[0, 0, 0, 0, 0, 0, id]);
    let discovery = Packet::neighbour_solicitation(v6(net.client), v6(net.server)).payload(&[0; 64]);
    vec![
        Case::new("extension headers before the fragment header")
            .outer(before(0, 1000), Rule)
            .outer(before(1000, 9000), Established),
        Case::new("atomic fragments of one identification are whole packets (RFC 6946)")
            .outer(atomic(1), Rule)
            .outer(atomic(1), Established)
            .outer(large(net, 53).fragment(0, 1000, 1), Established)
            .outer(atomic(1), Established),
        Case::new("the next header is no part of an IPv6 datagram's identity")
            .outer(large(net, 53).fragment(0, 1000, 9), Rule)
            .outer(
                large(net, 53).fragment(1000, 2000, 9).edit(40, &[DESTINATION]),
                Established,
            ),
        Case::new("neighbour discovery is never fragmented (RFC 6980)")
            .outer(discovery.fragment(0, 40, 9), BadNd),
        Case::new("a fragment header that is cut").outer(
            Packet::other(44, net.client, net.server).payload(&[17, 0, 0, 1]),
            Truncated,
        ),
        Case::new("a header inside of the first fragment that reaches beyond it").outer(
            Packet::other(44, net.client, net.server)
                .payload(&[60, 0, 0, 1, 0, 0, 0, 9, 17, 200, 1, 4, 0, 0, 0, 0]),
            FragmentTiny,
        ),
        Case::new("a header before the fragment header that reaches beyond the packet").outer(
            large(net, 53)
                .extension(DESTINATION, &[255, 1, 4, 0, 0, 0, 0])
                .fragment(0, 1000, 9),
            BadIpv6,
        ),
    ]
}
