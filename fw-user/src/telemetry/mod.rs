//! What the agent says about the network: dropped packets, flow records, metrics.

mod clock;
mod drops;
mod flow;
mod flow_log;
pub mod http;
mod metrics;
mod names;
mod proto;

pub use clock::WallClock;
pub use drops::DropRecord;
pub use flow::{Direction, Ended, FlowInfo, FlowRecord, Table, family_and_proto, state_name};
pub use flow_log::FlowLog;
pub use metrics::{Snapshot, render};
pub use names::{Kind, Names};
pub use proto::{proto_name, proto_number};
