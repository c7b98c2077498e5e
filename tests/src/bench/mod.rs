//! The bench: dpufw's packet path beside the least that any program could do and beside its peers, on the same packets in the
//! same rounds.
//!
//! A generator sends frames through an inline pair to a sink. Everything stays in place except for the program at the
//! pair's first port, which is exchanged from slice to slice: A B C A B C. Peers in the kernel have wires of their own.
//! Absolute rates of a machine wander by a third within half a minute, the ratios of one round by a few per cent; so the
//! result is the median of the rounds' ratios. Afterwards the counters must say that every packet went the way that was
//! meant to be measured.

mod classify;
mod compare;
mod counters;
mod deny;
mod established;
mod filter;
mod floor;
mod frames;
mod gap;
mod latency;
mod link;
mod machine;
mod memory;
mod new_flows;
mod ns;
mod peers;
mod plane;
mod plots;
mod report;
mod scale;
mod stand;
mod stats;
mod syn_flood;
mod times;
mod turns;
mod watch;

use std::time::Duration;

use anyhow::Result;

pub use compare::{Verdict, compare};
pub use machine::Machine;
pub use plots::plots;
pub use report::{Row, Target, markdown, read_json, write_json};

use stand::Wires;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rounds that count; one more warms up.
    pub rounds: usize,
    /// Length of a slice: one contender in one round.
    pub slice: Duration,
    /// Few cases and the peers that have targets.
    pub quick: bool,
    /// Only cases with this in their name.
    pub only: Option<String>,
}

impl Settings {
    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only.as_str()))
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Packets of flows that are in the main table.
    Established,
    /// Packets that no rule allows.
    Deny,
    /// First packets and denied ones, by the size of the policy.
    Classify,
    /// Compiling and applying a policy.
    Policy,
    /// The program alone, by the packet's way through it.
    Ns,
    /// What flows, rules and prefixes take, and the agent.
    Memory,
    /// How long a packet is on its way.
    Latency,
    /// Two CPUs beside one.
    Scale,
    /// Whole TCP connections.
    NewFlows,
    /// Established flows during a flood of SYNs.
    SynFlood,
}

impl Table {
    /// All tables, in order.
    pub const ALL: [Self; 10] = [
        Self::Established,
        Self::Deny,
        Self::Classify,
        Self::Policy,
        Self::Ns,
        Self::Memory,
        Self::Latency,
        Self::Scale,
        Self::NewFlows,
        Self::SynFlood,
    ];
    /// Those of `--quick`, unless tables are named.
    pub const QUICK: [Self; 2] = [Self::Established, Self::Deny];

    /// Name on the command line and in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Deny => "deny",
            Self::Classify => "classify",
            Self::Policy => "policy",
            Self::Ns => "ns",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::Scale => "scale",
            Self::NewFlows => "new-flows",
            Self::SynFlood => "syn-flood",
        }
    }

    fn measure(self, settings: &Settings) -> Result<Vec<Row>> {
        match self {
            Self::Established => {
                let mut rows = Vec::new();
                for case in established::Case::list(settings.quick) {
                    if settings.wants(&case.name()) {
                        rows.extend(established::measure(case, &Wires::new()?, settings)?);
                    }
                }
                rows.extend(established::families(&rows));
                Ok(rows)
            }
            Self::Deny => {
                let mut rows = Vec::new();
                for case in deny::Case::list(settings.quick) {
                    if settings.wants(&case.name()) {
                        rows.extend(deny::measure(case, &Wires::new()?, settings)?);
                    }
                }
                Ok(rows)
            }
            Self::Classify => classify::run(settings),
            Self::Policy => {
                let mut rows = classify::policies(settings)?;
                if settings.wants(gap::NAME) {
                    rows.extend(gap::measure(settings)?);
                }
                Ok(rows)
            }
            Self::Ns => ns::run(settings),
            Self::Memory => memory::run(settings),
            Self::Latency => latency::run(settings),
            Self::Scale => scale::run(settings),
            Self::NewFlows => new_flows::run(settings),
            Self::SynFlood => syn_flood::run(settings),
        }
    }
}

/// Measures tables one after the other; says on stderr where it stands. Where something cannot be set up, or packets went another
/// way than meant, a table has no rows but an error, and the others go on.
#[must_use]
pub fn run(tables: &[Table], settings: &Settings) -> (Vec<Row>, Vec<anyhow::Error>) {
    // Asked before any thread is bound to a CPU: it counts those that it may use.
    let _ = Machine::here();
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for table in tables {
        match table.measure(settings) {
            Ok(measured) => rows.extend(measured),
            Err(error) => errors.push(error.context(format!("the table {}", table.name()))),
        }
    }
    (rows, errors)
}
