//! `dpufw diff`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use fw_policy::space::Scope;
use serde_json::json;

use super::{AgentArgs, ask, load, output, unexpected};
use crate::control::{Client, DiffFlow, DiffSummary, Reply, Request};
use crate::exit::{Exit, Failure};
use crate::files;

/// Live flows that are listed; `--json` has all.
const LISTED: usize = 50;

/// Say what becomes allowed and what denied with another policy
///
/// With two files: for every machine, or for one with --self, and whatever dynamic zones hold. With one file: instead of the
/// policy that the agent enforces, on this machine as it is now, and which live flows would end.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw diff old.yaml new.yaml\n  dpufw diff old.yaml new.yaml --self 10.30.8.4 --json\n  \
                        dpufw diff new.yaml   # instead of what the agent enforces\n\n\
                        Exits with 0 if every flow meets the same fate, with 1 if some do not, with 2 if a file is no policy, \
                        with 3 if no agent answers."
)]
pub(super) struct Diff {
    /// The new policy, or the old and the new one
    #[arg(required = true, num_args = 1..=2, value_name = "POLICY")]
    files: Vec<PathBuf>,
    /// An address of the machine that is meant; every machine if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Diff {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        match self.files.as_slice() {
            [old, new] => self.files(old, new),
            [new] if self.own.is_empty() => self.live(new).await,
            [_] => Err(Failure::input("--self belongs to two files; the agent knows its own machine").into()),
            // clap asks for one or two.
            _ => Err(Failure::input("write one policy or two").into()),
        }
    }

    fn files(&self, old: &Path, new: &Path) -> anyhow::Result<Exit> {
        let (old, new) = (load(old)?, load(new)?);
        let scope = Scope {
            own_addresses: (!self.own.is_empty()).then(|| self.own.clone()),
            any_members: true,
        };
        let progress = output::Progress::start(format!("comparing {} and {}", old.file, new.file));
        let found = fw_policy::diff::diff_in(&old, &new, &scope);
        drop(progress);
        let found = found.map_err(|error| Failure::input(error.to_string()))?;
        if self.json {
            output::json(
                &json!({ "old": old.file, "new": new.file, "same": found.is_empty(), "changes": found }),
            )?;
        } else {
            print!("{found}");
        }
        Ok(if found.is_empty() { Exit::Yes } else { Exit::No })
    }

    async fn live(&self, new: &Path) -> anyhow::Result<Exit> {
        let text = files::read(new)?;
        // The agent reads the files that the policy names: by its path, wherever this command was called.
        let path = std::path::absolute(new).unwrap_or_else(|_| new.to_owned());
        let name = path.display().to_string();
        let request = Request::Compare {
            name: name.clone(),
            text: text.clone(),
        };
        let reply = ask(&self.agent, &request).await?;
        let Reply::Compared(found) = reply else {
            return Err(unexpected(&reply));
        };
        let mut client = Client::connect(&self.agent.socket).await?;
        let (flows, summary) = client.flows_that_end(&name, &text).await?;
        let same = !found.differs && summary.ending == 0;
        if self.json {
            output::json(&json!({
                "old": found.policy,
                "generation": found.generation,
                "new": name,
                "same": same,
                "changes": found.changes,
                "flows": { "live": summary.flows, "ending": summary.ending, "list": flows, "notes": summary.notes },
            }))?;
        } else {
            print!("{}", found.text);
            ending(&flows, &summary);
        }
        Ok(if same { Exit::Yes } else { Exit::No })
    }
}

/// The live flows that would end.
fn ending(flows: &[DiffFlow], summary: &DiffSummary) {
    println!(
        "{} of {} would end",
        summary.ending,
        output::count(summary.flows, "live flow")
    );
    if !flows.is_empty() {
        let mut table = output::table(&["protocol", "source", "destination", "allowed by", "then"]);
        for flow in flows.iter().take(LISTED) {
            let then = match &flow.new_rule {
                Some(rule) => format!("{} by {rule}", flow.reason),
                None => flow.reason.clone(),
            };
            let info = &flow.flow;
            table.add_row([
                info.proto.clone(),
                info.source(),
                info.destination(),
                info.rule.clone(),
                then,
            ]);
        }
        output::print(&mut table);
        if flows.len() > LISTED {
            println!("and {} more (--json has all)", flows.len() - LISTED);
        }
    }
    for note in &summary.notes {
        println!("note: {note}");
    }
}
