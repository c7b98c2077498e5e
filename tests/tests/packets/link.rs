//! Link protocols under default deny, and what the machine itself receives and sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::Reason::{
    self, BadArp, BadNd, DenyArp, DenyDefault, DenyLacp, DenyLldp, DenyMulticast, DenyNd, DenyRa,
    Established, ImpossibleSource, LinkArp, LinkDhcp, LinkLacp, LinkLldp, LinkNd, LinkRa, OwnSource, Rule,
    UnknownEthertype, UnknownRealm,
};
use fw_tests::packet::{MAC_A, MAC_B, Packet, link};

use crate::case::{Case, Net, v6};

/// Nothing of the link section.
const CLOSED: &str = r"
version: 1
zones: { clients: { addresses: [10.1.0.0/16] } }
link: { allow: [], dhcp: never }
rules: [{ name: web, allow: [http], from: clients, to: any }]
";

/// Router advertisements and group membership as well.
const OPEN: &str = r"
version: 1
zones: { clients: { addresses: [10.1.0.0/16] } }
link: { allow: [arp, nd, lldp, lacp], router_advertisement: [uplink], multicast: allow }
rules: [{ name: web, allow: [http], from: clients, to: any }]
";

pub fn cases(net: &Net) -> Vec<Case> {
    let family = if net.ipv6() {
        [discovery(net), dhcp6(net)].concat()
    } else {
        [arp(net), below_ip(), dhcp(), membership(net)].concat()
    };
    [family, own_addresses(net)].concat()
}

fn v4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else {
        panic!("{address} is not IPv4")
    };
    address
}

/// A frame from either side, and what becomes of it.
fn both_ways(name: &str, frame: &[u8], reason: Reason) -> Case {
    Case::new(name).outer(frame, reason).inner(frame, reason)
}

fn arp(net: &Net) -> Vec<Case> {
    let (client, server) = (v4(net.client), v4(net.server));
    let ask = link::arp_request((MAC_A, client), v4(net.stranger));
    let changed = |at: usize, byte: u8| {
        let mut frame = ask.clone();
        frame[at] = byte;
        frame
    };
    let mut cases = vec![
        both_ways("an ARP request", &ask, LinkArp),
        both_ways(
            "an ARP reply",
            &link::arp_reply((MAC_B, server), (MAC_A, client)),
            LinkArp,
        ),
        Case::new("ARP, which the policy does not list")
            .with(CLOSED)
            .outer(ask.clone(), DenyArp)
            .inner(ask.clone(), DenyArp),
        both_ways("ARP for other hardware", &changed(15, 6), BadArp),
        both_ways("ARP for another protocol", &changed(16, 0x86), BadArp),
        both_ways("ARP with long addresses", &changed(18, 8), BadArp),
        both_ways("an unknown ARP operation", &changed(21, 3), BadArp),
        Case::new("ARP for this machine goes up")
            .up(link::arp_request((MAC_A, client), v4(net.own)), LinkArp),
    ];
    for length in 15..ask.len() {
        cases.push(both_ways(
            &format!("ARP cut after {length} bytes"),
            &ask[..length],
            BadArp,
        ));
    }
    cases
}

fn below_ip() -> Vec<Case> {
    vec![
        both_ways("LLDP", &link::lldp(), LinkLldp),
        both_ways("LACP", &link::lacp(), LinkLacp),
        Case::new("LLDP, which the policy does not list")
            .with(CLOSED)
            .outer(link::lldp(), DenyLldp),
        Case::new("LACP, which the policy does not list")
            .with(CLOSED)
            .outer(link::lacp(), DenyLacp),
        both_ways(
            "an Ethernet type for experiments",
            &link::frame(MAC_B, 0x88b5, &[0; 46]),
            UnknownEthertype,
        ),
        both_ways(
            "a frame of IEEE 802.3 (spanning tree)",
            &link::frame([1, 0x80, 0xc2, 0, 0, 0], 38, &[0x42; 38]),
            UnknownEthertype,
        ),
        both_ways("ARP in an unknown VLAN", &tagged_arp(), UnknownRealm),
    ]
}

fn tagged_arp() -> Vec<u8> {
    let ask = link::arp_request((MAC_A, Ipv4Addr::LOCALHOST), Ipv4Addr::LOCALHOST);
    [
        link::header([MAC_A, link::BROADCAST], &[999], 0x0806),
        ask[14..].to_vec(),
    ]
    .concat()
}

fn dhcp() -> Vec<Case> {
    let (discover, server) = (link::dhcp_discover(), Ipv4Addr::new(10, 8, 0, 1));
    let offer = link::dhcp_offer(server, Ipv4Addr::new(10, 2, 0, 99));
    vec![
        Case::new("a DHCP exchange of the guarded side")
            .inner(discover.clone(), LinkDhcp)
            .outer(offer.clone(), LinkDhcp),
        Case::new("a DHCP client in the network asks the guarded side")
            .outer(discover.clone(), ImpossibleSource),
        Case::new("the guarded side plays the DHCP server").inner(offer.clone(), DenyDefault),
        Case::new("DHCP, which the policy does not list")
            .with(CLOSED)
            .inner(discover, ImpossibleSource)
            .outer(offer, DenyDefault),
    ]
}

