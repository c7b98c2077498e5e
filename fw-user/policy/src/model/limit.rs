//! Limits of rules.

use std::fmt;

use fw_common::abi::{LimitKind, LimitPer};
use fw_common::limit::Rate;

use super::units;

/// A limit of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Stable id, made from the rule's name and the limit's place.
    pub id: u32,
    /// What is counted, and how much of it may pass.
    pub measure: Measure,
    /// What has a bucket of its own.
    pub per: Per,
}

/// How much may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// So much in a time.
    Rate {
        /// Packets, bytes or new flows.
        kind: LimitKind,
        /// The rate.
        rate: Throughput,
    },
    /// So many flows at a time.
    Flows(u32),
}

impl Measure {
    /// What is counted.
    #[must_use]
    pub const fn kind(&self) -> LimitKind {
        match self {
            Self::Rate { kind, .. } => *kind,
            Self::Flows(_) => LimitKind::Flows,
        }
    }

    /// True if each packet of a flow is measured, not only the one that opens it.
    #[must_use]
    pub const fn measures_packets(&self) -> bool {
        matches!(self.kind(), LimitKind::Packets | LimitKind::Bytes)
    }
}

/// Units in a time, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// Units...
    pub units: u64,
    /// ... in so many nanoseconds.
    pub per_ns: u64,
    /// Units that may come at once.
    pub burst: u64,
    /// The same in the form that the kernel computes with.
    pub encoded: Rate,
}

/// What has a bucket of its own: the rule, or each address or pair of them, masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Per {
    /// Which addresses count.
    pub by: LimitPer,
    /// Length of the prefix that is one IPv4 address's bucket; 0 for the rule.
    pub v4: u8,
    /// Length of the prefix that is one IPv6 address's bucket; 0 for the rule.
    pub v6: u8,
}

impl Per {
    /// The rule as a whole.
    pub const RULE: Self = Self {
        by: LimitPer::Rule,
        v4: 0,
        v6: 0,
    };
}

/// The key under which the policy writes a limit.
#[must_use]
pub const fn limit_key(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Packets => "packets",
        LimitKind::Bytes => "bytes",
        LimitKind::NewFlows => "new_flows",
        LimitKind::Flows => "flows",
    }
}

/// As the policy writes it, with all defaults filled in.
impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = limit_key(self.measure.kind());
        match self.measure {
            Measure::Flows(most) => write!(out, "{key} {most}")?,
            Measure::Rate { kind, rate } => {
                let bytes = kind == LimitKind::Bytes;
                let rate_text = units::rate_text(rate.units, rate.per_ns, bytes);
                let burst = units::amount_text(rate.burst, bytes);
                write!(out, "{key} {rate_text}, burst {burst}")?;
            }
        }
        write!(out, ", per {}", self.per)
    }
}

impl fmt::Display for Per {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.by {
            LimitPer::Rule => return out.write_str("rule"),
            LimitPer::Source => "source",
            LimitPer::Destination => "destination",
            LimitPer::Pair => "pair",
        };
        write!(out, "{word} (IPv4 /{}, IPv6 /{})", self.v4, self.v6)
    }
}
