//! Rates, and the limits of rules.

use fw_common::abi::{LimitKind, LimitPer, MAX_LIMITS};
use fw_common::limit::{Rate, min_burst};

use super::fields::{self, Fields};
use super::units::{self, Bad};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::keys;
use crate::model::{Limit, Measure, Per, Throughput, limit_key, units as texts};
use crate::names;
use crate::yaml::Node;

const KINDS: [LimitKind; 4] = [
    LimitKind::Packets,
    LimitKind::Bytes,
    LimitKind::NewFlows,
    LimitKind::Flows,
];
/// The default burst is what the rate allows in so many nanoseconds...
const DEFAULT_BURST_NS: u64 = 100_000_000;
/// ... but at least so much that one GSO super-packet passes: 64 KiB, and up to 64 segments of it.
const DEFAULT_BURST_BYTES: u64 = 65_536;
const DEFAULT_BURST_PACKETS: u64 = 64;
/// The largest frame that the data plane carries natively.
const FRAME: u64 = 9_000;

/// Reads the limits of a rule.
pub(super) fn read(node: &Node, rule: &str, findings: &mut Diagnostics) -> Vec<Limit> {
    let Some(items) = fields::list(node, "a limit or a list of limits", findings) else {
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_LIMITS as usize {
        let message = format!("the rule has {} limits", items.len());
        findings.push(
            Diagnostic::error("limits", node.span, message)
                .label(format!("expected 1 to {MAX_LIMITS} limits"))
                .help("leave `limit` out for none"),
        );
    }
    let limits = items.iter().enumerate().filter_map(|(place, item)| {
        let id = names::stable_id("limit", &format!("{rule}:{place}"));
        limit(item, id, findings)
    });
    limits.collect()
}

fn limit(node: &Node, id: u32, findings: &mut Diagnostics) -> Option<Limit> {
    let fields = Fields::read(node, "a limit", keys::LIMIT, findings)?;
    let mut found = KINDS
        .into_iter()
        .filter_map(|kind| Some((kind, fields.get(limit_key(kind))?)));
    let first = found.next();
    let second = found.next();
    let (Some((kind, amount)), None) = (first, second) else {
        // A misspelt key was reported as unknown.
        if second.is_some() || !KINDS.iter().any(|kind| fields.is_misspelt(limit_key(*kind))) {
            findings.push(
                Diagnostic::error("limit_kind", node.span, "a limit measures one thing")
                    .label("expected exactly one of `packets`, `bytes`, `new_flows`, `flows`")
                    .help("write one limit for each: `limit: [{ new_flows: 50/s }, { bytes: 1 Gbit/s }]`"),
            );
        }
        return None;
    };
    let per = match fields.get("per") {
        Some(node) => per(node, findings)?,
        None => Per::RULE,
    };
    let measure = if kind == LimitKind::Flows {
        flows(amount, &fields, findings)?
    } else {
        let rate = throughput(amount, fields.get("burst"), kind, default_burst, findings)?;
        doubts(rate, fields.get("burst"), kind, findings);
        Measure::Rate { kind, rate }
    };
    Some(Limit { id, measure, per })
}

fn flows(node: &Node, fields: &Fields<'_>, findings: &mut Diagnostics) -> Option<Measure> {
    if let Some(span) = fields.key_span("burst") {
        findings.push(
            Diagnostic::error("limit_kind", span, "a limit of flows at a time has no burst")
                .help("remove it, or limit `new_flows`"),
        );
    }
    number(node, "a number of flows", findings).map(Measure::Flows)
}

/// Reads a whole number from 1.
pub(super) fn number(node: &Node, what: &str, findings: &mut Diagnostics) -> Option<u32> {
    let text = fields::text(node, what, findings)?;
    match units::count(text).map(u32::try_from) {
        Ok(Ok(count)) if count > 0 => Some(count),
        other => {
            let item = Diagnostic::error("bad_number", node.span, format!("`{text}` is not {what}"))
                .label(format!("expected a whole number from 1 to {}", u32::MAX));
            findings.push(match other {
                Err(Bad { help: Some(help), .. }) => item.help(help),
                _ => item,
            });
            None
        }
    }
}

/// Reads a rate and its burst; `default` says what the burst is where none is written.
pub(super) fn throughput(
    node: &Node,
    burst: Option<&Node>,
    kind: LimitKind,
    default: fn(LimitKind, units::UnitsPerNs) -> u64,
    findings: &mut Diagnostics,
) -> Option<Throughput> {
    let data = kind == LimitKind::Bytes;
    let rate = if data { units::byte_rate } else { units::count_rate };
    let amount = if data { units::bytes } else { units::count };
    let (units, per_ns) = amount_of(node, "rate", rate, findings)?;
    let burst_units = match burst {
        Some(node) => amount_of(node, "burst", amount, findings)?,
        None => default(kind, (units, per_ns)),
    };
    match Rate::new(units, per_ns, burst_units) {
        Ok(encoded) => Some(Throughput {
            units,
            per_ns,
            burst: burst_units,
            encoded,
        }),
        Err(error) => {
            use fw_common::limit::RateError::{BurstTooLong, NoBurst};
            let place = burst
                .filter(|_| matches!(error, NoBurst | BurstTooLong))
                .unwrap_or(node);
            findings.push(Diagnostic::error("bad_rate", place.span, error.to_string()));
            None
        }
    }
}

fn amount_of<T>(
    node: &Node,
    what: &str,
    read: fn(&str) -> Result<T, Bad>,
    findings: &mut Diagnostics,
) -> Option<T> {
    let text = fields::text(node, &format!("a {what}"), findings)?;
    match read(text) {
        Ok(value) => Some(value),
        Err(Bad { expected, help }) => {
            let item = Diagnostic::error("bad_rate", node.span, format!("`{text}` is no {what}"))
                .label(format!("expected {expected}"));
            findings.push(match help {
                Some(help) => item.help(help),
                None => item,
            });
            None
        }
    }
}

fn default_burst(kind: LimitKind, (units, per_ns): units::UnitsPerNs) -> u64 {
    let allowed = u128::from(units) * u128::from(DEFAULT_BURST_NS) / u128::from(per_ns.max(1));
    let least = match kind {
        LimitKind::Bytes => DEFAULT_BURST_BYTES,
        LimitKind::Packets => DEFAULT_BURST_PACKETS,
        LimitKind::NewFlows | LimitKind::Flows => 1,
    };
    u64::try_from(allowed).unwrap_or(u64::MAX).max(least)
}

/// Warns of a burst at which the rate is not reached, or no large frame passes.
fn doubts(rate: Throughput, burst: Option<&Node>, kind: LimitKind, findings: &mut Diagnostics) {
    let Some(node) = burst else { return };
    let bytes = kind == LimitKind::Bytes;
    let least = min_burst(rate.units, rate.per_ns);
    let message = if rate.burst < least {
        "the burst is too small for so fast a rate; with several CPUs the rate is not reached"
    } else if bytes && rate.burst < FRAME {
        "the burst is smaller than a frame of 9,000 bytes, which will never pass"
    } else {
        return;
    };
    let least = if bytes { least.max(FRAME) } else { least };
    findings.push(
        Diagnostic::warning("small_burst", node.span, message)
            .label(format!("at least {} would do", texts::amount_text(least, bytes)))
            .help("leave `burst` out for what the rate allows in 100 ms"),
    );
}

fn per(node: &Node, findings: &mut Diagnostics) -> Option<Per> {
    let text = fields::text(node, "what has a bucket of its own", findings)?;
    let (word, prefix) = match text.split_once('/') {
        Some((word, prefix)) => (word, Some(prefix)),
        None => (text, None),
    };
    let words = ["rule", "source", "destination", "pair"];
    // Strangers have as many IPv6 addresses as they like, but a server has one.
    let (by, whole) = match word {
        "rule" if prefix.is_none() => return Some(Per::RULE),
        "source" => (LimitPer::Source, 64),
        "destination" => (LimitPer::Destination, 128),
        "pair" => (LimitPer::Pair, 64),
        _ => {
            let item = Diagnostic::error(
                "bad_per",
                node.span,
                format!("`{text}` is nothing that a limit can be per"),
            )
            .label("expected rule, source, source/N, destination, destination/N, pair or pair/N");
            findings.push(match names::nearest(word, words) {
                Some("rule") => item.help("write `rule`"),
                Some(near) => item.help(format!("did you mean `{near}`?")),
                None => item,
            });
            return None;
        }
    };
    let Some(prefix) = prefix else {
        return Some(Per {
            by,
            v4: 32,
            v6: whole,
        });
    };
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    match prefix.parse::<u8>() {
        Ok(v4 @ 1..=32) if digits => Some(Per { by, v4, v6: 64 }),
        Ok(v6 @ 33..=128) if digits => Some(Per { by, v4: 32, v6 }),
        _ => {
            findings.push(
                Diagnostic::error(
                    "bad_per",
                    node.span,
                    format!("`/{prefix}` is no length of a prefix"),
                )
                .label("expected 1 to 32 for IPv4 addresses, or 33 to 128 for IPv6")
                .help(format!(
                    "`{word}/24` is IPv4 /24 and IPv6 /64, `{word}/56` is IPv4 /32 and IPv6 /56"
                )),
            );
            None
        }
    }
}
