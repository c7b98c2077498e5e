//! dpufw's library: everything that the binary `dpufw` does.
//!
//! - [`cli`]: one file per subcommand; nothing but arguments, calls and output.
//! - [`agent`]: configuration and life cycle of the agent.
//! - [`confirm`]: a proof, confirmed by the kernel's own program.
//! - [`control`]: the protocol between the two, with server and client of the Unix socket.
//! - [`files`]: policies on disk.
//! - [`dataplane`]: the only place that names aya: load, attach, pin, swap, list, test-run.
//! - [`netns`]: a policy's expectations as real packets, for `dpufw test --netns`.
//! - [`replay`]: captured packets, judged without a data plane.
//! - [`telemetry`]: what the agent says: dropped packets, flow records, metrics.

pub mod agent;
pub mod cli;
pub mod confirm;
pub mod control;
pub mod dataplane;
pub mod exit;
pub mod files;
pub mod netns;
pub mod replay;
pub mod telemetry;
