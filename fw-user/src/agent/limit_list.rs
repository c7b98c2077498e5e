//! The buckets of limits, for `dpufw limits`.

use fw_common::abi::{LimitKey, LimitKind, LimitPer, LimitRecord};
use nix::time::{ClockId, clock_gettime};

use super::census;
use super::core::{Agent, lock};
use super::limits::{RuleLimit, fill, kind, per, prefix, rate};
use crate::control::LimitInfo;
use crate::dataplane::DataPlaneError;
use crate::telemetry::{Names, Realm};

impl Agent {
    /// The buckets of the policy's limits, the fullest first, at most `top`; of one rule if it is named.
    ///
    /// # Errors
    /// If the kernel refuses a read.
    pub(super) fn limit_buckets(
        &self,
        top: usize,
        rule: Option<&str>,
    ) -> Result<Vec<LimitInfo>, DataPlaneError> {
        let limits = self.rule_limits()?;
        let now = precise_now();
        let names = lock(&self.names);
        let mut buckets = Vec::new();
        self.tables.for_each_bucket(|key, value| {
            // A bucket whose limit the policy in force has no more is left to be forgotten.
            let Some(limit) = limits.get(key.limit) else {
                return;
            };
            if rule.is_none_or(|rule| names.rule(limit.rule) == rule) {
                buckets.push((fill(&limit.record, value, now), *limit, *key, value));
            }
        })?;
        buckets.sort_by(|a, b| b.0.total_cmp(&a.0));
        buckets.truncate(top);
        let line = |(fill, limit, key, value)| info(&limit, &key, value, fill, &names);
        Ok(buckets.into_iter().map(line).collect())
    }
}

/// A bucket for people.
pub(super) fn info(limit: &RuleLimit, key: &LimitKey, value: u64, fill: f64, names: &Names) -> LimitInfo {
    let record = &limit.record;
    let (kind, per) = (kind(record), per(record));
    let by_address = per.is_some_and(|per| per != LimitPer::Rule);
    let family = if key.realm >> 24 == 4 { 4 } else { 6 };
    let realm = Realm::new(key.realm & 0x00ff_ffff);
    let end = |words| census::prefix(family, words, prefix(record, family));
    let flows = kind == Some(LimitKind::Flows);
    LimitInfo {
        rule: names.rule(limit.rule),
        position: limit.position + 1,
        kind: kind.map_or("unknown", kind_name).to_owned(),
        limit: if flows {
            record.mantissa.to_string()
        } else {
            format!("{}/s", per_second(record))
        },
        burst: (!flows).then(|| rate(record).burst / rate(record).cost(1).max(1)),
        per: per.map_or("unknown", per_name).to_owned(),
        family: by_address.then_some(family),
        realm: realm.port,
        vlan: realm.vlan,
        inner_vlan: realm.inner_vlan,
        source: matches!(per, Some(LimitPer::Source | LimitPer::Pair)).then(|| end(key.a)),
        destination: match per {
            Some(LimitPer::Destination) => Some(end(key.a)),
            Some(LimitPer::Pair) => Some(end(key.b)),
            _ => None,
        },
        fill,
        flows: flows.then_some(value),
    }
}

const fn kind_name(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Packets => "packets",
        LimitKind::Bytes => "bytes",
        LimitKind::NewFlows => "new_flows",
        LimitKind::Flows => "flows",
    }
}

const fn per_name(per: LimitPer) -> &'static str {
    match per {
        LimitPer::Rule => "rule",
        LimitPer::Source => "source",
        LimitPer::Destination => "destination",
        LimitPer::Pair => "pair",
    }
}

/// Units a second, to four digits: the record holds the cost of a unit, which is rounded.
fn per_second(record: &LimitRecord) -> String {
    /// 2^-8 ns.
    const TICKS: f64 = 256e9;
    let shift = record.shift.cast_signed();
    let scale = 2_f64.powi(if shift < 32 { -shift } else { shift - 32 });
    let rate = TICKS / (f64::from(record.mantissa.max(1)) * scale);
    let digits = 10_f64.powf((rate.log10().floor() - 3.0).max(0.0));
    let rounded = (rate / digits).round() * digits;
    if rate >= 10.0 {
        format!("{rounded:.0}")
    } else {
        format!("{rate:.3}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    }
}

/// Now on the precise monotonic clock, ns: what limits are measured with (`bpf_ktime_get_ns`).
pub(super) fn precise_now() -> u64 {
    // As for the coarse clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
    })
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{LimitKey, LimitRecord};
    use fw_common::limit::Rate;

    use super::{RuleLimit, info, per_second};
    use crate::telemetry::{Kind, Names};

    /// Flows at a time, 10 per source/24; id 77.
    const TEN: LimitRecord = LimitRecord {
        id: 77,
        what: 3 | 1 << 8 | 24 << 16 | 64 << 24,
        mantissa: 10,
        shift: 0,
        burst_lo: 0,
        burst_hi: 0,
        reserved: [0; 2],
    };

    #[test]
    fn rates_read_as_they_were_written() {
        for (units, per_ns, text) in [
            (50, 1_000_000_000, "50"),
            (10_000, 1_000_000_000, "10000"),
            (12_500_000_000, 1_000_000_000, "12500000000"),
            (1, 60_000_000_000, "0.017"),
            (1, 2_000_000_000, "0.5"),
        ] {
            let [mantissa, shift, ..] = Rate::new(units, per_ns, units).unwrap().words();
            let record = LimitRecord {
                mantissa,
                shift,
                ..LimitRecord::default()
            };
            assert_eq!(per_second(&record), text);
        }
    }

    #[test]
    fn a_bucket_is_shown_with_rule_and_key() {
        let mut names = Names::default();
        names.add(Kind::Rule, [(9, "admin")]).unwrap();
        let limit = RuleLimit {
            rule: 9,
            position: 1,
            record: TEN,
        };
        let key = LimitKey {
            limit: 77,
            realm: 0x0400_2065,
            a: [0x0a00_0900, 0, 0, 0],
            b: [0; 4],
        };
        let line = info(&limit, &key, 7, 0.7, &names);
        assert_eq!(
            (line.rule.as_str(), line.position, line.kind.as_str()),
            ("admin", 2, "flows")
        );
        assert_eq!(
            (line.limit.as_str(), line.per.as_str(), line.burst),
            ("10", "source", None)
        );
        assert_eq!(
            (line.source.as_deref(), line.destination),
            (Some("10.0.9.0/24"), None)
        );
        assert_eq!(
            (line.realm, line.vlan, line.flows, line.family),
            (2, 101, Some(7), Some(4))
        );
    }
}
