//! The agent's life: start, crash, restart, policies, detach. What the data plane enforces goes on meanwhile.
//!
//! Each test has namespaces, pins, a socket and a state directory of its own; the traffic and the agent are real.

mod coverage;
mod detach;
mod explain;
mod policies;
mod records;
mod restart;
mod site;
mod swaps;
mod tables;
mod takeover;
mod zones;
