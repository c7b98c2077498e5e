//! `dpufw limits`.

use clap::Args;

use super::{AgentArgs, output, unexpected};
use crate::control::{Client, LimitInfo, Reply, Request};
use crate::exit::Exit;

/// List the buckets of the policy's rate limits, the fullest first
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw limits\n  dpufw limits --rule admin\n  dpufw limits --top 100 --json\n\n\
                        A bucket at 100% refuses the next unit. Buckets that nobody has used are not there."
)]
pub(super) struct Limits {
    /// List at most so many buckets
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: u32,
    /// Only the limits of this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Limits {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let mut client = Client::connect(&self.agent.socket).await?;
        client
            .request(&Request::Limits {
                top: self.top,
                rule: self.rule,
            })
            .await?;
        let mut table = output::table(&[
            "RULE",
            "LIMIT",
            "BURST",
            "PER",
            "SOURCE",
            "DESTINATION",
            "VLAN",
            "FULL",
        ]);
        while let Some(reply) = client.reply().await? {
            match reply {
                Reply::Limit(limit) if self.json => output::json(&limit)?,
                Reply::Limit(limit) => {
                    table.add_row(row(&limit));
                }
                other => return Err(unexpected(&other)),
            }
        }
        if !self.json {
            output::right(&mut table, &[2, 7]);
            output::print(&mut table);
        }
        Ok(Exit::Yes)
    }
}

fn row(limit: &LimitInfo) -> [String; 8] {
    let dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
    let vlan = match (limit.vlan, limit.inner_vlan) {
        (0, _) => "-".to_owned(),
        (vlan, 0) => vlan.to_string(),
        (vlan, inner) => format!("{vlan}.{inner}"),
    };
    [
        format!("{} #{}", limit.rule, limit.position),
        format!("{} {}", limit.limit, limit.kind),
        dash(limit.burst.map(|burst| burst.to_string()).as_ref()),
        limit.per.clone(),
        dash(limit.source.as_ref()),
        dash(limit.destination.as_ref()),
        vlan,
        format!("{:.0}%", limit.fill * 100.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::row;
    use crate::control::LimitInfo;

    #[test]
    fn a_row_says_who_and_how_full() {
        let limit = LimitInfo {
            rule: "admin".into(),
            position: 1,
            kind: "new_flows".into(),
            limit: "50/s".into(),
            burst: Some(100),
            per: "source".into(),
            source: Some("10.0.0.0/24".into()),
            fill: 0.256,
            ..LimitInfo::default()
        };
        let wanted = [
            "admin #1",
            "50/s new_flows",
            "100",
            "source",
            "10.0.0.0/24",
            "-",
            "-",
            "26%",
        ];
        assert_eq!(row(&limit), wanted);
    }
}
