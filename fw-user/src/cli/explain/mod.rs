//! `dpufw explain`.

mod frames;
mod live;
mod text;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use fw_policy::model::{RuleAction, Tags};
use fw_policy::{Asked, Environment, FlowSpec, Policy, TableSet};

use super::check::environment;
use super::{AgentArgs, output};
use crate::exit::{Exit, Failure};
use crate::files;

/// Say how a flow or a packet is decided: which rule, which line, why not the others
///
/// Without --policy it asks the running data plane: what the policy in force says, what the kernel's own program says, the
/// flow's entry if there is one, limits, caps and floods. Asking leaves no trace.
#[derive(Args)]
#[command(after_help = "Examples:\n  dpufw explain tcp 10.10.0.5 10.20.0.7:2049\n  \
                        dpufw explain udp gpu storage:4791 --policy policy.yaml   # names of zones work for addresses\n  \
                        dpufw explain icmp bastion self --policy policy.yaml --self 10.30.8.4\n  \
                        dpufw explain tcp fd00:10::5 [fd00:20::7]:22 --in rail --vlan 101 --json\n  \
                        dpufw explain --pcap trace.pcap --policy policy.yaml   # a row for each packet\n  \
                        xxd -p frame.bin | dpufw explain --hex -\n\n\
                        Exits with 0 if the flow (with --hex and --pcap: each packet) passes, with 1 if it is denied or rejected.\n\
                        With --policy, packets of a capture are judged one after the other, as by a machine that has no flows at\n\
                        the beginning; on a running data plane each by itself, against the flows that are there now.")]
pub(super) struct Explain {
    /// Protocol, source, destination with port; for icmp also a type
    #[arg(num_args = 3..=4, value_name = "FLOW", required_unless_present_any = ["hex", "pcap"], conflicts_with_all = ["hex", "pcap"])]
    flow: Vec<String>,
    /// A frame in hexadecimal digits, from its Ethernet header on; - reads it from standard input
    #[arg(long, value_name = "BYTES", conflicts_with = "pcap")]
    hex: Option<String>,
    /// A capture (pcap, pcapng) of Ethernet frames or raw IP packets
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Ask this policy file instead of the running data plane
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Role of the port that the packet comes in by
    #[arg(long = "in", value_name = "ROLE")]
    role: Option<String>,
    /// Mode inline: role of the pair's other port
    #[arg(long = "out", value_name = "ROLE", requires = "role")]
    peer: Option<String>,
    /// VLAN id of the packet, or two such as 100.7, the outer tag first; those of the flow's zones if none is given
    #[arg(long, value_name = "ID", conflicts_with_all = ["hex", "pcap"])]
    vlan: Option<Tags>,
    /// An address of the machine that the policy is for; documentation addresses if none is given
    #[arg(long = "self", value_name = "ADDR", requires = "policy")]
    own: Vec<IpAddr>,
    /// Print JSON; with --pcap one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A policy, compiled for a machine that is not this one.
struct Offline {
    policy: Policy,
    environment: Environment,
    tables: TableSet,
}

impl Explain {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        match (&self.policy, self.packets()?) {
            (Some(policy), Some(packets)) => frames::offline(&self, &self.compiled(policy)?, packets),
            (None, Some(packets)) => frames::live(&self, packets).await,
            (Some(policy), None) => self.flow_offline(&self.compiled(policy)?),
            (None, None) => live::flow(&self).await,
        }
    }

    /// The packets that are asked about, unless it is a flow.
    fn packets(&self) -> Result<Option<frames::Packets>, Failure> {
        match (&self.hex, &self.pcap) {
            (Some(hex), _) => frames::Packets::hex(hex).map(Some),
            (None, Some(path)) => frames::Packets::capture(path).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn compiled(&self, path: &Path) -> Result<Offline, Failure> {
        let name = path.display().to_string();
        let (policy, _) = files::policy(path)?.map_err(|findings| {
            Failure::input(format!(
                "{name} is no valid policy\n{}",
                findings.render(output::colored(&std::io::stderr()))
            ))
        })?;
        let mut environment = environment(&policy, &self.own);
        for role in [&self.role, &self.peer].into_iter().flatten() {
            if let Some(doubt) = fw_policy::unnamed_role(&policy, role) {
                eprintln!("warning: {doubt}");
            }
            if !environment.roles.contains(role) {
                environment.roles.push(role.clone());
            }
        }
        let _progress = output::Progress::start(format!("compiling {name}"));
        let tables =
            fw_policy::compile(&policy, &environment).map_err(|error| Failure::input(error.to_string()))?;
        Ok(Offline {
            policy,
            environment,
            tables,
        })
    }

    /// The flow as one text.
    fn flow_text(&self) -> String {
        self.flow.join(" ")
    }

    fn flow_offline(&self, compiled: &Offline) -> anyhow::Result<Exit> {
        let flow: FlowSpec = self
            .flow_text()
            .parse()
            .map_err(|error| Failure::input(format!("{error}")))?;
        let asked = Asked {
            flow: &flow,
            tags: self.vlan,
            role: self.role.as_deref(),
            peer: self.peer.as_deref(),
            guarded: false,
        };
        let Offline {
            policy,
            environment,
            tables,
        } = compiled;
        let explanation = fw_policy::ask(policy, tables, environment, &asked)
            .map_err(|error| Failure::input(error.to_string()))?
            .at(policy, jiff::Timestamp::now().as_second());
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