/// IGMP (RFC 3376).
fn membership(net: &Net) -> Vec<Case> {
    let to = |group: [u8; 4]| {
        Packet::other(2, net.client, group)
            .hops(1)
            .payload(&[0x22, 0, 0, 0, 0, 0, 0, 0])
    };
    let routers = to([224, 0, 0, 22]);
    vec![
        both_ways("a membership report", &routers.build(), DenyMulticast),
        both_ways(
            "membership, which the policy allows",
            &routers.build(),
            Reason::LinkMulticast,
        )
        .with(OPEN),
        both_ways(
            "a report to a single host",
            &to([10, 2, 0, 1]).build(),
            DenyMulticast,
        )
        .with(OPEN),
    ]
}

/// DHCPv6 (RFC 8415): the client asks all servers of the link, one of them answers.
fn dhcp6(net: &Net) -> Vec<Case> {
    let host = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let server = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let solicit = Packet::udp((host, 546), (all, 547)).payload(&[1, 0, 0, 1]);
    let advertise = Packet::udp((server, 547), (host, 546)).payload(&[2, 0, 0, 1]);
    vec![
        Case::new("a DHCPv6 exchange of the guarded side")
            .inner(solicit.clone(), LinkDhcp)
            .outer(advertise.clone(), LinkDhcp),
        Case::new("a DHCPv6 client in the network asks the guarded side").outer(solicit.clone(), DenyDefault),
        Case::new("the guarded side plays the DHCPv6 server").inner(advertise.clone(), DenyDefault),
        Case::new("a stranger from afar plays the DHCPv6 server").outer(
            Packet::udp((net.stranger, 547), (net.server, 546)).payload(&[2, 0, 0, 1]),
            DenyDefault,
        ),
        Case::new("DHCPv6, which the policy does not list")
            .with(CLOSED)
            .inner(solicit, DenyDefault)
            .outer(advertise, DenyDefault),
    ]
}

fn discovery(net: &Net) -> Vec<Case> {
    let (client, server, own) = (v6(net.client), v6(net.server), v6(net.own));
    let ask = Packet::neighbour_solicitation(client, v6(net.stranger));
    let answer = Packet::neighbour_advertisement(server, client);
    let probe = Packet::neighbour_solicitation(Ipv6Addr::UNSPECIFIED, v6(net.stranger));
    let report = Packet::icmp(
        client,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16),
        143,
        0,
        [0; 4],
    )
    .hops(1);
    let (solicit, advertise) = (
        Packet::router_solicitation(server),
        Packet::router_advertisement(client),
    );
    let both = |name: &str, packet: &Packet, reason: Reason| both_ways(name, &packet.build(), reason);
    vec![
        both("a neighbour solicitation", &ask, LinkNd),
        both("a neighbour advertisement", &answer, LinkNd),
        both("duplicate address detection", &probe, LinkNd),
        both(
            "a solicitation that a router forwarded",
            &ask.clone().hops(254),
            BadNd,
        ),
        both("a solicitation with a code", &ask.clone().edit(41, &[1]), BadNd),
        both(
            "a solicitation without a target",
            &ask.clone().payload(&[0; 15]),
            BadNd,
        ),
        Case::new("discovery, which the policy does not list")
            .with(CLOSED)
            .outer(ask.clone(), DenyNd)
            .inner(answer, DenyNd),
        Case::new("a solicitation for this machine goes up")
            .up(Packet::neighbour_solicitation(client, own), LinkNd),
        both("a router solicitation", &solicit, DenyRa),
        both("a router advertisement", &advertise, DenyRa),
        Case::new("routers, where the policy expects them")
            .with(OPEN)
            .inner(solicit, LinkRa)
            .outer(advertise, LinkRa)
            .inner(Packet::router_advertisement(server), DenyRa),
        both("a membership report", &report, DenyMulticast),
        Case::new("membership, which the policy allows")
            .with(OPEN)
            .inner(report, Reason::LinkMulticast),
    ]
}

fn own_addresses(net: &Net) -> Vec<Case> {
    let ssh = |flags: &str, sequence, acknowledgement| {
        Packet::tcp((net.client, 40_000), (net.own, 22))
            .flags(flags)
            .numbers(sequence, acknowledgement)
    };
    let answer = Packet::tcp((net.own, 22), (net.client, 40_000))
        .flags("SA")
        .numbers(5000, 1001);
    let update = Packet::tcp((net.own, 40_000), (net.client, 443))
        .flags("S")
        .numbers(1000, 0);
    let updated = Packet::tcp((net.client, 443), (net.own, 40_000))
        .flags("SA")
        .numbers(5000, 1001);
    vec![
        Case::new("a connection to this machine goes up")
            .up(ssh("S", 1000, 0), Rule)
            .own(answer, Established)
            .up(ssh("A", 1001, 5001), Established),
        Case::new("an echo to this machine")
            .up(Packet::echo_request(net.client, net.own, 7, 1), Rule)
            .own(Packet::echo_reply(net.own, net.client, 7, 1), Established),
        Case::new("a port of this machine that no rule opens").outer(
            Packet::tcp((net.client, 40_000), (net.own, 25)).flags("S"),
            DenyDefault,
        ),
        Case::new("a connection that this machine opens")
            .own(update, Rule)
            .up(updated, Established),
        Case::new("somebody else with an address of this machine").outer(
            Packet::tcp((net.own, 40_000), (net.client, 443)).flags("S"),
            OwnSource,
        ),
        Case::new("what this machine may not open").own(
            Packet::tcp((net.own, 40_000), (net.client, 25)).flags("S"),
            DenyDefault,
        ),
    ]
}
