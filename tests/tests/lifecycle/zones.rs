//! Dynamic zones on a running agent: quarantine, deadlines, restarts, many at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, TcpService};
use fw_user::control::{ZoneChanged, ZoneInfo};

use crate::site::{POLICY, SHORTLY, SOON, Site, Stand, expect, until};

/// The caller sits at the client and came in by the server's address.
const SESSION: &str = "10.9.0.1 50000 10.9.0.2 22";
/// A change is in force within this, however busy the machine: a policy is compiled, two grace periods pass, a file is synced.
const QUICKLY: f64 = 2_000.0;

/// The lab's policy with a quarantine before all rules, and a zone that opens one more port.
fn policy() -> String {
    POLICY
        .replace("zones:\n", "zones:\n  jail: { dynamic: true }\n  job: { dynamic: true }\n")
        .replace(
            "rules:\n",
            "rules:\n  - { name: jailed, deny: all, from: jail, to: any }\n  - { name: job, allow: [tcp/8080], from: job, to: server }\n",
        )
}

/// Runs a change and reads its JSON.
fn change(agent: &Agent, words: &[&str]) -> Result<ZoneChanged> {
    let answer = agent.ask(&[&["zone"], words, &["--json"]].concat())?;
    expect(&answer, 0, &[])?;
    serde_json::from_str(&answer.stdout).with_context(|| answer.to_string())
}

fn list(agent: &Agent) -> Result<Vec<ZoneInfo>> {
    let answer = agent.ask(&["zone", "list", "--json"])?;
    expect(&answer, 0, &[])?;
    let lines = answer.stdout.lines().map(serde_json::from_str);
    lines
        .collect::<Result<_, _>>()
        .with_context(|| answer.to_string())
}

/// The members of a zone as words.
fn members(agent: &Agent, zone: &str) -> Result<Vec<String>> {
    let zones = list(agent)?;
    let found = zones.into_iter().find(|info| info.zone == zone);
    let members = found.map_or_else(Vec::new, |info| info.members);
    Ok(members.iter().map(|member| member.prefix.to_string()).collect())
}

fn generation(agent: &Agent) -> Result<u32> {
    Ok(agent.status()?.policy.generation)
}

#[test]
fn quarantine_ends_a_running_connection_and_refuses_new_ones() -> Result<()> {
    let site = Site::new(Stand::Inline, "jail")?;
    site.policy(&policy())?;
    let agent = site.agent()?;
    let _web = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let mut talk = site.talk(5201)?;
    ensure!(talk.works(SOON)? && site.reaches(80)?);
    let before = generation(&agent)?;

    let jailed = change(&agent, &["add", "jail", "10.9.0.1"])?;
    ensure!(jailed.swapped && jailed.generation == before + 1, "{jailed:?}");
    ensure!(jailed.took_ms < QUICKLY, "a change took {} ms", jailed.took_ms);
    println!("zone add: {:.1} ms", jailed.took_ms);
    ensure!(!talk.works(SHORTLY)?, "the connection goes on in quarantine");
    ensure!(!site.reaches(80)?, "a new connection is let in");
    let drops = agent.drops(&["--dport", "80"])?;
    ensure!(
        drops.iter().any(|drop| drop.rule.as_deref() == Some("jailed")),
        "{drops:?}"
    );

    let again = change(&agent, &["add", "jail", "10.9.0.1"])?;
    ensure!(
        !again.swapped && again.generation == jailed.generation,
        "{again:?}"
    );
    expect(
        &agent.ask(&["zone", "add", "jail", "10.9.0.1"])?,
        0,
        &["already there: 10.9.0.1"],
    )?;
    expect(
        &agent.ask(&["zone", "list"])?,
        0,
        &["jail", "10.9.0.1/32", "job", "(none)"],
    )?;

    let freed = change(&agent, &["remove", "jail", "10.9.0.0/30"])?;
    ensure!(freed.swapped && freed.took_ms < QUICKLY, "{freed:?}");
    println!("zone remove: {:.1} ms", freed.took_ms);
    ensure!(site.reaches(80)?, "a freed host is still refused");
    ensure!(site.talk(5201)?.works(SOON)?);
    expect(
        &agent.ask(&["zone", "remove", "jail", "10.9.0.1"])?,
        0,
        &["not there: 10.9.0.1"],
    )?;
    Ok(())
}

