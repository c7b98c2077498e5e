//! A flood of SYNs from sources that do not exist, while real connections run and new ones begin.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_common::abi::{Proto, Reason};
use fw_common::pipeline::FlowStat;
use fw_tests::lab::Options;
use fw_user::dataplane::{self, FlowKey, FlowSizes, FlowTable, coarse_now};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::guarded::{Guarded, SOON, Stand};
use crate::rig::turn;
use crate::spoofed::flood;
use crate::traffic::Connections;

/// Everybody may open connections to the server's ports; all of protection is as it is by default.
const POLICY: &str = r#"
version: 1
zones:
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
rules:
  - { name: web, allow: [tcp/80-90], from: any, to: server }
"#;

/// Entries of each half-open table.
const HALF_OPEN: u32 = 16_384;
/// Connections that carry data throughout.
const ESTABLISHED: usize = 1000;
/// New connections tried during the flood, half of them with the client's connection tracking on.
const ATTEMPTS: usize = 300;
/// How long a new connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The server's port of the running connections.
const BUSY: u16 = 81;
/// The one for new ones, which answers the flood too.
pub const OPEN: u16 = 80;
/// One that nobody listens on.
pub const CLOSED: u16 = 85;

/// The flood is ten times the half-open table, at least.
const FLOOD: u32 = 10 * HALF_OPEN;
/// A machine that cannot send it within this time fails the test.
const FLOOD_TIME: Duration = Duration::from_secs(15);
/// A connection from an address of its own, which serves one request.
pub fn attempt(from: IpAddr, to: SocketAddr, patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    let family = if from.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(
        &fd,
        sockopt::SendTimeout,
        &TimeVal::milliseconds(patience.as_millis() as i64),
    )?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).context("connecting")?;
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"q")?;
    stream.read_exact(&mut [0; 1]).context("waiting for the answer")?;
    let taken = begun.elapsed();
    ensure!(taken <= patience, "it took {taken:?}");
    Ok(taken)
}

/// Answers a byte with a byte, until told to stop.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut open: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            open.push(stream);
        }
        open.retain_mut(|stream| match stream.read(&mut [0; 1]) {
            Ok(0) => false,
            Ok(_) => stream.write_all(b"a").is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The addresses that new connections come from, each its own source: IPv4 addresses, IPv6 prefixes.
fn newcomer(number: usize, ipv6: bool) -> IpAddr {
    let number = number as u16;
    if ipv6 {
        Ipv6Addr::new(0xfd40, number, 0, 0, 0, 0, 0, 1).into()
    } else {
        let [high, low] = (number + 1).to_be_bytes();
        Ipv4Addr::new(10, 64, high, low).into()
    }
}

/// The client owns all addresses of the newcomers, and gets what is sent to the spoofed ones, which it drops.
fn route(guarded: &Guarded) -> Result<()> {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    // IPv6 sockets bind to addresses of an interface only, unless told otherwise.
    client.namespace.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
    client
        .namespace
        .ip("route add local 10.64.0.0/16 dev lo\n-6 route add local fd40::/16 dev lo")?;
    for net in ["10.64.0.0/16", "10.192.0.0/10"] {
        server.namespace.ip(&format!("route add {net} via 10.9.0.1"))?;
    }
    for net in ["fd40::/16", "fd5a::/16"] {
        server
            .namespace
            .ip(&format!("-6 route add {net} via fd00:9::1"))?;
    }
    Ok(())
}

/// A stateful filter on the client, as hosts have it: what its connection tracking finds invalid is dropped.
fn track(guarded: &Guarded) -> Result<()> {
    // What runs already is accepted as it is: where an answer is under way when tracking begins, it is the first packet that
    // tracking sees, so new, and would be dropped for ever, because its question was acknowledged already.
    let rules = format!(
        "add table inet t; add chain inet t in {{ type filter hook input priority 0; policy drop; }}; \
         add rule inet t in tcp sport {BUSY} accept; add rule inet t in ct state established,related accept; \
         add rule inet t in meta l4proto {{ icmp, ipv6-icmp }} accept"
    );
    let client = &guarded.scene.client.namespace;
    client.check(&["nft", &rules], SOON).map(drop)
}

/// What became of the new connections.
#[derive(Debug, Default)]
struct Newcomers {
    failed: Vec<String>,
    longest: Duration,
}

/// Tries connections `numbers`, some at a time, each from an address of its own.
fn newcomers(guarded: &Guarded, ipv6: bool, numbers: std::ops::Range<usize>) -> Result<Newcomers> {
    const AT_A_TIME: usize = 8;
    let to = SocketAddr::new(guarded.server(ipv6), OPEN);
    let next = AtomicUsize::new(numbers.start);
    let client = &guarded.scene.client.namespace;
    let worker = || {
        client.enter(|| {
            let mut own = Newcomers::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return own;
                }
                match attempt(newcomer(number, ipv6), to, PATIENCE) {
                    Ok(taken) => own.longest = own.longest.max(taken),
                    Err(error) => own.failed.push(format!("{number}: {error:#}")),
                }
            }
        })
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(worker)).collect();
        let mut all = Newcomers::default();
        for worker in workers {
            let own = worker.join().expect("no worker panics")?;
            all.failed.extend(own.failed);
            all.longest = all.longest.max(own.longest);
        }
        Ok(all)
    })
}

