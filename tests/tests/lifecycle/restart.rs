//! An agent that dies, one that comes after it, one that comes too many.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, Process, TcpService};
use fw_user::control::Status;
use fw_user::telemetry::{FlowInfo, Table};
use serde_json::Value;

use crate::site::{POLICY, SHORTLY, SOON, Site, Stand, Talk, expect, only_flow, until};

/// Seconds of an interval of iperf3's reports.
const INTERVAL: f64 = 0.2;
/// The data connection of iperf3: its control connection has moved next to nothing.
const MUCH: u64 = 1_000_000;

/// A crash, a restart and a restart with a new policy, all during one transfer through an inline pair.
#[test]
fn a_killed_agent_interrupts_nothing_and_opens_nothing() -> Result<()> {
    let site = Site::new(Stand::Inline, "kill")?;
    let mut agent = site.agent()?;
    for port in &agent.status()?.ports {
        ensure!(port.engine == "xdp native", "{port:?}");
    }
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 81)?;
    ensure!(!site.reaches(81)?, "port 81 is open with an agent");
    let [receiver, sender] = transfer(&site)?;
    until("the transfer is listed", || Ok(listed(&agent)?.is_some()))?;
    let (status, flow) = (agent.status()?, the_transfer(&agent)?);

    agent.kill();
    expect(&agent.ask(&["status"])?, 3, &[])?;
    for _ in 0..5 {
        ensure!(!site.reaches(81)?, "port 81 is open without an agent");
    }
    agent.run()?;
    took_over(&agent, &status, &flow)?;
    let taken = agent.status()?.policy;
    ensure!(
        (taken.generation, taken.applied, &taken.hash)
            == (
                status.policy.generation,
                status.policy.applied,
                &status.policy.hash
            ),
        "a restart with the same policy made another generation: {taken:?} after {:?}",
        status.policy
    );

    agent.kill();
    site.policy(&POLICY.replace(
        "  - { name: admin",
        "  - { name: late, allow: [https], from: client, to: server }\n  - { name: admin",
    ))?;
    agent.run()?;
    took_over(&agent, &status, &flow)?;
    let generation = status.policy.generation + 1;
    ensure!(
        agent.status()?.policy.generation == generation,
        "the new policy is not in force"
    );
    until("the transfer has the new generation", || {
        Ok(the_transfer(&agent)?.generation == generation)
    })?;
    ensure!(!site.reaches(81)?, "port 81 is open after two restarts");

    for report in [sender.wait(SOON)?, receiver.wait(SOON)?] {
        ensure!(report.success(), "iperf3: {report}");
        never_zero(&report.stdout)?;
    }
    only_denied(&agent.status()?)
}

/// Starts iperf3's server and client, for as long as two restarts take on a busy machine.
fn transfer(site: &Site) -> Result<[Process; 2]> {
    let (address, interval) = (site.server().to_string(), INTERVAL.to_string());
    let server = ["iperf3", "-s", "-1", "-J", "-i", &interval, "-B", &address];
    let receiver = site.scene.server.namespace.spawn(&server)?;
    until("iperf3 listens", || {
        let listening = site
            .scene
            .server
            .namespace
            .check(&["ss", "-Htln", "sport = :5201"], SOON)?;
        Ok(!listening.is_empty())
    })?;
    let client = [
        "iperf3", "-c", &address, "-J", "-i", &interval, "-t", "10", "-b", "400M",
    ];
    Ok([receiver, site.scene.client.namespace.spawn(&client)?])
}

fn listed(agent: &Agent) -> Result<Option<FlowInfo>> {
    let flows = agent.flows(&["-p", "tcp", "--dport", "5201"])?;
    Ok(flows.into_iter().find(|flow| flow.original.bytes > MUCH))
}

fn the_transfer(agent: &Agent) -> Result<FlowInfo> {
    listed(agent)?.context("the transfer is not listed")
}

/// The agent has found everything, and the transfer's counters go on from where they were.
fn took_over(agent: &Agent, before: &Status, flow: &FlowInfo) -> Result<()> {
    let status = agent.status()?;
    ensure!(
        status.took_over && status.pid != before.pid,
        "it did not take over: {status:?}"
    );
    ensure!(status.healthy(), "{:?} {:?}", status.degraded, status.coverage);
    let now = the_transfer(agent)?;
    ensure!(
        (now.sport, now.start, now.table, &now.rule) == (flow.sport, flow.start, Table::Main, &flow.rule),
        "another flow is listed: {now:?} instead of {flow:?}"
    );
    ensure!(
        now.original.bytes > flow.original.bytes,
        "its counters began anew: {now:?} after {flow:?}"
    );
    until("its counters grow", || {
        Ok(the_transfer(agent)?.original.bytes > now.original.bytes + MUCH)
    })
}

