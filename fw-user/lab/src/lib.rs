//! Network namespaces with veth pairs and processes, all removed again on every way out; the packets to send there.
//!
//! It knows nothing of a firewall. The tests above the unit level stand on it, and so does `dpufw test --netns`.
//!
//! * [`Namespace`], [`Veth`], [`Process`], small servers, and the places where a firewall may stand ([`Scene`]);
//! * [`packet`]: frames written as a person would describe them, well-formed or broken on purpose;
//! * [`wire`]: raw frames on an interface, for what no ordinary client sends.
//!
//! A namespace's name carries the process id, so that two runs never meet, and so that a later run can sweep what a
//! killed one left behind. Removal happens on drop (a panic included), and on SIGINT and SIGTERM.
//!
//! Nothing here uses `ip netns exec`: it mounts a fresh sysfs and so hides the BPF file system. Threads and children
//! enter a namespace with `setns`.

mod cleanup;
mod disturb;
mod hop;
mod leftover;
mod link;
mod namespace;
pub mod packet;
mod process;
mod serve;
pub(crate) mod tcx;
mod topology;
pub mod wire;

pub use cleanup::remove_all;
pub use disturb::Disturbance;
pub use hop::Hop;
pub use leftover::Leftover;
pub use link::{End, Veth};
pub use namespace::{Namespace, Sent};
pub use process::{Finished, Process};
pub use serve::{TcpService, UdpEcho};
pub use topology::{Host, Options, Scene};

use anyhow::{Result, ensure};
use nix::unistd::Uid;

/// Checks that this process may create namespaces.
///
/// # Errors
/// If it does not run as root: these tests fail then, because a skipped test proves nothing.
pub fn require_root() -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "this test creates network namespaces and loads BPF programs: run it as root (`cargo xtask test` does)"
    );
    Ok(())
}
