//! What a router sees twice: where it comes in and where it leaves.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fw_common::abi::{Proto, Reason};
use fw_tests::lab::{TcpService, UdpEcho};

use crate::clients::{closed, fetch, udp_socket};
use crate::guarded::{Guarded, POLICY, SOON};

/// Packets so far that opened a flow and that followed one.
fn passed(guarded: &Guarded) -> Result<[u64; 2]> {
    Ok([
        guarded.packets(Reason::Rule)?,
        guarded.packets(Reason::Established)?,
    ])
}

/// (packets, bytes) of all flows to a port.
fn noted(guarded: &Guarded, proto: u8, port: u16) -> Result<(u64, u64)> {
    let flows = guarded.flows(proto, port)?;
    let ways = flows
        .iter()
        .flat_map(|(_, flow)| [0, 1].map(|way| (flow.packets(way), flow.bytes(way))));
    Ok(ways.fold((0, 0), |sum, way| (sum.0 + way.0, sum.1 + way.1)))
}

/// A packet that leaves by another covered port is in no counter twice, neither the firewall's nor its flow's, and a
/// connection comes to its end as if it had been judged once.
pub fn counted_once(guarded: &Guarded, ipv6: bool) -> Result<()> {
    datagrams(guarded, ipv6)?;
    connection(guarded, ipv6)
}

/// A connection to a port of the router that is translated to the server's (DNAT), and leaves with the router's own address
/// (masquerade): two flows, of which the firewall meets one direction each where it leaves. Both come to their end.
pub fn translated(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const PUBLISHED: u16 = 8088;
    const PORT: u16 = 80;
    let router = guarded.scene.guard();
    let (family, server) = if ipv6 {
        ("ip6", format!("[{}]", guarded.server(true)))
    } else {
        ("ip", guarded.server(false).to_string())
    };
    let rules = format!(
        "table inet translated {{
           chain in {{ type nat hook prerouting priority -100; meta nfproto {} tcp dport {PUBLISHED} dnat {family} to {server}:{PORT}; }}
           chain out {{ type nat hook postrouting priority 100; oifname down0 tcp dport {PORT} masquerade; }}
         }}",
        if ipv6 { "ipv6" } else { "ipv4" }
    );
    guarded.apply(&POLICY.replace(
        "rules:",
        "rules:\n  - { name: published, allow: [tcp/8088], from: client, to: self }\n  \
         - { name: behind, allow: [http], from: self, to: server, limit: [{ packets: 100000/s }] }",
    ))?;
    router.namespace.check(&["nft", &rules], SOON)?;
    let _http = TcpService::start(&guarded.scene.server.namespace, guarded.server(ipv6), PORT)?;
    let invalid = || -> Result<u64> {
        [Reason::TcpInvalid, Reason::TcpOutOfWindow, Reason::TcpNoFlow]
            .into_iter()
            .map(|reason| guarded.packets(reason))
            .sum()
    };
    let before = invalid()?;
    let done = fetch(&guarded.scene.client, router.address(ipv6), PUBLISHED)
        .and_then(|()| closed(guarded, PUBLISHED))
        .and_then(|()| closed(guarded, PORT));
    router
        .namespace
        .check(&["nft", "delete", "table", "inet", "translated"], SOON)?;
    guarded.apply(POLICY)?;
    done.with_context(|| format!("counted: {}", guarded.counted()))?;
    let wrong = invalid()? - before;
    ensure!(wrong == 0, "{wrong} packets did not fit: {}", guarded.counted());
    Ok(())
}

fn datagrams(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const REQUESTS: u64 = 10;
    const PORT: u16 = 5303;
    let _echo = UdpEcho::start(&guarded.scene.server.namespace, guarded.server(ipv6), PORT)?;
    let socket = udp_socket(&guarded.scene.client, ipv6, SOON)?;
    let [opened, followed] = passed(guarded)?;
    let before = noted(guarded, Proto::UDP, PORT)?;
    for _ in 0..REQUESTS {
        socket.send_to(&[7; 100], (guarded.server(ipv6), PORT))?;
        ensure!(socket.recv(&mut [0; 256])? == 100, "the echo has another length");
    }
    let now = passed(guarded)?;
    let wanted = [opened + 1, followed + 2 * REQUESTS - 1];
    ensure!(
        now == wanted,
        "{REQUESTS} requests and their replies: {now:?} and not {wanted:?} are counted"
    );
    let after = noted(guarded, Proto::UDP, PORT)?;
    let frame = 14 + if ipv6 { 40 } else { 20 } + 8 + 100;
    let noted = (after.0 - before.0, after.1 - before.1);
    ensure!(
        noted == (2 * REQUESTS, 2 * REQUESTS * frame),
        "{REQUESTS} requests and their replies: the flow has (packets, bytes) {noted:?}"
    );
    Ok(())
}

fn connection(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const PORT: u16 = 80;
    let _http = TcpService::start(&guarded.scene.server.namespace, guarded.server(ipv6), PORT)?;
    let before = (passed(guarded)?, noted(guarded, Proto::TCP, PORT)?);
    fetch(&guarded.scene.client, guarded.server(ipv6), PORT)?;
    closed(guarded, PORT)?;
    let packets = noted(guarded, Proto::TCP, PORT)?.0 - before.1.0;
    // Opening and closing take six segments at least; a page of one segment needs no more than a dozen.
    ensure!((6..=14).contains(&packets), "the flow has {packets} packets");
    let end = Instant::now() + SOON;
    loop {
        let counted = passed(guarded)?.iter().sum::<u64>() - before.0.iter().sum::<u64>();
        if counted == packets {
            return Ok(());
        }
        // A packet is noted in its flow an instant before it is counted.
        ensure!(
            counted < packets && Instant::now() < end,
            "the flow has {packets} packets, {counted} are counted"
        );
    }
}