fn scene(stand: Stand) -> Result<Guarded> {
    let plane = dataplane::Options {
        sizes: FlowSizes {
            half4: HALF_OPEN,
            half6: HALF_OPEN,
            ..FlowSizes::DEFAULT
        },
        replies_per_window: dataplane::Options::agent().replies_per_window,
        ..dataplane::Options::default()
    };
    let guarded = Guarded::with(stand, Options::default(), POLICY, plane)?;
    route(&guarded)?;
    Ok(guarded)
}

#[expect(clippy::too_many_lines, reason = "one scene, step by step")]
fn syn_flood(stand: Stand, ipv6: bool) -> Result<()> {
    let _turn = turn();
    let guarded = scene(stand)?;
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    guarded.tables().beat(coarse_now());
    let mut connections = Connections::open(client, server, (guarded.server(ipv6), BUSY), ESTABLISHED)?;
    connections.round(SOON)?;
    let listener = server
        .namespace
        .enter(|| TcpListener::bind((guarded.server(ipv6), OPEN)))??;
    let stop = AtomicBool::new(false);
    let (rounds, sent) = (AtomicU64::new(0), AtomicU32::new(0));
    let (longest, without, with) = std::thread::scope(|scope| -> Result<_> {
        let generator = scope.spawn(|| flood(&guarded, ipv6, &sent, &stop));
        let service = scope.spawn(|| serve(&listener, &stop));
        let data = scope.spawn(|| -> Result<Duration> {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                guarded.tables().beat(coarse_now());
                let round = connections.round(SOON).with_context(|| guarded.counted())?;
                longest = longest.max(round);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            Ok(longest)
        });
        let begun = Instant::now();
        let tried = (|| {
            // Let the flood begin.
            std::thread::sleep(Duration::from_millis(500));
            let without = newcomers(&guarded, ipv6, 0..ATTEMPTS / 2)?;
            track(&guarded)?;
            let with = newcomers(&guarded, ipv6, ATTEMPTS / 2..ATTEMPTS)?;
            while sent.load(Ordering::Relaxed) < FLOOD && begun.elapsed() < FLOOD_TIME {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, anyhow::Error>((without, with))
        })();
        stop.store(true, Ordering::Relaxed);
        generator.join().expect("the generator does not panic")?;
        let longest = data.join().expect("the data does not panic")?;
        service.join().expect("the service does not panic")?;
        let (without, with) = tried?;
        Ok((longest, without, with))
    })?;
    let sent = sent.into_inner();
    let stats = guarded.tables().flow_stats()?;
    println!(
        "{stand:?}, IPv6 {ipv6}: {sent} SYNs; {} rounds over {ESTABLISHED} connections, the longest {longest:?}; new connections \
         that failed: {} of {} (longest {:?}), with connection tracking {} of {} (longest {:?}); {} answers suppressed; {}",
        rounds.load(Ordering::Relaxed),
        without.failed.len(),
        ATTEMPTS / 2,
        without.longest,
        with.failed.len(),
        ATTEMPTS / 2,
        with.longest,
        stats[FlowStat::RepliesSuppressed as usize],
        guarded.counted()
    );
    ensure!(sent >= FLOOD, "the flood was {sent} SYNs only");
    ensure!(longest < PATIENCE, "a connection stalled for {longest:?}");
    no_other_drop(&guarded)?;
    no_spoofed_flow(&guarded)?;
    // In the half-open table a spoofed SYN may have this number for its source port.
    let mut running = guarded.flows(Proto::TCP, BUSY)?;
    running.retain(|(table, _)| *table == FlowTable::Main);
    ensure!(
        running.len() == ESTABLISHED,
        "of {ESTABLISHED} running connections {} are in the main table",
        running.len()
    );
    for (name, newcomers) in [("without", &without), ("with", &with)] {
        ensure!(
            newcomers.failed.len() * 100 <= ATTEMPTS / 2,
            "{name} connection tracking: {} of {} new connections failed, such as {:?}",
            newcomers.failed.len(),
            ATTEMPTS / 2,
            newcomers.failed.first()
        );
    }
    Ok(())
}

/// What was dropped is the flood, what was sent in answer to it, and what proved a newcomer: nothing of a running connection.
fn no_other_drop(guarded: &Guarded) -> Result<()> {
    const FLOODS: [Reason; 6] = [
        Reason::SynProof,
        Reason::SynProofOver,
        Reason::SynProved,
        // The server's resets and errors, and its SYN-ACKs sent again, about flows that are gone.
        Reason::TcpNoFlow,
        Reason::IcmpUnrelated,
        Reason::DenyMulticast,
    ];
    let others: Vec<_> = guarded
        .tables()
        .counters()?
        .into_iter()
        .filter_map(|(number, count)| Some((Reason::from_number(number)?, count.packets)))
        .filter(|(reason, packets)| *packets > 0 && !reason.allows() && !FLOODS.contains(reason))
        .collect();
    ensure!(others.is_empty(), "other packets were dropped: {others:?}");
    Ok(())
}

/// All flows in the main table are the client's or the newcomers'.
fn no_spoofed_flow(guarded: &Guarded) -> Result<()> {
    let (mut spoofed, mut all) = (0, 0);
    guarded.tables().for_each_flow(FlowTable::Main, |key, _| {
        all += 1;
        spoofed += usize::from(match key {
            FlowKey::V4(key) => [key.lo.0, key.hi.0]
                .iter()
                .any(|address| address >> 22 == 10 << 2 | 3),
            FlowKey::V6(key) => [key.lo.0[0], key.hi.0[0]].iter().any(|word| word >> 16 == 0xfd5a),
        });
        ControlFlow::Continue(())
    })?;
    ensure!(all >= ESTABLISHED, "the main table has {all} flows only");
    ensure!(
        spoofed == 0,
        "{spoofed} of {all} flows in the main table are spoofed"
    );
    Ok(())
}

#[test]
fn syn_flood_inline_xdp() -> Result<()> {
    syn_flood(Stand::Inline(Xdp, Xdp), false)
}

#[test]
fn syn_flood_inline_tc_ipv6() -> Result<()> {
    syn_flood(Stand::Inline(Tc, Tc), true)
}

#[test]
fn syn_flood_host_xdp_ipv6() -> Result<()> {
    syn_flood(Stand::Host(Xdp), true)
}

#[test]
fn syn_flood_host_tc() -> Result<()> {
    syn_flood(Stand::Host(Tc), false)
}
