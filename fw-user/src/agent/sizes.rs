//! Sizes in `agent.yaml`: of tables, and of what the packet path may say.

use serde::{Deserialize, Serialize};

use crate::dataplane::FlowSizes;

/// Sizes of the tables, in entries; `main` and `half_open` per address family. A table that exists keeps its size until
/// `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableSizes {
    /// Confirmed flows: nothing evicts them, new ones are refused when it is full. 192 bytes each, 216 of IPv6, and up to
    /// 32 of buckets; a size just above a power of two has twice the buckets and short chains.
    pub main: u32,
    /// Half-open flows: the rate of a flood times the round-trip time.
    pub half_open: u32,
    /// Sources that are remembered for caps, proofs and bans; 120 bytes each and their buckets.
    pub sources: u32,
    /// Buckets of rate limits; 96 bytes each and their buckets in the hash table.
    pub limits: u32,
    /// Fragmented datagrams at a time.
    pub fragments: u32,
}

impl Default for TableSizes {
    fn default() -> Self {
        let FlowSizes {
            flows4,
            half4,
            sources,
            limits,
            fragments,
            ..
        } = FlowSizes::DEFAULT;
        Self {
            main: flows4,
            half_open: half4,
            sources,
            limits,
            fragments,
        }
    }
}

impl TableSizes {
    /// As the data plane counts them.
    #[must_use]
    pub const fn flow_sizes(&self) -> FlowSizes {
        FlowSizes {
            flows4: self.main,
            flows6: self.main,
            half4: self.half_open,
            half6: self.half_open,
            sources: self.sources,
            limits: self.limits,
            fragments: self.fragments,
        }
    }

    /// The first table that is too small to be one.
    pub(super) fn empty(&self) -> Option<&'static str> {
        let sizes = [
            ("main", self.main),
            ("half_open", self.half_open),
            ("sources", self.sources),
            ("limits", self.limits),
            ("fragments", self.fragments),
        ];
        sizes
            .into_iter()
            .find(|(_, size)| *size == 0)
            .map(|(name, _)| name)
    }
}

/// What the packet path may send per CPU and window of 67 ms (2^26 ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Windows {
    /// Reports of packets to the agent.
    pub events: u32,
    /// Answers: resets and ICMP errors, and 256 times as many demands for proof.
    pub replies: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            events: 32,
            replies: 64,
        }
    }
}
