//! What a rule says beside action, zones and services: `limit`, `log`, `audit`, `track`, `until`.

use jiff::Timestamp;

use super::fields::{self, Fields};
use super::limits;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Limit, RuleAction, limit_key};
use crate::yaml::Node;

/// The keys of this module.
pub(super) struct Attributes {
    pub(super) limits: Vec<Limit>,
    pub(super) log: bool,
    pub(super) audit: bool,
    pub(super) track: bool,
    pub(super) until: Option<i64>,
}

/// Reads the attributes of a rule with this name and action.
pub(super) fn read(
    fields: &Fields<'_>,
    name: &str,
    action: RuleAction,
    findings: &mut Diagnostics,
) -> Attributes {
    let mut truth = |key, default| match fields.get(key) {
        Some(node) => fields::truth(node, findings).unwrap_or(default),
        None => default,
    };
    let (log, audit, track) = (truth("log", false), truth("audit", false), truth("track", true));
    let allows = action == RuleAction::Allow;
    if audit && allows {
        misplaced(
            fields,
            "audit",
            "`audit` belongs to rules that deny or reject",
            "it lets through what such a rule would deny, and reports it; write `log: true` to report what is allowed",
            findings,
        );
    }
    if !track && !allows {
        misplaced(
            fields,
            "track",
            "`track: false` belongs to rules that allow",
            "what is denied makes no entry in any case; remove it",
            findings,
        );
    }
    for key in ["limit", "until"].iter().filter(|_| !allows) {
        misplaced(
            fields,
            key,
            &format!("`{key}` belongs to rules that allow"),
            "a rule that denies something always denies it; put an `allow` rule with the limit or the end before it",
            findings,
        );
    }
    let limits = fields
        .get("limit")
        .map_or_else(Vec::new, |node| limits::read(node, name, findings));
    if !track {
        without_flows(fields, &limits, findings);
    }
    let until = fields.get("until").and_then(|node| until(node, findings));
    Attributes {
        limits,
        log,
        audit,
        track,
        until,
    }
}

/// A rule that makes no entries has no flows that could be counted.
fn without_flows(fields: &Fields<'_>, limits: &[Limit], findings: &mut Diagnostics) {
    for limit in limits.iter().filter(|limit| !limit.measure.measures_packets()) {
        let key = limit_key(limit.measure.kind());
        misplaced(
            fields,
            "limit",
            &format!("a rule with `track: false` has no flows, so `{key}` cannot be limited"),
            "limit `packets` or `bytes`, or remove `track: false`",
            findings,
        );
    }
}

fn misplaced(fields: &Fields<'_>, key: &str, message: &str, help: &str, findings: &mut Diagnostics) {
    if let Some(span) = fields.key_span(key) {
        findings.push(Diagnostic::error("misplaced", span, message).help(help));
    }
}

/// Reads a point in time: RFC 3339, so it says its offset from UTC.
fn until(node: &Node, findings: &mut Diagnostics) -> Option<i64> {
    let text = fields::text(node, "a point in time", findings)?;
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_second());
    }
    let item = Diagnostic::error("bad_until", node.span, format!("`{text}` is no point in time"))
        .label("expected a date, a time and an offset, such as 2026-12-01T18:00:00Z");
    let candidates = [
        format!("{text}Z"),
        format!("{text}:00Z"),
        format!("{text}T00:00:00Z"),
    ];
    let mended = candidates
        .into_iter()
        .find(|text| text.parse::<Timestamp>().is_ok());
    findings.push(match mended {
        Some(mended) => item.help(format!(
            "write {mended} for UTC, or another offset such as +01:00"
        )),
        None => item,
    });
    None
}
