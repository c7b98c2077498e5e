//! Once a second: remove flows that are over, make their records, count the rest.

use std::sync::Arc;
use std::time::Duration;

use fw_common::abi::{Flow, StateWord};
use tokio::time::{MissedTickBehavior, interval};

use super::core::{Agent, FlowCounts, lock};
use super::faults::Part;
use crate::dataplane::{DataPlaneError, Fate, FlowKey, coarse_now};
use crate::exit::chain;
use crate::telemetry::{FlowInfo, FlowRecord, Table, WallClock, family_and_proto, state_name};

/// Ages until the agent stops.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let worker = Arc::clone(&agent);
        let pass = tokio::task::spawn_blocking(move || worker.age(coarse_now()));
        let outcome = match pass.await {
            Ok(outcome) => outcome.map_err(|error| format!("flows cannot be aged: {}", chain(&error))),
            Err(error) => Err(format!("ageing broke off: {error}")),
        };
        agent.faults.note(Part::Ageing, outcome);
    }
}

impl Agent {
    /// One pass at the time `now` (the data plane's clock, ns).
    ///
    /// # Errors
    /// If the kernel refuses; flows removed before that have their records.
    pub fn age(&self, now: u64) -> Result<(), DataPlaneError> {
        let mut counts = FlowCounts::new();
        let mut ended = Vec::new();
        let main = self.tables.age(now, |key, flow, fate| match fate {
            Fate::Keep => count(&mut counts, Table::Main, &key, flow, now),
            Fate::End => ended.push((key, *flow)),
        });
        // What was removed before an error has its records all the same.
        self.publish(&ended);
        main?;
        let half = self.tables.age_half_open(now, |key, flow, fate| {
            if fate == Fate::Keep {
                count(&mut counts, Table::HalfOpen, &key, flow, now);
            }
        })?;
        self.totals.unanswered.add(half.unanswered);
        *lock(&self.flow_counts) = counts;
        Ok(())
    }

    /// Makes the records of flows that are over.
    fn publish(&self, ended: &[(FlowKey, Flow)]) {
        if ended.is_empty() {
            return;
        }
        let clock = WallClock::read();
        let records: Vec<FlowRecord> = {
            let names = lock(&self.names);
            let record = |(key, flow): &(FlowKey, Flow)| {
                let info = FlowInfo::new(key, flow, Table::Main, &names, &clock);
                FlowRecord::new(info, StateWord(flow.state), false)
            };
            ended.iter().map(record).collect()
        };
        self.totals.records.add(records.len() as u64);
        if let Some(log) = lock(&self.flow_log).as_mut() {
            let outcome = log.write(records.iter());
            let outcome = outcome.map_err(|error| format!("flow records cannot be written: {error}"));
            self.faults.note(Part::FlowLog, outcome);
        }
        for record in records {
            self.records.publish(record);
        }
    }
}

/// Counts a flow that is not over yet; one that is waits for its removal only.
fn count(counts: &mut FlowCounts, table: Table, key: &FlowKey, flow: &Flow, now: u64) {
    if !flow.expired(now) {
        let (family, proto) = family_and_proto(key);
        *counts
            .entry((table, family, state_name(proto, StateWord(flow.state))))
            .or_default() += 1;
    }
}
