//! The socket between the command line and the agent: protocol, server, client.

mod client;
mod codec;
mod filter;
mod protocol;
mod server;
mod status;

pub use client::Client;
pub use codec::{Connection, MAX_MESSAGE};
pub use filter::{FlowFilter, PacketFilter};
pub use protocol::{Applied, Hello, PROTOCOL, Reply, Request, Session};
pub use server::{Handler, Replies, Server};
pub use status::{
    Cover, Coverage, DropCount, FlowCount, FlowTotals, PolicyStatus, PortStatus, Status, TableStatus,
};
