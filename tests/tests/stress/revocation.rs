//! A new policy while 1,000 flows are open, and the first packet of each comes from the server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_common::abi::Reason;
use fw_tests::lab::Options;

use crate::guarded::{Guarded, Stand};
use crate::rig::turn;
use crate::traffic::{Connections, Datagrams};

/// Of each kind: kept and denied, UDP and TCP.
const FLOWS: usize = 250;
/// UDP flows of which so many are in the main table, the others half-open.
const CONFIRMED: usize = 150;

const BEFORE: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
rules:
  - { name: all, allow: [udp/6001-6002, tcp/6003-6004], from: client, to: server }
"#;

const AFTER: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
rules:
  - { name: some, allow: [udp/6001, tcp/6003], from: client, to: server, limit: [{ new_flows: 50/s, burst: 50, per: rule }] }
"#;

/// Flows that the new policy allows lose no packet, although 50 new ones a second are the limit; of those that it denies
/// nothing arrives, in either direction.
fn revoke(stand: Stand, ipv6: bool) -> Result<()> {
    let _turn = turn();
    let guarded = Guarded::new(stand, Options::default(), BEFORE)?;
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let to: IpAddr = guarded.server(ipv6);
    let datagrams = |port| Datagrams::open(client, server, (to, port), FLOWS, CONFIRMED);
    let connections = |port| Connections::open(client, server, (to, port), FLOWS);
    let (kept, denied) = (datagrams(6001)?, datagrams(6002)?);
    let (mut kept_tcp, mut denied_tcp) = (connections(6003)?, connections(6004)?);
    ensure!(dropped(&guarded)?.is_empty(), "before: {}", guarded.counted());

    guarded.apply(AFTER)?;
    let arrived = (kept.answer(true)?, kept_tcp.answer(true)?);
    ensure!(
        arrived == (FLOWS, FLOWS),
        "{arrived:?} of {FLOWS} and {FLOWS} packets of allowed flows arrived: {}",
        guarded.counted()
    );
    let lost = dropped(&guarded)?;
    ensure!(lost.is_empty(), "allowed flows lost packets: {lost:?}");

    let arrived = (denied.answer(false)?, denied_tcp.answer(false)?);
    ensure!(
        arrived == (0, 0),
        "{arrived:?} packets of denied flows arrived: {}",
        guarded.counted()
    );
    let revoked = guarded.packets(Reason::PolicyRevoked)?;
    ensure!(
        revoked >= 2 * FLOWS as u64,
        "only {revoked} packets ended as policy_revoked"
    );
    for socket in &denied.clients {
        socket.send(b"still there?")?;
    }
    ensure!(
        denied.answer(false)? == 0,
        "a denied flow was opened again by its client"
    );
    // The limit is in force: for new flows.
    Datagrams::burst(client, (to, 6001), 200)?;
    let over = guarded.packets(Reason::LimitNewFlows)?;
    ensure!(over > 100, "only {over} of 200 new flows met the limit");
    println!(
        "{stand:?}, IPv6 {ipv6}: {} of {} packets arrived of flows still allowed, 0 of {} of flows denied: {}",
        2 * FLOWS,
        2 * FLOWS,
        2 * FLOWS,
        guarded.counted()
    );
    Ok(())
}

/// Packets that did not pass, by reason; multicast of the hosts' own aside.
fn dropped(guarded: &Guarded) -> Result<BTreeMap<&'static str, u64>> {
    let counters = guarded.tables().counters()?;
    let named = counters.into_iter().filter_map(|(number, count)| {
        let reason = Reason::from_number(number)?;
        let matters = !reason.allows() && reason != Reason::DenyMulticast && count.packets > 0;
        matters.then_some((reason.name(), count.packets))
    });
    Ok(named.collect())
}

#[test]
fn inline_xdp() -> Result<()> {
    revoke(Stand::Inline(Xdp, Xdp), false)
}

#[test]
fn inline_tc_ipv6() -> Result<()> {
    revoke(Stand::Inline(Tc, Tc), true)
}

#[test]
fn host_xdp_ipv6() -> Result<()> {
    revoke(Stand::Host(Xdp), true)
}

#[test]
fn host_tc() -> Result<()> {
    revoke(Stand::Host(Tc), false)
}
