//! Questions to a running data plane: the right answers, and no trace of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, TcpService};
use fw_tests::packet::Packet;
use fw_user::control::{Agreement, Client, FlowAnswer, FlowQuestion, Reply, Request};
use fw_user::dataplane::{FlowTable, Tables};
use serde_json::Value;

use crate::site::{POLICY, SOON, Site, Stand, expect, until};

/// The lab's policy with a limit.
fn limited() -> String {
    let rule = "allow: [http, iperf3, ping], from: client, to: server }";
    POLICY.replace(
        rule,
        &rule.replace(
            " }",
            ", limit: [{ new_flows: 1/min, burst: 3, per: source }, { flows: 2, per: pair }] }",
        ),
    )
}

/// Waits until the instance that is asked has been loaded, which takes the verifier a moment.
fn warmed(agent: Agent) -> Result<Agent> {
    let asked = || agent.ask(&["explain", "icmp", "client", "server"]);
    until("the agent answers questions", || {
        Ok(asked().is_ok_and(|answer| answer.code() == Some(0)))
    })?;
    // Before the first ageing nobody counts flows, so that no limit on them strikes.
    until("the heart beats", || Ok(agent.status()?.heartbeat.beats > 0))?;
    Ok(agent)
}

fn explain(agent: &Agent, code: i32, words: &[&str]) -> Result<FlowAnswer> {
    let answer = agent.ask(&[&["explain"], words, &["--json"]].concat())?;
    expect(&answer, code, &[])?;
    serde_json::from_str(&answer.stdout).with_context(|| answer.to_string())
}

#[test]
fn host_and_kernel_name_the_same_rule() -> Result<()> {
    for (stand, label) in [(Stand::Inline, "explain-inline"), (Stand::Host, "explain-host")] {
        let site = Site::new(stand, label)?;
        let agent = warmed(site.agent()?)?;
        for (flow, code, reason, rule) in [
            ("tcp client server:80", 0, "rule", Some("web")),
            ("tcp 10.9.0.1:1234 10.9.0.2:23", 1, "deny_rule", Some("telnet")),
            ("tcp 10.9.0.1 10.9.0.2:81", 1, "deny_default", None),
            ("tcp fd00:9::1 [fd00:9::2]:80", 0, "rule", Some("web")),
            ("icmp client server", 0, "rule", Some("web")),
            ("icmp client server 3/4", 1, "icmp_unrelated", None),
            ("udp client 10.9.0.9:514", 0, "rule", Some("log")),
            ("udp 8.8.8.8 10.9.0.2:53", 1, "deny_default", None),
            ("sctp client server:80", 1, "deny_default", None),
            ("esp client server", 1, "deny_default", None),
            ("gre 10.9.0.1 10.9.0.2", 1, "deny_default", None),
            ("tcp 10.9.0.1 10.9.0.1:80", 1, "land", None),
            ("tcp 127.0.0.1 10.9.0.2:80", 1, "impossible_source", None),
            ("tcp 10.9.0.1 10.9.0.2:80 ", 0, "rule", Some("web")),
        ] {
            let words: Vec<&str> = flow.split_whitespace().collect();
            let answer = explain(&agent, code, &words)?;
            for port in &answer.ports {
                ensure!(port.agreement == Agreement::Same, "{label}, {flow}: {port:?}");
                ensure!(
                    port.kernel.reason == reason && port.kernel.rule.as_deref() == rule,
                    "{label}, {flow}: {port:?}"
                );
                ensure!(port.host.reason == reason && port.host.rule.as_deref() == rule);
            }
        }
        let tagged = explain(&agent, 1, &["tcp", "10.9.0.1", "10.9.0.2:80", "--vlan", "7"])?;
        ensure!(
            tagged.ports[0].kernel.reason == "unknown_realm" && !tagged.differs(),
            "{tagged:?}"
        );
        expect(
            &agent.ask(&["explain", "tcp", "client", "server:80"])?,
            0,
            &[
                "allowed by rule `web`",
                "policy.yaml:",
                "not `telnet`",
                "kernel",
                "the same",
            ],
        )?;
        refusals(&agent)?;
    }
    Ok(())
}

