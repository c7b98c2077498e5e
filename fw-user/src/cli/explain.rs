//! `dpufw explain`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use fw_policy::model::{RuleAction, Tags};
use fw_policy::{Asked, FlowSpec};

use super::check::environment;
use super::output;
use crate::exit::{Exit, Failure};
use crate::files;

/// Say how a policy decides a flow: which rule, which line, why not the others
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw explain tcp 10.10.0.5 10.20.0.7:2049 --policy policy.yaml\n  \
                        dpufw explain udp gpu storage:4791 --policy policy.yaml   # names of zones work for addresses\n  \
                        dpufw explain icmp bastion self --policy policy.yaml --self 10.30.8.4\n  \
                        dpufw explain tcp fd00:10::5 [fd00:20::7]:22 --policy policy.yaml --vlan 101 --json\n\n\
                        Exits with 0 if the flow is allowed, with 1 if it is denied or rejected."
)]
pub(super) struct Explain {
    /// Protocol, source, destination with port; for icmp also a type
    #[arg(required = true, num_args = 3..=4, value_name = "FLOW")]
    flow: Vec<String>,
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Role of the port that the packet comes in by
    #[arg(long = "in", value_name = "ROLE")]
    role: Option<String>,
    /// Mode inline: role of the pair's other port
    #[arg(long = "out", value_name = "ROLE", requires = "role")]
    peer: Option<String>,
    /// VLAN id of the packet, or two such as 100.7, the outer tag first; those of the flow's zones if none is given
    #[arg(long, value_name = "ID")]
    vlan: Option<Tags>,
    /// An address of the machine that the policy is for; documentation addresses if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        let flow: FlowSpec = self
            .flow
            .join(" ")
            .parse()
            .map_err(|error| Failure::input(format!("{error}")))?;
        let name = self.policy.display().to_string();
        let (policy, _) = files::policy(&self.policy)?.map_err(|findings| {
            Failure::input(format!(
                "{name} is no valid policy\n{}",
                findings.render(output::colored(&std::io::stderr()))
            ))
        })?;
        let environment = environment(&policy, &self.own);
        let tables =
            fw_policy::compile(&policy, &environment).map_err(|error| Failure::input(error.to_string()))?;
        let asked = Asked {
            flow: &flow,
            tags: self.vlan,
            role: self.role.as_deref(),
            peer: self.peer.as_deref(),
        };
        let explanation = fw_policy::ask(&policy, &tables, &environment, &asked)
            .map_err(|error| Failure::input(error.to_string()))?;
        if self.json {
            output::json(&explanation)?;
        } else {
            print!("{explanation}");
        }
        Ok(if explanation.verdict == RuleAction::Allow {
            Exit::Yes
        } else {
            Exit::No
        })
    }
}
