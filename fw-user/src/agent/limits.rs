//! The limits of the policy in force, as its table set says.

use std::collections::HashMap;

use fw_common::abi::{FlowFlags, LimitKey, LimitKind, LimitPer, LimitRecord, Line, RuleRecord, SetHeader};
use fw_common::limit::{Rate, SKEW};

use crate::dataplane::FlowKey;

/// Words of a limit record and of a rule record.
const LIMIT_WORDS: u32 = 8;
const RULE_WORDS: u32 = 4;
/// Words of a line.
const LINE: u32 = fw_common::abi::LINE_WORDS as u32;

/// A limit of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleLimit {
    /// Stable id of the rule.
    pub rule: u32,
    /// Which of the rule's limits, from 0.
    pub position: u32,
    /// As it lies in the set.
    pub record: LimitRecord,
}

/// All limits of rules.
#[derive(Clone, Debug, Default)]
pub struct RuleLimits {
    all: Vec<RuleLimit>,
    /// Those on flows at a time, by rule.
    flows: HashMap<u32, Vec<LimitRecord>>,
}

impl RuleLimits {
    /// Reads them from a set. A set that was checked has them all; from a damaged one what can be read.
    #[must_use]
    pub fn read(lines: &[Line]) -> Self {
        let [first, second, ..] = lines else {
            return Self::default();
        };
        let header = SetHeader::from_lines(first, second);
        let mut limits = Self::default();
        for number in 0..=header.rule_count {
            let Some(rule) = rule(lines, header.rules, number) else {
                break;
            };
            let (first, count) = (rule.limits >> 8, rule.limits & 0xff);
            for position in 0..count {
                let Some(record) = limit(lines, header.limits, first + position) else {
                    break;
                };
                let rule = rule.id;
                limits.all.push(RuleLimit {
                    rule,
                    position,
                    record,
                });
                if kind(&record) == Some(LimitKind::Flows) {
                    limits.flows.entry(rule).or_default().push(record);
                }
            }
        }
        limits
    }

    /// The limit with this id.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&RuleLimit> {
        self.all.iter().find(|limit| limit.record.id == id)
    }

    /// The limits of a rule, in the order of the policy.
    pub fn of_rule(&self, rule: u32) -> impl Iterator<Item = &RuleLimit> {
        self.all.iter().filter(move |limit| limit.rule == rule)
    }

    /// True if no rule has a limit on flows at a time.
    #[must_use]
    pub fn none_on_flows(&self) -> bool {
        self.flows.is_empty()
    }

    /// True if this is the id of a limit on flows at a time.
    #[must_use]
    pub fn on_flows(&self, id: u32) -> bool {
        self.flows.values().flatten().any(|record| record.id == id)
    }

    /// The buckets that a flow counts in: those of its rule's limits on flows at a time.
    pub fn buckets(&self, rule: u32, key: &FlowKey, flags: FlowFlags) -> impl Iterator<Item = LimitKey> {
        let records = self.flows.get(&rule).into_iter().flatten();
        records.map(move |record| bucket(record, &Ends::new(key, flags)))
    }
}

fn words<const N: usize>(lines: &[Line], base: u32, first: u32) -> Option<[u32; N]> {
    let line = lines.get(base.checked_add(first / LINE)? as usize)?;
    let at = (first % LINE) as usize;
    line.w.get(at..at + N)?.try_into().ok()
}

fn rule(lines: &[Line], base: u32, number: u32) -> Option<RuleRecord> {
    let [id, flags, limits, until] = words(lines, base, number.checked_mul(RULE_WORDS)?)?;
    Some(RuleRecord {
        id,
        flags,
        limits,
        until,
    })
}

fn limit(lines: &[Line], base: u32, number: u32) -> Option<LimitRecord> {
    let [id, what, mantissa, shift, burst_lo, burst_hi, ..]: [u32; 8] =
        words(lines, base, number.checked_mul(LIMIT_WORDS)?)?;
    Some(LimitRecord {
        id,
        what,
        mantissa,
        shift,
        burst_lo,
        burst_hi,
        reserved: [0; 2],
    })
}

