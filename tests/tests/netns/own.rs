//! What concerns the guarded machines' own addresses.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fw_common::abi::Reason;
use fw_tests::lab::{Namespace, TcpService};

use crate::clients::fetch;
use crate::guarded::{Guarded, SHORTLY, SOON};

/// Inline, packets to the machine's own addresses on a paired port are judged as to `self` and passed up, and what it
/// sends is judged as from `self`. On a server's own NIC the server is `self`.
pub fn addresses(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let (client, machine) = (&guarded.scene.client, guarded.scene.guard());
    let own = machine.address(ipv6);
    client.namespace.check(
        &["ping", "-c", "2", "-i", "0.05", "-W", "5", &own.to_string()],
        SOON,
    )?;
    let _ssh = TcpService::start(&machine.namespace, own, 22)?;
    fetch(client, own, 22)?;
    let _closed = TcpService::start(&machine.namespace, own, 25)?;
    let refused = guarded.counts(Reason::DenyDefault, || {
        client
            .namespace
            .enter(|| TcpStream::connect_timeout(&SocketAddr::new(own, 25), SHORTLY))
    })?;
    ensure!(refused.is_err(), "port 25 of the machine itself answered");
    let _update = TcpService::start(&client.namespace, client.address(ipv6), 443)?;
    fetch(machine, client.address(ipv6), 443)?;
    let _other = TcpService::start(&client.namespace, client.address(ipv6), 444)?;
    let target = SocketAddr::new(client.address(ipv6), 444);
    let refused = guarded.counts(Reason::DenyDefault, || {
        machine
            .namespace
            .enter(|| TcpStream::connect_timeout(&target, SHORTLY))
    })?;
    ensure!(
        refused.is_err(),
        "the machine reached a port that no rule lets it reach"
    );
    Ok(())
}

/// A free address becomes usable, and one that the client has is found out, although the policy denies by default.
pub fn duplicates(guarded: &Guarded, ipv6: bool) -> Result<()> {
    if !ipv6 {
        return Ok(());
    }
    let server = &guarded.scene.server.namespace;
    server.sysctl("net/ipv6/conf/eth0/accept_dad", "1")?;
    server.sysctl("net/ipv6/neigh/eth0/retrans_time_ms", "200")?;
    let taken = format!("{}/64", guarded.client(true));
    guarded.counts(Reason::LinkNd, || {
        server.ip("addr add fd00:9::22/64 dev eth0")?;
        server.ip(&format!("addr add {taken} dev eth0"))?;
        wait_for_address(server, "fd00:9::22", |flags| !flags.contains("tentative"))?;
        wait_for_address(server, &guarded.client(true).to_string(), |flags| {
            flags.contains("dadfailed")
        })
    })?;
    server.ip(&format!("addr del {taken} dev eth0"))?;
    server.ip("addr del fd00:9::22/64 dev eth0")
}

fn wait_for_address(namespace: &Namespace, address: &str, good: impl Fn(&str) -> bool) -> Result<()> {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        let shown = namespace.check(&["ip", "-6", "-o", "addr", "show", "dev", "eth0"], SOON)?;
        if shown
            .lines()
            .any(|line| line.contains(&format!(" {address}/")) && good(line))
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("duplicate address detection of {address} does not come to an end")
}
