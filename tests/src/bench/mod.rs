//! The bench: dpufw's packet path beside the least that any program could do, on the same packets in the same rounds.
//!
//! A generator sends frames through an inline pair to a sink. Everything stays in place except for the program at the
//! pair's first port, which is exchanged from slice to slice: A B C A B C. Absolute rates of a machine wander by a third
//! within half a minute, the ratios of one round by a few per cent; so the result is the median of the rounds' ratios.
//! Afterwards the counters must say that every packet went the way that was meant to be measured.

mod cases;
pub mod classify;
mod floor;
mod frames;
mod link;
mod machine;
mod plane;
mod report;
mod rounds;
mod stand;
mod stats;
mod watch;

use std::time::Duration;

use anyhow::Result;

pub use cases::Case;
pub use machine::Machine;
pub use report::{Row, Target, markdown, write_json};

use stand::Wires;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rounds that count; one more warms up.
    pub rounds: usize,
    /// Length of a slice: one contender in one round.
    pub slice: Duration,
    /// CPUs that generate, each with flows of its own.
    pub cpus: u32,
    /// Flows of `established`, sources of `deny`.
    pub flows: u32,
}

/// Runs cases one after the other; says on stderr where it stands.
///
/// # Errors
/// If something cannot be set up, or packets went another way than meant.
pub fn run(cases: &[Case], settings: &Settings) -> Result<Vec<Row>> {
    let machine = Machine::here();
    let wires = Wires::new()?;
    let mut rows = Vec::new();
    for case in cases {
        rows.extend(wires.in_firewall(|| case.measure(&wires, settings, &machine))?);
    }
    Ok(rows)
}
