//! The only command that opens the ports.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aya::programs::{loaded_links, loaded_programs};
use fw_tests::lab::{Agent, TcpService};
use fw_user::agent::versioned;
use fw_user::dataplane::list_attached;

use crate::site::{SOON, Site, Stand, expect, until};

/// Ids of programs and of links that stand before the agent's ports.
fn attached(agent: &Agent) -> Result<[BTreeSet<u32>; 2]> {
    let attached = list_attached(&versioned(agent.pin_dir()))?;
    let programs = attached.iter().map(|at| at.prog_id).collect();
    Ok([programs, attached.iter().filter_map(|at| at.link_id).collect()])
}

/// True if the kernel has none of these programs and links any more.
fn gone([programs, links]: &[BTreeSet<u32>; 2]) -> Result<bool> {
    for program in loaded_programs() {
        if programs.contains(&program?.id()) {
            return Ok(false);
        }
    }
    for link in loaded_links() {
        if links.contains(&link?.id()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn detach_asks_first_and_then_leaves_nothing() -> Result<()> {
    let site = Site::new(Stand::Host, "detach")?;
    let mut agent = site.agent()?;
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 81)?;
    let before = attached(&agent)?;
    ensure!(
        before.iter().all(|ids| ids.len() == 2),
        "in and out of one port: {before:?}"
    );
    expect(&agent.ask(&["detach"])?, 2, &["eth0", "--yes"])?;
    ensure!(
        attached(&agent)? == before && !site.reaches(81)?,
        "without --yes something has changed"
    );
    expect(&agent.ask(&["detach", "--yes"])?, 0, &["eth0"])?;
    agent.stop()?;
    open(&site, &agent, &before)?;
    expect(&agent.ask(&["detach", "--yes"])?, 3, &[])
}

#[test]
fn detach_works_without_an_agent() -> Result<()> {
    let site = Site::new(Stand::Host, "orphan")?;
    let mut agent = site.agent()?;
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 81)?;
    let before = attached(&agent)?;
    agent.kill();
    ensure!(!site.reaches(81)?, "the port opened with the agent's death");
    // From another network namespace an interface's number means something else.
    expect(&agent.ask(&["detach", "--yes"])?, 1, &["namespace"])?;
    ensure!(
        attached(&agent)? == before && !site.reaches(81)?,
        "it was taken down from another namespace"
    );
    let (binary, pins) = (
        Agent::binary()?.display().to_string(),
        agent.pin_dir().display().to_string(),
    );
    let socket = agent.socket().display().to_string();
    let detach = [binary.as_str(), "detach", "--socket", &socket, "--pin-dir", &pins];
    let namespace = &site.scene.guard().namespace;
    expect(&namespace.run(&detach, SOON)?, 2, &["eth0", "--yes"])?;
    ensure!(
        attached(&agent)? == before && !site.reaches(81)?,
        "without --yes something has changed"
    );
    expect(
        &namespace.run(&[&detach[..], &["--yes"]].concat(), SOON)?,
        0,
        &["eth0"],
    )?;
    open(&site, &agent, &before)
}

/// Nothing is left, and everything passes.
fn open(site: &Site, agent: &Agent, before: &[BTreeSet<u32>; 2]) -> Result<()> {
    ensure!(
        !agent.pin_dir().exists(),
        "pins are left in {}",
        agent.pin_dir().display()
    );
    // The kernel frees programs after a grace period.
    until("the programs and links have gone", || gone(before))?;
    ensure!(site.reaches(81)?, "the port is not open");
    Ok(())
}
