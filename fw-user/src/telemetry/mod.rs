//! What the agent says about the network: dropped packets, flow records, metrics.

mod clock;
mod drops;
mod flow;
mod flow_log;
pub mod http;
mod metrics;
mod names;
mod proto;
mod realm;

pub use clock::{WallClock, boot_unix_s};
pub use drops::{DropRecord, RecordKind};
pub use flow::{Direction, Ended, FlowInfo, FlowRecord, Table, family_and_proto, state_name, state_names};
pub use flow_log::FlowLog;
pub use metrics::{Snapshot, render};
pub use names::{Kind, Names};
pub use proto::{proto_name, proto_number};
pub use realm::Realm;
