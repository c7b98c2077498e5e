//! The heartbeat: the packet path is told every second that the tables are aged, as long as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::core::Agent;
use super::faults::Part;
use crate::dataplane::coarse_now;

/// How long ageing may make no progress before it counts as stuck. Together with the packet path's own patience
/// ([`fw_common::abi::HEARTBEAT_NS`]) new flows are refused for at most 15 s.
const STUCK_NS: u64 = 5_000_000_000;

/// How ageing fares. It ticks here; the heartbeat listens.
#[derive(Debug)]
pub struct Pulse {
    /// Coarse time of the last progress.
    progress: AtomicU64,
    /// The last pass was good; false before the first.
    good: AtomicBool,
    /// The last pass failed.
    failed: AtomicBool,
    /// Heartbeats given.
    beats: AtomicU64,
}

impl Pulse {
    /// Before the first pass.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self {
            progress: AtomicU64::new(now),
            good: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            beats: AtomicU64::new(0),
        }
    }

    /// A pass goes on.
    pub fn progress(&self, now: u64) {
        self.progress.store(now, Ordering::Relaxed);
    }

    /// A pass is over.
    pub fn passed(&self, now: u64, good: bool) {
        self.good.store(good, Ordering::Relaxed);
        self.failed.store(!good, Ordering::Relaxed);
        self.progress(now);
    }

    /// Heartbeats given since the agent started.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// True if a pass was good: before the first one nobody knows.
    fn known_good(&self) -> bool {
        self.good.load(Ordering::Relaxed)
    }

    /// What is wrong with ageing, if anything.
    fn fault(&self, now: u64) -> Option<&'static str> {
        let still = now.saturating_sub(self.progress.load(Ordering::Relaxed));
        match () {
            () if self.failed.load(Ordering::Relaxed) => Some("ageing fails"),
            () if still > STUCK_NS => Some("ageing is stuck"),
            () => None,
        }
    }
}

/// Beats until the agent stops. A task of its own, so that it is late only if the whole agent is.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        agent.beat(coarse_now());
    }
}

impl Agent {
    /// One heartbeat at the time `now` (the data plane's clock, ns), if ageing works.
    pub(super) fn beat(&self, now: u64) {
        let fault = self.pulse.fault(now);
        if fault.is_none() && self.pulse.known_good() {
            self.tables.beat(now);
            self.pulse.beats.fetch_add(1, Ordering::Relaxed);
        }
        let outcome = fault.map_or(Ok(()), |fault| {
            Err(format!(
                "{fault}: the packet path is told that nobody ages the tables, and keeps new flows in the half-open table \
                 when the main one is full"
            ))
        });
        self.faults.note(Part::Heartbeat, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::{Pulse, STUCK_NS};

    #[test]
    fn the_heart_beats_while_ageing_works() {
        let now = 100_000_000_000;
        let pulse = Pulse::new(now);
        assert_eq!(
            (pulse.fault(now), pulse.known_good()),
            (None, false),
            "nothing was aged yet"
        );
        assert_eq!(pulse.fault(now + STUCK_NS), None);
        assert_eq!(pulse.fault(now + STUCK_NS + 1), Some("ageing is stuck"));
        pulse.passed(now, false);
        assert_eq!(pulse.fault(now), Some("ageing fails"));
        pulse.progress(now + 1);
        assert_eq!(pulse.fault(now + 1), Some("ageing fails"), "until a pass is good");
        pulse.passed(now, true);
        assert_eq!((pulse.fault(now), pulse.known_good()), (None, true));
    }
}
