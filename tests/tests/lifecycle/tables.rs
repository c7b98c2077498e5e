//! The tables: memory, levels, heartbeat, sources, limits.

use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use fw_tests::lab::Agent;
use fw_user::control::{LimitInfo, Status};

use crate::site::{POLICY, SOON, Site, Stand, Talk, expect, until};

const LIMITS: &str = "limit: [{ new_flows: 1/min, burst: 50, per: source/24 }, { flows: 4, per: pair }]";

/// The policy with limits on the flows to the server.
fn limited() -> String {
    let rule = "allow: [http, iperf3, ping], from: client, to: server }";
    POLICY.replace(rule, &rule.replace(" }", &format!(", {LIMITS} }}")))
}

fn buckets(agent: &Agent) -> Result<Vec<LimitInfo>> {
    let answer = agent.ask(&["limits", "--json"])?;
    expect(&answer, 0, &[])?;
    answer
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// So many connections from the client to the server's port 80, by one listener.
fn talks(site: &Site, count: usize) -> Result<Vec<Talk>> {
    let (client, server) = (&site.scene.client.namespace, &site.scene.server.namespace);
    let address = SocketAddr::new(site.server(), 80);
    let listener = server.enter(|| TcpListener::bind(address))??;
    let mut talks = Vec::new();
    for _ in 0..count {
        let client = client.enter(|| TcpStream::connect_timeout(&address, SOON))??;
        let (server, _) = listener.accept()?;
        talks.push(Talk { client, server });
    }
    Ok(talks)
}

fn used(status: &Status, table: &str) -> Option<u64> {
    status
        .tables
        .iter()
        .find(|row| row.table == table && row.family == 4)?
        .used
}

#[test]
fn status_tells_who_fills_a_table_and_that_it_is_aged() -> Result<()> {
    let site = Site::new(Stand::Inline, "sources")?;
    let agent = site.agent()?;
    let talks = talks(&site, 3)?;
    until("three flows are counted", || {
        let status = agent.status()?;
        let top = status.top_sources.iter().find(|top| top.table == "main");
        Ok(top.is_some_and(|top| top.flows == 3) && used(&status, "main") == Some(3))
    })?;
    let status = agent.status()?;
    let top = &status.top_sources[0];
    ensure!(
        top.source == "10.9.0.1" && top.zone.as_deref() == Some("client") && top.share > 0.99,
        "{top:?}"
    );
    until("the heart beats", || {
        let heartbeat = agent.status()?.heartbeat;
        Ok(heartbeat.beats > 1 && heartbeat.age_ms.is_some_and(|age| age < 5_000))
    })?;
    expect(
        &agent.ask(&["status"])?,
        0,
        &["main IPv4  10.9.0.1  client", "100%", "sources"],
    )?;
    ensure!(site.metric("dpufw_table_used{family=\"4\",table=\"main\"}")? == 3);
    ensure!(site.metric("dpufw_table_highest{family=\"4\",table=\"main\"}")? >= 3);
    ensure!(site.metric("dpufw_heartbeats_total")? > 0);
    drop(talks);
    Ok(())
}

#[test]
fn limits_are_listed_with_their_keys_and_refuse_with_their_reasons() -> Result<()> {
    let site = Site::new(Stand::Inline, "limits")?;
    site.policy(&limited())?;
    let agent = site.agent()?;
    expect(&agent.ask(&["limits"])?, 0, &["RULE"])?;
    let talks = talks(&site, 4)?;
    // A scan that began before a connection was opened may write a count without it; the next one mends that.
    let beats = agent.status()?.heartbeat.beats;
    until("the tables are scanned twice", || {
        Ok(agent.status()?.heartbeat.beats >= beats + 2)
    })?;
    let found = buckets(&agent)?;
    let [flows, new] = &found[..] else {
        bail!("two buckets were expected: {found:?}");
    };
    ensure!(
        (flows.rule.as_str(), flows.kind.as_str(), flows.position) == ("web", "flows", 2)
            && (flows.flows, flows.fill) == (Some(4), 1.0)
            && flows.source.as_deref() == Some("10.9.0.1")
            && flows.destination.as_deref() == Some("10.9.0.2"),
        "{flows:?}"
    );
    ensure!(
        (new.kind.as_str(), new.limit.as_str(), new.burst) == ("new_flows", "0.017/s", Some(50))
            && new.source.as_deref() == Some("10.9.0.0/24")
            && new.fill > 0.0
            && new.fill < 0.1,
        "{new:?}"
    );
    ensure!(!site.reaches(80)?, "a fifth flow at a time");
    let drops = agent.drops(&["--kind", "drop", "--dport", "80"])?;
    ensure!(
        drops
            .iter()
            .any(|drop| drop.reason == "limit_flows" && drop.rule.as_deref() == Some("web")),
        "{drops:?}"
    );
    expect(
        &agent.ask(&["limits", "--rule", "web", "--top", "1"])?,
        0,
        &["web #2", "4 flows", "100%"],
    )?;
    ensure!(buckets(&agent)?.len() == 2);
    drop(talks);
    Ok(())
}

#[test]
fn tables_that_do_not_fit_are_refused_by_the_agent() -> Result<()> {
    let site = Site::new(Stand::Host, "memory")?;
    site.configure("tables: { main: 4000000000 }")?;
    let Err(error) = site.agent() else {
        bail!("the agent started with tables for 4,000,000,000 flows");
    };
    let text = format!("{error:#}");
    ensure!(
        text.contains("FLOWS6") && text.contains("`tables: { main: "),
        "{text}"
    );
    Ok(())
}

#[test]
fn an_unknown_state_is_refused_with_the_known_ones() -> Result<()> {
    let site = Site::new(Stand::Host, "states")?;
    let agent = site.agent()?;
    let answer = agent.ask(&["flows", "--state", "ESTABLISHD"])?;
    expect(&answer, 2, &["ESTABLISHED", "TIME_WAIT", "ASSURED"])?;
    expect(&agent.ask(&["flows", "--state", "established"])?, 0, &[])
}
