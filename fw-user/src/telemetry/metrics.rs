//! Prometheus metrics, rendered from one reading of the data plane.

use fw_common::abi::{Count, Reason};
use prometheus::{Encoder, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::control::{FlowCount, TableStatus};

/// What the metrics are made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Packets and bytes by reason.
    pub counters: Vec<(Reason, Count)>,
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
    flows(&registry, snapshot)?;
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
    registry.register(Box::new(flows))?;
    let opts = Opts::new("dpufw_table_capacity", "Flows that the table can hold.");
    let capacity = IntGaugeVec::new(opts, &["table", "family"])?;
    for table in &snapshot.tables {
        let values = [&table.table, &table.family.to_string()];
        capacity.with_label_values(&values).set(signed(table.capacity));
    }
    registry.register(Box::new(capacity))
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
    use crate::control::{FlowCount, TableStatus};

    #[test]
    fn metrics_carry_verdict_reason_and_family() {
        let snapshot = Snapshot {
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
                used: 0,
                capacity: 1 << 18,
            }],
            totals: vec![("dpufw_flows_opened_total", "Flows opened.", 9)],
            generation: 4,
            policy_age_s: 1.5,
            degraded: false,
        };
        let text = String::from_utf8(render(&snapshot).unwrap()).unwrap();
        for line in [
            "dpufw_packets_total{reason=\"established\",verdict=\"pass\"} 7",
            "dpufw_bytes_total{reason=\"deny_default\",verdict=\"drop\"} 120",
            "dpufw_flows{family=\"6\",state=\"ESTABLISHED\",table=\"main\"} 3",
            "dpufw_table_capacity{family=\"4\",table=\"main\"} 262144",
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