#[test]
fn members_survive_kill_restart_and_new_policies() -> Result<()> {
    let site = Site::new(Stand::Host, "members")?;
    site.policy(&policy())?;
    let mut agent = site.agent()?;
    let _job = TcpService::start(&site.scene.server.namespace, site.server(), 8080)?;
    ensure!(!site.reaches(8080)?);
    change(
        &agent,
        &["add", "job", "10.9.0.1", "10.77.0.5-10.77.0.6", "--for", "1h"],
    )?;
    ensure!(site.reaches(8080)?, "a member is not let in");
    let before = generation(&agent)?;
    agent.kill();
    ensure!(site.reaches(8080)?, "without an agent the kernel's tables go on");
    agent.run()?;
    // Tables that took other addresses are laid out otherwise than those of a whole compile, and decide the same.
    ensure!(generation(&agent)? - before <= 1, "more than one swap at a start");
    ensure!(site.reaches(8080)?, "the member was forgotten");
    let kept = ["10.9.0.1/32", "10.77.0.5/32", "10.77.0.6/32"];
    ensure!(members(&agent, "job")? == kept, "{:?}", list(&agent)?);
    ensure!(list(&agent)?.iter().all(|zone| zone.in_force));

    // A policy without the zone: kept aside, and said so.
    let without = site.file("without.yaml", POLICY)?;
    expect(
        &agent.ask(&["apply", &without])?,
        0,
        &["3 members of the zone `job` are kept aside"],
    )?;
    ensure!(!site.reaches(8080)?);
    let aside = list(&agent)?;
    ensure!(
        aside.len() == 1 && !aside[0].in_force && aside[0].members.len() == 3,
        "{aside:?}"
    );
    let with = site.file("with.yaml", &policy())?;
    expect(&agent.ask(&["apply", &with])?, 0, &[])?;
    ensure!(site.reaches(8080)?, "the members did not come back");

    // A damaged file must not open or close anything: what the kernel enforces stays.
    agent.kill();
    let file = agent.socket().with_file_name("state").join("zone-members.json");
    let good = std::fs::read(&file)?;
    std::fs::write(&file, "{")?;
    agent.run()?;
    expect(&agent.ask(&["status"])?, 1, &["zone-members.json", "is damaged"])?;
    ensure!(site.reaches(8080)?, "the damage was enforced");
    expect(&agent.ask(&["apply", &with])?, 2, &["zone-members.json"])?;
    std::fs::write(&file, good)?;
    expect(&agent.ask(&["apply", &with])?, 0, &[])?;
    ensure!(site.reaches(8080)?);
    expect(&agent.ask(&["status"])?, 0, &["healthy"])
}

#[test]
fn a_deadline_takes_a_member_out() -> Result<()> {
    let site = Site::new(Stand::Inline, "deadline")?;
    site.policy(&policy())?;
    let agent = site.agent()?;
    let _job = TcpService::start(&site.scene.server.namespace, site.server(), 8080)?;
    let began = Instant::now();
    change(&agent, &["add", "job", "10.9.0.1", "--for", "2s"])?;
    let mut talk = site.talk(5201)?;
    ensure!(
        site.reaches(8080)? || began.elapsed() > Duration::from_secs(2),
        "never in"
    );
    until("the member goes", || Ok(!site.reaches(8080)?))?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "it went too early");
    until("the list is empty", || Ok(members(&agent, "job")?.is_empty()))?;
    ensure!(
        talk.works(SOON)?,
        "a connection that both generations allow was lost"
    );
    // Refreshed before it ends, it stays.
    change(&agent, &["add", "job", "10.9.0.1", "--for", "2s"])?;
    let refreshed = change(&agent, &["add", "job", "10.9.0.1"])?;
    ensure!(
        !refreshed.swapped && refreshed.outcomes[0].refreshed.len() == 1,
        "{refreshed:?}"
    );
    std::thread::sleep(Duration::from_millis(2_500));
    ensure!(site.reaches(8080)?, "the old deadline was kept");
    expect(&agent.ask(&["status"])?, 0, &["healthy"])
}

#[test]
fn what_cannot_be_is_refused_with_exit_code_2() -> Result<()> {
    let site = Site::new(Stand::Host, "refused-zones")?;
    site.policy(&policy())?;
    let agent = site.agent()?;
    let before = generation(&agent)?;
    for (words, told) in [
        (
            &["add", "jial", "10.0.0.1"][..],
            &["no zone `jial`", "jail, job"][..],
        ),
        (
            &["add", "client", "10.0.0.1"],
            &["`client`", "is not dynamic", "dynamic: true"],
        ),
        (&["add", "self", "10.0.0.1"], &["is not dynamic"]),
        (&["remove", "client", "10.0.0.1"], &["is not dynamic"]),
        (&["add", "jail", "10.0.0.1/24"], &["10.0.0.0/24 for the network"]),
        (
            &["add", "jail", "10.0.0.300"],
            &["no prefix, no address and no range"],
        ),
        (&["add", "jail", "10.0.0.9-10.0.0.1"], &["ends before it begins"]),
        (&["add", "jail", "10.0.0.1", "--for", "soon"], &["no time"]),
        (&["add", "jail"], &["required"]),
        (&["remove", "jail"], &["required"]),
        (&["list", "client"], &["is not dynamic"]),
    ] {
        expect(&agent.ask(&[&["zone"], words].concat())?, 2, told)?;
    }
    ensure!(generation(&agent)? == before && list(&agent)?.iter().all(|zone| zone.members.is_empty()));
    Ok(())
}

