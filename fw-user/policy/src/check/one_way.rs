//! Services whose servers open connections to their clients too, and that are allowed one way only.

use fw_common::abi::Proto;

use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Rule, RuleAction, ZoneIndex, ZoneKind};

/// Lustre (`LNet` over TCP): every node listens here.
const PORT: u16 = 988;
/// Where the side that opens is from, at first.
const SOURCE_PORT: u16 = 1023;

/// Warns of rules that allow Lustre from one zone to another while none allows it back.
pub(super) fn warn(zones: &Zones, rules: &[Rule], findings: &mut Diagnostics) {
    let allows =
        |rule: &&Rule| rule.action == RuleAction::Allow && rule.serves(Proto::TCP, PORT, SOURCE_PORT);
    let mut open: Option<Vec<&Rule>> = None;
    for rule in rules.iter().filter(allows).filter(|rule| names_it(rule)) {
        let open = open.get_or_insert_with(|| rules.iter().filter(allows).collect());
        if let Some((from, to)) = missing(zones, rule, open) {
            findings.push(warning(zones, rule, from, to));
        }
    }
}

/// True if the rule means Lustre: it has the port for itself, not in a wider range.
fn names_it(rule: &Rule) -> bool {
    let own = |found: &crate::model::ServiceMatch| {
        found.proto == Some(Proto::TCP) && (found.lo, found.hi) == (PORT, PORT)
    };
    rule.services.iter().any(own)
}

/// The first pair of the rule's zones between which nothing is allowed back.
fn missing(zones: &Zones, rule: &Rule, open: &[&Rule]) -> Option<(ZoneIndex, ZoneIndex)> {
    let pairs = rule.directions.iter().flat_map(|way| {
        way.from
            .iter()
            .flat_map(|from| way.to.iter().map(|to| (*from, *to)))
    });
    let back = |from: ZoneIndex, to: ZoneIndex| {
        let mut ways = open.iter().flat_map(|rule| &rule.directions);
        ways.any(|way| {
            let meet = |list: &[ZoneIndex], zone| list.iter().any(|own| may_meet(zones, *own, zone));
            meet(&way.from, to) && meet(&way.to, from)
        })
    };
    pairs.into_iter().find(|(from, to)| !back(*from, *to))
}

/// True if the two may have an address in common. Of `self` and dynamic zones nobody knows.
fn may_meet(zones: &Zones, a: ZoneIndex, b: ZoneIndex) -> bool {
    let [left, right] = [a, b].map(|zone| &zones.list[zone]);
    let unknown = |kind| matches!(kind, ZoneKind::Any | ZoneKind::SelfMachine);
    let overlap = || {
        let mut nets = left.prefixes.iter();
        nets.any(|own| {
            right
                .prefixes
                .iter()
                .any(|net| net.contains(own) || own.contains(net))
        })
    };
    a == b || unknown(left.kind) || unknown(right.kind) || left.dynamic || right.dynamic || overlap()
}

fn warning(zones: &Zones, rule: &Rule, from: ZoneIndex, to: ZoneIndex) -> Diagnostic {
    let [from, to] = [from, to].map(|zone| &zones.list[zone].name);
    let message = format!(
        "the rule `{}` allows Lustre (tcp/{PORT}) from `{from}` to `{to}`, and no rule allows it back",
        rule.name
    );
    Diagnostic::warning("one_way", rule.span, message)
        .label("one way only")
        .help(format!(
            "Lustre servers open connections to clients too: write `between: [{from}, {to}]`"
        ))
}
