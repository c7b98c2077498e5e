//! Packets in order, and what must become of each: verdict and reason, from the loaded programs by test-run.
//!
//! Every case runs in both address families, with the firewall on this machine's own NIC and inline, with the programs
//! of XDP and of TC. What a packet must meet is written down from the standards and from the design, never read off
//! the program.

mod answers;
mod attributes;
mod blind;
mod case;
mod chunks;
mod closed;
mod errors;
mod fragments;
mod full;
mod halfopen;
mod headers;
mod limits;
mod link;
mod others;
mod presence;
mod protect;
mod raw;
mod reasons;
mod rig;
mod running;
mod screens;
mod sources;
mod stand;
mod swap;
mod tcp;
mod told;
mod tunnels;
mod windows;

use anyhow::{Result, anyhow, bail};
use fw_common::abi::LinkKind;
use fw_policy::{Choice, Representation};

use case::{Case, Net};
use rig::Rig;
use stand::Stand;

#[test]
fn tcp() -> Result<()> {
    run(tcp::cases)
}

#[test]
fn windows() -> Result<()> {
    run(windows::cases)
}

#[test]
fn sequence_numbers_that_wrap() -> Result<()> {
    run(windows::wraps)
}

#[test]
fn windows_that_are_not_judged() -> Result<()> {
    run(windows::loose)
}

#[test]
fn connections_that_were_running() -> Result<()> {
    run(running::cases)
}

#[test]
fn changes_of_policy() -> Result<()> {
    run(tcp::policies)
}

#[test]
fn udp_icmp_and_others() -> Result<()> {
    run(others::cases)
}

#[test]
fn icmp_errors() -> Result<()> {
    run(errors::cases)
}

#[test]
fn tunnels() -> Result<()> {
    run(tunnels::cases)
}

#[test]
fn headers() -> Result<()> {
    run(headers::cases)
}

#[test]
fn fragments() -> Result<()> {
    run(fragments::cases)
}

#[test]
fn floods_caps_and_scans() -> Result<()> {
    run(protect::cases)
}

#[test]
fn ports_without_link_headers() -> Result<()> {
    let stands = [Stand::HostTc, Stand::InlineTc];
    run_on(&stands, LinkKind::Raw, fw_policy::Options::default(), raw::cases)
}

#[test]
fn screens() -> Result<()> {
    run(screens::cases)
}

#[test]
fn limits_of_rules() -> Result<()> {
    run(limits::cases)
}

#[test]
fn actions_and_attributes() -> Result<()> {
    run(attributes::actions)
}

#[test]
fn frames_cut_short() -> Result<()> {
    run(headers::cut_short)
}

#[test]
fn link_protocols_and_own_addresses() -> Result<()> {
    run(link::cases)
}

#[test]
fn source_ports() -> Result<()> {
    run(sources::cases)
}

#[test]
fn sets_of_several_chunks() -> Result<()> {
    chunks::check_sizes(|text| {
        let (policy, _) = fw_policy::check(text, "chunks.yaml").map_err(|findings| anyhow!("{findings}"))?;
        Ok(fw_policy::compile(&policy, &fw_policy::Environment::sample())?
            .lines
            .len())
    })?;
    run(chunks::cases)
}

/// What depends on how decisions are held, with policies held as bit vectors.
#[test]
fn bit_vectors() -> Result<()> {
    let all = |net: &Net| {
        [
            sources::cases(net),
            fragments::cases(net),
            attributes::actions(net),
            others::cases(net),
            tcp::policies(net),
            limits::cases(net),
        ]
        .concat()
    };
    let options = fw_policy::Options {
        choice: Choice::Only(Representation::Vectors),
        ..fw_policy::Options::default()
    };
    run_on(&Stand::ALL, LinkKind::Ethernet, options, all)
}

/// Runs the cases on every stand and in both families; all disagreements are told, not only the first.
fn run(cases: impl Fn(&Net) -> Vec<Case>) -> Result<()> {
    run_on(
        &Stand::ALL,
        LinkKind::Ethernet,
        fw_policy::Options::default(),
        cases,
    )
}

fn run_on(
    stands: &[Stand],
    link: LinkKind,
    options: fw_policy::Options,
    cases: impl Fn(&Net) -> Vec<Case>,
) -> Result<()> {
    let (mut packets, mut wrong) = (0, Vec::new());
    for &stand in stands {
        let mut rig = Rig::new(stand)?;
        rig.link = link;
        rig.options = options;
        for ipv6 in [false, true] {
            for case in cases(&Net::new(ipv6, stand.inline())) {
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                match rig.run(&case)? {
                    Ok(sent) => packets += sent,
                    Err(what) => wrong.push(format!("{stand:?}, {family}, {}: {what}", case.name)),
                }
            }
        }
        rig.counters_add_up()?;
    }
    if !wrong.is_empty() {
        bail!(
            "{} of the cases went differently:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
    println!("{packets} packets as expected");
    Ok(())
}
