//! Which live flows would end under another policy.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fw_common::abi::{Decision, Flow as Entry, FlowFlags, Line, Proto, Reason, RuleFlags};
use fw_common::classify::{Address, Classified, Service, classify, realm_record};
use fw_common::wire::echo_request;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::super::attach::refused;
use super::super::core::{Agent, lock};
use super::super::{own_addresses, policy};
use crate::control::{DiffFlow, DiffSummary};
use crate::dataplane::{FlowKey, FlowTable, coarse_now};
use crate::exit::Failure;
use crate::telemetry::{FlowInfo, Realm, Table, WallClock, boot_unix_s};

impl Agent {
    /// Compiles a policy for this machine and judges each live flow by it, as its next packet would be once the policy is in
    /// force: in its opener's direction. Sends those that would end; changes nothing.
    ///
    /// # Errors
    /// With exit code 2 if the text is no policy; with 1 if the kernel refuses a read.
    pub(in super::super) fn ended_by(
        &self,
        name: &str,
        text: &str,
        ending: &mpsc::Sender<DiffFlow>,
    ) -> Result<DiffSummary, Failure> {
        let (mut policy, _) = policy::check(name, text, Timestamp::now().as_second())?;
        let notes = self.fill_zones(&mut policy)?;
        let own = own_addresses().map_err(|error| Failure::no(format!("{error:#}")))?;
        let generation = self.tables.next_generation();
        let tables = policy::compile(&policy, &own, &self.config.roles(), generation, boot_unix_s())?;
        let names: BTreeMap<u32, &str> = policy
            .rules
            .iter()
            .map(|rule| (rule.number, rule.name.as_str()))
            .collect();
        let mut summary = DiffSummary {
            notes,
            ..DiffSummary::default()
        };
        let (now, boot, clock) = (coarse_now(), boot_seconds(), WallClock::read());
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            let walk = self.tables.for_each_flow(table, |key, entry| {
                if entry.expired(now) {
                    return ControlFlow::Continue(());
                }
                summary.flows += 1;
                let Some(fate) = judge(&tables.lines, &key, entry, boot) else {
                    return ControlFlow::Continue(());
                };
                summary.ending += 1;
                let flow = FlowInfo::new(&key, entry, Table::from(table), &lock(&self.names), &clock);
                let new_rule = names.get(&fate.rule).map(|name| (*name).to_owned());
                let line = DiffFlow {
                    flow,
                    new_rule,
                    reason: fate.reason.name().to_owned(),
                };
                match ending.blocking_send(line) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            walk.map_err(|error| refused(&error))?;
        }
        Ok(summary)
    }
}

/// Why a flow ends.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    reason: Reason,
    /// Number of the rule that denies it; 0: the default, or no rule was asked.
    rule: u32,
}

/// What `pipeline/again.rs` asks of the policy in force, asked of other tables; `None`: the flow goes on.
fn judge(lines: &[Line], key: &FlowKey, entry: &Entry, boot_seconds: u32) -> Option<Fate> {
    let opener_hi = FlowFlags(entry.flags).opener_hi();
    match key {
        FlowKey::V4(key) => {
            let ends = [(key.lo, key.lo_port), (key.hi, key.hi_port)];
            ends_flow(
                lines,
                key.full_realm(),
                turned(ends, opener_hi),
                key.proto,
                boot_seconds,
            )
        }
        FlowKey::V6(key) => {
            let ends = [(key.lo, key.lo_port), (key.hi, key.hi_port)];
            ends_flow(
                lines,
                key.full_realm(),
                turned(ends, opener_hi),
                key.proto,
                boot_seconds,
            )
        }
    }
}

/// The opener first.
fn turned<A>([lo, hi]: [A; 2], opener_hi: bool) -> [A; 2] {
    if opener_hi { [hi, lo] } else { [lo, hi] }
}

fn ends_flow<A: Address>(
    lines: &[Line],
    realm: u32,
    [from, to]: [(A, u16); 2],
    proto: u8,
    boot_seconds: u32,
) -> Option<Fate> {
    let tags = Realm::new(realm);
    let denied = |reason, rule| Some(Fate { reason, rule });
    let realm = match realm_record(lines, (tags.vlan, tags.inner_vlan)) {
        Ok(realm) => realm,
        Err(reason) => return denied(reason, 0),
    };
    let icmp = proto == Proto::ICMP || proto == Proto::ICMPV6;
    let service = if icmp {
        Service::of(proto, echo_request(proto), 0)
    } else {
        Service::between(proto, from.1, to.1)
    };
    let mut found = Classified::default();
    let decision = match classify(lines, realm, (from.0, to.0), service, &mut found) {
        Ok(decision) => decision,
        Err(reason) => return denied(reason, 0),
    };
    let audited = found.rule_flags & RuleFlags::AUDIT != 0;
    if !decision.allows() && !audited {
        return denied(deny_reason(decision), decision.rule());
    }
    let over = found.rule_until != 0 && boot_seconds >= found.rule_until;
    if over {
        return denied(Reason::RuleExpired, decision.rule());
    }
    None
}

const fn deny_reason(decision: Decision) -> Reason {
    match (decision.rule(), decision.rejects()) {
        (0, false) => Reason::DenyDefault,
        (0, true) => Reason::RejectDefault,
        (_, false) => Reason::DenyRule,
        (_, true) => Reason::RejectRule,
    }
}

/// Seconds since the machine was started, as rules' deadlines count them.
fn boot_seconds() -> u32 {
    // The clock has existed since Linux 2.6.39; were it missing, no deadline would have passed.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| now.tv_sec());
    u32::try_from(now).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Flow, FlowFlags, Ip4, Key4, Reason, Side};
    use fw_policy::Environment;

    use super::{Fate, judge};
    use crate::dataplane::FlowKey;

    #[test]
    fn a_flow_is_judged_in_its_openers_direction() {
        let text = "
version: 1
zones: { a: [10.0.0.1], b: [10.0.0.2] }
rules:
  - { name: old, allow: [ssh], from: a, to: b, until: 1970-01-01T00:01:40Z }
  - { name: closed, deny: [http], from: a, to: b }
  - { name: web, allow: [http], from: b, to: a }
  - { name: trial, deny: [dns], from: a, to: b, audit: true }
";
        let (policy, _) = fw_policy::check(text, "p.yaml").unwrap();
        let tables = fw_policy::compile(&policy, &Environment::sample()).unwrap();
        let fate = |port: u16, opener_hi: bool, boot: u32| {
            let (lo_port, hi_port) = if opener_hi { (port, 4000) } else { (4000, port) };
            let key = FlowKey::V4(Key4 {
                lo: Ip4(0x0a00_0001),
                hi: Ip4(0x0a00_0002),
                lo_port,
                hi_port,
                proto: 6,
                ..Key4::default()
            });
            let flow = Flow {
                flags: FlowFlags::new(opener_hi, Side::Outer, Side::Own, 3).0,
                ..Flow::default()
            };
            judge(&tables.lines, &key, &flow, boot)
        };
        let denied = |reason, rule| Some(Fate { reason, rule });
        assert_eq!(fate(80, true, 5), None, "opened by b");
        assert_eq!(fate(80, false, 5), denied(Reason::DenyRule, 2), "opened by a");
        assert_eq!(fate(22, false, 99), None);
        assert_eq!(fate(22, false, 100), denied(Reason::RuleExpired, 1));
        assert_eq!(fate(23, false, 5), denied(Reason::DenyDefault, 0));
        assert_eq!(fate(53, false, 5), None, "on trial");
    }
}
