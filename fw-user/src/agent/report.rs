//! Status and metrics.

use std::path::Path;

use fw_common::abi::{ABI_VERSION, Count, Reason, map_names};
use fw_common::pipeline::FlowStat;
use fw_policy::model::ZoneKind;

use super::apply::InForce;
use super::bypass::Bypasses;
use super::core::{Agent, lock};
use super::coverage::{self, Facts};
use super::faults::Part;
use super::links::{self, LinkFacts};
use super::port_state;
use crate::control::{DropCount, FlowCount, FlowTotals, Heartbeat, PolicyStatus, Status, TableStatus};
use crate::dataplane::{Attachment, coarse_now};
use crate::exit::chain;
use crate::telemetry::{Snapshot, Table};

/// Tables that forget what was not used for longest.
const OTHER_TABLES: [(&str, &str); 3] = [
    ("sources", map_names::SOURCES),
    ("limits", map_names::LIMITS),
    ("fragments", map_names::FRAGMENTS),
];

/// The flow tables: kind, family, map.
const FLOW_TABLES: [(Table, u8, &str); 4] = [
    (Table::Main, 4, map_names::FLOWS4),
    (Table::Main, 6, map_names::FLOWS6),
    (Table::HalfOpen, 4, map_names::HALF4),
    (Table::HalfOpen, 6, map_names::HALF6),
];

impl Agent {
    /// What runs, what is covered, what is wrong.
    pub async fn status(&self) -> Status {
        let links = links::list().await;
        let outcome = links
            .as_ref()
            .map(|_| ())
            .map_err(|error| format!("interfaces cannot be listed: {error:#}"));
        self.faults.note(Part::Coverage, outcome);
        let links = links.unwrap_or_default();
        let policy = policy_status(
            self.policy.lock().await.as_ref(),
            self.tables.control().generation,
        );
        tokio::task::block_in_place(|| self.status_of(&links, policy))
    }

    fn status_of(&self, links: &[LinkFacts], policy: PolicyStatus) -> Status {
        let attached = self.attached();
        let ports = lock(&self.ports).clone();
        let gaps = port_state::gaps(&ports, &attached, links);
        let bypasses = Bypasses::read(Path::new("/proc"));
        let facts = Facts {
            links,
            ports: &gaps,
            ignore: &self.config.ignore,
            bypasses: &bypasses,
        };
        let (passed_packets, drops) = self.counts();
        let top_sources = lock(&self.found).top.clone();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            pid: std::process::id(),
            started: self.started,
            mode: self.config.mode.name().to_owned(),
            pin_dir: self.config.pins().display().to_string(),
            took_over: self.took_over,
            adopting_s: self.adopting_s(),
            heartbeat: self.heartbeat(),
            policy,
            ports: ports
                .iter()
                .map(|port| port_state::status(port, &attached))
                .collect(),
            flows: self.flow_counts(),
            tables: self.table_status(),
            top_sources,
            totals: self.flow_totals(),
            passed_packets,
            drops,
            noted: self.noted(),
            coverage: coverage::judge(&facts),
            coverage_notes: coverage::notes(&facts),
            degraded: Vec::new(),
        };
        status.degraded = self.faults.list();
        status.degraded.extend(
            ports
                .iter()
                .flat_map(|port| port_state::faults(port, &attached, links)),
        );
        if status.policy.generation == 0 {
            status
                .degraded
                .push("no policy is in force: everything is dropped".to_owned());
        }
        status
    }

    fn adopting_s(&self) -> u64 {
        match self.tables.control().pickup_until {
            u64::MAX => u64::MAX,
            until => until.saturating_sub(coarse_now()).div_ceil(1_000_000_000),
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let last = self.tables.control().heartbeat;
        Heartbeat {
            beats: self.pulse.beats(),
            age_ms: (last != 0).then(|| coarse_now().saturating_sub(last) / 1_000_000),
        }
    }

    fn attached(&self) -> Vec<Attachment> {
        let plane = lock(&self.plane);
        let attached = plane
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), crate::dataplane::DataPlane::attached);
        self.counted(attached).unwrap_or_default()
    }

    /// Turns an error of reading into a fault.
    fn counted<T>(&self, result: Result<T, crate::dataplane::DataPlaneError>) -> Option<T> {
        let outcome = result
            .as_ref()
            .map(|_| ())
            .map_err(|error| format!("the data plane cannot be read: {}", chain(error)));
        self.faults.note(Part::Counters, outcome);
        result.ok()
    }

    fn counts(&self) -> (u64, Vec<DropCount>) {
        let counters = self.counted(self.tables.counters()).unwrap_or_default();
        let mut passed = 0;
        let mut drops = Vec::new();
        for (number, count) in counters {
            match Reason::from_number(number) {
                Some(reason) if reason.allows() => passed += count.packets,
                _ => drops.push(drop_count(number, count)),
            }
        }
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        (passed, drops)
    }

    fn noted(&self) -> Vec<DropCount> {
        let noted = self.counted(self.tables.noted()).unwrap_or_default();
        let mut noted: Vec<_> = noted
            .into_iter()
            .map(|(number, count)| drop_count(number, count))
            .collect();
        noted.sort_by_key(|noted| std::cmp::Reverse(noted.packets));
        noted
    }

    fn flow_counts(&self) -> Vec<FlowCount> {
        let found = lock(&self.found);
        let count = |((table, family, state), count): (&(Table, u8, &'static str), &u64)| FlowCount {
            table: table.name().to_owned(),
            family: *family,
            state: (*state).to_owned(),
            count: *count,
        };
        found.states.iter().map(count).collect()
    }

    fn table_status(&self) -> Vec<TableStatus> {
        let memory = self.counted(self.tables.memory()).unwrap_or_default();
        let levels = self.tables.levels();
        let found = lock(&self.found);
        let status = |(table, family, map): (&str, u8, &'static str)| {
            let memory = memory.iter().find(|memory| memory.name == map)?;
            Some(TableStatus {
                table: table.to_owned(),
                family,
                capacity: memory.entries.into(),
                bytes: memory.bytes,
                bytes_per_entry: memory.per_entry,
                ..TableStatus::default()
            })
        };
        let flows = FLOW_TABLES.into_iter().filter_map(|(table, family, map)| {
            let index = usize::from(family == 6);
            let main = table == Table::Main;
            let used = if main {
                levels.used[index]
            } else {
                found.used(table, family)
            };
            Some(TableStatus {
                used: Some(used),
                highest: found.highest.get(&(table, family)).copied(),
                room: main.then_some(levels.room[index]),
                ..status((table.name(), family, map))?
            })
        });
        let others = OTHER_TABLES.into_iter().filter_map(|(table, map)| {
            let sources = (map == map_names::SOURCES).then_some(found.sources);
            Some(TableStatus {
                used: sources,
                ..status((table, 0, map))?
            })
        });
        flows.chain(others).collect()
    }

    fn flow_totals(&self) -> FlowTotals {
        let stats = self.counted(self.tables.flow_stats()).unwrap_or_default();
        let stat = |stat: FlowStat| stats.get(stat as usize).copied().unwrap_or_default();
        FlowTotals {
            opened: stat(FlowStat::Opened),
            promoted: stat(FlowStat::Promoted),
            unanswered: self.totals.unanswered.get(),
            records: self.totals.records.get(),
            records_lost: lock(&self.flow_log)
                .as_ref()
                .map_or(0, crate::telemetry::FlowLog::lost),
            events_suppressed: stat(FlowStat::EventsSuppressed),
            events_lost: stat(FlowStat::EventsLost),
            replies_suppressed: stat(FlowStat::RepliesSuppressed),
            stay_half_open: stat(FlowStat::StaysHalfOpen),
            insert_retries: stat(FlowStat::InsertRetries),
        }
    }

    /// What the metrics are made of.
    pub async fn snapshot(&self) -> Snapshot {
        let status = self.status().await;
        let counters = self.counted(self.tables.counters()).unwrap_or_default();
        let noted = self.counted(self.tables.noted()).unwrap_or_default();
        let known = |(number, count)| Reason::from_number(number).map(|reason| (reason, count));
        Snapshot {
            counters: counters.into_iter().filter_map(known).collect(),
            noted: noted.into_iter().filter_map(known).collect(),
            heartbeat: status.heartbeat,
            degraded: !status.healthy(),
            totals: totals(&status.totals, self.totals.strange_events.get()),
            generation: status.policy.generation,
            policy_age_s: status.policy.age_s,
            flows: status.flows,
            tables: status.tables,
        }
    }
}

