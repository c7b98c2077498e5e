//! Limits of rules on what real sockets send.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_common::abi::Reason;
use fw_tests::lab::Options;

use crate::due;
use crate::guarded::{Guarded, SHORTLY, Stand};
use crate::rig::turn;

/// 2,000 packets, 2 MB, 200 flows a second; the bursts bridge the pauses of a sender on a busy machine.
const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
rules:
  - { name: packets, allow: [udp/6001], from: client, to: server, limit: [{ packets: 2000/s, burst: 200, per: source }] }
  - { name: bytes,   allow: [udp/6002], from: client, to: server, limit: [{ bytes: 2 MB/s, burst: 200 kB, per: pair }] }
  - { name: flows,   allow: [udp/6003], from: client, to: server, limit: [{ new_flows: 200/s, burst: 20, per: destination }] }
  - { name: several, allow: [udp/6004], from: client, to: server, limit: [{ packets: 100000/s, per: rule }, { bytes: 1 MB/s, burst: 100 kB, per: source }] }
  - { name: rest,    allow: [udp/6001-6009], from: client, to: server }
"#;

const SECOND: Duration = Duration::from_secs(1);

/// What is sent, and what may pass.
struct Case {
    port: u16,
    payload: usize,
    /// A socket of its own for each datagram.
    flows: bool,
    /// Datagrams sent in a second: some times what the limit lets pass.
    sent: u32,
    /// Datagrams that a second lets pass, and the burst.
    rate: f64,
    burst: f64,
    reason: Reason,
}

/// Bytes of headers in front of a datagram's payload.
fn headers(ipv6: bool) -> usize {
    14 + if ipv6 { 40 } else { 20 } + 8
}

fn cases(ipv6: bool) -> [Case; 4] {
    let bytes = |amount: f64, payload: usize| amount / f64::from((payload + headers(ipv6)) as u32);
    [
        Case {
            port: 6001,
            payload: 100,
            flows: false,
            sent: 8000,
            rate: 2000.0,
            burst: 200.0,
            reason: Reason::LimitPackets,
        },
        Case {
            port: 6002,
            payload: 1000,
            flows: false,
            sent: 8000,
            rate: bytes(2e6, 1000),
            burst: bytes(2e5, 1000),
            reason: Reason::LimitBytes,
        },
        Case {
            port: 6003,
            payload: 10,
            flows: true,
            sent: 1000,
            rate: 200.0,
            burst: 20.0,
            reason: Reason::LimitNewFlows,
        },
        Case {
            port: 6004,
            payload: 1000,
            flows: false,
            sent: 4000,
            rate: bytes(1e6, 1000),
            burst: bytes(1e5, 1000),
            reason: Reason::LimitBytes,
        },
    ]
}

/// Sends for a second; returns how long that was.
fn send(case: &Case, from: IpAddr, to: IpAddr) -> Result<Duration> {
    let payload = vec![7; case.payload];
    // No port twice: a second datagram from it would belong to a flow that is open.
    let mut port = 20_000;
    let mut socket = UdpSocket::bind((from, port))?;
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < SECOND {
        let due = due(begun.elapsed(), case.sent);
        while sent < due {
            socket.send_to(&payload, (to, case.port))?;
            if case.flows {
                port += 1;
                socket = UdpSocket::bind((from, port))?;
            }
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(begun.elapsed())
}

/// What the server's socket gets is what the rate allows in the time, and never more; the rest ends with the limit's reason and
/// meets no later rule.
fn metered(guarded: &Guarded, ipv6: bool, case: &Case) -> Result<()> {
    let (from, to) = (guarded.client(ipv6), guarded.server(ipv6));
    let (client, server) = (&guarded.scene.client.namespace, &guarded.scene.server.namespace);
    let socket = server.enter(|| UdpSocket::bind((to, case.port)))??;
    socket.set_read_timeout(Some(SHORTLY))?;
    let before = guarded.packets(case.reason)?;
    let (received, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 2048]).is_ok() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let taken = client.enter(|| send(case, from, to));
        std::thread::sleep(SHORTLY);
        stop.store(true, Ordering::Relaxed);
        taken
    })??;
    let received = f64::from(received.into_inner());
    let allowed = case.rate * taken.as_secs_f64() + case.burst;
    let over = guarded.packets(case.reason)? - before;
    println!(
        "udp/{}: {received} of {allowed:.0} allowed, {over} over the limit",
        case.port
    );
    ensure!(over > 0, "nothing was over the limit of udp/{}", case.port);
    ensure!(
        received <= allowed + 1.0,
        "udp/{}: {received} datagrams arrived, {allowed} are allowed",
        case.port
    );
    ensure!(
        received >= 0.95 * allowed,
        "udp/{}: only {received} datagrams arrived of {allowed}: {}",
        case.port,
        guarded.counted()
    );
    Ok(())
}

fn limits(stand: Stand) -> Result<()> {
    let _turn = turn();
    let guarded = Guarded::new(stand, Options::default(), POLICY)?;
    for ipv6 in [false, true] {
        for case in cases(ipv6) {
            metered(&guarded, ipv6, &case)?;
        }
    }
    Ok(())
}

#[test]
fn limits_on_real_traffic_inline_xdp() -> Result<()> {
    limits(Stand::Inline(Xdp, Xdp))
}

#[test]
fn limits_on_real_traffic_host_tc() -> Result<()> {
    limits(Stand::Host(Tc))
}
