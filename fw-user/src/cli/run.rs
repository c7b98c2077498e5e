//! `dpufw run`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use tracing_subscriber::EnvFilter;

use super::output;
use crate::agent::{self, AgentConfig, Metrics, Mode, PairArg, PortArg, PortSpec};
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "Examples:
  dpufw run --config /etc/dpufw/agent.yaml
  dpufw run --policy policy.yaml --mode host --port eth0 --port eth1=mgmt
  dpufw run --policy policy.yaml --mode inline --pair up0:host0
  dpufw run --policy policy.yaml --mode inline --pair p0=uplink@xdp:pf0hpf=host@tc --ignore oob0

The agent stays in the foreground. When it stops, or is killed, the firewall goes on enforcing; a new agent takes over
with all flows. `dpufw detach --yes` takes the firewall down.";

/// Run the agent in the foreground
#[derive(Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("source").required(true).args(["config", "policy"]))]
pub(super) struct Run {
    /// Read everything from agent.yaml
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mode", "port", "pair"])]
    config: Option<PathBuf>,
    /// The policy file
    #[arg(long, value_name = "FILE", requires = "mode")]
    policy: Option<PathBuf>,
    /// Where this firewall stands
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// A port of mode host: interface, its role (default `uplink`), its engine (default xdp)
    #[arg(long, value_name = "IF[=ROLE][@xdp|tc]", conflicts_with = "pair")]
    port: Vec<PortArg>,
    /// A pair of mode inline: the port towards the network, then the port towards the guarded host (role `host`)
    #[arg(long, value_name = "OUTER:INNER")]
    pair: Vec<PairArg>,
    /// An interface that may stay uncovered
    #[arg(long, value_name = "IF")]
    ignore: Vec<String>,
    /// Start even if the policy denies your own session
    #[arg(long)]
    force: bool,
    /// Control socket [default: /run/dpufw/agent.sock]
    #[arg(long, value_name = "PATH", env = "DPUFW_SOCKET")]
    socket: Option<PathBuf>,
    /// Where programs, links and maps are pinned [default: /sys/fs/bpf/dpufw]
    #[arg(long, value_name = "DIR", env = "DPUFW_PIN_DIR")]
    pin_dir: Option<PathBuf>,
    /// Where the last good policy and names are kept [default: /var/lib/dpufw]
    #[arg(long, value_name = "DIR", env = "DPUFW_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Where metrics are served: a loopback address, or `off` [default: 127.0.0.1:9465]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<Metrics>,
    /// Append flow records to this file, JSON lines
    #[arg(long, value_name = "FILE")]
    flow_log: Option<PathBuf>,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        log();
        let force = self.force;
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        // The agent's own future runs on a worker, where blocking work may be announced.
        let agent = runtime.spawn(agent::run(config, force));
        runtime.block_on(agent)??;
        // Tasks that still wait for a client or the kernel do not hold up the end.
        runtime.shutdown_background();
        Ok(Exit::Yes)
    }

    fn config(self) -> Result<AgentConfig, Failure> {
        let mut config = match (&self.config, &self.policy, self.mode) {
            (Some(file), _, _) => AgentConfig::read(file)?,
            (None, Some(policy), Some(mode)) => AgentConfig::new(policy.clone(), mode, self.ports(mode)?)?,
            _ => {
                return Err(Failure::input(
                    "give --config FILE, or --policy FILE with --mode and ports",
                ));
            }
        };
        self.overrides(&mut config);
        Ok(config)
    }

    fn ports(&self, mode: Mode) -> Result<Vec<PortSpec>, Failure> {
        match mode {
            Mode::Host if !self.pair.is_empty() => {
                Err(Failure::input("--pair belongs to --mode inline; use --port"))
            }
            Mode::Inline if !self.port.is_empty() => Err(Failure::input(
                "mode inline needs pairs: --pair OUTER:INNER instead of --port",
            )),
            Mode::Host => Ok(self.port.iter().cloned().map(PortArg::outer).collect()),
            Mode::Inline => Ok(self.pair.iter().cloned().flat_map(PairArg::ports).collect()),
        }
    }

    /// What the command line says beats the file.
    fn overrides(self, config: &mut AgentConfig) {
        if let Some(policy) = self.policy {
            config.policy = policy;
        }
        config.ignore.extend(self.ignore);
        config.socket = self.socket.unwrap_or_else(|| config.socket.clone());
        config.pin_dir = self.pin_dir.unwrap_or_else(|| config.pin_dir.clone());
        config.state_dir = self.state_dir.unwrap_or_else(|| config.state_dir.clone());
        config.metrics = self.metrics.map_or(config.metrics, |metrics| metrics.0);
        config.flow_log = self.flow_log.or_else(|| config.flow_log.take());
    }
}

/// Logs to standard error; `RUST_LOG` chooses how much.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colored(&std::io::stderr()))
        .with_target(false)
        .init();
}