fn drop_count(number: u8, count: Count) -> DropCount {
    let reason = Reason::from_number(number);
    DropCount {
        reason: reason.map_or_else(|| format!("#{number}"), |reason| reason.name().to_owned()),
        packets: count.packets,
        bytes: count.bytes,
    }
}

/// `generation` is the kernel's, which may enforce a policy whose text this agent could not find.
fn policy_status(in_force: Option<&InForce>, generation: u32) -> PolicyStatus {
    let Some(current) = in_force else {
        return PolicyStatus {
            generation,
            ..PolicyStatus::default()
        };
    };
    let age = jiff::Timestamp::now()
        .duration_since(current.applied)
        .as_secs_f64()
        .max(0.0);
    PolicyStatus {
        name: current.policy.file.clone(),
        hash: current.policy.hash_hex(),
        generation: current.generation,
        applied: Some(current.applied),
        age_s: age,
        rules: u32::try_from(current.policy.rules.len()).unwrap_or(u32::MAX),
        zones: u32::try_from(
            current
                .policy
                .zones
                .iter()
                .filter(|zone| zone.kind == ZoneKind::Named)
                .count(),
        )
        .unwrap_or(u32::MAX),
    }
}

fn totals(totals: &FlowTotals, strange: u64) -> Vec<(&'static str, &'static str, u64)> {
    vec![
        ("dpufw_flows_opened_total", "Flows opened.", totals.opened),
        (
            "dpufw_flows_promoted_total",
            "Flows confirmed by their openers.",
            totals.promoted,
        ),
        (
            "dpufw_flows_unanswered_total",
            "Flows that nobody answered, since the agent started.",
            totals.unanswered,
        ),
        (
            "dpufw_flow_records_total",
            "Flow records made, since the agent started.",
            totals.records,
        ),
        (
            "dpufw_flow_records_lost_total",
            "Flow records that could not be written.",
            totals.records_lost,
        ),
        (
            "dpufw_replies_suppressed_total",
            "Resets, ICMP errors and demands for proof not sent: the limit was reached.",
            totals.replies_suppressed,
        ),
        (
            "dpufw_flows_stay_half_open_total",
            "Flows that stayed half-open because the main table was full.",
            totals.stay_half_open,
        ),
        (
            "dpufw_insert_retries_total",
            "Insertions that were tried again because the table was locked.",
            totals.insert_retries,
        ),
        (
            "dpufw_events_suppressed_total",
            "Packets not reported: the limit was reached.",
            totals.events_suppressed,
        ),
        (
            "dpufw_events_lost_total",
            "Packets not reported: the ring was full.",
            totals.events_lost,
        ),
        (
            "dpufw_events_strange_total",
            "Events that the agent did not understand.",
            strange,
        ),
    ]
}
