//! Prometheus metrics, rendered from one reading of the data plane.

use fw_common::abi::{Count, Reason};
use prometheus::{Encoder, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::control::{FlowCount, Heartbeat, TableStatus};

/// What the metrics are made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Packets and bytes by reason.
    pub counters: Vec<(Reason, Count)>,
    /// The same of packets that would have been dropped.
    pub noted: Vec<(Reason, Count)>,
    /// The heartbeat.
    pub heartbeat: Heartbeat,
    /// Flows as of the last ageing pass.
    pub flows: Vec<FlowCount>,
    /// The tables.
    pub tables: Vec<TableStatus>,
    /// Single counters: name, help, value.
    pub totals: Vec<(&'static str, &'static str, u64)>,
    /// Generation in force.
    pub generation: u32,
    /// Seconds since the policy was applied.
    pub policy_age_s: f64,
    /// True if something is wrong (`dpufw status` says what).
    pub degraded: bool,
}

/// The verdict of a reason, as a label.
fn verdict(reason: Reason) -> &'static str {
    if reason.allows() { "pass" } else { "drop" }
}

/// Renders the text that `/metrics` serves.
///
/// # Errors
/// Only if two metrics had one name.
pub fn render(snapshot: &Snapshot) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    by_reason(&registry, snapshot)?;
    noted(&registry, snapshot)?;
    flows(&registry, snapshot)?;
    tables(&registry, &snapshot.tables)?;
    heartbeat(&registry, &snapshot.heartbeat)?;
    singles(&registry, snapshot)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

fn by_reason(registry: &Registry, snapshot: &Snapshot) -> prometheus::Result<()> {
    let labels = &["verdict", "reason"];
    let packets = Opts::new("dpufw_packets_total", "Packets by what happened to them and why.");
    let packets = IntCounterVec::new(packets, labels)?;
    let bytes = Opts::new(
        "dpufw_bytes_total",
        "Bytes of frames by what happened to them and why.",
    );
    let bytes = IntCounterVec::new(bytes, labels)?;
    for (reason, count) in &snapshot.counters {
        let values = [verdict(*reason), reason.name()];
        packets.with_label_values(&values).inc_by(count.packets);
        bytes.with_label_values(&values).inc_by(count.bytes);
    }
    registry.register(Box::new(packets))?;
    registry.register(Box::new(bytes))
}

fn flows(registry: &Registry, snapshot: &Snapshot) -> prometheus::Result<()> {
    let opts = Opts::new(
        "dpufw_flows",
        "Flows in the connection tables at the last ageing pass.",
    );
    let flows = IntGaugeVec::new(opts, &["table", "state", "family"])?;
    for gauge in &snapshot.flows {
        let values = [&gauge.table, &gauge.state, &gauge.family.to_string()];
        flows.with_label_values(&values).add(signed(gauge.count));
    }
    registry.register(Box::new(flows))
}

fn noted(registry: &Registry, snapshot: &Snapshot) -> prometheus::Result<()> {
    let help = "Packets that a screen in mode count or a rule with audit would have dropped; also counted by what happened \
                to them.";
    let packets = IntCounterVec::new(Opts::new("dpufw_noted_packets_total", help), &["reason"])?;
    let bytes = Opts::new("dpufw_noted_bytes_total", "Bytes of their frames.");
    let bytes = IntCounterVec::new(bytes, &["reason"])?;
    for (reason, count) in &snapshot.noted {
        packets.with_label_values(&[reason.name()]).inc_by(count.packets);
        bytes.with_label_values(&[reason.name()]).inc_by(count.bytes);
    }
    registry.register(Box::new(packets))?;
    registry.register(Box::new(bytes))
}

