//! The running agent: what its tasks share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::AgentConfig;
use super::apply::InForce;
use super::ask::Asker;
use super::attach::Port;
use super::census::FlowCounts;
use super::faults::Faults;
use super::hub::Hub;
use super::limits::RuleLimits;
use super::pulse::Pulse;
use super::zones::DynamicZones;
use crate::control::TopSource;
use crate::dataplane::{DataPlane, Tables};
use crate::telemetry::{DropRecord, FlowLog, FlowRecord, Names, Table};

/// Denied packets kept for `dpufw drops`.
pub(super) const RECENT_DROPS: usize = 1000;

/// What the ageing passes have found.
#[derive(Debug, Default)]
pub struct Found {
    /// Flows at the last pass, by state.
    pub states: FlowCounts,
    /// The most flows at any pass since the agent started, by table and family.
    pub highest: BTreeMap<(Table, u8), u64>,
    /// The sources with the most flows at the last pass.
    pub top: Vec<TopSource>,
    /// Sources that are known.
    pub sources: u64,
}

impl Found {
    /// Flows in a table at the last pass.
    #[must_use]
    pub fn used(&self, table: Table, family: u8) -> u64 {
        let of = self
            .states
            .iter()
            .filter(|((t, f, _), _)| (*t, *f) == (table, family));
        of.map(|(_, count)| count).sum()
    }
}

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
    /// Dynamic zones.
    pub zones: DynamicZones,
    /// The second instance of the programs, which is asked questions.
    pub asker: Mutex<Asker>,
    /// Ports, as they run.
    pub ports: Mutex<Vec<Port>>,
    /// Names of rules and zones.
    pub names: Mutex<Names>,
    /// Denied and reported packets.
    pub drops: Hub<DropRecord>,
    /// Records of flows that ended.
    pub records: Hub<FlowRecord>,
    /// The flow log.
    pub flow_log: Mutex<Option<FlowLog>>,
    /// What ageing has found.
    pub found: Mutex<Found>,
    /// How ageing fares.
    pub pulse: Pulse,
    /// The limits of the policy in force, and its generation.
    pub limits: Mutex<(u32, Arc<RuleLimits>)>,
    /// Totals.
    pub totals: Totals,
    /// Faults.
    pub faults: Faults,
    /// Coarse time of a start without state, ns; 0: it took over.
    pub cold_start: AtomicU64,
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
