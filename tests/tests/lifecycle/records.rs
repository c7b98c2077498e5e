//! What the agent says about the network: metrics, drops, flow records.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, TcpService, UdpEcho};
use fw_user::control::Status;
use fw_user::telemetry::{Ended, FlowRecord, Table};
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::site::{POLICY, SHORTLY, SOON, Site, Stand, Talk, expect, only_flow, until};

/// Packets by verdict and reason.
type Counts = BTreeMap<(String, String), u64>;

#[test]
fn metrics_status_and_drops_agree() -> Result<()> {
    let site = Site::new(Stand::Inline, "metrics")?;
    let agent = site.agent()?;
    let server = &site.scene.server.namespace;
    let _services = [80, 23, 81].map(|port| TcpService::start(server, site.server(), port));
    let _echo = UdpEcho::start(server, site.server(), 53)?;
    for (port, open) in [(80, true), (23, false), (81, false)] {
        ensure!(site.reaches(port)? == open, "port {port}: {open} was expected");
    }
    let ping = [
        "ping",
        "-c",
        "3",
        "-i",
        "0.05",
        "-W",
        "5",
        &site.server().to_string(),
    ];
    site.scene.client.namespace.check(&ping, SOON)?;
    until("nothing moves while the numbers are read", || {
        let before = agent.status()?;
        let metrics = counts(&site.metrics()?)?;
        let after = agent.status()?;
        if (before.passed_packets, &before.drops) != (after.passed_packets, &after.drops) {
            return Ok(false);
        }
        agree(&after, &metrics).map(|()| true)
    })?;
    // Each denied packet is there once, with its rule and its sentence.
    for (port, reason, rule) in [("23", "deny_rule", "telnet"), ("81", "deny_default", "default")] {
        let drops = agent.drops(&["-p", "tcp", "--dport", port])?;
        let first = drops
            .first()
            .with_context(|| format!("no drop for port {port}"))?;
        ensure!(
            (first.reason.as_str(), first.rule.as_deref()) == (reason, Some(rule)),
            "{first:?}"
        );
        ensure!(
            first.src_zone.as_deref() == Some("client") && first.dst_zone.as_deref() == Some("server"),
            "{first:?}"
        );
        ensure!(
            first.interface == "up0" && !first.sentence.is_empty(),
            "{first:?}"
        );
    }
    ensure!(site.metric("dpufw_policy_generation")? == u64::from(agent.status()?.policy.generation));
    let shown = agent.ask(&["drops", "--dport", "23"])?;
    expect(
        &shown,
        0,
        &["rule telnet", "A rule of the policy denies this flow."],
    )
}

/// `dpufw_packets_total` by its labels.
fn counts(metrics: &[String]) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in metrics {
        let Some(rest) = line.strip_prefix("dpufw_packets_total{reason=\"") else {
            continue;
        };
        let (labels, value) = rest
            .rsplit_once("\"} ")
            .with_context(|| format!("a strange line: {line}"))?;
        let (reason, verdict) = labels
            .split_once("\",verdict=\"")
            .with_context(|| format!("a strange line: {line}"))?;
        counts.insert((verdict.to_owned(), reason.to_owned()), value.parse()?);
    }
    Ok(counts)
}

/// The reasons add up to the drops and to what passed.
fn agree(status: &Status, metrics: &Counts) -> Result<()> {
    let of = |verdict: &str| -> Vec<u64> {
        metrics
            .iter()
            .filter(|((of, _), _)| of == verdict)
            .map(|(_, packets)| *packets)
            .collect()
    };
    ensure!(
        of("pass").iter().sum::<u64>() == status.passed_packets,
        "{metrics:?}, {} passed",
        status.passed_packets
    );
    let drops: Counts = status
        .drops
        .iter()
        .map(|drop| (("drop".to_owned(), drop.reason.clone()), drop.packets))
        .collect();
    ensure!(
        of("drop").len() == drops.len()
            && drops
                .iter()
                .all(|(key, packets)| metrics.get(key) == Some(packets))
    );
    for (verdict, reason, least) in [
        ("pass", "rule", 2),
        ("pass", "established", 6),
        ("pass", "link_arp", 1),
        ("drop", "deny_rule", 1),
        ("drop", "deny_default", 1),
    ] {
        let packets = metrics
            .get(&(verdict.to_owned(), reason.to_owned()))
            .copied()
            .unwrap_or_default();
        ensure!(
            packets >= least,
            "{packets} packets are counted as {reason}, not {least}: {metrics:?}"
        );
    }
    Ok(())
}

