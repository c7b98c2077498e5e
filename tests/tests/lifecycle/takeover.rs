//! Starts that meet something else than they expect.

use anyhow::{Result, bail, ensure};
use fw_tests::lab::Agent;
use fw_user::agent::versioned;
use fw_user::dataplane::{Tables, list_attached};

use crate::site::{POLICY, SOON, Site, Stand, expect, until};

fn fails(agent: &mut Agent, words: &[&str]) -> Result<()> {
    let Err(error) = agent.run() else {
        bail!("the agent started");
    };
    let text = format!("{error:#}");
    for word in words {
        ensure!(text.contains(word), "`{word}` was expected in: {text}");
    }
    Ok(())
}

/// The generation in force, asked of the kernel.
fn generation(agent: &Agent) -> Result<u32> {
    Ok(Tables::open_pinned(&versioned(agent.pin_dir()))?
        .control()
        .generation)
}

#[test]
fn a_take_over_that_fails_leaves_the_policy_in_force() -> Result<()> {
    let site = Site::new(Stand::Host, "half")?;
    let mut agent = site.agent()?;
    let before = generation(&agent)?;
    agent.kill();
    site.policy(&POLICY.replace("[http, iperf3, ping]", "[ping]"))?;
    let good = std::fs::read_to_string(site.path("agent.yaml"))?;
    site.file(
        "agent.yaml",
        &good.replace("{ name: eth0 }", "{ name: eth0 }, { name: ghost0 }"),
    )?;
    fails(&mut agent, &["ghost0", "goes on enforcing"])?;
    ensure!(generation(&agent)? == before, "the new policy is in force");
    let mut talk = site.talk(80)?;
    ensure!(talk.works(SOON)?, "the old policy allows http");
    site.file("agent.yaml", &good)?;
    agent.run()?;
    ensure!(generation(&agent)? == before + 1 && !site.reaches(80)?);
    Ok(())
}

#[test]
fn a_data_plane_of_another_layout_is_left_alone_and_can_be_taken_down() -> Result<()> {
    let site = Site::new(Stand::Host, "layout")?;
    let mut agent = site.agent()?;
    agent.kill();
    let old = agent.pin_dir().join("v1");
    std::fs::rename(versioned(agent.pin_dir()), &old)?;
    fails(
        &mut agent,
        &["layout 1", "dpufw detach --yes", "goes on enforcing"],
    )?;
    let namespace = &site.scene.guard().namespace;
    let attached = namespace.enter(|| list_attached(&old))??;
    ensure!(attached.len() == 2, "{attached:?}");
    let words = [
        Agent::binary()?.display().to_string(),
        "detach".to_owned(),
        "--yes".to_owned(),
        "--socket".to_owned(),
        agent.socket().display().to_string(),
        "--pin-dir".to_owned(),
        agent.pin_dir().display().to_string(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    expect(&namespace.run(&words, SOON)?, 0, &["eth0"])?;
    ensure!(!old.exists(), "the old layout is still there");
    agent.run()?;
    ensure!(agent.status()?.ports.len() == 1);
    Ok(())
}

#[test]
fn a_missing_interface_holds_up_no_other() -> Result<()> {
    let site = Site::new(Stand::Host, "missing")?;
    let namespace = &site.scene.guard().namespace;
    let ip = |words: &str| {
        let words: Vec<_> = std::iter::once("ip").chain(words.split(' ')).collect();
        namespace.check(&words, SOON)
    };
    for name in ["one", "two"] {
        ip(&format!("link add {name}0 type veth peer name {name}1"))?;
    }
    let config = std::fs::read_to_string(site.path("agent.yaml"))?;
    let ports = "{ name: eth0 }, { name: one0 }, { name: two0 }";
    site.file(
        "agent.yaml",
        &format!(
            "{}ignore: [one1, two1]\n",
            config.replace("{ name: eth0 }", ports)
        ),
    )?;
    let agent = site.agent()?;
    ip("link del one0")?;
    ip("link del two0")?;
    until("both are missed", || {
        let degraded = agent.status()?.degraded;
        Ok(["one0", "two0"]
            .iter()
            .all(|name| degraded.iter().any(|line| line.contains(name))))
    })?;
    ip("link add one0 type veth peer name one1")?;
    until("the one that is back is guarded", || {
        let status = agent.status()?;
        let port = status.ports.iter().find(|port| port.name == "one0");
        let missed = status.degraded.iter().any(|line| line.contains("one0"));
        Ok(!missed && port.is_some_and(|port| port.engine != "NONE" && port.egress.is_some()))
    })?;
    let degraded = agent.status()?.degraded;
    ensure!(degraded.iter().any(|line| line.contains("two0")), "{degraded:?}");
    let mut talk = site.talk(80)?;
    ensure!(talk.works(SOON)?, "the port that was never away");
    ip("link add two0 type veth peer name two1")?;
    until("all is well", || Ok(agent.status()?.degraded.is_empty()))
}
