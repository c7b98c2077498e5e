//! Sizes of a compiled policy.

use serde::Serialize;

/// How decisions lie in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Representation {
    /// A table of all pairs of sources and destinations that rules tell apart, and for each distinct pair the decision for
    /// each service: the look-up has the same few steps whatever the number of rules.
    #[default]
    Pairs,
    /// Bit vectors: for each source, destination, service and source port which rules it fits. For policies whose table of
    /// pairs would be too large; the look-up goes through blocks of 512 rules, at most 64 of them.
    Vectors,
}

/// Which representation is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The table of pairs, unless it would take more than its share of the memory.
    #[default]
    Auto,
    /// This one. For tests and measurements.
    Only(Representation),
}

/// Sizes of a compiled policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Lines of 64 bytes.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that depend on addresses: what is written anew when only those change.
    pub address_bytes: u64,
    /// Bytes of each part.
    pub parts: Vec<(&'static str, u64)>,
    /// How decisions lie in the tables.
    pub representation: Representation,
    /// Why so: a sentence.
    pub why: String,
    /// Lines of 64 bytes that the look-up of an IPv4 packet loads at most.
    pub lookup_v4: u32,
    /// The same for IPv6.
    pub lookup_v6: u32,
    /// VLAN tags that the policy names, none (untagged) included.
    pub realms: usize,
    /// Sets of zones that hold an address.
    pub address_classes: usize,
    /// Source classes that the rules tell apart, those included that dynamic zones may need.
    pub source_rows: usize,
    /// Destination classes that the rules tell apart, likewise.
    pub destination_columns: usize,
    /// Pairs of them that the rules tell apart; 0 with vectors.
    pub pair_classes: usize,
    /// Services that the rules tell apart, their source ports included unless the set is of vectors.
    pub service_classes: usize,
    /// Source ports that the rules tell apart; 1: none.
    pub source_classes: usize,
    /// Directions and services that the rules split into; 0 with a table of pairs.
    pub atoms: usize,
    /// Rules.
    pub rules: usize,
    /// Limits of rules.
    pub limits: usize,
    /// Roles that the policy names and the environment has not.
    pub unknown_roles: Vec<String>,
}
