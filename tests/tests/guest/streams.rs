//! Many streams over a line that loses, doubles and reorders.

use std::time::Instant;

use anyhow::{Result, ensure};
use fw_tests::lab::{Options, Scene};

use crate::site::{Engine, Guard, SOON, Stand, disturb, disturbances};
use crate::transfer::streams;

const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
link: { allow: [arp, nd], multicast: allow }
rules:
  - { name: bulk, allow: [tcp/5001-5099], from: client, to: server }
"#;

/// Connections at once.
const STREAMS: u32 = 64;
/// Bytes of each stream and direction: what emulation moves in some seconds.
const SHORT: usize = 32 << 10;
/// With `--full`: a gigabyte in all.
const FULL: usize = (1 << 30) / (2 * STREAMS as usize);

/// What the ends have agreed on; on both alike.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature of TCP, on or off"
)]
#[derive(Clone, Copy, Debug)]
struct Tuning {
    sack: bool,
    timestamps: bool,
    scaling: bool,
    segmentation: bool,
}

impl Tuning {
    /// Every combination of the first three; segmentation offload so that each pair of two features occurs in all four ways.
    fn all() -> impl Iterator<Item = Self> {
        (0..8_u8).rev().map(|bits| Self {
            sack: bits & 1 != 0,
            timestamps: bits & 2 != 0,
            scaling: bits & 4 != 0,
            segmentation: bits.count_ones() % 2 == 1,
        })
    }

    fn apply(self, scene: &Scene) -> Result<()> {
        let number = |on: bool| if on { "1" } else { "0" };
        let word = if self.segmentation { "on" } else { "off" };
        for host in [&scene.client, &scene.server] {
            let namespace = &host.namespace;
            namespace.sysctl("net/ipv4/tcp_sack", number(self.sack))?;
            namespace.sysctl("net/ipv4/tcp_timestamps", number(self.timestamps))?;
            namespace.sysctl("net/ipv4/tcp_window_scaling", number(self.scaling))?;
            // Otherwise a second connection starts with what the first one has learnt.
            namespace.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
            namespace.check(&["ethtool", "-K", "eth0", "tso", word], SOON)?;
        }
        Ok(())
    }
}

/// The quick one: one stand, everything on.
#[test]
fn smoke() -> Result<()> {
    run(Stand::Inline(Engine::Xdp), Tuning::all().take(1))
}

#[test]
fn streams_host_xdp() -> Result<()> {
    run(Stand::Host(Engine::Xdp), Tuning::all())
}

#[test]
fn streams_host_tc() -> Result<()> {
    run(Stand::Host(Engine::Tc), Tuning::all())
}

#[test]
fn streams_inline_xdp() -> Result<()> {
    run(Stand::Inline(Engine::Xdp), Tuning::all())
}

#[test]
fn streams_inline_tc() -> Result<()> {
    run(Stand::Inline(Engine::Tc), Tuning::all())
}

fn run(stand: Stand, tunings: impl Iterator<Item = Tuning>) -> Result<()> {
    let full = std::env::var_os("DPUFW_FULL").is_some();
    let scene = stand.scene(Options {
        client_offloads: true,
        server_offloads: true,
        client_hop: true,
        server_hop: true,
        ..Options::default()
    })?;
    let guard = Guard::at(&scene, stand, POLICY)?;
    disturb(&scene)?;
    for (number, tuning) in (0..).zip(tunings) {
        tuning.apply(&scene)?;
        let start = Instant::now();
        // The whole gigabyte once; the other combinations are as short as ever.
        let bytes = if full && number == 0 { FULL } else { SHORT };
        let ipv6 = number % 2 == 1;
        streams(
            (&scene.client.namespace, &scene.server.namespace),
            scene.server.address(ipv6),
            5001 + number,
            STREAMS,
            bytes,
        )?;
        guard.refused_nothing()?;
        println!(
            "{stand:?} {tuning:?}: {STREAMS} streams of {bytes} bytes each way in {:.1} s, {} packets lost on the way",
            start.elapsed().as_secs_f64(),
            disturbances(&scene)?
        );
    }
    ensure!(disturbances(&scene)? > 0, "netem has lost nothing");
    Ok(())
}