fn refusals(agent: &Agent) -> Result<()> {
    for (words, told) in [
        (&["tcp", "client", "server"][..], "has no port"),
        (&["tcp", "clint", "server:80"], "there is no zone `clint`"),
        (&["tcp", "client", "server:80", "--in", "rail"], "role `rail`"),
        (&["--hex", "zz"], "hexadecimal"),
        (&["--pcap", "/nowhere/x.pcap"], "/nowhere/x.pcap"),
        (&[], "required"),
        (&["tcp", "client", "server:80", "--hex", "00"], "cannot be used"),
    ] {
        expect(&agent.ask(&[&["explain"], words].concat())?, 2, &[told])?;
    }
    Ok(())
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scene, step by step")]
fn a_running_flow_is_told_with_its_state_and_the_limits_that_strike() -> Result<()> {
    let site = Site::new(Stand::Inline, "explain-state")?;
    site.policy(&limited())?;
    let agent = warmed(site.agent()?)?;
    let _web = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let fresh = explain(&agent, 0, &["tcp", "10.9.0.1", "10.9.0.2:80"])?;
    ensure!(fresh.flows.is_empty() && fresh.limits.len() == 2, "{fresh:?}");
    ensure!(
        fresh
            .limits
            .iter()
            .all(|limit| limit.limit.fill == 0.0 && !limit.refuses)
    );

    let mut talks = [site.talk(5201)?, site.talk(5201)?];
    for talk in &mut talks {
        ensure!(talk.works(SOON)?);
    }
    let answer = explain(&agent, 1, &["tcp", "10.9.0.1", "10.9.0.2:5201"])?;
    ensure!(answer.flows.len() == 2, "{answer:?}");
    ensure!(
        answer
            .flows
            .iter()
            .all(|known| known.current && !known.opposite && known.flow.state == "ESTABLISHED")
    );
    ensure!(answer.ports[0].agreement == Agreement::Refused, "{answer:?}");
    ensure!(
        answer.ports[0].kernel.reason == "limit_flows" && answer.limits[1].refuses,
        "{answer:?}"
    );
    ensure!(
        !answer.limits[0].refuses && answer.limits[0].limit.fill > 0.5,
        "{answer:?}"
    );
    let source = answer.source.as_ref().context("nothing is known of the source")?;
    ensure!(
        source.flows == 2 && source.source == "10.9.0.1" && source.banned_until.is_none(),
        "{source:?}"
    );

    // The very flow, by its source port: its state decides.
    let port = talks[0].port()?;
    let exact = explain(&agent, 0, &["tcp", &format!("10.9.0.1:{port}"), "10.9.0.2:5201"])?;
    ensure!(
        exact.ports[0].agreement == Agreement::State && exact.ports[0].kernel.reason == "established",
        "{exact:?}"
    );
    ensure!(
        exact.flows.iter().filter(|known| known.exact).count() == 1,
        "{exact:?}"
    );
    // From the other side: the same flow, opened the other way.
    let back = agent.ask(&[
        "explain",
        "tcp",
        "10.9.0.2:5201",
        &format!("10.9.0.1:{port}"),
        "--json",
    ])?;
    let back: FlowAnswer = serde_json::from_str(&back.stdout).with_context(|| back.to_string())?;
    ensure!(back.flows.iter().any(|known| known.opposite), "{back:?}");
    let told = agent.ask(&["explain", "tcp", "10.9.0.1", "10.9.0.2:5201"])?;
    expect(
        &told,
        1,
        &["ESTABLISHED", "REFUSES NOW", "limit_flows", "in force"],
    )?;
    ensure!(talks[0].works(SOON)?, "asking has disturbed the flow");
    Ok(())
}

/// All that packets change: counters, statistics, flows, buckets, sources, levels, control.
fn everything(tables: &Tables) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    // Neighbours look for each other now and then, whoever asks what: the reasons of the link section are left out.
    let counters = tables
        .counters()?
        .into_iter()
        .filter(|(reason, _)| !(10..30).contains(reason));
    all.insert(
        "counters".to_owned(),
        format!("{:?}", counters.collect::<Vec<_>>()),
    );
    all.insert("noted".to_owned(), format!("{:?}", tables.noted()?));
    all.insert("statistics".to_owned(), format!("{:?}", tables.flow_stats()?));
    all.insert("generation".to_owned(), tables.control().generation.to_string());
    for table in [FlowTable::Main, FlowTable::HalfOpen] {
        tables.for_each_flow(table, |key, flow| {
            all.insert(format!("{table:?} {key:?}"), format!("{flow:?}"));
            ControlFlow::Continue(())
        })?;
    }
    tables.for_each_bucket(|key, value| {
        all.insert(format!("{key:?}"), value.to_string());
    })?;
    for (key, flows) in tables.source_flows()? {
        let source = tables.source(&key)?;
        all.insert(format!("{key:?}"), format!("{flows} {source:?}"));
    }
    Ok(all)
}

