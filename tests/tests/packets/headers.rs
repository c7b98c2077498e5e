//! Headers: options, extension headers, tags, fragments, lengths that lie, frames cut short.

use fw_common::abi::Reason::{
    self, BadIcmp, BadIpv4, BadIpv6, BadLength, BadTcp, BadUdp, DenyDefault, Established, ExtensionHeaders,
    FragmentBad, FragmentDenied, FragmentDuplicate, FragmentEarly, FragmentOverlap, FragmentTiny,
    RoutingHeader0, Rule, SourceRoute, TcpNoFlow, TooManyTags, Truncated, UnknownRealm,
};
use fw_tests::packet::{MAC_A, MAC_B, Packet, link};

use crate::case::{Case, Net};

/// IPv6 extension headers by number.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

pub fn cases(net: &Net) -> Vec<Case> {
    let family = if net.ipv6() {
        [extensions(net), refused_extensions(net), lengths6(net)].concat()
    } else {
        [options(net), lengths4(net)].concat()
    };
    [family, transport_lengths(net), tags(net), fragments(net)].concat()
}

fn syn(net: &Net) -> Packet {
    net.connection(80).c("S", 1000, 0)
}

fn options(net: &Net) -> Vec<Case> {
    let router_alert = [148, 4, 0, 0];
    vec![
        Case::new("IPv4 options").outer(syn(net).ip_options(&router_alert), Rule),
        Case::new("40 bytes of IPv4 options")
            .outer(syn(net).ip_options(&[1; 40]).tcp_options(&[1; 40]), Rule),
        Case::new("IPv4 options in front of a denied port")
            .outer(net.connection(81).c("S", 1, 0).ip_options(&[1; 40]), DenyDefault),
        Case::new("IPv4 options on both ways of a flow")
            .outer(syn(net).ip_options(&router_alert), Rule)
            .inner(
                net.connection(80).s("SA", 5000, 1001).ip_options(&[1; 8]),
                Established,
            ),
        Case::new("a loose source route")
            .outer(syn(net).ip_options(&[131, 7, 4, 10, 0, 0, 9, 0]), SourceRoute),
        Case::new("a strict source route behind 33 bytes").outer(
            syn(net).ip_options(&[&[1; 33][..], &[137, 7, 4, 10, 0, 0, 9]].concat()),
            SourceRoute,
        ),
        Case::new("an option of no length").outer(syn(net).ip_options(&[7, 0, 0, 0]), BadIpv4),
        Case::new("an option longer than the header").outer(syn(net).ip_options(&[7, 5, 4, 0]), BadIpv4),
    ]
}

fn extensions(net: &Net) -> Vec<Case> {
    let routing = |kind: u8| [0, kind, 0, 0, 0, 0, 0];
    let mut long = vec![10, 1, 84];
    long.resize(87, 0);
    vec![
        Case::new("one extension header").outer(syn(net).padding_extension(DESTINATION), Rule),
        Case::new("two extension headers")
            .outer(
                syn(net)
                    .padding_extension(HOP_BY_HOP)
                    .padding_extension(DESTINATION),
                Rule,
            )
            .inner(
                net.connection(80)
                    .s("SA", 5000, 1001)
                    .padding_extension(DESTINATION),
                Established,
            ),
        Case::new("a long extension header").outer(syn(net).extension(DESTINATION, &long), Rule),
        Case::new("two extension headers in front of a denied port").outer(
            net.connection(81)
                .c("S", 1, 0)
                .padding_extension(HOP_BY_HOP)
                .padding_extension(DESTINATION),
            DenyDefault,
        ),
        Case::new("two extension headers in front of an echo").outer(
            Packet::echo_request(net.client, net.server, 7, 1)
                .padding_extension(0)
                .padding_extension(DESTINATION),
            Rule,
        ),
        Case::new("six extension headers").outer(
            syn(net)
                .padding_extension(HOP_BY_HOP)
                .padding_extension(DESTINATION)
                .extension(ROUTING, &routing(4))
                .extension(FRAGMENT, &[0; 7])
                .extension(AUTHENTICATION, &[2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9])
                .padding_extension(DESTINATION),
            Rule,
        ),
    ]
}