/// A threshold of the protect section ([`fw_common::abi::threshold`]).
#[must_use]
pub fn threshold(lines: &[Line], number: u32) -> Option<LimitRecord> {
    let [first, second, ..] = lines else { return None };
    limit(lines, SetHeader::from_lines(first, second).limits, number)
}

/// What the limit counts.
#[must_use]
pub const fn kind(record: &LimitRecord) -> Option<LimitKind> {
    Some(match record.what & 0xff {
        0 => LimitKind::Packets,
        1 => LimitKind::Bytes,
        2 => LimitKind::NewFlows,
        3 => LimitKind::Flows,
        _ => return None,
    })
}

/// What has a bucket of its own.
#[must_use]
pub const fn per(record: &LimitRecord) -> Option<LimitPer> {
    Some(match record.what >> 8 & 0xff {
        0 => LimitPer::Rule,
        1 => LimitPer::Source,
        2 => LimitPer::Destination,
        3 => LimitPer::Pair,
        _ => return None,
    })
}

/// Length of the prefixes that share a bucket.
#[must_use]
pub const fn prefix(record: &LimitRecord, family: u8) -> u32 {
    if family == 4 {
        record.what >> 16 & 0xff
    } else {
        record.what >> 24
    }
}

/// The rate, as the packet path reads it.
#[must_use]
pub const fn rate(record: &LimitRecord) -> Rate {
    Rate::from_words([record.mantissa, record.shift, record.burst_lo, record.burst_hi])
}

/// How full a bucket is, 0 to 1. `value` is its content, `now` the precise monotonic time in ns.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "a share for people, shown with three digits"
)]
pub fn fill(record: &LimitRecord, value: u64, now: u64) -> f64 {
    if kind(record) == Some(LimitKind::Flows) {
        return (value as f64 / f64::from(record.mantissa.max(1))).min(1.0);
    }
    let burst = rate(record).burst;
    let ahead = value.wrapping_sub(now << 8);
    // As `fw_common::limit::admit` reads it.
    if value == 0 || ahead > burst.wrapping_add(SKEW) {
        return 0.0;
    }
    (ahead as f64 / burst.max(1) as f64).min(1.0)
}

/// The two ends of a flow as words, the opener first.
struct Ends {
    family: u8,
    realm: u32,
    source: [u32; 4],
    destination: [u32; 4],
}

impl Ends {
    fn new(key: &FlowKey, flags: FlowFlags) -> Self {
        let (family, realm, lo, hi) = match key {
            FlowKey::V4(key) => (4, key.full_realm(), [key.lo.0, 0, 0, 0], [key.hi.0, 0, 0, 0]),
            FlowKey::V6(key) => (6, key.full_realm(), key.lo.0, key.hi.0),
        };
        let (source, destination) = if flags.opener_hi() { (hi, lo) } else { (lo, hi) };
        Self {
            family,
            realm,
            source,
            destination,
        }
    }
}

/// The bucket that a flow with this key draws from.
#[must_use]
pub fn bucket_of(record: &LimitRecord, key: &FlowKey, flags: FlowFlags) -> LimitKey {
    bucket(record, &Ends::new(key, flags))
}

fn bucket(record: &LimitRecord, ends: &Ends) -> LimitKey {
    let length = prefix(record, ends.family);
    let (source, destination) = (masked(ends.source, length), masked(ends.destination, length));
    let (a, b) = match per(record) {
        None | Some(LimitPer::Rule) => {
            return LimitKey {
                limit: record.id,
                ..LimitKey::default()
            };
        }
        Some(LimitPer::Source) => (source, [0; 4]),
        Some(LimitPer::Destination) => (destination, [0; 4]),
        Some(LimitPer::Pair) => (source, destination),
    };
    LimitKey {
        limit: record.id,
        realm: ends.realm | u32::from(ends.family) << 24,
        a,
        b,
    }
}