/// Asks over the socket, without a process for each question.
async fn ask(agent: &Agent, request: &Request) -> Result<Vec<Reply>> {
    let mut client = Client::connect(&agent.socket()).await?;
    client.request(request).await?;
    let mut replies = Vec::new();
    while let Some(reply) = client.reply().await? {
        replies.push(reply);
    }
    Ok(replies)
}

/// A frame as `--hex` takes it.
fn hex(frame: &[u8]) -> String {
    let bytes: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

#[test]
fn a_thousand_questions_leave_no_trace() -> Result<()> {
    let site = Site::new(Stand::Inline, "no-trace")?;
    site.policy(&limited())?;
    let agent = warmed(site.agent()?)?;
    let _web = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let mut talk = site.talk(5201)?;
    ensure!(talk.works(SOON)? && !site.reaches(23)?);
    let port = talk.port()?;
    let tables = Tables::open_pinned(&fw_user::agent::versioned(agent.pin_dir()))?;
    let frame = Packet::tcp(([10, 9, 0, 1], 4711), ([10, 9, 0, 2], 80))
        .flags("S")
        .build();
    let hex = hex(&frame);
    let before = everything(&tables)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for number in 0..1_000_u32 {
            let flow = match number % 5 {
                0 => format!("tcp 10.9.0.1:{} 10.9.0.2:80", 1024 + number),
                1 => format!("tcp 10.9.0.1:{port} 10.9.0.2:5201"),
                2 => format!("udp 10.1.{}.1 10.9.0.2:53", number % 250),
                3 => "icmp client server".to_owned(),
                _ => format!("tcp 10.9.0.2:5201 10.9.0.1:{port}"),
            };
            let question = FlowQuestion {
                flow,
                ..FlowQuestion::default()
            };
            let replies = ask(&agent, &Request::Explain(question)).await?;
            ensure!(
                matches!(&replies[..], [Reply::Explained(answer)] if !answer.differs()),
                "{replies:?}"
            );
        }
        let frames = Request::Judge {
            frames: vec![
                fw_user::control::FrameQuestion {
                    hex: hex.clone(),
                    length: 0,
                    raw: false,
                };
                100
            ],
            role: None,
            peer: None,
        };
        ensure!(ask(&agent, &frames).await?.len() == 100);
        anyhow::Ok(())
    })?;
    let after = everything(&tables)?;
    let differs: Vec<_> = before
        .iter()
        .filter(|(key, value)| after.get(*key) != Some(*value))
        .chain(after.iter().filter(|(key, _)| !before.contains_key(*key)))
        .collect();
    ensure!(differs.is_empty(), "questions have left traces: {differs:?}");
    ensure!(talk.works(SOON)?, "the connection was disturbed");
    Ok(())
}

