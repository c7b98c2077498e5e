//! An explanation as text.

use std::fmt::{self, Write as _};

use fw_common::abi::{Proto, Reason};
use jiff::Timestamp;

use super::{Explanation, Mismatch, Skipped};
use crate::flow::Flow;
use crate::model::{Rule, RuleAction, Tags};
use crate::names;

/// Rules that the text lists; `--json` has all.
const MAX_LISTED: usize = 20;

/// What a rule says beside action, zones and services.
pub(crate) fn attributes(rule: &Rule) -> Vec<String> {
    let limits = rule.limits.iter().map(|limit| format!("limit: {limit}"));
    let words = [
        (rule.log, "log: true"),
        (rule.audit, "audit: true"),
        (!rule.track, "track: false"),
    ];
    let words = words
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| (*word).to_owned());
    let until = rule.until.map(|until| {
        let time = Timestamp::from_second(until).map_or_else(|_| until.to_string(), |time| time.to_string());
        format!("until: {time}")
    });
    limits.chain(words).chain(until).collect()
}

/// The explanation for people.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", flow_line(&self.flow))?;
        writeln!(out, "  source       {}", self.source_zones.join(", "))?;
        writeln!(out, "  destination  {}", self.destination_zones.join(", "))?;
        match (&self.rule, self.verdict) {
            (Some(rule), verdict) => {
                let audited = if self.reason == Reason::Audit.name() {
                    ", for its `audit: true`,"
                } else {
                    ""
                };
                writeln!(
                    out,
                    "  {}{audited} by rule `{}` ({})",
                    past(verdict),
                    rule.name,
                    rule.place()
                )?;
            }
            (None, verdict) => writeln!(out, "  {}: {} {}", past(verdict), self.reason, self.sentence)?,
        }
        for attribute in &self.attributes {
            writeln!(out, "  {attribute}")?;
        }
        if let Some(note) = self.note {
            writeln!(out, "  note: {note}")?;
        }
        // With many rules, those that fit both addresses are the ones that a reader asks about.
        let many = self.skipped.len() > MAX_LISTED;
        let near = |skipped: &&Skipped| !many || skipped.why == Mismatch::Service;
        let listed: Vec<&Skipped> = self.skipped.iter().filter(near).take(MAX_LISTED).collect();
        for Skipped { rule, why } in &listed {
            let why = match why {
                Mismatch::Source => "another source",
                Mismatch::Destination => "another destination",
                Mismatch::Service => "another service",
            };
            writeln!(out, "  not `{}` ({}): {why}", rule.name, rule.place())?;
        }
        match self.skipped.len() - listed.len() {
            0 => Ok(()),
            more => writeln!(out, "  and {more} rules more before it did not match"),
        }
    }
}

const fn past(verdict: RuleAction) -> &'static str {
    match verdict {
        RuleAction::Allow => "allowed",
        RuleAction::Deny => "denied",
        RuleAction::Reject => "rejected",
    }
}

fn flow_line(flow: &Flow) -> String {
    let mut line = format!(
        "{} {} -> {}",
        names::protocol_name(flow.proto),
        flow.src,
        flow.dst
    );
    // Writing to a String cannot fail.
    let _ = match flow.proto {
        Proto::TCP | Proto::UDP | Proto::SCTP => write!(line, " port {}", flow.selector),
        Proto::ICMP | Proto::ICMPV6 => {
            write!(line, " type {} code {}", flow.selector >> 8, flow.selector & 0xff)
        }
        _ => Ok(()),
    };
    if flow.tags() != Tags::NONE {
        let _ = write!(line, ", VLAN {}", flow.tags());
    }
    line
}
