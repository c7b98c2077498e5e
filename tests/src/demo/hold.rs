//! The end of the demo: signals, and the time in which the cluster is kept open.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::Result;

use super::cluster::{Cluster, GUARDED, HOST, find};
use super::judge::Agents;
use crate::lab;

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It takes everything away and ends the program with 130.
    Working,
    /// It ends the time of playing.
    Holding,
    /// That has happened; a second one is as while working.
    Ending,
}

static PHASE: Mutex<Phase> = Mutex::new(Phase::Working);
static CHANGED: Condvar = Condvar::new();

/// Takes SIGINT, SIGTERM and SIGHUP in charge, before the lab does.
pub fn handle_signals() {
    // Fails only if a handler is set already, and this program sets one.
    let _ = ctrlc::set_handler(|| {
        let mut phase = PHASE.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Holding {
            *phase = Phase::Ending;
            CHANGED.notify_all();
            return;
        }
        eprintln!("\ninterrupted: taking everything away");
        lab::remove_all();
        std::process::exit(130);
    });
}

/// Prints commands to play with and waits for a signal.
///
/// # Errors
/// If a machine or an agent is missing.
pub fn hold(cluster: &Cluster, agents: &Agents, policy: &Path) -> Result<()> {
    println!("\nThe cluster stays open until Ctrl-C. In another terminal, as root:\n");
    print!("{}", commands(cluster, agents, policy)?);
    let mut phase = PHASE.lock().unwrap_or_else(PoisonError::into_inner);
    *phase = Phase::Holding;
    while *phase == Phase::Holding {
        phase = CHANGED.wait(phase).unwrap_or_else(PoisonError::into_inner);
    }
    Ok(())
}

fn commands(cluster: &Cluster, agents: &Agents, policy: &Path) -> Result<String> {
    let binary = lab::Agent::binary()?;
    let (binary, policy) = (binary.display(), policy.display());
    let mut text = String::new();
    for (machine, agent) in agents {
        let ask = |command: &str| format!("{binary} {command} --socket {}", agent.socket().display());
        let asks = [
            ask("status"),
            ask("flows"),
            ask("drops --follow"),
            ask(&format!("apply {policy}")),
        ];
        text += &section(
            &format!("the firewall on {machine}; `apply` takes any policy"),
            &asks,
        );
    }
    let enter = |machine: &str, client: &str| -> Result<String> {
        Ok(format!(
            "nsenter --net={} {client}",
            cluster.machine(machine)?.path().display()
        ))
    };
    let (gpu1, gpu2, storage) = (find(GUARDED)?, find(HOST)?, find("storage")?);
    let clients = [
        enter(GUARDED, &format!("iperf3 -t 5 -c {}", gpu2.address(false)))?,
        enter(GUARDED, &format!("curl -m 3 http://{}/", storage.address(false)))?,
        enter(
            "bastion",
            &format!(
                "ping -c 3 -I {} {}",
                find("bastion")?.address(true),
                gpu1.address(true)
            ),
        )?,
        enter("intruder", &format!("nc -v -w 2 {} 22", gpu1.address(false)))?,
    ];
    text += &section(
        "real clients (not `ip netns exec`: it hides the pinned maps from tools such as bpftool)",
        &clients,
    );
    let flow = format!(
        "tcp {} {}:22",
        find("intruder")?.address(false),
        gpu1.address(false)
    );
    text += &section(
        "why, without a packet",
        &[format!("{binary} explain {flow} --policy {policy}")],
    );
    Ok(text)
}

fn section(title: &str, lines: &[String]) -> String {
    format!("  # {title}\n  {}\n\n", lines.join("\n  "))
}
