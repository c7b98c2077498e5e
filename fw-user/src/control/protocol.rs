//! Messages. Each is one JSON document in a length-delimited frame.
//!
//! A connection begins with a [`Hello`] from either side; then the client sends one [`Request`] and reads [`Reply`]s
//! until [`Reply::End`], an error, or the end of the connection. The version counts every change of a message's
//! meaning, so that an old command line meets a new agent with a sentence and not with a riddle.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Comparison, DiffFlow, DiffSummary, EventFilter, FlowAnswer, FlowFilter, FlowQuestion, FrameAnswer,
    FrameQuestion, LimitInfo, Status, ZoneChange, ZoneChanged, ZoneInfo, ZonesReloaded,
};
use crate::exit::Failure;
use crate::telemetry::{DropRecord, FlowInfo, FlowRecord};

/// Version of the messages in this module.
pub const PROTOCOL: u32 = 3;

/// The first message in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
    /// Process id of the sender.
    pub pid: u32,
}

impl Hello {
    /// This program's greeting.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        }
    }
}

/// The SSH session that a command is run from, as `SSH_CONNECTION` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Where the operator sits.
    pub client: IpAddr,
    /// The operator's port.
    pub client_port: u16,
    /// This machine's address.
    pub server: IpAddr,
    /// The SSH server's port.
    pub server_port: u16,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "value", rename_all = "snake_case")]
pub enum Request {
    /// What runs, what is covered, what is wrong.
    Status,
    /// Put a new policy in force.
    Apply {
        /// Name of the file, for messages.
        name: String,
        /// The policy's text.
        text: String,
        /// Apply even a policy that locks the caller out.
        force: bool,
        /// The caller's session.
        session: Option<Session>,
    },
    /// The flows in the tables, or with `follow` the records of flows as they end.
    Flows {
        /// Which.
        filter: FlowFilter,
        /// Wait for records.
        follow: bool,
    },
    /// The denied and reported packets kept in memory, then with `follow` the new ones.
    Drops {
        /// Which.
        filter: EventFilter,
        /// Go on with new ones.
        follow: bool,
    },
    /// The buckets of the policy's limits, the fullest first.
    Limits {
        /// At most so many.
        top: u32,
        /// Of this rule only.
        rule: Option<String>,
    },
    /// Put addresses into dynamic zones, and take them out; answered when it is in force.
    ChangeZones {
        /// All or none; in one new generation.
        changes: Vec<ZoneChange>,
        /// Even if it locks the caller out.
        force: bool,
        /// The caller's session.
        session: Option<Session>,
    },
    /// Read the files of the policy's zones again.
    ReloadZones {
        /// Even if it locks the caller out.
        force: bool,
        /// The caller's session.
        session: Option<Session>,
    },
    /// The members of dynamic zones.
    Zones {
        /// Of this zone only.
        zone: Option<String>,
    },
    /// How would a flow be decided now?
    Explain(FlowQuestion),
    /// What would become of these frames now, each by itself?
    Judge {
        /// The frames.
        frames: Vec<FrameQuestion>,
        /// Role of the port that they come by.
        role: Option<String>,
        /// Mode `inline`: role of the pair's other port.
        peer: Option<String>,
    },
    /// Which live flows would end under this policy?
    Diff {
        /// Name of the file, for messages.
        name: String,
        /// The policy's text.
        text: String,
    },
    /// What would this policy allow and deny that the one in force does not?
    Compare {
        /// Name of the file, for messages.
        name: String,
        /// The policy's text.
        text: String,
    },
    /// Take everything down and stop.
    Detach,
}

/// A policy was put in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The new generation.
    pub generation: u32,
    /// Milliseconds for checking, compiling, filling the tables and the switch.
    pub took_ms: f64,
    /// Warnings about the policy, as text.
    pub warnings: Vec<String>,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Apply`].
    Applied(Applied),
    /// A live flow.
    Flow(Box<FlowInfo>),
    /// A flow that ended.
    Record(Box<FlowRecord>),
    /// A denied or reported packet.
    Drop(Box<DropRecord>),
    /// A bucket of a limit.
    Limit(Box<LimitInfo>),
    /// To [`Request::ChangeZones`].
    ZonesChanged(Box<ZoneChanged>),
    /// To [`Request::ReloadZones`].
    ZonesReloaded(Box<ZonesReloaded>),
    /// A dynamic zone.
    Zone(Box<ZoneInfo>),
    /// To [`Request::Explain`].
    Explained(Box<FlowAnswer>),
    /// To [`Request::Judge`], one for each frame.
    Judged(Box<FrameAnswer>),
    /// A flow that would end.
    Ends(Box<DiffFlow>),
    /// To [`Request::Diff`], behind the flows.
    Differs(DiffSummary),
    /// To [`Request::Compare`].
    Compared(Box<Comparison>),
    /// The reader was too slow; so many items were left out.
    Missed {
        /// Items.
        count: u64,
    },
    /// To [`Request::Detach`]: ports that are open now.
    Detached {
        /// Their names.
        ports: Vec<String>,
    },
    /// It did not work.
    Failed(Failure),
    /// Nothing follows.
    End,
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Flow, Key4, StateWord};

    use super::{Applied, Reply, Request};
    use crate::dataplane::FlowKey;
    use crate::exit::Failure;
    use crate::telemetry::{FlowInfo, FlowRecord, Names, Table, WallClock};

    #[test]
    fn messages_survive_json() {
        let requests = [
            Request::Status,
            Request::Apply {
                name: "p.yaml".into(),
                text: "version: 1".into(),
                force: false,
                session: None,
            },
            Request::Detach,
        ];
        for request in requests {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let key = FlowKey::V4(Key4::default());
        let flow = FlowInfo::new(
            &key,
            &Flow::default(),
            Table::Main,
            &Names::default(),
            &WallClock::read(),
        );
        let record = FlowRecord::new(flow.clone(), StateWord(0), false);
        let replies = [
            Reply::Flow(Box::new(flow)),
            Reply::Record(Box::new(record)),
            Reply::Applied(Applied {
                generation: 3,
                took_ms: 0.5,
                warnings: vec!["empty".into()],
            }),
            Reply::Failed(Failure::no("denied")),
            Reply::Missed { count: 2 },
            Reply::End,
        ];
        for reply in replies {
            let text = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
        }
    }
}
