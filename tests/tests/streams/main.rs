//! No packet of honest TCP is taken for a forgery: many streams over a line that loses, doubles and reorders, with every
//! combination of the features that move windows; and ten gigabytes over one that does not.

#[path = "../netns/guarded.rs"]
#[expect(dead_code, reason = "shared with the layer netns, which uses more of it")]
mod guarded;
mod site {
    //! What the transfers need of their surroundings.
    pub const SOON: std::time::Duration = std::time::Duration::from_mins(1);
}
#[path = "../guest/transfer.rs"]
mod transfer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_common::abi::Engine::{self, Tc, Xdp};
use fw_common::abi::Reason;
use fw_tests::lab::{Disturbance, Hop, Options};

use guarded::{Guarded, Stand};

const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
link: { allow: [arp, nd], multicast: allow }
rules:
  - { name: bulk, allow: [iperf3, tcp/5001-5099], from: client, to: server }
"#;

/// Connections at once.
const STREAMS: u32 = 64;
/// Bytes of each stream and direction.
const BYTES: usize = 256 << 10;
/// Bytes of the long transfer.
const LONG: u64 = 10_000_000_000;

/// What legitimate TCP must never meet.
const INVALID: [Reason; 7] = [
    Reason::TcpNoFlow,
    Reason::TcpInvalid,
    Reason::TcpBadAck,
    Reason::TcpOutOfWindow,
    Reason::RstInvalid,
    Reason::BadTcp,
    Reason::WrongSide,
];

/// What both ends have agreed on.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is on or off, in all combinations"
)]
#[derive(Clone, Copy, Debug)]
struct Tuning {
    sack: bool,
    timestamps: bool,
    scaling: bool,
    segmentation: bool,
}

impl Tuning {
    fn all() -> impl Iterator<Item = Self> {
        (0..16_u8).map(|bits| Self {
            sack: bits & 1 == 0,
            timestamps: bits & 2 == 0,
            scaling: bits & 4 == 0,
            segmentation: bits & 8 == 0,
        })
    }

    fn apply(self, guarded: &Guarded) -> Result<()> {
        let number = |on: bool| if on { "1" } else { "0" };
        let word = if self.segmentation { "on" } else { "off" };
        for host in [&guarded.scene.client, &guarded.scene.server] {
            let namespace = &host.namespace;
            namespace.sysctl("net/ipv4/tcp_sack", number(self.sack))?;
            namespace.sysctl("net/ipv4/tcp_timestamps", number(self.timestamps))?;
            namespace.sysctl("net/ipv4/tcp_window_scaling", number(self.scaling))?;
            // Otherwise a connection starts with what an earlier one has learnt.
            namespace.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
            namespace.check(&["ethtool", "-K", "eth0", "tso", word], site::SOON)?;
        }
        Ok(())
    }
}

#[test]
fn disturbed_host_xdp() -> Result<()> {
    disturbed(Stand::Host(Xdp))
}

#[test]
fn disturbed_host_tc() -> Result<()> {
    disturbed(Stand::Host(Tc))
}

#[test]
fn disturbed_inline_xdp() -> Result<()> {
    disturbed(Stand::Inline(Xdp, Xdp))
}

#[test]
fn disturbed_inline_tc() -> Result<()> {
    disturbed(Stand::Inline(Tc, Tc))
}

/// All sixteen combinations, IPv4 and IPv6 in turn, over a disturbed line.
fn disturbed(stand: Stand) -> Result<()> {
    let guarded = guarded(stand)?;
    let hop = guarded
        .scene
        .client_hop
        .as_ref()
        .context("the client has no hop")?;
    let _line = Disturbance::between(&hop.namespace, Hop::HOST, Hop::WIRE)?;
    for (number, tuning) in (0..).zip(Tuning::all()) {
        tuning.apply(&guarded)?;
        let start = Instant::now();
        let before = retransmitted(&guarded)?;
        transfer::streams(
            (&guarded.scene.client.namespace, &guarded.scene.server.namespace),
            guarded.server(number % 2 == 1),
            5001 + number,
            STREAMS,
            BYTES,
        )
        .with_context(|| format!("{tuning:?}: {}", guarded.counted()))?;
        nothing_invalid(&guarded).with_context(|| format!("{tuning:?}"))?;
        let again = retransmitted(&guarded)? - before;
        println!(
            "{stand:?} {tuning:?}: {STREAMS} streams of {BYTES} bytes each way in {:.1} s, {again} segments sent again",
            start.elapsed().as_secs_f64(),
        );
        ensure!(again > 0, "{tuning:?}: the line has lost nothing");
    }
    Ok(())
}

/// Ten gigabytes through XDP, inline, with super-packets at both ends.
#[test]
fn ten_gigabytes() -> Result<()> {
    long(Xdp)
}

fn long(engine: Engine) -> Result<()> {
    let guarded = guarded(Stand::Inline(engine, engine))?;
    let scene = &guarded.scene;
    let address = scene.server.v4.to_string();
    let server = scene
        .server
        .namespace
        .spawn(&["iperf3", "-s", "-1", "-B", &address])?;
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let amount = LONG.to_string();
    scene.client.namespace.check(
        &["iperf3", "-c", &address, "-n", &amount, "-P", "4"],
        Duration::from_mins(10),
    )?;
    drop(server.stop());
    let counted = guarded.bytes(Reason::Established)?;
    println!(
        "{LONG} bytes in {:.1} s; {counted} bytes passed the firewall as established",
        start.elapsed().as_secs_f64()
    );
    ensure!(
        counted >= LONG,
        "only {counted} of {LONG} bytes went through the data plane: {}",
        guarded.counted()
    );
    nothing_invalid(&guarded)
}

fn guarded(stand: Stand) -> Result<Guarded> {
    let options = Options {
        client_offloads: true,
        server_offloads: true,
        client_hop: true,
        server_hop: true,
        ..Options::default()
    };
    Guarded::new(stand, options, POLICY)
}

fn nothing_invalid(guarded: &Guarded) -> Result<()> {
    for reason in INVALID {
        let packets = guarded.packets(reason)?;
        ensure!(
            packets == 0,
            "{packets} packets of honest traffic were {}: {}",
            reason.name(),
            guarded.counted()
        );
    }
    Ok(())
}

/// Segments that both ends have sent again so far.
fn retransmitted(guarded: &Guarded) -> Result<u64> {
    let mut sum = 0;
    for host in [&guarded.scene.client, &guarded.scene.server] {
        let counters = host
            .namespace
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut rows = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
        let value = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(name, _)| *name == "RetransSegs")
            .context("no RetransSegs")?
            .1;
        sum += value.parse::<u64>()?;
    }
    Ok(sum)
}
