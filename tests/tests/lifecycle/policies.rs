//! Policies that come while the agent runs, and broken ones.

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, TcpService};

use crate::site::{POLICY, SHORTLY, SOON, Site, Stand, expect, until};

/// The caller sits at the client and came in by the server's address.
const SESSION: &str = "10.9.0.1 50000 10.9.0.2 22";

/// Nobody is let in by ssh.
const LOCK_OUT: &str = r"
version: 1
zones:
  client: { addresses: [10.9.0.1] }
  server: { addresses: [10.9.0.2] }
link: { allow: [arp, nd] }
rules:
  - { name: web, allow: [http, iperf3], from: client, to: server }
";

/// An unknown zone on line 6.
const BROKEN: &str = "version: 1
zones:
  client: { addresses: [10.9.0.1] }
rules:
  - { name: web, allow: [http], from: client, to: client }
  - { name: admin, allow: [ssh], from: clint, to: self }
";

fn generation(agent: &Agent) -> Result<u32> {
    Ok(agent.status()?.policy.generation)
}

#[test]
fn a_broken_policy_changes_nothing() -> Result<()> {
    let site = Site::new(Stand::Inline, "broken")?;
    let agent = site.agent()?;
    let _open = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 23)?;
    let before = agent.status()?.policy;
    for (name, text, words) in [
        ("zone.yaml", BROKEN, &["zone.yaml:6:", "clint", "client"][..]),
        ("key.yaml", "version: 1\nruls: []\n", &["key.yaml:2:1"]),
        (
            "budgets.yaml",
            &format!("{POLICY}budgets: []\n"),
            &["not enforced by this version"],
        ),
        ("garbage.yaml", "\0{[", &["garbage.yaml"]),
    ] {
        let path = site.file(name, text)?;
        expect(&agent.ask(&["apply", &path])?, 2, words)?;
        expect(&agent.ask(&["apply", "--force", &path])?, 2, words)?;
    }
    expect(
        &agent.ask(&["apply", "/nowhere/policy.yaml"])?,
        2,
        &["/nowhere/policy.yaml"],
    )?;
    let after = agent.status()?.policy;
    ensure!(
        (before.generation, before.applied) == (after.generation, after.applied),
        "{before:?} became {after:?}"
    );
    ensure!(
        site.reaches(80)? && !site.reaches(23)?,
        "what is enforced has changed"
    );
    Ok(())
}

#[test]
fn a_restart_with_a_broken_policy_keeps_the_last_good_one() -> Result<()> {
    let site = Site::new(Stand::Host, "last-good")?;
    let mut agent = site.agent()?;
    let _open = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let _closed = TcpService::start(&site.scene.server.namespace, site.server(), 81)?;
    let mut talk = site.talk(5201)?;
    ensure!(talk.works(SOON)?);
    let before = generation(&agent)?;
    agent.kill();
    let good = site.file("good.yaml", POLICY)?;
    site.policy(BROKEN)?;
    agent.run()?;
    expect(
        &agent.ask(&["status"])?,
        1,
        &["degraded", "last good policy", "policy.yaml:6:"],
    )?;
    let status = agent.status()?;
    ensure!(
        status.took_over && status.policy.generation == before,
        "{status:?}"
    );
    ensure!(
        site.reaches(80)? && !site.reaches(81)?,
        "the last good policy is not enforced"
    );
    ensure!(talk.works(SOON)?, "a connection was lost");
    // A broken policy in the file and an unreadable memory of the last good one: the tables in the kernel stay.
    agent.kill();
    let state = agent
        .socket()
        .with_file_name("state")
        .join("last-good-policy.json");
    std::fs::write(&state, "{").with_context(|| format!("there is no {}", state.display()))?;
    agent.run()?;
    expect(
        &agent.ask(&["status"])?,
        1,
        &["degraded", "text is not known", "policy.yaml:6:"],
    )?;
    ensure!(generation(&agent)? == before && site.metric("dpufw_policy_generation")? == u64::from(before));
    ensure!(
        site.reaches(80)? && !site.reaches(81)?,
        "the tables in the kernel were not kept"
    );
    expect(&agent.ask(&["apply", &good])?, 0, &[])?;
    expect(&agent.ask(&["status"])?, 0, &["healthy"])?;
    ensure!(talk.works(SOON)?, "a connection was lost");
    Ok(())
}