/// Something was transferred in every interval of iperf3's report.
fn never_zero(report: &str) -> Result<()> {
    let report: Value = serde_json::from_str(report)?;
    let intervals = report["intervals"]
        .as_array()
        .context("a report without intervals")?;
    // The last one is the rest of the time, which may be next to none.
    let whole = intervals.iter().map(|interval| &interval["sum"]);
    let whole: Vec<_> = whole
        .filter(|sum| {
            sum["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > INTERVAL / 2.0)
        })
        .collect();
    let bytes: Vec<u64> = whole.iter().filter_map(|sum| sum["bytes"].as_u64()).collect();
    let least = bytes.iter().min().context("a report without bytes")?;
    println!(
        "{} intervals of {INTERVAL} s, the least with {least} bytes",
        bytes.len()
    );
    ensure!(
        bytes.len() > 30 && *least > 0,
        "the transfer stood still: {bytes:?}"
    );
    Ok(())
}

/// Nothing was dropped but what the policy denies: no packet of the transfer.
fn only_denied(status: &Status) -> Result<()> {
    for drop in &status.drops {
        ensure!(
            drop.reason.starts_with("deny_"),
            "{} packets were dropped: {}",
            drop.packets,
            drop.reason
        );
    }
    Ok(())
}

#[test]
fn a_second_agent_is_refused_with_the_first_ones_pid() -> Result<()> {
    let site = Site::new(Stand::Host, "second")?;
    let agent = site.agent()?;
    let (before, pins) = (agent.status()?, listing(agent.pin_dir())?);
    let holder = format!("process {}", agent.pid().context("the agent runs")?);
    let (socket, pin_dir) = (
        agent.socket().display().to_string(),
        agent.pin_dir().display().to_string(),
    );
    let (other, state) = (
        site.path("other").display().to_string(),
        site.path("state").display().to_string(),
    );
    // The same pins, then the same socket.
    for (socket, pin_dir) in [(&other, &pin_dir), (&socket, &format!("{pin_dir}-other"))] {
        let binary = Agent::binary()?.display().to_string();
        let config = site.path("agent.yaml").display().to_string();
        let places = ["--socket", socket, "--pin-dir", pin_dir, "--state-dir", &state];
        let second = [
            &[binary.as_str(), "run", "--config", &config, "--force"],
            &places[..],
        ]
        .concat();
        let refused = site.scene.guard().namespace.run(&second, SOON)?;
        expect(&refused, 3, &[&holder])?;
        ensure!(
            !Path::new(&format!("{pin_dir}-other")).exists(),
            "the refused agent left pins"
        );
    }
    let after = agent.status()?;
    ensure!(
        (after.pid, &after.policy.applied) == (before.pid, &before.policy.applied),
        "another agent answers"
    );
    ensure!(
        listing(agent.pin_dir())? == pins,
        "the refused agent changed the pins"
    );
    // Also the lock file of the directory that it was told to use.
    let lock = format!(
        "/run/dpufw/{}-other.lock",
        pin_dir.trim_matches('/').replace('/', "-")
    );
    std::fs::remove_file(&lock).with_context(|| format!("there is no {lock}"))
}

/// Killed at whatever point of its start: a successor of a running data plane changes nothing, a first start leaves
/// nothing that the next one stumbles over.
#[test]
fn a_start_that_is_cut_short_does_no_harm() -> Result<()> {
    let site = Site::new(Stand::Inline, "cut")?;
    let mut agent = site.agent()?;
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 81)?;
    let mut talk = site.talk(80)?;
    let generation = agent.status()?.policy.generation;
    agent.kill();
    for delay in DELAYS {
        cut_short(&site, &agent, delay)?;
        ensure!(
            talk.works(SOON)?,
            "a takeover cut short after {delay:?} cut a connection"
        );
        ensure!(
            !site.reaches(81)?,
            "a takeover cut short after {delay:?} opened a port"
        );
    }
    agent.run()?;
    let status = agent.status()?;
    ensure!(
        status.took_over && status.healthy() && status.policy.generation == generation,
        "{status:?}"
    );
    ensure!(
        picked_up(&site)? == 0,
        "a known flow was adopted as a strange one"
    );

    expect(&agent.ask(&["detach", "--yes"])?, 0, &[])?;
    agent.stop()?;
    for delay in DELAYS {
        cut_short(&site, &agent, delay)?;
        ensure!(
            !site.reaches(81)?,
            "nothing connects the ports, and the policy denies it"
        );
    }
    agent.run()?;
    let status = agent.status()?;
    ensure!(status.healthy() && status.policy.generation > 0, "{status:?}");
    ensure!(
        talk.works(SOON)?,
        "a connection is not adopted, although no start before this one was complete"
    );
    ensure!(
        site.talk(5201)?.works(SOON)? && !site.reaches(81)?,
        "the policy is not enforced"
    );
    Ok(())
}

