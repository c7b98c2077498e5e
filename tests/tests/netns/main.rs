//! Real packets through the data plane: on a server's own NIC, inline before it with each pair of engines, and on a router,
//! in IPv4 and IPv6. Both ends leave segments and checksums to hardware.
//!
//! Every stand is one scene of namespaces with one policy; its scenarios run one after another. All that fail are told.

mod bulk;
mod clients;
mod fragments;
mod frames;
mod guarded;
mod offload;
mod own;
mod path;
mod reject;
mod router;
mod ssh;
mod strangers;
mod tun;

use anyhow::{Result, bail, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_tests::lab::Options;

use guarded::{Guarded, POLICY, SOON, Stand};

/// One thing that must work, or must not; the last argument says whether by IPv6.
type Scenario = fn(&Guarded, bool) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("a page by HTTP", clients::page),
    ("ten pages over one connection by HTTP/2", clients::http2),
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
    ("a port that a rule rejects", reject::port),
    ("ping that a rule rejects", reject::ping),
    ("the limit of answers", reject::limit),
    ("pings of 8,000 bytes", fragments::large_ping),
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
    ("a stranger's echo of 8,000 bytes", strangers::large_echo),
    (
        "a segment of a running HTTP/2 connection, from a stranger",
        strangers::segment,
    ),
    (
        "packet too big, about a live flow and about another one",
        strangers::too_big,
    ),
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

/// The scenarios between two networks: all but those of the link itself.
const ROUTED: &[(&str, Scenario)] = &[
    ("counted once, at the way in", router::counted_once),
    (
        "addresses and ports that are translated on the way",
        router::translated,
    ),
    ("a page by HTTP", clients::page),
    ("ten pages over one connection by HTTP/2", clients::http2),
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
    ("a port that a rule rejects", reject::port),
    ("ping that a rule rejects", reject::ping),
    ("the limit of answers", reject::limit),
    ("pings of 8,000 bytes", fragments::large_ping),
    ("a bulk transfer both ways, counted", bulk::iperf3),
    ("this machine's own addresses", own::addresses),
    ("a stranger's echo of 8,000 bytes", strangers::large_echo),
    (
        "a segment of a running HTTP/2 connection, from a stranger",
        strangers::segment,
    ),
    (
        "packet too big, about a live flow and about another one",
        strangers::too_big,
    ),
];

#[test]
fn router_xdp() -> Result<()> {
    all(Stand::Router(Some(Xdp), Xdp), ROUTED)
}

#[test]
fn router_tc() -> Result<()> {
    all(Stand::Router(Some(Tc), Tc), ROUTED)
}

/// What came in unseen is judged where it leaves.
#[test]
fn router_judges_at_the_way_out() -> Result<()> {
    all(
        Stand::Router(None, Xdp),
        &[
            ("a port that a rule denies", clients::denied_by_rule),
            ("a port that no rule allows", clients::denied_by_default),
        ],
    )
}

fn run(stand: Stand) -> Result<()> {
    all(stand, SCENARIOS)
}

fn all(stand: Stand, scenarios: &[(&str, Scenario)]) -> Result<()> {
    // Where a port with XDP looks at an end, a hop does for the end what a NIC does.
    let (client_hop, server_hop) = match stand {
        Stand::Host(engine) => (engine == Xdp, false),
        Stand::Inline(outer, inner) => (outer == Xdp, inner == Xdp),
        Stand::Router(outer, inner) => (outer == Some(Xdp), inner == Xdp),
    };
    let options = Options {
        client_offloads: true,
        server_offloads: true,
        client_hop,
        server_hop,
        ..Options::default()
    };
    let guarded = Guarded::new(stand, options, POLICY)?;
    check_offloads(&guarded)?;
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
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

/// Both ends leave segments and checksums to hardware, as hosts do, with the data plane attached: veth would take this
/// from the peer of a port with XDP.
fn check_offloads(guarded: &Guarded) -> Result<()> {
    for end in [&guarded.scene.client, &guarded.scene.server] {
        let features = end.namespace.check(&["ethtool", "-k", "eth0"], SOON)?;
        for feature in [
            "tx-checksumming",
            "tcp-segmentation-offload",
            "tx-tcp6-segmentation",
        ] {
            let on = features
                .lines()
                .any(|line| line.trim() == format!("{feature}: on"));
            ensure!(on, "{feature} is off in {}: {features}", end.namespace.name());
        }
    }
    Ok(())
}
