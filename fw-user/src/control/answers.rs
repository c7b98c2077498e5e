//! Questions about flows and frames on a running data plane, and their answers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LimitInfo;
use crate::telemetry::FlowInfo;

/// A flow, and how its first packet comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuestion {
    /// As `dpufw explain` writes it: `tcp 10.0.0.1 10.0.0.2:22`.
    pub flow: String,
    /// VLAN ids of the packet, the outer one first, 0: none; nothing: those of the flow's zones.
    pub tags: Option<(u16, u16)>,
    /// Role of the port that it comes in by (that a packet of this machine leaves by).
    pub role: Option<String>,
    /// Mode `inline`: role of the pair's other port.
    pub peer: Option<String>,
}

/// What the policy says, looked up on the host in the tables that are in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// `allow`, `deny` or `reject`.
    pub verdict: String,
    /// Machine name of the reason.
    pub reason: String,
    /// The rule that decides.
    pub rule: Option<String>,
    /// The whole explanation: classes, rules before it and why they did not match.
    pub document: serde_json::Value,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// What the kernel's program says of a packet, asked without a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAnswer {
    /// The port.
    pub port: String,
    /// Its role.
    pub role: String,
    /// `xdp`, `tc_in` or `tc_out`.
    pub hook: String,
    /// `pass`, `forward`, `drop` or `reply`.
    pub verdict: String,
    /// Machine name of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// The rule that it names; none: the default, or no rule was asked.
    pub rule: Option<String>,
}

impl KernelAnswer {
    /// True if the packet passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.verdict.as_str(), "pass" | "forward")
    }
}

/// How the two answers fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The same rule, the same reason.
    Same,
    /// The same rule allows it; a limit, a flood, a ban or a full table refuses it now.
    Refused,
    /// The packet belongs to a flow that is in the tables: its state decides, not the rules.
    State,
    /// They contradict each other: a bug of dpufw, or tables that were tampered with.
    Differs,
}

/// One port's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortAnswer {
    /// The host's.
    pub host: HostAnswer,
    /// The kernel's.
    pub kernel: KernelAnswer,
    /// How they fit.
    pub agreement: Agreement,
}

/// A flow in the tables that the question is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownFlow {
    /// The flow.
    pub flow: FlowInfo,
    /// It is the flow asked about, port by port; else it has another source port.
    pub exact: bool,
    /// It was opened by the destination of the question.
    pub opposite: bool,
    /// The policy in force has allowed it; else its next packet is judged again.
    pub current: bool,
    /// Seconds until it ends if nothing is sent.
    pub expires_s: f64,
}

/// A limit of the deciding rule, and its bucket for this flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitAnswer {
    /// The limit; its fill is that of the bucket that the flow would draw from.
    pub limit: LimitInfo,
    /// It would refuse the flow now.
    pub refuses: bool,
}

/// What is known of the flow's source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceAnswer {
    /// The source; of IPv6 its /64.
    pub source: String,
    /// Flows that it has opened in the last 34 s and not confirmed.
    pub unconfirmed: u32,
    /// The most it may have; none: no cap.
    pub unconfirmed_cap: Option<u32>,
    /// Confirmed flows.
    pub flows: u32,
    /// The most it may have; none: no cap.
    pub flows_cap: Option<u32>,
    /// When its ban ends.
    pub banned_until: Option<Timestamp>,
    /// Until when it counts as proved.
    pub proved_until: Option<Timestamp>,
    /// The caps and bans do not hold for it: the zone is exempt or a lifeline, or it is this machine.
    pub spared: bool,
}

/// The flows to the destination that a threshold counts: half-open ones of TCP, new ones of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloodAnswer {
    /// `syn_flood`, `udp_flood` or `icmp_flood`.
    pub threshold: String,
    /// `skip`, `count` or `drop`.
    pub mode: String,
    /// Fill of the destination's bucket, 0 to 1: at 1 the threshold strikes.
    pub destination: f64,
    /// Fill of the bucket of all destinations together.
    pub all: f64,
}

/// The answer to a [`FlowQuestion`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// Generation of the policy in force.
    pub generation: u32,
    /// One for each port that was asked.
    pub ports: Vec<PortAnswer>,
    /// Flows in the tables with these ends, at most ten.
    pub flows: Vec<KnownFlow>,
    /// Flows that were left out of the list.
    pub more_flows: u64,
    /// Limits of the deciding rule.
    pub limits: Vec<LimitAnswer>,
    /// Its source, if anything is known of it.
    pub source: Option<SourceAnswer>,
    /// Floods to its destination.
    pub flood: Option<FloodAnswer>,
}

impl FlowAnswer {
    /// True if the packet passes at each port that was asked.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.ports.is_empty() && self.ports.iter().all(|port| port.kernel.passes())
    }

    /// True if host and kernel contradict each other somewhere.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.ports.iter().any(|port| port.agreement == Agreement::Differs)
    }
}

/// A frame to be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameQuestion {
    /// Its bytes in hexadecimal digits.
    pub hex: String,
    /// Bytes that it had on the wire, if more than are known: the rest is taken as zeros.
    pub length: u32,
    /// It begins with the IP header.
    pub raw: bool,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameAnswer {
    /// The packet in one line.
    pub flow: String,
    /// The kernel's answer; none if it could not be asked.
    pub kernel: Option<KernelAnswer>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// A live flow that would end under another policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffFlow {
    /// The flow, with the rule that allowed it.
    pub flow: FlowInfo,
    /// The rule that would deny it; none: the default.
    pub new_rule: Option<String>,
    /// Machine name of the reason.
    pub reason: String,
}

/// What another policy would allow and deny that the one in force does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Generation of the policy in force.
    pub generation: u32,
    /// The file that it came from.
    pub policy: String,
    /// True if some flow would meet another fate.
    pub differs: bool,
    /// The differences for people, a line each.
    pub text: String,
    /// The same as JSON: a [`fw_policy::diff::Diff`].
    pub changes: serde_json::Value,
}

/// How many live flows would end under another policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSummary {
    /// Live flows.
    pub flows: u64,
    /// Those that would end with their next packet.
    pub ending: u64,
    /// What else is to be said, one sentence each.
    pub notes: Vec<String>,
}
