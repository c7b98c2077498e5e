//! Violations as findings with their places in the policy.

use super::{Crossing, Fault, Violation, Way, violations, violations_in};
use crate::Environment;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Policy, Tags, ZoneIndex, ZoneKind};
use crate::space::Scope;

/// What is wrong with the isolations, as findings: errors for a machine whose addresses are in no zone of the policy, and
/// warnings for what can cross only on a machine whose own addresses are in a zone of one side.
pub(crate) fn report(policy: &Policy, findings: &mut Diagnostics) {
    let found = violations(policy, &Environment::sample());
    for violation in &found {
        findings.push(finding(policy, violation));
    }
    let own = policy.built_in(ZoneKind::SelfMachine);
    let mut zones = policy.rules.iter().flat_map(|rule| &rule.directions);
    let uses_own = |zones: &[ZoneIndex]| own.is_some_and(|own| zones.contains(&own));
    if !zones.any(|direction| uses_own(&direction.from) || uses_own(&direction.to)) {
        return;
    }
    for violation in violations_in(policy, &Scope::everywhere()) {
        if let Fault::Crossing(crossing) = &violation.fault
            && !found
                .iter()
                .any(|known| same(known, violation.isolation, crossing))
        {
            let mut item = finding(policy, &violation).lowered("isolation_of_self");
            item.message = format!("on a machine with an address there, {}", item.message);
            findings.push(item);
        }
    }
}

fn same(known: &Violation, isolation: usize, crossing: &Crossing) -> bool {
    matches!(&known.fault, Fault::Crossing(other)
        if known.isolation == isolation && other.place == crossing.place && other.way == crossing.way)
}

fn finding(policy: &Policy, violation: &Violation) -> Diagnostic {
    let isolation = &policy.isolations[violation.isolation];
    let (left, right) = (&isolation.left_name, &isolation.right_name);
    let error = |message: String| Diagnostic::error("isolation", isolation.span, message);
    match &violation.fault {
        Fault::Overlap { tags, address } => {
            let vlan = if *tags == Tags::NONE {
                String::new()
            } else {
                format!(" (VLAN {tags})")
            };
            error(format!(
                "{left} and {right} are not apart: the address {address}{vlan} is on both sides"
            ))
            .label("says that they are")
            .help("take the address out of the zones of one side")
        }
        Fault::Unproved { why } => error(format!(
            "it is not proved that {left} and {right} are apart: {why}"
        ))
        .label("this could not be proved"),
        Fault::Crossing(crossing) => {
            let rule = &policy.rules[crossing.place];
            let (from, to) = match crossing.way {
                Way::LeftToRight => (left, right),
                Way::RightToLeft => (right, left),
            };
            let vlan = match crossing.flow.tags() {
                Tags::NONE => String::new(),
                tags => format!(", VLAN {tags}"),
            };
            let message = format!(
                "{from} can open flows to {to} by the rule `{}` ({}): `{}`{vlan}{}",
                rule.name,
                policy.sources.place(rule, isolation.span),
                crossing.packet,
                also(crossing)
            );
            let label = if crossing.untracked {
                "lets it through, and with `track: false` what answers as well"
            } else {
                "lets it through"
            };
            error(message)
                .label("says that they are apart")
                .also(rule.span, label)
                .help(format!(
                    "narrow the rule, put one that denies in front of it, or add it to `except: [{}]`",
                    rule.name
                ))
        }
    }
}

/// What must be so for the packet to cross, beside what the policy says.
fn also(crossing: &Crossing) -> String {
    let ends = [
        (crossing.flow.src, &crossing.source_also),
        (crossing.flow.dst, &crossing.destination_also),
    ];
    let texts: Vec<String> = ends
        .iter()
        .filter(|(_, zones)| !zones.is_empty())
        .map(|(address, zones)| format!("{address} in {}", zones.join(" and ")))
        .collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!(", with {}", texts.join(", "))
    }
}