fn refused_extensions(net: &Net) -> Vec<Case> {
    let routing = |kind: u8| [0, kind, 0, 0, 0, 0, 0];
    vec![
        Case::new("seven extension headers").outer(
            syn(net)
                .padding_extension(HOP_BY_HOP)
                .padding_extension(DESTINATION)
                .extension(ROUTING, &routing(4))
                .extension(FRAGMENT, &[0; 7])
                .extension(AUTHENTICATION, &[2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9])
                .padding_extension(DESTINATION)
                .extension(ROUTING, &routing(4)),
            ExtensionHeaders,
        ),
        Case::new("two routing headers").outer(
            syn(net)
                .extension(ROUTING, &routing(4))
                .extension(ROUTING, &routing(4)),
            ExtensionHeaders,
        ),
        Case::new("destination options three times (RFC 8200 section 4.1: twice)").outer(
            syn(net)
                .padding_extension(DESTINATION)
                .padding_extension(DESTINATION)
                .padding_extension(DESTINATION),
            ExtensionHeaders,
        ),
        Case::new("a mobility header").outer(
            Packet::other(135, net.client, net.server).payload(&[0; 8]),
            ExtensionHeaders,
        ),
        Case::new("hop-by-hop options that do not stand first (RFC 8200 section 4.1)").outer(
            syn(net)
                .padding_extension(DESTINATION)
                .padding_extension(HOP_BY_HOP),
            ExtensionHeaders,
        ),
        Case::new("routing header 0 (RFC 5095)")
            .outer(syn(net).extension(ROUTING, &routing(0)), RoutingHeader0),
        Case::new("routing header 0 in second place").outer(
            syn(net)
                .padding_extension(HOP_BY_HOP)
                .extension(ROUTING, &routing(0)),
            RoutingHeader0,
        ),
        Case::new("no next header").outer(Packet::other(59, net.client, net.server), ExtensionHeaders),
        Case::new("an extension header longer than the packet")
            .outer(syn(net).extension(DESTINATION, &[200, 1, 4, 0, 0, 0, 0]), BadIpv6),
        Case::new("an extension header that swallows half of the TCP header")
            .outer(syn(net).extension(DESTINATION, &[1, 1, 4, 0, 0, 0, 0]), Truncated),
    ]
}

fn lengths4(net: &Net) -> Vec<Case> {
    let broken = |name: &str, at: usize, bytes: &[u8], reason: Reason| {
        Case::new(name).outer(syn(net).edit(at, bytes), reason)
    };
    vec![
        broken("version 5", 0, &[0x55], BadIpv4),
        broken("a header of 16 bytes", 0, &[0x44], BadIpv4),
        broken("a header longer than the packet", 0, &[0x4f], BadIpv4),
        broken("a total length below the header's", 2, &[0, 19], BadIpv4),
        broken("a total length of 0", 2, &[0, 0], BadIpv4),
        broken("a total length beyond the frame", 2, &[0, 41], BadIpv4),
        broken("a total length that cuts the TCP header", 2, &[0, 39], Truncated),
        broken("a TCP header that reaches beyond the packet", 32, &[0x60], BadTcp),
        broken("a TCP header of 16 bytes", 32, &[0x40], BadTcp),
        Case::new("Ethernet's padding behind the packet is none of its bytes")
            .outer(syn(net).trailer(20), Rule),
    ]
}

fn lengths6(net: &Net) -> Vec<Case> {
    let broken = |name: &str, at: usize, bytes: &[u8], reason: Reason| {
        Case::new(name).outer(syn(net).edit(at, bytes), reason)
    };
    vec![
        broken("version 4 by Ethernet's word 6", 0, &[0x40], BadIpv6),
        broken("a payload length beyond the frame", 4, &[0, 21], BadIpv6),
        broken(
            "a payload length that cuts the TCP header",
            4,
            &[0, 19],
            Truncated,
        ),
        broken("a payload length of 0", 4, &[0, 0], Truncated),
        broken("a TCP header that reaches beyond the packet", 52, &[0x60], BadTcp),
        broken("a TCP header of 16 bytes", 52, &[0x40], BadTcp),
        Case::new("Ethernet's padding behind the packet is none of its bytes")
            .outer(syn(net).trailer(20), Rule),
    ]
}