/// The family `0` is a table that serves both.
fn tables(registry: &Registry, tables: &[TableStatus]) -> prometheus::Result<()> {
    type Value = fn(&TableStatus) -> Option<u64>;
    let gauges: [(&str, &str, Value); 5] = [
        (
            "dpufw_table_capacity",
            "Entries that the table can hold.",
            |table| Some(table.capacity),
        ),
        (
            "dpufw_table_room",
            "Entries up to which anyone's flow is inserted; the rest is kept for lifelines.",
            |table| table.room,
        ),
        ("dpufw_table_used", "Entries in the table.", |table| table.used),
        (
            "dpufw_table_highest",
            "The most flows at any ageing pass since the agent started.",
            |table| table.highest,
        ),
        (
            "dpufw_table_bytes",
            "Bytes of kernel memory of the table, used or not.",
            |table| Some(table.bytes),
        ),
    ];
    for (name, help, value) in gauges {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["table", "family"])?;
        for (table, value) in tables.iter().filter_map(|table| Some((table, value(table)?))) {
            let labels = [&table.table, &table.family.to_string()];
            gauge.with_label_values(&labels).set(signed(value));
        }
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

fn heartbeat(registry: &Registry, heartbeat: &Heartbeat) -> prometheus::Result<()> {
    let beats = prometheus::IntCounter::new(
        "dpufw_heartbeats_total",
        "Times that the packet path was told that its tables are aged, since the agent started.",
    )?;
    beats.inc_by(heartbeat.beats);
    registry.register(Box::new(beats))?;
    let Some(age_ms) = heartbeat.age_ms else {
        return Ok(());
    };
    let age = Gauge::new(
        "dpufw_heartbeat_age_seconds",
        "Seconds since the packet path was told so; above 10 it takes the agent for dead.",
    )?;
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    age.set(age_ms as f64 / 1000.0);
    registry.register(Box::new(age))
}

fn singles(registry: &Registry, snapshot: &Snapshot) -> prometheus::Result<()> {
    for (name, help, value) in &snapshot.totals {
        let counter = prometheus::IntCounter::new(*name, *help)?;
        counter.inc_by(*value);
        registry.register(Box::new(counter))?;
    }
    let generation = IntGauge::new(
        "dpufw_policy_generation",
        "Generation of the policy in force; 0: none.",
    )?;
    generation.set(i64::from(snapshot.generation));
    registry.register(Box::new(generation))?;
    let age = Gauge::new(
        "dpufw_policy_age_seconds",
        "Seconds since the policy was applied.",
    )?;
    age.set(snapshot.policy_age_s);
    registry.register(Box::new(age))?;
    let degraded = IntGauge::new(
        "dpufw_degraded",
        "1 if something is wrong; `dpufw status` says what.",
    )?;
    degraded.set(i64::from(snapshot.degraded));
    registry.register(Box::new(degraded))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Count, Reason};

    use super::{Snapshot, render};
    use crate::control::{FlowCount, Heartbeat, TableStatus};

    fn snapshot() -> Snapshot {
        Snapshot {
            counters: vec![
                (
                    Reason::Established,
                    Count {
                        packets: 7,
                        bytes: 700,
                    },
                ),
                (
                    Reason::DenyDefault,
                    Count {
                        packets: 2,
                        bytes: 120,
                    },
                ),
            ],
            flows: vec![FlowCount {
                table: "main".into(),
                state: "ESTABLISHED".into(),
                family: 6,
                count: 3,
            }],
            tables: vec![TableStatus {
                table: "main".into(),
                family: 4,
                used: Some(5),
                capacity: 1 << 18,
                bytes: 4096,
                ..TableStatus::default()
            }],
            noted: vec![(
                Reason::Land,
                Count {
                    packets: 3,
                    bytes: 180,
                },
            )],
            heartbeat: Heartbeat {
                beats: 12,
                age_ms: Some(250),
            },
            totals: vec![("dpufw_flows_opened_total", "Flows opened.", 9)],
            generation: 4,
            policy_age_s: 1.5,
            degraded: false,
        }
    }

    #[test]
    fn metrics_carry_verdict_reason_and_family() {
        let text = String::from_utf8(render(&snapshot()).unwrap()).unwrap();
        for line in [
            "dpufw_packets_total{reason=\"established\",verdict=\"pass\"} 7",
            "dpufw_bytes_total{reason=\"deny_default\",verdict=\"drop\"} 120",
            "dpufw_flows{family=\"6\",state=\"ESTABLISHED\",table=\"main\"} 3",
            "dpufw_table_capacity{family=\"4\",table=\"main\"} 262144",
            "dpufw_table_used{family=\"4\",table=\"main\"} 5",
            "dpufw_table_bytes{family=\"4\",table=\"main\"} 4096",
            "dpufw_noted_packets_total{reason=\"land\"} 3",
            "dpufw_noted_bytes_total{reason=\"land\"} 180",
            "dpufw_heartbeats_total 12",
            "dpufw_heartbeat_age_seconds 0.25",
            "dpufw_flows_opened_total 9",
            "dpufw_policy_generation 4",
            "dpufw_policy_age_seconds 1.5",
            "dpufw_degraded 0",
            "# TYPE dpufw_packets_total counter",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
