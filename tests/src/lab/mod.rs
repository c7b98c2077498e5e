//! The lab of the crate `fw-lab`, and a real agent in it.

mod agent;

pub use agent::Agent;
pub use fw_lab::{
    Disturbance, End, Finished, Hop, Host, Leftover, Namespace, Options, Process, Scene, Sent, TcpService,
    UdpEcho, Veth, remove_all, require_root,
};