fn transport_lengths(net: &Net) -> Vec<Case> {
    let header = if net.ipv6() { 40 } else { 20 };
    let query = Packet::udp((net.client, 5353), (net.server, 53)).payload(b"who?");
    let udp = |name: &str, length: u8, reason: Reason| {
        Case::new(name).outer(query.clone().edit(header + 4, &[0, length]), reason)
    };
    vec![
        udp("a UDP length below its header's", 7, BadUdp),
        udp("a UDP length beyond the packet", 13, BadLength),
        udp("a UDP length within the packet", 8, Rule),
        Case::new("UDP cut inside of its header").outer(
            Packet::other(17, net.client, net.server).payload(&[0; 7]),
            Truncated,
        ),
        Case::new("TCP cut inside of its header").outer(
            Packet::other(6, net.client, net.server).payload(&[0; 19]),
            Truncated,
        ),
        Case::new("ICMP cut inside of its header").outer(
            Packet::other(if net.ipv6() { 58 } else { 1 }, net.client, net.server).payload(&[8; 7]),
            BadIcmp,
        ),
    ]
}

fn tags(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let tagged = |packet: Packet| packet.tags(&[101]);
    let stacked = |packet: Packet| packet.tags(&[100, 7]);
    vec![
        Case::new("a tag that the policy names")
            .outer(tagged(c.c("S", 1000, 0)), Rule)
            .inner(tagged(c.s("SA", 5000, 1001)), Established)
            .outer(tagged(c.c("A", 1001, 5001)), Established),
        Case::new("the tagged zone has its own rules")
            .outer(tagged(net.connection(53).c("S", 1, 0)), DenyDefault),
        Case::new("one address in two realms: two flows")
            .outer(c.c("S", 1000, 0), Rule)
            .inner(tagged(c.s("SA", 5000, 1001)), TcpNoFlow)
            .inner(c.s("SA", 5000, 1001), Established),
        Case::new("a tag that the policy names nowhere").outer(c.c("S", 1, 0).tags(&[102]), UnknownRealm),
        Case::new("a tag that differs in one high bit")
            .outer(c.c("S", 1, 0).tags(&[101 + 2048]), UnknownRealm),
        Case::new("a known tag with a priority").outer(c.c("S", 1, 0).tags(&[0x6000 + 101]), Rule),
        Case::new("a priority tag is no VLAN").outer(c.c("S", 1, 0).tags(&[0xe000]), Rule),
        Case::new("two tags that the policy does not name")
            .outer(c.c("S", 1, 0).tags(&[101, 101]), UnknownRealm),
        Case::new("two tags of which one is a priority").outer(c.c("S", 1, 0).tags(&[0, 101]), Rule),
        Case::new("two tags that the policy names")
            .outer(stacked(c.c("S", 1000, 0)), Rule)
            .inner(stacked(c.s("SA", 5000, 1001)), Established)
            .outer(stacked(c.c("A", 1001, 5001)), Established)
            .flows(1, 0),
        Case::new("the zone of two tags has its own rules")
            .outer(stacked(net.connection(53).c("S", 1, 0)), DenyDefault),
        Case::new("one address in three realms: three flows")
            .outer(c.c("S", 1000, 0), Rule)
            .outer(tagged(c.c("S", 1000, 0)), Rule)
            .outer(stacked(c.c("S", 1000, 0)), Rule)
            .flows(0, 3),
        Case::new("the two tags the other way round").outer(c.c("S", 1, 0).tags(&[7, 100]), UnknownRealm),
        Case::new("only the outer one of the two").outer(c.c("S", 1, 0).tags(&[100]), UnknownRealm),
        Case::new("only the inner one of the two").outer(c.c("S", 1, 0).tags(&[7]), UnknownRealm),
        Case::new("another inner tag").outer(c.c("S", 1, 0).tags(&[100, 8]), UnknownRealm),
        Case::new("two tags with priorities").outer(c.c("S", 1, 0).tags(&[0x6000 + 100, 0xa000 + 7]), Rule),
        Case::new("a tag and a priority inside of it").outer(c.c("S", 1, 0).tags(&[101, 0xa000]), Rule),
        Case::new("a tag that is cut").outer(
            [link::header([MAC_A, MAC_B], &[101], 0x8100), vec![0]].concat(),
            Truncated,
        ),
        Case::new("three tags").outer(c.c("S", 1, 0).tags(&[101, 101, 101]), TooManyTags),
        Case::new("three tags of which two are priorities")
            .outer(c.c("S", 1, 0).tags(&[0, 0, 101]), TooManyTags),
    ]
}

