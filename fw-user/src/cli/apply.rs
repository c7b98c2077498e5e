//! `dpufw apply`.

use std::path::PathBuf;

use clap::Args;

use super::{AgentArgs, ask, output, unexpected};
use crate::control::{Reply, Request, Session};
use crate::exit::{Exit, Failure};
use crate::files::{self, Files};

/// Put a new policy in force on the running agent
///
/// The change is atomic: no packet that both policies allow is lost, and flows that the new one denies end. A policy with
/// an error, one that fails its own expectations, or one that denies your own SSH session, changes nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw apply policy.yaml\n  dpufw apply policy.yaml --json\n  \
                        dpufw apply lock-down.yaml --force   # even if it denies this session"
)]
pub(super) struct Apply {
    /// The policy file
    policy: PathBuf,
    /// Apply it even if it fails its own expectations or denies your own session
    #[arg(long)]
    force: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Apply {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let text = files::read(&self.policy)?;
        // The agent reads the files that the policy names: by its path, wherever this command was called.
        let path = std::path::absolute(&self.policy).unwrap_or_else(|_| self.policy.clone());
        let name = path.display().to_string();
        if !self.force {
            expectations_hold(&text, &name)?;
        }
        let request = Request::Apply {
            name: name.clone(),
            text,
            force: self.force,
            session: Session::own(),
        };
        let progress = output::Progress::start(format!("putting {name} in force"));
        let reply = ask(&self.agent, &request).await;
        drop(progress);
        let reply = reply?;
        let Reply::Applied(applied) = reply else {
            return Err(unexpected(&reply));
        };
        if self.json {
            output::json(&applied)?;
        } else {
            for warning in &applied.warnings {
                eprintln!("{warning}\n");
            }
            println!(
                "{name} is in force as generation {} after {:.1} ms",
                applied.generation, applied.took_ms
            );
        }
        Ok(Exit::Yes)
    }
}

/// Refuses a policy that does not do what it says of itself. Whether it is a policy at all the agent says.
fn expectations_hold(text: &str, name: &str) -> Result<(), Failure> {
    let Ok((policy, _)) = fw_policy::check_files(&Files, text, name) else {
        return Ok(());
    };
    match fw_policy::run_expectations(&policy, &fw_policy::Environment::sample()) {
        Ok(tests) if !tests.passed() => Err(Failure::no(format!(
            "{}\n{name} fails its own expectations and was not applied; --force applies it all the same",
            tests.diagnostics.render(output::colored(&std::io::stderr()))
        ))),
        _ => Ok(()),
    }
}
