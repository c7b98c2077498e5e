//! Once a second: remove flows that are over, make their records, count the rest.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fw_common::abi::{Flow, LimitKey, StateWord};
use tokio::time::{MissedTickBehavior, interval};

use super::census::Census;
use super::core::{Agent, lock};
use super::faults::Part;
use super::limits::RuleLimits;
use crate::dataplane::{DataPlaneError, Fate, FlowKey, coarse_now};
use crate::exit::chain;
use crate::telemetry::{FlowInfo, FlowRecord, Table, WallClock};

/// Passes from one clearing of the source bits to the next: an hour. Bits of sources that have gone would only pile up,
/// and each costs a look-up for the sources that share it.
const CLEAR_BITS: u64 = 3600;
/// Entries between two signs of life.
const SIGN: u64 = 4096;

/// Ages until the agent stops.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for pass in 1_u64.. {
        ticks.tick().await;
        let worker = Arc::clone(&agent);
        let result = tokio::task::spawn_blocking(move || worker.age(coarse_now())).await;
        let outcome = match result {
            Ok(outcome) => outcome.map_err(|error| format!("flows cannot be aged: {}", chain(&error))),
            Err(error) => Err(format!("ageing broke off: {error}")),
        };
        agent.pulse.passed(coarse_now(), outcome.is_ok());
        agent.faults.note(Part::Ageing, outcome);
        if pass.is_multiple_of(CLEAR_BITS) {
            agent.tables.clear_source_bits();
        }
    }
}

/// What the packet path had counted when a pass began.
struct Before {
    sources: HashMap<fw_common::abi::SourceKey, u32>,
    buckets: HashMap<LimitKey, u64>,
}

impl Agent {
    /// One pass at the time `now` (the data plane's clock, ns).
    ///
    /// # Errors
    /// If the kernel refuses; flows removed before that have their records.
    pub fn age(&self, now: u64) -> Result<(), DataPlaneError> {
        let limits = self.rule_limits()?;
        let before = self.counted_before(&limits)?;
        let mut census = Census::default();
        let (mut ended, mut seen) = (Vec::new(), 0_u64);
        let filling = if self.tables.presence_is_stale()? {
            self.tables.begin_presence()?
        } else {
            None
        };
        let mark = |key: &FlowKey| {
            if let Some(filling) = &filling {
                self.tables.mark_present(filling, key);
            }
        };
        let mut sign = || {
            seen += 1;
            if seen.is_multiple_of(SIGN) {
                self.pulse.progress(coarse_now());
            }
        };
        // The half-open table first: flows go from there into the main table and never back, so one that is promoted meanwhile
        // is met once at least. The other way round it could be missed by both walks, and a limit would forget it.
        let half = self.tables.age_half_open(now, |key, flow, fate| {
            sign();
            mark(&key);
            if fate == Fate::Keep && !flow.expired(now) {
                census.count(Table::HalfOpen, &key, flow, &limits);
            }
        });
        let main = self.tables.age(now, |key, flow, fate| {
            sign();
            mark(&key);
            match fate {
                Fate::Keep if !flow.expired(now) => census.count(Table::Main, &key, flow, &limits),
                Fate::Keep => {}
                Fate::End => ended.push((key, *flow)),
            }
        });
        // What was removed before an error has its records all the same.
        self.publish(&ended);
        let mended = main?.mended;
        if mended > 0 {
            tracing::warn!("the level of a flow table was {mended} off and has been put right");
        }
        self.totals.unanswered.add(half?.unanswered);
        // Only after both walks have come to their end.
        if let Some(filling) = &filling {
            self.tables.finish_presence(filling);
        }
        self.mend(&before, &census)?;
        self.remember(&census, before.sources.len());
        Ok(())
    }

    /// The limits of the policy in force, read once for each generation.
    pub(super) fn rule_limits(&self) -> Result<Arc<RuleLimits>, DataPlaneError> {
        let generation = self.tables.control().generation;
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != generation {
            let set = self.tables.current_set()?;
            let limits = set.map_or_else(RuleLimits::default, |lines| RuleLimits::read(&lines));
            *known = (generation, Arc::new(limits));
        }
        Ok(Arc::clone(&known.1))
    }

    fn counted_before(&self, limits: &RuleLimits) -> Result<Before, DataPlaneError> {
        let mut buckets = HashMap::new();
        if !limits.none_on_flows() {
            self.tables.for_each_bucket(|key, value| {
                if limits.on_flows(key.limit) {
                    buckets.insert(*key, value);
                }
            })?;
        }
        Ok(Before {
            sources: self.tables.source_flows()?,
            buckets,
        })
    }

    /// Writes down what was counted, where the packet path had something else.
    fn mend(&self, before: &Before, census: &Census) -> Result<(), DataPlaneError> {
        for (source, flows) in &before.sources {
            let counted = census.confirmed(source);
            if counted != *flows {
                self.tables.mend_source(source, *flows, counted)?;
            }
        }
        for (bucket, counted) in census.buckets() {
            let flows = before.buckets.get(bucket).copied().unwrap_or(0);
            if *counted != flows {
                self.tables.mend_bucket(bucket, flows, *counted)?;
            }
        }
        let empty = before
            .buckets
            .iter()
            .filter(|(bucket, _)| !census.buckets().contains_key(*bucket));
        for (bucket, flows) in empty {
            self.tables.mend_bucket(bucket, *flows, 0)?;
        }
        Ok(())
    }

    /// Keeps what status and metrics tell.
    fn remember(&self, census: &Census, sources: usize) {
        let mut found = lock(&self.found);
        let tables = [Table::Main, Table::HalfOpen];
        for (table, family) in tables.iter().flat_map(|table| [(*table, 4), (*table, 6)]) {
            let used = census.used(table, family);
            let highest = found.highest.entry((table, family)).or_default();
            *highest = used.max(*highest);
        }
        let names = lock(&self.names);
        found.top = tables
            .iter()
            .flat_map(|table| census.top(*table, &names))
            .collect();
        found.states.clone_from(&census.states);
        found.sources = sources as u64;
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
        self.log(records.iter());
        for record in records {
            self.records.publish(record);
        }
    }

    /// Writes records into the flow log, if there is one.
    pub(super) fn log<'a, T: serde::Serialize + 'a>(&self, records: impl Iterator<Item = &'a T>) {
        if let Some(log) = lock(&self.flow_log).as_mut() {
            let outcome = log.write(records);
            let outcome = outcome.map_err(|error| format!("flow records cannot be written: {error}"));
            self.faults.note(Part::FlowLog, outcome);
        }
    }
}
