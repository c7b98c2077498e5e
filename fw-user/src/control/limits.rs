//! Buckets of limits, as people and machines read them.

use serde::{Deserialize, Serialize};

/// A bucket of a rule's limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitInfo {
    /// The rule.
    pub rule: String,
    /// Which of the rule's limits, from 1.
    pub position: u32,
    /// What it counts: `packets`, `bytes`, `new_flows` or `flows`.
    pub kind: String,
    /// Its rate, `50/s`, or the number of flows at a time.
    pub limit: String,
    /// What may come at once, in units of `kind`; none for flows at a time.
    pub burst: Option<u64>,
    /// What has a bucket of its own: `rule`, `source`, `destination` or `pair`.
    pub per: String,
    /// 4 or 6; none where addresses are no part of the key.
    pub family: Option<u8>,
    /// Realm of the port, 0..=15.
    pub realm: u8,
    /// VLAN id; 0: untagged, or no part of the key.
    pub vlan: u16,
    /// Of two tags the inner VLAN id; else 0.
    pub inner_vlan: u16,
    /// The source, masked, if it is part of the key.
    pub source: Option<String>,
    /// The destination, masked, if it is part of the key.
    pub destination: Option<String>,
    /// How full the bucket is: 0 unused, 1 the next unit is refused.
    pub fill: f64,
    /// Flows at a time: how many there are.
    pub flows: Option<u64>,
}
