//! What the pipeline needs from its surroundings: maps, clock, compare-and-swap.

use super::{Scratch, Stage};
use crate::abi::{Event, Flow, Key4, Key6, LiveFlow, PortConfig, Shared};
use crate::classify::Lines;

/// Conntrack statistics: number of the counter in the `FLOW_STATS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowStat {
    /// Entries made in the half-open map.
    Opened = 0,
    /// Entries moved to the main map.
    Promoted = 1,
    /// Promotions that waited for the agent to delete an expired entry of the same key.
    PromotionWaits = 2,
    /// Events not sent because the limit of the window was reached.
    EventsSuppressed = 3,
    /// Events lost because the ring was full.
    EventsLost = 4,
    /// Promotions of one-way flows that waited for the next window.
    OneWayWaits = 5,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Insert {
    /// The entry is in the map.
    Done,
    /// The key has an entry already.
    Exists,
    /// The map is full.
    Full,
    /// Any other refusal of the kernel.
    Failed,
}

/// Flow maps of one address family.
pub trait FlowMaps<'a, K> {
    /// The entry in the main map.
    fn main(self, key: &K) -> Option<&'a LiveFlow>;
    /// The entry in the half-open map.
    fn half_open(self, key: &K) -> Option<&'a LiveFlow>;
    /// Inserts into the main map, never over an entry.
    fn insert_main(self, key: &K, flow: &Flow) -> Insert;
    /// Inserts into the half-open map; over an entry only if `replace`.
    fn insert_half_open(self, key: &K, flow: &Flow, replace: bool) -> Insert;
    /// Deletes from the half-open map.
    fn delete_half_open(self, key: &K);
}

/// The surroundings of one packet. A program loaded for questions only leaves out every write.
pub trait Tables<'a>: Copy + FlowMaps<'a, Key4> + FlowMaps<'a, Key6> {
    /// A table set.
    type Lines: Lines<'a>;

    /// The generation in force; read once a packet. 0: none.
    fn generation(self) -> u32;
    /// The table set in this generation's slot.
    fn lines(self, generation: u32) -> Option<Self::Lines>;
    /// Copies the configuration of the port with this index; false if there is none.
    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool;
    /// Coarse monotonic time, ns (`bpf_ktime_get_coarse_ns`).
    fn now(self) -> u64;
    /// Coarse time until which running TCP connections are adopted.
    fn pickup_until(self) -> u64;
    /// Replaces a state word if it still is `old`.
    fn swap(self, cell: &Shared<u32>, old: u32, new: u32) -> bool;
    /// True if nothing may be written: the packet is a question.
    fn dry_run(self) -> bool;
    /// Adds to the counters of the reason with this number. Called from one place, `finish`.
    fn count_number(self, reason: u8, packets: u32, bytes: u32);
    /// Adds one to a statistic.
    fn stat(self, stat: FlowStat);
    /// Events that may be sent per CPU and window.
    fn events_per_window(self) -> u32;
    /// Sends an event; false if the ring is full.
    fn emit(self, event: &Event) -> bool;
    /// Runs a stage over the scratch memory: [`super::run`], or a call of a function that does. In the kernel each stage
    /// is a global function, which the verifier follows once instead of once for every way that leads to it.
    fn stage(self, stage: Stage, s: &mut Scratch) -> u32;
}
