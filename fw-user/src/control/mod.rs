//! The socket between the command line and the agent: protocol, server, client.

mod answers;
mod client;
mod codec;
mod filter;
mod limits;
mod protocol;
mod server;
mod status;
mod zones;

pub use answers::{
    Agreement, Comparison, DiffFlow, DiffSummary, FloodAnswer, FlowAnswer, FlowQuestion, FrameAnswer,
    FrameQuestion, HostAnswer, KernelAnswer, KnownFlow, LimitAnswer, PortAnswer, SourceAnswer,
};
pub use client::Client;
pub use codec::{Connection, MAX_MESSAGE};
pub use filter::{EventFilter, FlowFilter, PacketFilter};
pub use limits::LimitInfo;
pub use protocol::{Applied, Hello, PROTOCOL, Reply, Request, Session};
pub use server::{Handler, Replies, Server};
pub use status::{
    Cover, Coverage, DropCount, FlowCount, FlowTotals, Heartbeat, PolicyStatus, PortStatus, Status,
    TableStatus, TopSource,
};
pub use zones::{ReloadedZone, ZoneChange, ZoneChanged, ZoneInfo, ZoneMember, ZoneOutcome, ZonesReloaded};
