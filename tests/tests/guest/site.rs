//! A scene with an agent in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, Hop, Leftover, Namespace, Options, Scene};

/// Long enough for what must happen under emulation.
pub const SOON: Duration = Duration::from_mins(1);

/// First part of the names of pins and folders.
const PREFIX: &str = "dpufw-guest-";
/// What legitimate traffic of a host may be refused: this policy lets no routers be looked for.
const MAY_BE_REFUSED: [&str; 1] = ["deny_ra"];

/// Which hook judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Native XDP.
    Xdp,
    /// TC ingress.
    Tc,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// Where the firewall stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// On the server's NIC.
    Host(Engine),
    /// Between client and server.
    Inline(Engine),
}

impl Stand {
    /// Client and server with this stand between them.
    pub fn scene(self, options: Options) -> Result<Scene> {
        match self {
            Self::Host(_) => Scene::direct(options),
            Self::Inline(_) => Scene::inline(options),
        }
    }

    /// What `agent.yaml` says about it.
    fn ports(self) -> String {
        match self {
            Self::Host(engine) => host_port("eth0", engine),
            Self::Inline(engine) => {
                let engine = engine.name();
                format!(
                    "mode: inline\nports: [{{ name: up0, pair: down0, engine: {engine} }}, {{ name: down0, engine: {engine} }}]"
                )
            }
        }
    }
}

/// `agent.yaml` of one port in mode `host`.
pub fn host_port(name: &str, engine: Engine) -> String {
    format!(
        "mode: host\nports: [{{ name: {name}, engine: {} }}]",
        engine.name()
    )
}

/// A running agent with its files.
pub struct Guard {
    agent: Agent,
    _folder: Leftover,
}

impl Guard {
    /// Starts an agent at this stand of the scene.
    pub fn at(scene: &Scene, stand: Stand, policy: &str) -> Result<Self> {
        let guard = Self::start(&scene.guard().namespace, &stand.ports(), policy)?;
        let (Stand::Host(engine) | Stand::Inline(engine)) = stand;
        for port in guard.agent.status()?.ports {
            let as_asked = (port.engine == "xdp native") == (engine == Engine::Xdp);
            ensure!(as_asked, "{engine:?} was asked for: {port:?}");
        }
        Ok(guard)
    }

    /// Starts an agent in a namespace; `ports` is the part of `agent.yaml` that says where it stands.
    pub fn start(namespace: &Namespace, ports: &str, policy: &str) -> Result<Self> {
        // Two firewalls of one scene have places of their own.
        let label = namespace.name();
        let folder = Leftover::claim(&std::env::temp_dir(), PREFIX, &format!("{label}-files"));
        DirBuilder::new().mode(0o700).create(folder.path())?;
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok::<_, anyhow::Error>(path.display().to_string())
        };
        write("policy.yaml", policy)?;
        let config = write("agent.yaml", &format!("policy: policy.yaml\n{ports}\n"))?;
        let agent = Agent::start(namespace, PREFIX, label, &["--config", &config])?;
        Ok(Self {
            agent,
            _folder: folder,
        })
    }

    /// The engine that runs on each port.
    pub fn engines(&self) -> Result<Vec<String>> {
        let ports = self.agent.status()?.ports;
        Ok(ports.into_iter().map(|port| port.engine).collect())
    }

    /// Packets refused for this reason so far.
    pub fn refused(&self, reason: &str) -> Result<u64> {
        let drops = self.agent.status()?.drops;
        Ok(drops
            .iter()
            .find(|drop| drop.reason == reason)
            .map_or(0, |drop| drop.packets))
    }

    /// Fails if a packet was refused that belongs to legitimate traffic, or if none passed.
    pub fn refused_nothing(&self) -> Result<()> {
        self.refused_only(&[])
    }

    /// As [`Guard::refused_nothing`], but these reasons were provoked.
    pub fn refused_only(&self, provoked: &[&str]) -> Result<()> {
        let status = self.agent.status()?;
        ensure!(status.passed_packets > 0, "no packet passed the firewall");
        let refused: Vec<String> = status
            .drops
            .iter()
            .filter(|drop| drop.packets > 0)
            .filter(|drop| !MAY_BE_REFUSED.contains(&drop.reason.as_str()))
            .filter(|drop| !provoked.contains(&drop.reason.as_str()))
            .map(|drop| format!("{} {}", drop.packets, drop.reason))
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let last: Vec<String> = self
            .agent
            .drops(&[])?
            .iter()
            .map(|drop| format!("{drop:?}"))
            .collect();
        let from = last.len().saturating_sub(10);
        anyhow::bail!(
            "of {} packets and more these were refused: {}; the last ones:\n{}",
            status.passed_packets,
            refused.join(", "),
            last[from..].join("\n")
        )
    }
}

/// Loss, duplicates and reordering, both ways, on both sides of the firewall if there are hops on both.
pub fn disturb(scene: &Scene) -> Result<()> {
    // Reordering needs a delay: every fourth packet overtakes those that wait.
    const NETEM: &str = "netem limit 20000 delay 2ms reorder 25% loss 1% duplicate 1%";
    for hop in [&scene.client_hop, &scene.server_hop].into_iter().flatten() {
        for port in [Hop::HOST, Hop::WIRE] {
            tc(&hop.namespace, &format!("qdisc replace dev {port} root {NETEM}"))?;
        }
    }
    Ok(())
}

/// What netem did to the packets: the lines of `tc -s qdisc` with its drops.
pub fn disturbances(scene: &Scene) -> Result<u64> {
    let mut dropped = 0;
    for hop in [&scene.client_hop, &scene.server_hop].into_iter().flatten() {
        let text = hop.namespace.check(&["tc", "-s", "qdisc", "show"], SOON)?;
        dropped += text
            .split("dropped ")
            .skip(1)
            .filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(dropped)
}

fn tc(namespace: &Namespace, words: &str) -> Result<()> {
    run(namespace, &format!("tc {words}")).map(drop)
}

/// Runs a command that must succeed, and returns what it printed.
pub fn run(namespace: &Namespace, command: &str) -> Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    namespace.check(&words, SOON)
}
