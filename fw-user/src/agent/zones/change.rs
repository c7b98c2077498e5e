//! Members and a policy's dynamic zones: what a change makes of both. No kernel, no clock.

use std::collections::BTreeMap;
use std::mem;

use fw_policy::Policy;
use fw_policy::model::ZoneIndex;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::super::members::{MAX_MEMBERS, Members};
use super::super::overlap;
use super::Outcome;
use crate::control::{ZoneChange, ZoneMember, ZoneOutcome};
use crate::exit::{Exit, Failure};

/// Puts members into a policy's dynamic zones. Returns what is to be said of those that have none.
///
/// # Errors
/// With exit code 2 if an address would be in zones of two planes.
pub(in super::super) fn filled(policy: &mut Policy, members: &Members) -> Result<Vec<String>, Failure> {
    fill(policy, members);
    overlap::check(policy)?;
    let aside = members.zones().filter(|zone| dynamic(policy, zone).is_none());
    Ok(aside
        .map(|zone| {
            let count = members.of(zone).map_or(0, BTreeMap::len);
            format!(
                "{count} members of the zone `{zone}` are kept aside: the policy has no dynamic zone of that name. \
                 `dpufw zone remove {zone} --all` forgets them"
            )
        })
        .collect())
}

/// The same; returns what the zones held that were changed.
pub(super) fn fill(policy: &mut Policy, members: &Members) -> Vec<(ZoneIndex, Vec<IpNet>)> {
    let mut undo = Vec::new();
    for zone in 0..policy.zones.len() {
        if !policy.zones[zone].dynamic {
            continue;
        }
        let before = mem::take(&mut policy.zones[zone].prefixes);
        let now = members.of(&policy.zones[zone].name);
        policy.set_members(zone, now.into_iter().flat_map(|members| members.keys().copied()));
        if policy.zones[zone].prefixes != before {
            undo.push((zone, before));
        }
    }
    undo
}

pub(super) fn restore(policy: &mut Policy, undo: Vec<(ZoneIndex, Vec<IpNet>)>) {
    for (zone, before) in undo {
        policy.zones[zone].prefixes = before;
    }
}

/// The dynamic zone of this name.
fn dynamic(policy: &Policy, name: &str) -> Option<ZoneIndex> {
    policy.zone(name).filter(|zone| policy.zones[*zone].dynamic)
}

pub(super) fn dynamic_names(policy: &Policy) -> impl Iterator<Item = &str> {
    policy
        .zones
        .iter()
        .filter(|zone| zone.dynamic)
        .map(|zone| zone.name.as_str())
}

/// Makes the changes of one request, all or none.
pub(super) fn changed(
    policy: &Policy,
    members: &mut Members,
    changes: &[ZoneChange],
    now: Timestamp,
) -> Outcome {
    let mut after = members.clone();
    let outcomes = changes.iter().map(|change| {
        let aside = !matches!(change, ZoneChange::Add { .. }) && after.of(change.zone()).is_some();
        if dynamic(policy, change.zone()).is_none() && !aside {
            return Err(no_zone(Some(policy), change.zone()));
        }
        change_one(&mut after, change, now)
    });
    let outcomes = outcomes.collect::<Result<_, _>>()?;
    *members = after;
    Ok(outcomes)
}

fn change_one(members: &mut Members, change: &ZoneChange, now: Timestamp) -> Result<ZoneOutcome, Failure> {
    let mut outcome = ZoneOutcome {
        zone: change.zone().to_owned(),
        ..ZoneOutcome::default()
    };
    match change {
        ZoneChange::Add {
            zone,
            prefixes,
            for_ms,
        } => {
            outcome.until = for_ms.map(|ms| deadline(now, ms)).transpose()?;
            let addition = members.add(zone, prefixes, outcome.until);
            (outcome.added, outcome.refreshed, outcome.known) =
                (addition.added, addition.refreshed, addition.known);
        }
        ZoneChange::Remove { zone, prefixes } => {
            let removal = members.remove(zone, prefixes);
            (outcome.removed, outcome.absent) = (removal.removed, removal.absent);
        }
        ZoneChange::Clear { zone } => outcome.removed = members.clear(zone),
    }
    outcome.members = members.of(change.zone()).map_or(0, BTreeMap::len);
    if outcome.members > MAX_MEMBERS {
        return Err(Failure::input(format!(
            "the zone `{}` would have {} prefixes, and a dynamic zone holds {MAX_MEMBERS}; nothing was changed. Join prefixes, \
             or read them from a file (`file:` in the policy)",
            outcome.zone, outcome.members
        )));
    }
    Ok(outcome)
}

fn deadline(now: Timestamp, ms: u64) -> Result<Timestamp, Failure> {
    let span = i64::try_from(ms).ok().map(SignedDuration::from_millis);
    span.and_then(|span| now.checked_add(span).ok()).ok_or_else(|| {
        Failure::input(format!(
            "{ms} ms from now is no time that a clock can show; leave --for out"
        ))
    })
}