/// A reset, and a policy that denies: each flow has its record in the log, with what it carried, once.
#[test]
fn every_flow_has_a_record_at_its_end() -> Result<()> {
    let site = Site::new(Stand::Inline, "records")?;
    let log = site.path("flows.jsonl");
    site.configure("flow_log: flows.jsonl")?;
    let agent = site.agent()?;
    ask_nobody(&site)?;
    let [mut reset, mut revoked] = [site.talk(80)?, site.talk(5201)?];
    for talk in [&mut reset, &mut revoked] {
        ensure!(talk.works(SOON)?);
    }
    let ports = [reset.port()?, revoked.port()?];
    let live = only_flow(&agent, &["--sport", &ports[0].to_string()])?;
    ensure!(
        (live.state.as_str(), live.table) == ("ESTABLISHED", Table::Main),
        "{live:?}"
    );
    close_with_reset(reset)?;
    until("the reset closes the flow", || {
        Ok(only_flow(&agent, &["--sport", &ports[0].to_string()])?.state == "CLOSE")
    })?;
    let text = POLICY.replace("[http, iperf3, ping]", "[http, ping]");
    expect(&agent.ask(&["apply", &site.file("less.yaml", &text)?])?, 0, &[])?;
    ensure!(!revoked.works(SHORTLY)?);
    until("both records are written", || Ok(read(&log)?.len() >= 2))?;
    // One more pass of ageing writes nothing twice.
    std::thread::sleep(Duration::from_millis(1200));
    let records = read(&log)?;
    ensure!(records.len() == 2, "{records:?}");
    for (port, dport, state, ended) in [
        (ports[0], 80, "CLOSE", Ended::Closed),
        (ports[1], 5201, "ESTABLISHED", Ended::Revoked),
    ] {
        let record = records
            .iter()
            .find(|record| record.flow.sport == port)
            .context("a flow has no record")?;
        check(&site, record, dport)?;
        ensure!(
            (record.flow.state.as_str(), record.ended) == (state, ended),
            "{record:?}"
        );
    }
    ensure!(site.metric("dpufw_flow_records_total")? == 2 && agent.status()?.totals.records_lost == 0);
    // A flow that nobody answered has no record, but it is counted, 30 s after its packet.
    until("nobody's silence is counted", || {
        Ok(site.metric("dpufw_flows_unanswered_total")? == 1)
    })
}

/// Sends a datagram to an address that nobody has: the server, whose machine gets it, is silent.
fn ask_nobody(site: &Site) -> Result<()> {
    let client = &site.scene.client;
    let mac = site.scene.server.mac.map(|byte| format!("{byte:02x}")).join(":");
    client
        .namespace
        .ip(&format!("neigh add 10.9.0.9 lladdr {mac} dev eth0"))?;
    let socket = client.namespace.enter(|| UdpSocket::bind((client.v4, 0)))??;
    socket.send_to(b"anybody there?", "10.9.0.9:514")?;
    Ok(())
}

fn check(site: &Site, record: &FlowRecord, dport: u16) -> Result<()> {
    let flow = &record.flow;
    ensure!(
        (flow.src, flow.dst) == (site.scene.client.v4.into(), site.server()),
        "{record:?}"
    );
    ensure!(
        (flow.proto.as_str(), flow.dport, flow.family) == ("tcp", dport, 4),
        "{record:?}"
    );
    let zones = (flow.src_zone.as_deref(), flow.dst_zone.as_deref());
    ensure!(
        zones == (Some("client"), Some("server")) && flow.rule == "web",
        "{record:?}"
    );
    // SYN, acknowledgement of the SYN-ACK, one byte; SYN-ACK, one byte. A frame with an empty segment has 54.
    ensure!(
        flow.original.packets >= 3 && flow.reply.packets >= 2,
        "{record:?}"
    );
    ensure!(
        flow.original.bytes > 3 * 54 && flow.reply.bytes > 2 * 54,
        "{record:?}"
    );
    ensure!(flow.start <= record.end && record.duration_s < 60.0, "{record:?}");
    Ok(())
}

/// Closes the client's end with a reset.
fn close_with_reset(talk: Talk) -> Result<()> {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&talk.client, Linger, &at_once)?;
    drop(talk.client);
    Ok(())
}

fn read(log: &std::path::Path) -> Result<Vec<FlowRecord>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("there is no {}", log.display()))?;
    // The agent may be in the middle of a line.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a strange record: {line}")))
        .collect()
}

/// What `dpufw flows --follow --json` prints while flows end, and what it counts that nobody answered.
#[test]
fn records_are_followed() -> Result<()> {
    let site = Site::new(Stand::Host, "follow")?;
    let agent = site.agent()?;
    let follower = follow(
        &agent,
        &["flows", "--follow", "--json", "-p", "tcp", "--dport", "80"],
    )?;
    let denied = follow(&agent, &["drops", "--follow", "--json", "--dport", "81"])?;
    // They are connected as soon as the agent has greeted them; nothing says so from outside.
    std::thread::sleep(Duration::from_secs(1));
    ensure!(!site.reaches(81)?);
    let mut talk = site.talk(80)?;
    ensure!(talk.works(SOON)?);
    let port = talk.port()?;
    close_with_reset(talk)?;
    until("the record is made", || Ok(agent.status()?.totals.records == 1))?;
    std::thread::sleep(Duration::from_millis(200));
    let [records, _] = follower.stop();
    let record: FlowRecord =
        serde_json::from_str(records.trim()).with_context(|| format!("followed: {records}"))?;
    ensure!(
        (record.flow.sport, record.ended) == (port, Ended::Closed),
        "{record:?}"
    );
    let [drops, _] = denied.stop();
    ensure!(
        drops.lines().count() >= 1 && drops.contains("\"deny_default\""),
        "followed: {drops}"
    );
    Ok(())
}

fn follow(agent: &Agent, arguments: &[&str]) -> Result<fw_tests::lab::Process> {
    let mut command = std::process::Command::new(Agent::binary()?);
    command.args(arguments).arg("--socket").arg(agent.socket());
    fw_tests::lab::Process::start(command, None)
}
