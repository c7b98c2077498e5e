//! The order of steps (in the making).

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
}