#[test]
fn nobody_is_locked_out_by_a_zone() -> Result<()> {
    let site = Site::new(Stand::Host, "zone-lock-out")?;
    site.policy(&policy())?;
    let agent = site.agent()?;
    let _ssh = TcpService::start(&site.scene.server.namespace, site.server(), 22)?;
    let before = generation(&agent)?;
    let jail = ["zone", "add", "jail", "10.9.0.1"];
    expect(
        &agent.ask_from(SESSION, &jail)?,
        1,
        &["denies your own session", "--force"],
    )?;
    ensure!(
        generation(&agent)? == before && site.reaches(22)?,
        "the refused change is in force"
    );
    ensure!(members(&agent, "jail")?.is_empty(), "the refused change was kept");
    expect(
        &agent.ask_from(SESSION, &["zone", "add", "jail", "10.9.0.9"])?,
        0,
        &[],
    )?;
    expect(
        &agent.ask_from(SESSION, &[&jail[..], &["--force"]].concat())?,
        0,
        &[],
    )?;
    ensure!(!site.reaches(22)?, "--force did not do it");
    expect(
        &agent.ask_from(SESSION, &["zone", "remove", "jail", "--all"])?,
        0,
        &["removed"],
    )?;
    ensure!(site.reaches(22)?);
    Ok(())
}

/// Requests of many clients at one time are put in force together, and each is answered.
#[test]
fn many_requests_at_once_are_few_swaps() -> Result<()> {
    const CLIENTS: u8 = 24;
    let site = Site::new(Stand::Host, "many")?;
    site.policy(&policy())?;
    let agent = site.agent()?;
    let before = generation(&agent)?;
    std::thread::scope(|scope| {
        let add = |number: u8| {
            let agent = &agent;
            scope.spawn(move || {
                // One of them asks for what cannot be, and spoils no other.
                let zone = if number == 7 { "jial" } else { "job" };
                agent.ask(&["zone", "add", zone, &format!("10.50.0.{number}")])
            })
        };
        let asked: Vec<_> = (0..CLIENTS).map(add).collect();
        for (number, asked) in asked.into_iter().enumerate() {
            let answer = asked.join().expect("a client that did not panic")?;
            expect(&answer, if number == 7 { 2 } else { 0 }, &[])?;
        }
        anyhow::Ok(())
    })?;
    ensure!(members(&agent, "job")?.len() == usize::from(CLIENTS) - 1);
    let swaps = generation(&agent)? - before;
    println!("{CLIENTS} requests at once: {swaps} swaps");
    ensure!((1..u32::from(CLIENTS)).contains(&swaps), "{swaps} swaps");
    Ok(())
}

#[test]
fn zones_are_read_again_from_their_files() -> Result<()> {
    let site = Site::new(Stand::Host, "reload")?;
    let text = POLICY
        .replace("zones:\n", "zones:\n  blocked: { file: blocked.txt }\n")
        .replace(
            "rules:\n",
            "rules:\n  - { name: blocked, deny: all, from: blocked, to: any }\n",
        );
    site.file("blocked.txt", "192.0.2.0/24 # nobody here\n")?;
    site.policy(&text)?;
    let mut agent = site.agent()?;
    let _web = TcpService::start(&site.scene.server.namespace, site.server(), 80)?;
    let before = generation(&agent)?;
    expect(&agent.ask(&["zone", "reload"])?, 0, &["nothing to change"])?;
    ensure!(site.reaches(80)? && generation(&agent)? == before);
    // The policy file has changed too, and does not matter.
    site.policy("broken")?;
    site.file("blocked.txt", "192.0.2.0/24\n10.9.0.1-10.9.0.1\n")?;
    expect(
        &agent.ask(&["zone", "reload"])?,
        0,
        &["blocked: 2 prefixes, before 1", "in force"],
    )?;
    ensure!(!site.reaches(80)?, "the new list is not enforced");
    site.file("blocked.txt", "192.0.2.0/24\nnobody\n")?;
    expect(&agent.ask(&["zone", "reload"])?, 2, &["blocked.txt:2:1"])?;
    expect(
        &agent.ask_from(SESSION, &["zone", "reload"])?,
        2,
        &["blocked.txt:2:1"],
    )?;
    ensure!(!site.reaches(80)?, "a broken list has changed something");
    // The last good policy brings its lists along.
    agent.kill();
    agent.run()?;
    ensure!(!site.reaches(80)?, "the last good list was forgotten");
    site.file("blocked.txt", "")?;
    expect(
        &agent.ask(&["zone", "reload"])?,
        0,
        &["blocked: 0 prefixes, before 2"],
    )?;
    ensure!(site.reaches(80)?);
    Ok(())
}
