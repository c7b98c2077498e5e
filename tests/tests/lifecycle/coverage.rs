//! Honest coverage, and addresses that come and go while the agent runs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, Host, TcpService};
use fw_user::control::{Cover, Coverage};

use crate::site::{Site, Stand, connects, expect, until};

fn line(agent: &Agent, interface: &str) -> Result<Coverage> {
    let coverage = agent.status()?.coverage;
    coverage
        .into_iter()
        .find(|line| line.interface == interface)
        .with_context(|| format!("{interface} has no line"))
}

#[test]
fn an_uncovered_interface_is_an_alarm_unless_it_is_ignored() -> Result<()> {
    let site = Site::new(Stand::Inline, "coverage")?;
    let mut agent = site.agent()?;
    let namespace = &site.scene.guard().namespace;
    expect(&agent.ask(&["status"])?, 0, &["healthy"])?;
    namespace.ip("link add forgotten type veth peer name other")?;
    expect(&agent.ask(&["status"])?, 0, &["forgotten"])?;
    namespace.ip("link set forgotten up")?;
    expect(&agent.ask(&["status"])?, 1, &["forgotten is up and not covered"])?;
    ensure!(line(&agent, "forgotten")?.alarm && line(&agent, "forgotten")?.cover == Cover::NotCovered);
    ensure!(site.metric("dpufw_degraded")? == 1, "the metrics do not say so");
    namespace.ip("link set forgotten down")?;
    expect(&agent.ask(&["status"])?, 0, &["healthy"])?;
    namespace.ip("link set forgotten up")?;
    site.configure("ignore: [forgotten]")?;
    agent.kill();
    agent.run()?;
    expect(&agent.ask(&["status"])?, 0, &["healthy"])?;
    ensure!(line(&agent, "forgotten")?.cover == Cover::Ignored);
    for port in ["up0", "down0"] {
        ensure!(
            matches!(line(&agent, port)?.cover, Cover::Covered | Cover::Partly),
            "{port} is no port"
        );
    }
    Ok(())
}

#[test]
fn an_address_added_at_run_time_is_self() -> Result<()> {
    for stand in [Stand::Host, Stand::Inline] {
        let site = Site::new(stand, "address")?;
        let agent = site.agent()?;
        let before = agent.status()?.policy;
        let (machine, interface) = (
            site.scene.guard(),
            if stand == Stand::Host { "eth0" } else { "up0" },
        );
        for address in ["10.9.0.77", "fd00:9::77"] {
            let (target, width) = if address.contains(':') {
                ((address, 22), 64)
            } else {
                ((address, 22), 24)
            };
            let target = SocketAddr::new(target.0.parse()?, target.1);
            machine.namespace.ip(&format!(
                "addr add {address}/{width} dev {interface} {}",
                nodad(address)
            ))?;
            let _ssh = TcpService::start(&machine.namespace, target.ip(), 22)?;
            until("the new address is self", || answers(&site.scene.client, target))?;
            let drops = agent.drops(&["-d", address])?;
            ensure!(
                drops.iter().all(|drop| drop.rule.as_deref() == Some("default")),
                "{drops:?}"
            );
            // Another port of it is not open, and the drop names the zone.
            let other = SocketAddr::new(target.ip(), 25);
            let _smtp = TcpService::start(&machine.namespace, target.ip(), 25)?;
            ensure!(!answers(&site.scene.client, other)?, "{other} answers");
            until("the drop is reported as to self", || {
                let drops = agent.drops(&["-d", address, "--dport", "25"])?;
                Ok(drops.iter().any(|drop| drop.dst_zone.as_deref() == Some("self")))
            })?;
        }
        let after = agent.status()?.policy;
        ensure!(after.generation >= before.generation + 2, "{after:?}");
        ensure!(
            (after.applied, &after.hash) == (before.applied, &before.hash),
            "no policy was applied: {after:?}"
        );
        machine
            .namespace
            .ip(&format!("addr del 10.9.0.77/24 dev {interface}"))?;
        until("the old address is self no more", || {
            Ok(agent.status()?.policy.generation > after.generation)
        })?;
    }
    Ok(())
}

fn nodad(address: &str) -> &str {
    if address.contains(':') { "nodad" } else { "" }
}

fn answers(client: &Host, target: SocketAddr) -> Result<bool> {
    connects(client, target, Duration::from_millis(200))
}