/// A pcap file of these frames, a second apart.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let header = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (second, frame) in (1_u32..).zip(frames) {
        let record = [second, 0, frame.len() as u32, frame.len() as u32];
        bytes.extend(record.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(frame);
    }
    bytes
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scene, step by step")]
fn captures_are_judged_by_the_policy_and_by_the_kernel() -> Result<()> {
    let site = Site::new(Stand::Inline, "pcap")?;
    let policy = site.policy(&format!("{POLICY}tcp: {{ pickup: never }}\n"))?;
    let agent = warmed(site.agent()?)?;
    let (client, server) = ([10, 9, 0, 1], [10, 9, 0, 2]);
    let web = |flags: &str, seq, ack| {
        Packet::tcp((client, 4000), (server, 80))
            .flags(flags)
            .numbers(seq, ack)
    };
    let frames = [
        web("S", 100, 0).build(),
        web("SA", 100, 0).reversed().numbers(500, 101).build(),
        web("A", 101, 501).build(),
        Packet::tcp((client, 4001), (server, 23)).flags("S").build(),
        web("S", 1, 0).build()[..30].to_vec(),
        Packet::udp((client, 1), (server, 9)).tags(&[7]).build(),
    ];
    let path = site.path("trace.pcap");
    std::fs::write(&path, capture(&frames))?;
    let path = path.display().to_string();
    let offline = [
        "explain", "--pcap", &path, "--policy", &policy, "--in", "uplink", "--out", "host",
    ];
    let replayed = rows(&agent, &offline)?;
    let wanted = [
        "rule",
        "established",
        "established",
        "deny_rule",
        "truncated",
        "unknown_realm",
    ];
    ensure!(reasons(&replayed) == wanted, "{replayed:?}");
    ensure!(
        replayed[3]["rule"] == "telnet" && replayed[0]["time"] == "1970-01-01T00:00:01Z",
        "{replayed:?}"
    );
    // By themselves, on tables without these flows.
    let live = rows(&agent, &["explain", "--pcap", &path])?;
    let wanted = [
        "rule",
        "tcp_no_flow",
        "tcp_no_flow",
        "deny_rule",
        "truncated",
        "unknown_realm",
    ];
    ensure!(reasons(&live) == wanted, "{live:?}");
    expect(
        &agent.ask(&offline)?,
        1,
        &[
            "TIME",
            "tcp 10.9.0.1:4000 -> 10.9.0.2:80 SYN",
            "established",
            "telnet",
            "vlan 7",
        ],
    )?;
    let hex = hex(&frames[0]);
    expect(
        &agent.ask(&["explain", "--hex", &hex])?,
        0,
        &["forward", "rule", "web"],
    )?;
    expect(
        &agent.ask(&["explain", "--hex", &hex, "--policy", &policy])?,
        0,
        &["pass", "web"],
    )?;
    ensure!(agent.flows(&[])?.is_empty(), "a question has opened a flow");
    Ok(())
}

fn rows(agent: &Agent, words: &[&str]) -> Result<Vec<Value>> {
    let answer = agent.ask(&[words, &["--json"]].concat())?;
    expect(&answer, 1, &[])?;
    let rows = answer.stdout.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().with_context(|| answer.to_string())
}

fn reasons(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .map(|row| row["reason"].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn a_diff_tells_which_live_flows_would_end() -> Result<()> {
    let site = Site::new(Stand::Inline, "live-diff")?;
    let agent = warmed(site.agent()?)?;
    let mut ends = site.talk(5201)?;
    let mut stays = site.talk(80)?;
    ensure!(ends.works(SOON)? && stays.works(SOON)?);
    let text = POLICY.replace("[http, iperf3, ping]", "[http]");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (flows, summary) = runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        client.flows_that_end("new.yaml", &text).await
    })?;
    let [flow] = &flows[..] else {
        anyhow::bail!("one flow would end: {flows:?}");
    };
    ensure!((summary.flows, summary.ending) == (2, 1), "{summary:?}");
    ensure!(
        flow.flow.dport == 5201
            && flow.flow.rule == "web"
            && flow.new_rule.is_none()
            && flow.reason == "deny_default",
        "{flow:?}"
    );
    // It is told truly: the policy ends this one and no other.
    let path = site.file("new.yaml", &text)?;
    expect(&agent.ask(&["apply", &path])?, 0, &[])?;
    ensure!(stays.works(SOON)?, "a flow ended that was not told of");
    ensure!(
        !ends.works(crate::site::SHORTLY)?,
        "a flow goes on that should have ended"
    );
    Ok(())
}
