//! The command line: one file per subcommand.

mod apply;
mod check;
mod completions;
mod detach;
mod diff;
mod drops;
mod explain;
mod flows;
mod limits;
mod man;
mod output;
mod prove;
mod run;
mod schema;
mod status;
mod test;
mod zone;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use fw_policy::Policy;

use crate::agent::DEFAULT_SOCKET;
use crate::control::{Client, Reply, Request};
use crate::exit::{Exit, Failure, exit_of};
use crate::files;

const EXIT_CODES: &str = "Exit codes: 0 yes; 1 the answer is no (denied, different, degraded); 2 bad input; 3 no agent or \
                          no privilege.";

/// A stateful zero-trust firewall for the machines of an AI cluster, in eBPF
#[derive(Parser)]
#[command(name = "dpufw", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Check(check::Check),
    Test(test::Test),
    Schema(schema::Schema),
    Explain(explain::Explain),
    Diff(diff::Diff),
    Prove(prove::Prove),
    Apply(apply::Apply),
    Status(status::StatusArgs),
    Flows(flows::Flows),
    Drops(drops::Drops),
    Limits(limits::Limits),
    Zone(zone::Zone),
    Detach(detach::Detach),
    Completions(completions::Completions),
    Man(man::Man),
}

/// How to reach the agent.
#[derive(Args)]
struct AgentArgs {
    /// The agent's control socket
    #[arg(long, value_name = "PATH", env = "DPUFW_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// What `dpufw` does.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(run) => run.execute(),
        // Its namespaces must be taken away again, so no signal may end it unasked.
        Command::Test(test) => test.execute(),
        other => client(other),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            exit_of(&error).into()
        }
    }
}

/// Every command but the agent itself: short-lived, and silent when its reader goes away (`dpufw flows | head`).
fn client(command: Command) -> anyhow::Result<Exit> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no other thread runs yet and the default action is no handler of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Run(_) | Command::Test(_) => Ok(Exit::BadInput),
            Command::Check(check) => check.execute(),
            Command::Explain(explain) => explain.execute().await,
            Command::Diff(diff) => diff.execute().await,
            Command::Prove(prove) => prove.execute(),
            Command::Schema(schema) => schema.execute(),
            Command::Apply(apply) => apply.execute().await,
            Command::Status(status) => status.execute().await,
            Command::Flows(flows) => flows.execute().await,
            Command::Drops(drops) => drops.execute().await,
            Command::Limits(limits) => limits.execute().await,
            Command::Zone(zone) => zone.execute().await,
            Command::Detach(detach) => detach.execute().await,
            Command::Completions(completions) => Ok(completions.execute(&mut Cli::command())),
            Command::Man(man) => man.execute(Cli::command()),
        }
    })
}

/// Asks the agent for one thing.
async fn ask(agent: &AgentArgs, request: &Request) -> Result<Reply, Failure> {
    let mut client = Client::connect(&agent.socket).await?;
    client.request(request).await?;
    client
        .reply()
        .await?
        .ok_or_else(|| Failure::no_agent("the agent gave no answer"))
}

/// Reads and checks a policy; its warnings are the affair of `dpufw check`.
fn load(path: &std::path::Path) -> Result<Policy, Failure> {
    let name = path.display().to_string();
    let checked = files::policy(path)?;
    checked.map(|(policy, _)| policy).map_err(|findings| {
        Failure::input(format!(
            "{name} is no valid policy\n{}",
            findings.render(output::colored(&std::io::stderr()))
        ))
    })
}

/// The agent answered something that does not belong to the question.
fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow::anyhow!("the agent answered something else than was asked: {reply:?}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_reads_has_json_and_examples() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(sub.get_about().is_some(), "{name} says what it does");
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{name} has examples");
            if [
                "check", "test", "explain", "diff", "prove", "status", "flows", "drops", "limits", "apply",
            ]
            .contains(&name)
            {
                assert!(
                    sub.get_arguments().any(|arg| arg.get_id() == "json"),
                    "{name} has --json"
                );
            }
        }
    }
}
