//! GRE, ESP, SCTP, and what stands behind an authentication header.

use fw_common::abi::Reason::{BadIpv4, BadIpv6, DenyDefault, Established, ExtensionHeaders, Rule, Truncated};
use fw_tests::packet::Packet;

use crate::case::{Case, Net};

/// GRE keys, security associations, authentication headers.
pub fn cases(net: &Net) -> Vec<Case> {
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
    // OSPF has neither ports nor an index.
    let ospf = |index: u8, next: u8, inside: &[u8]| {
        let header = [&[next, 4, 0, 0, 0, 0, 1, index, 0, 0, 0, 1][..], &[9; 12], inside].concat();
        Packet::other(51, net.client, net.server).payload(&header)
    };
    let hello = [2, 1, 0, 8, 0, 0, 0, 1];
    vec![
        Case::new("what has no ports is told apart by the index of its authentication header")
            .outer(ospf(1, 89, &hello), Rule)
            .outer(ospf(2, 89, &hello), Rule)
            .outer(Packet::other(89, net.client, net.server).payload(&hello), Rule)
            .flows(0, 3)
            .outer(ospf(1, 89, &hello), Established)
            .outer(ospf(2, 89, &hello), Established)
            .inner(ospf(3, 89, &hello).reversed(), DenyDefault)
            .flows(0, 3),
        Case::new("ESP behind an authentication header has its own index")
            .outer(ospf(1, 50, &[0, 1, 0, 2, 0, 0, 0, 1]), Rule)
            .outer(ospf(2, 50, &[0, 1, 0, 2, 0, 0, 0, 1]), Established)
            .outer(ospf(2, 50, &[0, 1, 0, 3, 0, 0, 0, 1]), Rule)
            .flows(0, 2),
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
