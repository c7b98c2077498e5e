//! Real packets through the data plane: on a server's own NIC, and inline before it with each pair of engines, in IPv4
//! and IPv6.
//!
//! Every stand is one scene of namespaces with one policy; its scenarios run one after another. All that fail are told.

mod bulk;
mod clients;
mod frames;
mod guarded;
mod offload;
mod own;

use anyhow::{Result, bail, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_tests::lab::Options;

use guarded::{Guarded, POLICY, SOON, Stand};

/// One thing that must work, or must not; the last argument says whether by IPv6.
type Scenario = fn(&Guarded, bool) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("a page by HTTP", clients::page),
    ("a port that a rule denies", clients::denied_by_rule),
    ("a port that no rule allows", clients::denied_by_default),
    ("nobody listens on an allowed port", clients::refused_port),
    ("ping", clients::ping),
    ("ping in the direction that no rule allows", clients::denied_ping),
    ("a UDP request and its reply", clients::udp),
    (
        "the reply's direction alone opens nothing",
        clients::reply_direction,
    ),
    (
        "port unreachable reaches the client of a known flow",
        clients::port_unreachable,
    ),
    ("a bulk transfer both ways, counted", bulk::iperf3),
    ("this machine's own addresses on a paired port", own::addresses),
    ("duplicate address detection", own::duplicates),
    ("LLDP and LACP", frames::link_protocols),
    ("a DHCP exchange", frames::dhcp),
    ("a tag that the policy names", frames::known_tag),
    ("a tag that the policy does not name", frames::unknown_tag),
    ("options and extension headers", frames::options),
    ("fragments", frames::fragments),
    ("frames cut short", frames::cut_short),
];

#[test]
fn host_xdp() -> Result<()> {
    run(Stand::Host(Xdp))
}

#[test]
fn host_tc() -> Result<()> {
    run(Stand::Host(Tc))
}

#[test]
fn inline_xdp_xdp() -> Result<()> {
    run(Stand::Inline(Xdp, Xdp))
}

#[test]
fn inline_xdp_tc() -> Result<()> {
    run(Stand::Inline(Xdp, Tc))
}

#[test]
fn inline_tc_xdp() -> Result<()> {
    run(Stand::Inline(Tc, Xdp))
}

#[test]
fn inline_tc_tc() -> Result<()> {
    run(Stand::Inline(Tc, Tc))
}

fn run(stand: Stand) -> Result<()> {
    // Hardware-like offloads wherever the packets are not redirected by XDP, which would lose the missing checksum.
    let options = Options {
        client_offloads: !matches!(stand, Stand::Inline(Xdp, _)),
        server_offloads: !matches!(stand, Stand::Inline(_, Xdp)),
        ..Options::default()
    };
    let guarded = Guarded::new(stand, options, POLICY)?;
    check_segmentation(&guarded, stand)?;
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS {
        for ipv6 in [false, true] {
            if let Err(error) = scenario(&guarded, ipv6) {
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                failed.push(format!("{name}, {family}: {error:#}\n    {}", guarded.counted()));
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "{stand:?}: {} scenarios failed:\n{}",
            failed.len(),
            failed.join("\n")
        );
    }
    Ok(())
}

/// An end that the firewall lets use its offloads does: its kernel makes super-packets, which TC sees whole. (A peer with
/// an XDP program takes TSO from a veth end.)
fn check_segmentation(guarded: &Guarded, stand: Stand) -> Result<()> {
    let scene = &guarded.scene;
    let ends = match stand {
        Stand::Host(_) | Stand::Inline(Xdp, Tc) => vec![&scene.server],
        Stand::Inline(Tc, Tc) => vec![&scene.client, &scene.server],
        Stand::Inline(Tc, Xdp) => vec![&scene.client],
        Stand::Inline(Xdp, Xdp) => vec![],
    };
    for end in ends {
        let features = end.namespace.check(&["ethtool", "-k", "eth0"], SOON)?;
        ensure!(
            features.contains("\ntcp-segmentation-offload: on"),
            "TSO is off in {}",
            end.namespace.name()
        );
    }
    Ok(())
}
