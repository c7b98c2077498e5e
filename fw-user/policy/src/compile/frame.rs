//! What of a policy and its environment the fixed part of a set was made from: everything but addresses.

use crate::Environment;
use crate::model::{Defaults, Fragments, Link, Plane, Policy, Protect, Rule, Tags, Tcp, Zone, ZoneKind};

/// A zone without its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ZoneFrame {
    id: u32,
    kind: ZoneKind,
    tags: Tags,
    plane: u32,
    lifeline: bool,
    dynamic: bool,
}

impl ZoneFrame {
    const fn new(zone: &Zone) -> Self {
        Self {
            id: zone.id,
            kind: zone.kind,
            tags: zone.tags(),
            plane: zone.plane,
            lifeline: zone.lifeline,
            dynamic: zone.dynamic,
        }
    }
}

/// A policy without addresses, and what of the environment lies in tables.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    zones: Vec<ZoneFrame>,
    rules: Vec<Rule>,
    planes: Vec<Plane>,
    link: Link,
    tcp: Tcp,
    fragments: Fragments,
    protect: Protect,
    default: Defaults,
    roles: Vec<String>,
    boot_unix_s: i64,
}

impl Frame {
    pub(super) fn new(policy: &Policy, environment: &Environment) -> Self {
        Self {
            zones: policy.zones.iter().map(ZoneFrame::new).collect(),
            rules: policy.rules.clone(),
            planes: policy.planes.clone(),
            link: policy.link.clone(),
            tcp: policy.tcp,
            fragments: policy.fragments,
            protect: policy.protect.clone(),
            default: policy.default,
            roles: environment.roles.clone(),
            boot_unix_s: environment.boot_unix_s,
        }
    }

    /// What else than addresses differs, for a message; `None`: nothing.
    pub(super) fn difference(&self, policy: &Policy, environment: &Environment) -> Option<&'static str> {
        let zones = policy.zones.iter().map(ZoneFrame::new);
        if !self.zones.iter().copied().eq(zones) {
            return Some("zones were added, removed or changed in more than their addresses");
        }
        if self.rules.len() != policy.rules.len() || !self.rules.iter().zip(&policy.rules).all(same_rule) {
            return Some("rules differ");
        }
        let protect = (&self.protect, self.fragments, self.tcp, self.default);
        if protect != (&policy.protect, policy.fragments, policy.tcp, policy.default) {
            return Some("protection, TCP or defaults differ");
        }
        if self.link != policy.link || self.planes != policy.planes {
            return Some("link protocols or planes differ");
        }
        if self.roles != environment.roles {
            return Some("the machine's ports have other roles");
        }
        // Deadlines lie in the tables in boot time.
        let deadlines = policy.rules.iter().any(|rule| rule.until.is_some());
        if deadlines && self.boot_unix_s != environment.boot_unix_s {
            return Some("the clock was set, and rules have deadlines");
        }
        None
    }
}

/// True if two rules mean the same. Names every field, so that a new one must be thought of.
fn same_rule((a, b): (&Rule, &Rule)) -> bool {
    let Rule {
        number,
        name: _,
        id,
        action,
        directions,
        services,
        limits,
        log,
        audit,
        track,
        until,
        line: _,
        span: _,
    } = a;
    (number, id, action, log, audit, track, until)
        == (&b.number, &b.id, &b.action, &b.log, &b.audit, &b.track, &b.until)
        && (directions, services, limits) == (&b.directions, &b.services, &b.limits)
}
