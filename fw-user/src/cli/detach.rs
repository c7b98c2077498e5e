//! `dpufw detach`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::net::if_::if_nameindex;

use super::{AgentArgs, ask, unexpected};
use crate::agent::{DEFAULT_PIN_DIR, Locks};
use crate::control::{Client, Reply, Request};
use crate::dataplane::{Attachment, DataPlaneError, detach_all, layouts, list_attached};
use crate::exit::{Exit, Failure, chain};

/// How long the agent may take to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Take the firewall down: programs, policy and flows
///
/// Works with a running agent, which stops, and without one. Nothing else opens the ports.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw detach          # lists what would become open\n  dpufw detach --yes"
)]
pub(super) struct Detach {
    /// Do it; without this, only list what becomes open
    #[arg(long)]
    yes: bool,
    /// Where a data plane without an agent is pinned
    #[arg(long, value_name = "DIR", env = "DPUFW_PIN_DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Detach {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let running = Client::connect(&self.agent.socket).await.is_ok();
        if !self.yes {
            let ports = if running {
                self.ports_of_agent().await?
            } else {
                self.ports_of_pins()?
            };
            println!("these ports become open: {}", ports.join(", "));
            println!("and all flows are forgotten; repeat the command with --yes to do it");
            return Ok(Exit::BadInput);
        }
        let ports = if running {
            self.ask_agent().await?
        } else {
            self.take_down()?
        };
        println!("detached; open now: {}", ports.join(", "));
        Ok(Exit::Yes)
    }

    async fn ports_of_agent(&self) -> anyhow::Result<Vec<String>> {
        match ask(&self.agent, &Request::Status).await? {
            Reply::Status(status) => Ok(status.ports.into_iter().map(|port| port.name).collect()),
            other => Err(unexpected(&other)),
        }
    }

    fn ports_of_pins(&self) -> Result<Vec<String>, Failure> {
        self.each_layout(list_attached)
    }

    /// Does this to the data planes of all layouts, this version's and others', and names their ports.
    fn each_layout(
        &self,
        action: impl Fn(&Path) -> Result<Vec<Attachment>, DataPlaneError>,
    ) -> Result<Vec<String>, Failure> {
        let pinned = layouts(&self.pin_dir).map_err(|error| failure(&error))?;
        if pinned.is_empty() {
            return Err(Failure::no_agent(format!(
                "nothing is pinned in {}: there is nothing to take down",
                self.pin_dir.display()
            )));
        }
        let mut ports = Vec::new();
        for (_, path) in pinned {
            ports.extend(names(&action(&path).map_err(|error| failure(&error))?));
        }
        ports.dedup();
        Ok(ports)
    }

    async fn ask_agent(&self) -> anyhow::Result<Vec<String>> {
        let mut client = Client::connect(&self.agent.socket).await?;
        client.request(&Request::Detach).await?;
        let ports = match client.reply().await? {
            Some(Reply::Detached { ports }) => ports,
            Some(other) => return Err(unexpected(&other)),
            None => return Err(Failure::no_agent("the agent gave no answer").into()),
        };
        // The agent closes the connection when it has gone; that it takes its time changes nothing of what it did.
        let _ = tokio::time::timeout(FAREWELL, client.reply()).await;
        Ok(ports)
    }

    fn take_down(&self) -> Result<Vec<String>, Failure> {
        let _locks = Locks::pins(&self.pin_dir)?;
        self.each_layout(detach_all)
    }
}

fn failure(error: &DataPlaneError) -> Failure {
    let text = chain(error);
    if error.is_absence() {
        Failure::no_agent(text)
    } else {
        Failure::no(text)
    }
}

/// The interfaces of these attachments, each once.
fn names(attached: &[Attachment]) -> Vec<String> {
    // Without the list of names, indexes are shown.
    let known = if_nameindex().ok();
    let name = |ifindex: u32| {
        let found = known
            .as_ref()?
            .iter()
            .find(|interface| interface.index() == ifindex)?;
        Some(found.name().to_string_lossy().into_owned())
    };
    let mut names: Vec<_> = attached
        .iter()
        .map(|at| name(at.ifindex).unwrap_or_else(|| format!("#{}", at.ifindex)))
        .collect();
    names.dedup();
    names
}
