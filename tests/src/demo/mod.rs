//! A small AI cluster in network namespaces, guarded by the real agent in both modes, with real clients: who may talk to
//! whom, what happened, and which rule or reason the firewall gives for it.

mod cases;
mod clients;
mod cluster;
mod hold;
mod judge;
mod servers;
mod table;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fw_user::control::Status;
use fw_user::exit::{Exit, Failure, exit_of};
use nix::unistd::Uid;

use self::cluster::{Cluster, DPU, GUARDED, HOST, NIC, REPRESENTOR, UPLINK};
use self::judge::{Agents, Outcome};
use self::servers::Servers;
use self::table::say;
use crate::lab::Agent;

/// First part of the names of everything that the demo makes outside of its namespaces.
const PREFIX: &str = "dpufw-demo-";

/// Show a small AI cluster in network namespaces behind the firewall
///
/// Builds two GPU hosts, a storage server, a bastion, an intruder and a DPU from network namespaces, starts the agent on
/// the DPU (mode inline) and on the second GPU host (mode host), lets real clients talk, and compares what happens with
/// the policy. Exits with 0 if all agree. Takes everything away again, also after Ctrl-C.
#[derive(Debug, clap::Parser)]
#[command(
    name = "cargo xtask demo",
    max_term_width = 110,
    after_help = "Examples:\n  cargo xtask demo\n  \
                                                            cargo xtask demo --hold    leave it open to play with"
)]
pub struct Args {
    /// Keep the cluster open afterwards and print commands to play with; Ctrl-C ends it
    #[arg(long)]
    hold: bool,
    /// The policy that both agents enforce
    #[arg(long, value_name = "FILE", default_value = "policies/ai-cluster.yaml")]
    policy: PathBuf,
}

/// Runs the demo. Exit codes: 0 all agree, 1 something differs or does not work, 2 bad input, 3 no privilege.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    hold::handle_signals();
    match run(args) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_of(&error).into()
        }
    }
}

fn run(args: &Args) -> Result<Exit> {
    let start = Instant::now();
    check(args)?;
    say(
        start,
        "building the cluster: gpu1 behind a DPU, gpu2, storage, bastion, intruder, one switch",
    );
    let cluster = Cluster::build()?;
    let servers = Servers::start(&cluster)?;
    say(
        start,
        &format!(
            "{} servers listen; first without a firewall: {} flows",
            servers.count(),
            cases::CASES.len()
        ),
    );
    cluster.patch()?;
    let failed = judge::without_firewall(&cluster)?;
    ensure!(
        failed.is_empty(),
        "without a firewall everything should get through, but: {}",
        failed.join("; ")
    );
    cluster.unpatch()?;
    say(start, "everybody reaches everything; now the agents start");
    let agents = start_agents(&cluster, args)?;
    let titles = titles(&agents, start)?;
    say(start, "the same flows again, behind the firewalls");
    let outcomes = judge::behind_firewalls(&cluster, &agents)?;
    let exit = report(&titles, &outcomes);
    if args.hold {
        hold::hold(&cluster, &agents, &args.policy)?;
    }
    say(start, "taking everything away");
    agents.into_values().try_for_each(Agent::detach)?;
    drop(servers);
    drop(cluster);
    say(
        start,
        if exit == Exit::Yes {
            "done: all flows as expected"
        } else {
            "done: NOT all flows as expected"
        },
    );
    Ok(exit)
}

/// What the demo cannot do without, before anything is made.
fn check(args: &Args) -> Result<()> {
    if !Uid::effective().is_root() {
        let message = "the demo makes network namespaces and loads BPF programs: run it as root (`cargo xtask demo` does)";
        return Err(Failure::no_agent(message).into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let tools = ["ip", "ethtool", "curl", "iperf3", "nc", "ping"];
    let missing: Vec<_> = tools.into_iter().filter(|tool| !there(tool)).collect();
    if !missing.is_empty() {
        let message = format!(
            "missing programs: {}; `cargo xtask setup` installs them",
            missing.join(", ")
        );
        return Err(Failure::input(message).into());
    }
    let binary = Agent::binary()?;
    let checked = Command::new(&binary).arg("check").arg(&args.policy).output();
    let checked = checked.with_context(|| format!("cannot run {}", binary.display()))?;
    if checked.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&checked.stderr);
    Err(Failure::input(format!(
        "the policy cannot be used (it is looked for in the project's folder)\n{said}"
    ))
    .into())
}

/// The DPU has native XDP towards the network and TC towards the host: representors of the mainline driver have no XDP.
fn start_agents(cluster: &Cluster, args: &Args) -> Result<Agents> {
    let policy = args
        .policy
        .to_str()
        .context("the policy's path is not valid UTF-8")?;
    let common = ["--policy", policy, "--metrics", "off"];
    let pair = format!("{UPLINK}=uplink@xdp:{REPRESENTOR}=host@tc");
    let inline = [&common[..], &["--mode", "inline", "--pair", &pair]].concat();
    let host = [&common[..], &["--mode", "host", "--port", NIC]].concat();
    let mut agents = Agents::new();
    for (machine, arguments) in [(DPU, inline), (HOST, host)] {
        agents.insert(
            machine,
            Agent::start(cluster.machine(machine)?, PREFIX, machine, &arguments)?,
        );
    }
    Ok(agents)
}

/// A title for each firewall's table, from its status, which must be healthy.
fn titles(agents: &Agents, start: Instant) -> Result<Vec<(&'static str, String)>> {
    let mut titles = Vec::new();
    for (&machine, agent) in agents {
        let status = agent.status()?;
        ensure!(
            status.healthy(),
            "the agent on {machine} is not healthy: {}",
            faults(&status).join("; ")
        );
        let ports: Vec<_> = status
            .ports
            .iter()
            .map(|port| format!("{} by {}", port.name, port.engine))
            .collect();
        let ports = ports.join(", ");
        say(
            start,
            &format!("{machine}: process {}, mode {}, {ports}", status.pid, status.mode),
        );
        titles.push((
            machine,
            match machine {
                DPU => format!("In front of {GUARDED}: the DPU, mode {} ({ports})", status.mode),
                _ => format!("On {machine}: its own agent, mode {} ({ports})", status.mode),
            },
        ));
    }
    Ok(titles)
}

fn faults(status: &Status) -> Vec<String> {
    let uncovered = status.coverage.iter().filter(|line| line.alarm);
    let uncovered = uncovered.map(|line| format!("{} is up and not covered", line.interface));
    status.degraded.iter().cloned().chain(uncovered).collect()
}

fn report(titles: &[(&str, String)], outcomes: &[Outcome]) -> Exit {
    for (machine, title) in titles {
        let own: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.case.at == *machine)
            .collect();
        table::print(title, &own);
    }
    table::print_reasons(outcomes);
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| !outcome.agrees()).collect();
    let denied = outcomes
        .iter()
        .filter(|outcome| !matches!(outcome.case.expect, cases::Expect::Allow(_)))
        .count();
    println!(
        "\n{} flows, {denied} of them to be denied; {} not as expected",
        outcomes.len(),
        wrong.len()
    );
    for outcome in &wrong {
        table::print_wrong(outcome);
    }
    if wrong.is_empty() { Exit::Yes } else { Exit::No }
}
