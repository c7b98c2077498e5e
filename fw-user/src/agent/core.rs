//! The running agent: what its tasks share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::AgentConfig;
use super::apply::InForce;
use super::attach::Port;
use super::faults::Faults;
use super::hub::Hub;
use crate::dataplane::{DataPlane, Tables};
use crate::telemetry::{DropRecord, FlowLog, FlowRecord, Names, Table};

/// Denied packets kept for `dpufw drops`.
pub(super) const RECENT_DROPS: usize = 1000;

/// Flows at the last ageing pass, by table, family and state.
pub type FlowCounts = BTreeMap<(Table, u8, &'static str), u64>;

/// Counted since the agent started.
#[derive(Debug, Default)]
pub struct Totals {
    /// Flows that nobody answered.
    pub unanswered: Counter,
    /// Flow records made.
    pub records: Counter,
    /// Events that were not understood.
    pub strange_events: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The agent.
pub struct Agent {
    /// Configuration.
    pub config: AgentConfig,
    /// Maps of the data plane.
    pub tables: Arc<Tables>,
    /// Programs and links; none once they have been taken down.
    pub plane: Mutex<Option<DataPlane>>,
    /// The policy in force. Locked over every change, which makes changes one after the other.
    pub policy: tokio::sync::Mutex<Option<InForce>>,
    /// Ports, as they run.
    pub ports: Mutex<Vec<Port>>,
    /// Names of rules and zones.
    pub names: Mutex<Names>,
    /// Denied packets.
    pub drops: Hub<DropRecord>,
    /// Records of flows that ended.
    pub records: Hub<FlowRecord>,
    /// The flow log.
    pub flow_log: Mutex<Option<FlowLog>>,
    /// Flows at the last ageing pass.
    pub flow_counts: Mutex<FlowCounts>,
    /// Totals.
    pub totals: Totals,
    /// Faults.
    pub faults: Faults,
    /// When the agent started.
    pub started: Timestamp,
    /// True if it took over a running data plane.
    pub took_over: bool,
    /// Cancelled when the agent is to stop.
    pub stop: CancellationToken,
}

/// Locks what a task that panicked may have left: all values behind these locks are whole after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
