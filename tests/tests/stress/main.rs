//! Load from both CPUs: limits, races, floods, full tables, revocation of many flows.
//!
//! Two kinds of rigs: the programs run on given frames by two threads, each on a CPU of its own ([`rig`]), and real clients
//! and servers with the data plane between them ([`floods`], [`revocation`]). The tests measure rates and share two CPUs, so
//! each waits for its turn ([`rig::turn`]).

mod demand;
mod directions;
mod floods;
mod full;
#[path = "../netns/guarded.rs"]
#[expect(dead_code, reason = "the scenarios of `netns` use more of it")]
mod guarded;
mod limits;
mod police;
mod restart;
mod revocation;
mod rig;
mod spoofed;
mod traffic;

use std::time::Duration;

/// Packets that a rate per second asks for in a time.
fn due(elapsed: Duration, rate: u32) -> u32 {
    u32::try_from(elapsed.as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u32::MAX)
}