/// The first `length` bits of an address.
fn masked(mut address: [u32; 4], length: u32) -> [u32; 4] {
    for (index, word) in (0_u32..).zip(&mut address) {
        let bits = length.saturating_sub(32 * index).min(32);
        *word &= u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    }
    address
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{FlowFlags, Ip4, Key4, LimitKey, LimitRecord, Line, SetHeader, Side};
    use fw_common::limit::Rate;

    use super::{RuleLimits, fill, masked};
    use crate::dataplane::FlowKey;

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

    /// A set whose second rule (id 9) has one limit, number 4.
    fn set() -> Vec<Line> {
        let header = SetHeader {
            rules: 2,
            rule_count: 2,
            limits: 3,
            ..SetHeader::default()
        };
        let mut lines = header.to_lines().to_vec();
        lines.resize(6, Line::default());
        lines[2].w[8..12].copy_from_slice(&[9, 0, 4 << 8 | 1, 0]);
        lines[5].w[..4].copy_from_slice(&[TEN.id, TEN.what, TEN.mantissa, TEN.shift]);
        lines
    }

    #[test]
    fn limits_are_read_from_the_set() {
        let limits = RuleLimits::read(&set());
        let limit = limits.get(77).unwrap();
        assert_eq!((limit.rule, limit.position, limit.record), (9, 0, TEN));
        assert!(limits.on_flows(77) && !limits.on_flows(78) && !limits.none_on_flows());
        assert!(RuleLimits::read(&set()[..4]).none_on_flows(), "damaged");
        assert!(RuleLimits::read(&[]).none_on_flows());
    }

    #[test]
    fn a_flow_counts_in_the_bucket_of_its_opener() {
        let limits = RuleLimits::read(&set());
        let key = FlowKey::V4(Key4 {
            lo: Ip4(0x0a00_0001),
            hi: Ip4(0x0a00_0902),
            realm: 101,
            realm_high: 1,
            ..Key4::default()
        });
        let flags = FlowFlags::new(true, Side::Outer, Side::Own, 3);
        let buckets: Vec<_> = limits.buckets(9, &key, flags).collect();
        let wanted = LimitKey {
            limit: 77,
            realm: 0x0401_0065,
            a: [0x0a00_0900, 0, 0, 0],
            b: [0; 4],
        };
        assert_eq!(buckets, [wanted]);
        assert_eq!(limits.buckets(8, &key, flags).count(), 0);
    }

    #[test]
    fn masks_keep_the_prefix() {
        let ones = [u32::MAX; 4];
        assert_eq!(masked(ones, 0), [0; 4]);
        assert_eq!(masked(ones, 32), [u32::MAX, 0, 0, 0]);
        assert_eq!(masked(ones, 65), [u32::MAX, u32::MAX, 1 << 31, 0]);
        assert_eq!(masked(ones, 128), ones);
    }

    #[test]
    fn a_bucket_is_full_when_its_burst_is_spent() {
        let rate = Rate::new(100, 1_000_000_000, 50).unwrap();
        let [mantissa, shift, burst_lo, burst_hi] = rate.words();
        let record = LimitRecord {
            what: 2,
            mantissa,
            shift,
            burst_lo,
            burst_hi,
            ..LimitRecord::default()
        };
        let now = 5_000_000_000;
        let close = |have: f64, want: f64| assert!((have - want).abs() < 1e-6, "{have} {want}");
        close(fill(&record, 0, now), 0.0);
        close(fill(&record, now << 8, now), 0.0);
        close(fill(&record, (now << 8) + rate.burst, now), 1.0);
        close(fill(&record, (now << 8) + rate.burst / 2, now), 0.5);
        close(fill(&record, (now << 8) - 1, now), 0.0);
        close(fill(&TEN, 5, now), 0.5);
        close(fill(&TEN, 500, now), 1.0);
    }
}