/// The failure for a zone that members cannot be put into.
pub(super) fn no_zone(policy: Option<&Policy>, name: &str) -> Failure {
    let known: Vec<&str> = policy.into_iter().flat_map(dynamic_names).collect();
    let file = policy.map_or("the policy", |policy| policy.file.as_str());
    let what = if policy.is_some_and(|policy| policy.zone(name).is_some()) {
        format!(
            "the zone `{name}` of {file} is not dynamic: its addresses are the policy's. Write `{name}: {{ dynamic: true }}` \
             there to change them at run time"
        )
    } else {
        format!("{file} has no zone `{name}`")
    };
    let known = match known.as_slice() {
        [] => "it has no dynamic zones; one is written `quarantine: { dynamic: true }`".to_owned(),
        known => format!("its dynamic zones: {}", known.join(", ")),
    };
    Failure {
        exit: Exit::BadInput,
        message: format!("{what}; {known}"),
    }
}

pub(super) fn list(members: &Members, zone: &str) -> Vec<ZoneMember> {
    let members = members.of(zone).into_iter().flatten();
    members
        .map(|(prefix, until)| ZoneMember {
            prefix: *prefix,
            until: *until,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use fw_policy::Policy;
    use jiff::Timestamp;

    use super::{changed, fill, filled, restore};
    use crate::agent::Members;
    use crate::control::ZoneChange;
    use crate::exit::Exit;

    const POLICY: &str = "
version: 1
zones: { jail: { dynamic: true }, job: { dynamic: true }, client: [10.0.0.1] }
rules:
  - { name: jailed, deny: all, from: jail, to: any }
  - { name: web, allow: [http], from: [client, job], to: any }
";

    fn policy() -> Policy {
        fw_policy::check(POLICY, "p.yaml").unwrap().0
    }

    fn add(zone: &str, prefixes: &[&str], for_ms: Option<u64>) -> ZoneChange {
        ZoneChange::Add {
            zone: zone.to_owned(),
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            for_ms,
        }
    }

    #[test]
    fn a_request_is_all_or_nothing() {
        let (policy, mut members) = (policy(), Members::default());
        let now = Timestamp::UNIX_EPOCH;
        let changes = [
            add("jail", &["10.0.0.1/32"], Some(1_500)),
            add("clint", &["10.0.0.2/32"], None),
        ];
        let failure = changed(&policy, &mut members, &changes, now).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        assert!(failure.message.contains("jail, job"), "{failure}");
        assert_eq!(members, Members::default());
        let outcomes = changed(&policy, &mut members, &changes[..1], now).unwrap();
        assert_eq!((outcomes[0].members, outcomes[0].added.len()), (1, 1));
        assert_eq!(outcomes[0].until.unwrap().to_string(), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn a_zone_has_a_largest_size_and_a_deadline_a_latest_time() {
        let (policy, mut members) = (policy(), Members::default());
        let many: Vec<String> = (0..=65_536_u32)
            .map(|number| format!("{}/32", std::net::Ipv4Addr::from_bits(0x0a00_0000 | number)))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut refused = |change| changed(&policy, &mut members, &[change], Timestamp::now()).unwrap_err();
        assert!(refused(add("jail", &many, None)).message.contains("65537"));
        assert!(
            refused(add("jail", &["10.0.0.1/32"], Some(u64::MAX)))
                .message
                .contains("--for")
        );
        changed(
            &policy,
            &mut members,
            &[add("jail", &many[1..], None)],
            Timestamp::now(),
        )
        .unwrap();
    }

    #[test]
    fn members_fill_the_policy_and_can_be_taken_back() {
        let (mut policy, mut members) = (policy(), Members::default());
        let jail = policy.zone("jail").unwrap();
        members.add("jail", &["10.0.0.1/32".parse().unwrap()], None);
        members.add("gone", &["10.0.0.2/32".parse().unwrap()], None);
        let undo = fill(&mut policy, &members);
        assert_eq!(policy.zones[jail].prefixes.len(), 1);
        assert!(fill(&mut policy, &members).is_empty(), "nothing has changed");
        restore(&mut policy, undo);
        assert!(policy.zones[jail].prefixes.is_empty());
        let notes = filled(&mut policy, &members).unwrap();
        assert!(
            notes.len() == 1 && notes[0].contains("1 members of the zone `gone`"),
            "{notes:?}"
        );
    }

    #[test]
    fn what_is_kept_aside_can_be_removed_but_not_added_to() {
        let (policy, mut members) = (policy(), Members::default());
        members.add("gone", &["10.0.0.2/32".parse().unwrap()], None);
        let now = Timestamp::now();
        assert!(changed(&policy, &mut members, &[add("gone", &["10.0.0.3/32"], None)], now).is_err());
        let clear = ZoneChange::Clear { zone: "gone".into() };
        let outcomes = changed(&policy, &mut members, &[clear], now).unwrap();
        assert_eq!((outcomes[0].removed.len(), outcomes[0].members), (1, 0));
    }
}
