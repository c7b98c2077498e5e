//! `dpufw flows`.

use clap::Args;
use comfy_table::Table;

use super::{AgentArgs, output, unexpected};
use crate::control::{Client, FlowFilter, Reply, Request};
use crate::exit::Exit;
use crate::telemetry::{FlowInfo, FlowRecord};

/// List the flows in the connection tables, or follow flows as they end
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw flows\n  dpufw flows -p tcp --dport 22 --state ESTABLISHED\n  \
                        dpufw flows -s 10.10.0.0/16 --json\n  dpufw flows --follow --json   # a record for each flow at its end"
)]
pub(super) struct Flows {
    /// Wait for flows to end and print their records
    #[arg(short, long)]
    follow: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FlowFilter,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Flows {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let mut client = Client::connect(&self.agent.socket).await?;
        client
            .request(&Request::Flows {
                filter: self.filter,
                follow: self.follow,
            })
            .await?;
        let mut table = new_table();
        let mut count = 0_u64;
        while let Some(reply) = client.reply().await? {
            match reply {
                Reply::Flow(flow) if self.json => output::json(&flow)?,
                Reply::Record(record) if self.json => output::json(&record)?,
                Reply::Flow(flow) => add(&mut table, &flow),
                Reply::Record(record) => println!("{}", line(&record)),
                Reply::Missed { count } => {
                    eprintln!("{count} records were left out: this reader was too slow");
                }
                other => return Err(unexpected(&other)),
            }
            count += 1;
        }
        if !self.json && !self.follow {
            output::right(&mut table, &[7, 8]);
            output::print(&mut table);
            println!("{}", output::count(count, "flow"));
        }
        Ok(Exit::Yes)
    }
}

fn new_table() -> Table {
    output::table(&[
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "ZONES",
        "RULE",
        "AGE",
        "PACKETS",
        "BYTES",
    ])
}

/// `a/b`: what the opener has sent and what the other side has.
fn add(table: &mut Table, flow: &FlowInfo) {
    let age = jiff::Timestamp::now().duration_since(flow.start).as_secs_f64();
    table.add_row([
        flow.proto.clone(),
        flow.source(),
        flow.destination(),
        flow.state.clone(),
        format!(
            "{} -> {}",
            zone(flow.src_zone.as_ref()),
            zone(flow.dst_zone.as_ref())
        ),
        flow.rule.clone(),
        output::seconds(age),
        format!("{}/{}", flow.original.packets, flow.reply.packets),
        format!(
            "{}/{}",
            output::bytes(flow.original.bytes),
            output::bytes(flow.reply.bytes)
        ),
    ]);
}

fn zone(zone: Option<&String>) -> &str {
    zone.map_or("-", String::as_str)
}

fn line(record: &FlowRecord) -> String {
    let flow = &record.flow;
    format!(
        "{} {flow} ({} -> {}) rule {}: {} {} after {:.1}s, {} packets {} sent, {} packets {} received",
        record.end,
        zone(flow.src_zone.as_ref()),
        zone(flow.dst_zone.as_ref()),
        flow.rule,
        flow.state,
        record.ended.name(),
        record.duration_s,
        flow.original.packets,
        output::bytes(flow.original.bytes),
        flow.reply.packets,
        output::bytes(flow.reply.bytes),
    )
}