fn fragments(net: &Net) -> Vec<Case> {
    let large = |port: u16| Packet::udp((net.client, 5353), (net.server, port)).payload(&[7; 2000]);
    let part = |from: usize, to: usize| large(53).fragment(from, to, 9);
    let mut cases = vec![
        Case::new("a datagram in two fragments")
            .outer(part(0, 1400), Rule)
            .outer(part(1400, 4000), Established),
        Case::new("a last fragment that comes first")
            .outer(part(1400, 4000), FragmentEarly)
            .outer(part(0, 1400), Rule)
            .outer(part(1400, 4000), Established),
        Case::new("a fragment of a denied datagram")
            .outer(large(54).fragment(0, 1400, 9), DenyDefault)
            .outer(large(54).fragment(1400, 4000, 9), FragmentDenied),
        Case::new("a fragment twice")
            .outer(part(0, 1400), Rule)
            .outer(part(0, 1400), FragmentDuplicate)
            .outer(part(1400, 4000), Established),
        Case::new("an overlap (RFC 5722)")
            .outer(part(0, 1400), Rule)
            .outer(part(1392, 4000), FragmentOverlap)
            .outer(part(1400, 4000), FragmentOverlap)
            .outer(large(53).fragment(0, 1400, 10), Established),
        Case::new("a first fragment that ends inside of the TCP header")
            .outer(syn(net).fragment(0, 16, 9), FragmentTiny),
        Case::new("a later fragment that writes into the TCP header (RFC 1858)")
            .outer(syn(net).fragment(8, 4000, 9), FragmentTiny),
        Case::new("a fragment of uneven length").outer(part(0, 1401), FragmentBad),
    ];
    if net.ipv6() {
        let atomic = Packet::udp((net.client, 5353), (net.server, 53)).extension(FRAGMENT, &[0; 7]);
        cases.push(Case::new("an atomic fragment is a whole packet (RFC 6946)").outer(atomic, Rule));
    } else {
        let reserved = Packet::udp((net.client, 5353), (net.server, 53)).edit(6, &[0x80, 0]);
        cases.push(Case::new("the reserved bit makes no fragment (RFC 3514 aside)").outer(reserved, Rule));
    }
    cases
}

/// Frames that are cut short at every byte. None may pass, and all of them end with a reason of the header's.
pub fn cut_short(net: &Net) -> Vec<Case> {
    let mut whole = vec![
        syn(net).tcp_options(&[2, 4, 5, 180]),
        syn(net).tags(&[101]),
        Packet::udp((net.client, 5353), (net.server, 53)),
        Packet::echo_request(net.client, net.server, 7, 1),
    ];
    if net.ipv6() {
        whole.push(
            syn(net)
                .padding_extension(HOP_BY_HOP)
                .padding_extension(DESTINATION),
        );
    } else {
        whole.push(syn(net).ip_options(&[1; 40]));
    }
    let headers_are_there = if net.ipv6() { 54 } else { 34 };
    let (cut_header, cut_packet) = (Truncated, if net.ipv6() { BadIpv6 } else { BadIpv4 });
    let mut cases = Vec::new();
    for (number, packet) in whole.iter().enumerate() {
        let frame = packet.build();
        let tag = frame.len() - packet.clone().tags(&[]).build().len();
        for length in 15..frame.len() {
            let reason = if length < headers_are_there + tag {
                cut_header
            } else {
                cut_packet
            };
            let name = format!("frame {number} cut after {length} bytes");
            cases.push(Case::new(&name).outer(frame[..length].to_vec(), reason));
        }
    }
    cases
}
