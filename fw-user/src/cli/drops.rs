//! `dpufw drops`.

use clap::Args;

use super::{AgentArgs, output, unexpected};
use crate::control::{Client, EventFilter, Reply, Request};
use crate::exit::Exit;

/// Show denied packets, and those that rules with `log` or `audit` and screens in mode `count` report: the last ones, or
/// with --follow new ones as they come
///
/// The kernel reports a limited number per second, so that a flood costs nothing; `dpufw status` and the metrics count
/// every packet.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw drops\n  dpufw drops --follow\n  dpufw drops --follow -p tcp --dport 22 --json\n  \
                        dpufw drops --kind audit   # what a rule on trial would deny"
)]
pub(super) struct Drops {
    /// Go on with new ones
    #[arg(short, long)]
    follow: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: EventFilter,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Drops {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let mut client = Client::connect(&self.agent.socket).await?;
        client
            .request(&Request::Drops {
                filter: self.filter,
                follow: self.follow,
            })
            .await?;
        while let Some(reply) = client.reply().await? {
            match reply {
                Reply::Drop(drop) if self.json => output::json(&drop)?,
                Reply::Drop(drop) => println!("{drop}"),
                Reply::Missed { count } => {
                    eprintln!("{count} packets were left out: this reader was too slow");
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(Exit::Yes)
    }
}