#[test]
fn nobody_is_locked_out_by_accident() -> Result<()> {
    let site = Site::new(Stand::Host, "lock-out")?;
    let lock_out = site.file("lock-out.yaml", LOCK_OUT)?;
    let advice = ["10.9.0.1", "allow: [tcp/22], from: operator, to: self", "--force"];
    refused_run(&site, &lock_out, &advice)?;
    let agent = site.agent()?;
    let _ssh = TcpService::start(&site.scene.server.namespace, site.server(), 22)?;
    let before = generation(&agent)?;
    expect(&agent.ask_from(SESSION, &["apply", &lock_out])?, 1, &advice)?;
    ensure!(
        generation(&agent)? == before && site.reaches(22)?,
        "the refused policy is in force"
    );
    // The advice, followed.
    let advised = LOCK_OUT
        .replace("link:", "  operator: { addresses: [10.9.0.1] }\nlink:")
        .replace(
            "rules:",
            "rules:\n  - { name: operator_ssh, allow: [tcp/22], from: operator, to: self }",
        );
    let advised = site.file("advised.yaml", &advised)?;
    expect(&agent.ask_from(SESSION, &["apply", &advised])?, 0, &[])?;
    ensure!(
        generation(&agent)? == before + 1 && site.reaches(22)?,
        "the advised rule does not let the session in"
    );
    expect(
        &agent.ask_from(SESSION, &["apply", "--force", &lock_out])?,
        0,
        &[],
    )?;
    ensure!(
        generation(&agent)? == before + 2 && !site.reaches(22)?,
        "--force did not apply the policy"
    );
    expect(&agent.ask(&["apply", &advised])?, 0, &[])?;
    expect(&agent.ask(&["apply", &lock_out])?, 0, &[])
}

/// `dpufw run` refuses as well, and leaves nothing behind.
fn refused_run(site: &Site, policy: &str, advice: &[&str]) -> Result<()> {
    let pin_dir = format!("/sys/fs/bpf/dpufw-life-{}-refused", std::process::id());
    let (socket, state) = (
        site.path("sock").display().to_string(),
        site.path("state").display().to_string(),
    );
    let (binary, session) = (
        Agent::binary()?.display().to_string(),
        format!("SSH_CONNECTION={SESSION}"),
    );
    let run = [
        "env", &session, &binary, "run", "--policy", policy, "--mode", "host", "--port", "eth0",
    ];
    let places = ["--socket", &socket, "--pin-dir", &pin_dir, "--state-dir", &state];
    let refused = site
        .scene
        .guard()
        .namespace
        .run(&[&run[..], &places].concat(), SOON)?;
    expect(&refused, 1, advice)?;
    ensure!(
        !std::path::Path::new(&pin_dir).exists(),
        "the refused start left pins"
    );
    let _ssh = TcpService::start(&site.scene.server.namespace, site.server(), 23)?;
    ensure!(site.reaches(23)?, "the refused start guards the port");
    let lock = format!("/run/dpufw/{}.lock", pin_dir.trim_matches('/').replace('/', "-"));
    std::fs::remove_file(&lock).with_context(|| format!("there is no {lock}"))
}

/// What both policies allow goes on, what the new one denies ends.
#[test]
fn a_new_policy_ends_exactly_the_flows_that_it_denies() -> Result<()> {
    let site = Site::new(Stand::Inline, "revoke")?;
    let agent = site.agent()?;
    let [mut kept, mut ended] = [site.talk(80)?, site.talk(5201)?];
    ensure!(
        kept.works(SOON)? && ended.works(SOON)?,
        "the first policy allows both"
    );
    let text = POLICY.replace("[http, iperf3, ping]", "[http, ping]");
    expect(&agent.ask(&["apply", &site.file("less.yaml", &text)?])?, 0, &[])?;
    ensure!(
        kept.works(SOON)?,
        "the policy change ended a flow that both policies allow"
    );
    ensure!(
        !ended.works(SHORTLY)?,
        "a flow goes on that the new policy denies"
    );
    ensure!(!ended.works_backwards(SHORTLY)?, "its other direction goes on");
    until("the drops are reported with their reason", || {
        let drops = agent.drops(&["-p", "tcp", "--dport", "5201"])?;
        Ok(drops.iter().any(|drop| drop.reason == "policy_revoked"))
    })?;
    ensure!(site.metric("dpufw_packets_total{reason=\"policy_revoked\",verdict=\"drop\"}")? > 0);
    ensure!(kept.works_backwards(SOON)?, "the other flow ended as well");
    Ok(())
}
