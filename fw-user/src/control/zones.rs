//! Dynamic zones: what is asked of them, and what became of it.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One change. Several in one request are put in force together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ZoneChange {
    /// Put prefixes in.
    Add {
        /// The zone.
        zone: String,
        /// What to put in.
        prefixes: Vec<IpNet>,
        /// Take them out again after so many milliseconds.
        for_ms: Option<u64>,
    },
    /// Take prefixes out: afterwards none of their addresses is in the zone.
    Remove {
        /// The zone.
        zone: String,
        /// What to take out.
        prefixes: Vec<IpNet>,
    },
    /// Take everything out.
    Clear {
        /// The zone.
        zone: String,
    },
}

impl ZoneChange {
    /// The zone that is changed.
    #[must_use]
    pub fn zone(&self) -> &str {
        match self {
            Self::Add { zone, .. } | Self::Remove { zone, .. } | Self::Clear { zone } => zone,
        }
    }
}

/// What became of one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneOutcome {
    /// The zone.
    pub zone: String,
    /// Prefixes that were not there before.
    pub added: Vec<IpNet>,
    /// Prefixes that were there with another deadline.
    pub refreshed: Vec<IpNet>,
    /// Prefixes that were there just so.
    pub known: Vec<IpNet>,
    /// Members that are gone, or of which a part is gone.
    pub removed: Vec<IpNet>,
    /// Prefixes of which the zone held nothing.
    pub absent: Vec<IpNet>,
    /// When what was put in is taken out again.
    pub until: Option<Timestamp>,
    /// Prefixes in the zone now.
    pub members: usize,
}

/// All changes of a request are in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneChanged {
    /// Generation in force.
    pub generation: u32,
    /// True if the tables were changed for it; false where no address came or went.
    pub swapped: bool,
    /// One for each change.
    pub outcomes: Vec<ZoneOutcome>,
    /// Milliseconds from the agent's hearing of it until it was in force and kept on disk.
    pub took_ms: f64,
    /// What else is to be said, one sentence each.
    pub notes: Vec<String>,
}

/// A member of a dynamic zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneMember {
    /// Its addresses.
    pub prefix: IpNet,
    /// When it is taken out; none: not by itself.
    pub until: Option<Timestamp>,
}

/// A dynamic zone, or one that members are kept for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneInfo {
    /// Its name.
    pub zone: String,
    /// True if the policy in force has a dynamic zone of that name; else its members are kept aside.
    pub in_force: bool,
    /// Its members, sorted.
    pub members: Vec<ZoneMember>,
}

/// A zone whose files were read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadedZone {
    /// Its name.
    pub zone: String,
    /// Prefixes that it held.
    pub before: usize,
    /// Prefixes that it holds now.
    pub after: usize,
}

/// The files of all zones were read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZonesReloaded {
    /// Generation in force.
    pub generation: u32,
    /// True if the tables were changed for it.
    pub swapped: bool,
    /// Zones with other addresses than before.
    pub zones: Vec<ReloadedZone>,
    /// Milliseconds from the agent's hearing of it until it was in force.
    pub took_ms: f64,
    /// Warnings about the policy, as text.
    pub warnings: Vec<String>,
}
