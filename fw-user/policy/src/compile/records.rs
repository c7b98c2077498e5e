//! Records of classes, rules and limits.

use fw_common::abi::{ClassFlags, ClassRecord, Features, LimitRecord, RuleFlags, threshold};

use super::CompileError;
use super::axes::Places;
use super::classes::Classes;
use super::lines::{Lines, Section};
use crate::model::{Limit, Measure, Policy, Rule, Throughput, ZoneKind};
use crate::{Environment, names};

/// Words of a limit record.
const LIMIT_WORDS: u32 = (size_of::<LimitRecord>() / 4) as u32;

/// Writes the records of the address classes; returns the table's line.
pub(super) fn classes(
    policy: &Policy,
    classes: &Classes,
    places: &Places,
    lines: &mut Lines,
) -> Result<u32, CompileError> {
    let of_zone = zone_flags(policy);
    let table = lines.reserve_words(Section::Classes, classes.len() as u64 * 4)?;
    for (number, (class, place)) in classes.iter().zip(places).enumerate() {
        let zones = classes.sets.iter(class.zones);
        let record = ClassRecord {
            src_row: place.0,
            dst_col: place.1,
            zone: class.best.map_or(0, |zone| policy.zones[zone].id),
            flags: zones.fold(0, |flags, zone| flags | of_zone[zone]),
        };
        let words = [record.src_row, record.dst_col, record.zone, record.flags];
        lines.set_words(table, number as u32 * 4, &words);
    }
    Ok(table)
}

/// By zone: the flags that it gives to its addresses. An address lies in zones of one plane at most, so the bits of two
/// planes never mix.
fn zone_flags(policy: &Policy) -> Vec<u32> {
    let flags = policy.zones.iter().enumerate().map(|(index, zone)| {
        let kind = match zone.kind {
            ZoneKind::SelfMachine => ClassFlags::OWN,
            ZoneKind::Multicast => ClassFlags::MULTICAST,
            ZoneKind::LinkLocal => ClassFlags::LINK_LOCAL,
            ZoneKind::Outside => ClassFlags::OUTSIDE,
            ZoneKind::Named | ZoneKind::Any | ZoneKind::Metadata => 0,
        };
        let lifeline = if zone.lifeline { ClassFlags::LIFELINE } else { 0 };
        let exempt = policy.protect.exempt.contains(&index);
        let exempt = if exempt { ClassFlags::EXEMPT } else { 0 };
        kind | lifeline | exempt | (zone.plane << ClassFlags::PLANE_SHIFT)
    });
    flags.collect()
}

/// Writes the records of rules and limits; returns the tables' lines.
pub(super) fn rules(
    policy: &Policy,
    environment: &Environment,
    lines: &mut Lines,
) -> Result<(u32, u32), CompileError> {
    let count = policy
        .rules
        .iter()
        .map(|rule| rule.limits.len() as u64)
        .sum::<u64>();
    let count = count + u64::from(threshold::COUNT);
    // The number of a rule's first limit shares a word with how many there are.
    if count > 1 << 24 {
        return Err(CompileError::TooMany {
            what: "limits",
            count: count as usize,
            limit: 1 << 24,
            most: String::new(),
        });
    }
    let table = lines.reserve_words(Section::Rules, (policy.rules.len() as u64 + 1) * 4)?;
    let limits = lines.reserve_words(Section::Rules, count * u64::from(LIMIT_WORDS))?;
    for (number, record) in thresholds(policy).iter().enumerate() {
        lines.set_words(limits, number as u32 * LIMIT_WORDS, &words(record));
    }
    let mut next = threshold::COUNT;
    for rule in &policy.rules {
        let of_rule = rule.limits.len() as u32;
        let own = if of_rule == 0 { 0 } else { next << 8 | of_rule };
        let until = rule.until.map_or(0, |until| boot_seconds(until, environment));
        lines.set_words(table, rule.number * 4, &[rule.id, rule_flags(rule), own, until]);
        for limit in &rule.limits {
            lines.set_words(limits, next * LIMIT_WORDS, &words(&limit_record(limit)));
            next += 1;
        }
    }
    Ok((table, limits))
}

/// [`Features`] that rules use.
pub(super) fn features(policy: &Policy) -> u32 {
    if policy.rules.iter().any(|rule| !rule.track) {
        Features::UNTRACKED
    } else {
        0
    }
}

fn rule_flags(rule: &Rule) -> u32 {
    let flags = [
        (rule.log, RuleFlags::LOG),
        (rule.audit, RuleFlags::AUDIT),
        (!rule.track, RuleFlags::UNTRACKED),
        (rule.polices(), RuleFlags::POLICED),
    ];
    flags
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |word, (_, flag)| word | flag)
}

/// A deadline in seconds since boot. One that had passed then is 1: 0 means that there is none.
fn boot_seconds(until: i64, environment: &Environment) -> u32 {
    let seconds = until.saturating_sub(environment.boot_unix_s).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The thresholds of the protect section, by their numbers.
fn thresholds(policy: &Policy) -> [LimitRecord; threshold::COUNT as usize] {
    let protect = &policy.protect;
    let record = |name, rate| rate_record(names::stable_id("threshold", name), 0, rate);
    let mut records = [LimitRecord::default(); threshold::COUNT as usize];
    records[threshold::SYN as usize] = record("syn_flood", &protect.syn_flood.rate);
    records[threshold::UDP as usize] = record("udp_flood", &protect.udp_flood.rate);
    records[threshold::ICMP as usize] = record("icmp_flood", &protect.icmp_flood.rate);
    records[threshold::SCAN as usize] = record("scan", &protect.scan.rate);
    records
}

fn limit_record(limit: &Limit) -> LimitRecord {
    let (by, v4, v6) = (
        limit.per.by as u32,
        u32::from(limit.per.v4),
        u32::from(limit.per.v6),
    );
    let what = limit.measure.kind() as u32 | by << 8 | v4 << 16 | v6 << 24;
    match &limit.measure {
        Measure::Rate { rate, .. } => rate_record(limit.id, what, rate),
        Measure::Flows(most) => LimitRecord {
            id: limit.id,
            what,
            mantissa: *most,
            ..LimitRecord::default()
        },
    }
}

fn rate_record(id: u32, what: u32, rate: &Throughput) -> LimitRecord {
    let [mantissa, shift, burst_lo, burst_hi] = rate.encoded.words();
    LimitRecord {
        id,
        what,
        mantissa,
        shift,
        burst_lo,
        burst_hi,
        reserved: [0; 2],
    }
}

const fn words(record: &LimitRecord) -> [u32; LIMIT_WORDS as usize] {
    [
        record.id,
        record.what,
        record.mantissa,
        record.shift,
        record.burst_lo,
        record.burst_hi,
        0,
        0,
    ]
}