/// Times after the start of a process: a whole start takes about a third of a second.
const DELAYS: [Duration; 10] = {
    let mut delays = [Duration::ZERO; 10];
    let mut number = 0;
    while number < delays.len() {
        delays[number] = Duration::from_millis(20 + 45 * number as u64);
        number += 1;
    }
    delays
};

/// Starts another process in the agent's places, and kills it.
fn cut_short(site: &Site, agent: &Agent, delay: Duration) -> Result<()> {
    let binary = Agent::binary()?;
    let (config, socket) = (site.path("agent.yaml"), agent.socket());
    let state = socket.with_file_name("state");
    let words = [
        binary.as_path(),
        Path::new("run"),
        Path::new("--config"),
        &config,
        Path::new("--socket"),
        &socket,
        Path::new("--pin-dir"),
        agent.pin_dir(),
        Path::new("--state-dir"),
        &state,
        Path::new("--force"),
    ];
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let process = site.scene.guard().namespace.spawn(&words)?;
    std::thread::sleep(delay);
    drop(process.stop());
    Ok(())
}

/// Names of all files below a directory.
fn listing(directory: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            names.extend(listing(&path)?);
        }
        names.insert(path.display().to_string());
    }
    Ok(names)
}

#[test]
fn connections_that_run_before_the_first_start_go_on_if_the_policy_allows_them() -> Result<()> {
    let site = Site::new(Stand::Host, "cold")?;
    let [mut allowed, mut backwards, mut denied] = [site.talk(80)?, site.talk(80)?, site.talk(81)?];
    for talk in [&mut allowed, &mut backwards, &mut denied] {
        ensure!(talk.works(SOON)?, "without a firewall everything passes");
    }
    let mut agent = site.agent()?;
    adopted(&site, &agent, [&mut allowed, &mut backwards])?;
    ensure!(
        !denied.works(SHORTLY)?,
        "a connection goes on that the policy denies"
    );
    // From now on they are flows like all others.
    let (adopted_packets, bytes) = (picked_up(&site)?, flow_of(&agent, &allowed)?.original.bytes);
    agent.kill();
    agent.run()?;
    ensure!(
        allowed.works(SOON)? && backwards.works_backwards(SOON)?,
        "a restart forgot adopted connections"
    );
    ensure!(
        picked_up(&site)? == adopted_packets,
        "a known flow was adopted again"
    );
    ensure!(
        flow_of(&agent, &allowed)?.original.bytes > bytes,
        "the flow is not counted"
    );
    Ok(())
}

#[test]
fn inline_connections_survive_detach_and_a_new_start() -> Result<()> {
    let site = Site::new(Stand::Inline, "again")?;
    let mut agent = site.agent()?;
    let [mut first, mut second] = [site.talk(80)?, site.talk(5201)?];
    ensure!(
        first.works(SOON)? && second.works(SOON)?,
        "the policy allows these connections"
    );
    expect(&agent.ask(&["detach", "--yes"])?, 0, &[])?;
    agent.stop()?;
    agent.run()?;
    adopted(&site, &agent, [&mut first, &mut second])
}

/// The connections go on; the second one's server speaks first.
fn adopted(site: &Site, agent: &Agent, [first, second]: [&mut Talk; 2]) -> Result<()> {
    let status = agent.status()?;
    ensure!(!status.took_over, "there was nothing to take over: {status:?}");
    ensure!(
        first.works(SOON)?,
        "a connection that the policy allows stands still"
    );
    ensure!(
        second.works_backwards(SOON)?,
        "a connection stands still whose server speaks first"
    );
    let packets = picked_up(site)?;
    ensure!(packets >= 2, "{packets} packets were picked up");
    for talk in [first, second] {
        let flow = flow_of(agent, talk)?;
        ensure!(
            (flow.state.as_str(), flow.rule.as_str(), flow.src)
                == ("ESTABLISHED", "web", site.scene.client.v4.into()),
            "{flow:?}"
        );
    }
    Ok(())
}

fn flow_of(agent: &Agent, talk: &Talk) -> Result<FlowInfo> {
    only_flow(agent, &["-p", "tcp", "--sport", &talk.port()?.to_string()])
}

fn picked_up(site: &Site) -> Result<u64> {
    site.metric("dpufw_packets_total{reason=\"picked_up\",verdict=\"pass\"}")
}
